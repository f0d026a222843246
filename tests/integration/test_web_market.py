"""The market in a browser: rows follow the network without moving, and nothing needs a script to be read."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import browser as browser
from tests.support.web_mirror import filled
from tests.support.web_process import web_process

PLACES = """() => [...document.querySelectorAll("tr[data-peer], th, nav.pages")].map(one => {
  const { x, y, width, height } = one.getBoundingClientRect();
  return [one.dataset.peer ?? "", x, y, width, height];
})"""
"""Of rows, columns and what comes after them."""
PATIENCE_MS = 20_000


@dataclass
class Market:
    """A web process and the mirror that it shows."""

    url: str
    mirror: Path

    def write(self, statement: str, *values: object) -> None:
        """With the next change number, which the statement takes for its first `?`."""
        with closing(sqlite3.connect(self.mirror, timeout=10)) as db, db:
            (newest,) = db.execute("SELECT value FROM meta WHERE key = 'change'").fetchone()
            db.execute(statement, (int(newest) + 1, *values))
            db.execute("UPDATE meta SET value = ? WHERE key = 'change'", (str(int(newest) + 1),))


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    mirror = filled(tmp_path / "mirror.db", 60)
    with closing(sqlite3.connect(mirror)) as db:
        db.execute("PRAGMA journal_mode = WAL")
    with web_process(str(mirror), "--requests-per-minute=1000") as web:
        yield Market(web.url, mirror)


def _opened(browser: Browser, url: str, said: list[str]) -> Page:
    tab = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en").new_page()
    tab.set_default_timeout(PATIENCE_MS)
    tab.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.goto(url)
    return tab


def test_rows_follow_the_network_and_stay_where_they_are(browser: Browser, market: Market) -> None:
    said: list[str] = []
    tab = _opened(browser, market.url + "market?sort=-price", said)
    expect(tab.locator('.dot[data-state="on"]')).to_be_visible(timeout=PATIENCE_MS)
    peers = tab.eval_on_selector_all("tr[data-peer]", "rows => rows.map(row => row.dataset.peer)")
    places = tab.evaluate(PLACES)
    first, second = (tab.locator(f'tr[data-peer="{peer}"]') for peer in peers[:2])

    market.write("UPDATE offers SET change = ?, price = 1234567 WHERE peer_id = ?", peers[0])
    expect(first.locator('[data-cell="price"]')).to_have_text("1,234,567", timeout=PATIENCE_MS)
    market.write("UPDATE offers SET change = ?, live = 0, record = x'' WHERE peer_id = ?", peers[1])
    expect(second.locator(".tag.ended")).to_have_text("ended", timeout=PATIENCE_MS)
    unseen = "(SELECT peer FROM offers WHERE live = 1 ORDER BY price LIMIT 1)"
    market.write(f"UPDATE offers SET change = ?, seen_ms = seen_ms + 1 WHERE peer = {unseen}")
    expect(tab.locator(".fresh")).to_have_text("1 more change: load anew", timeout=PATIENCE_MS)

    assert tab.evaluate(PLACES) == places
    assert said == []
    tab.context.close()


def test_everything_can_be_read_and_searched_without_scripts(browser: Browser, market: Market) -> None:
    context = browser.new_context(
        java_script_enabled=False, viewport={"width": 390, "height": 844}, locale="en"
    )
    tab = context.new_page()
    tab.set_default_timeout(PATIENCE_MS)
    tab.goto(market.url + "market")
    tab.get_by_role("link", name="Filters").click()
    tab.get_by_label("GPU memory from").fill("24")
    tab.get_by_label("Order").select_option("-vram,price")
    tab.get_by_role("button", name="Apply").click()
    assert tab.url.endswith("/market?filter=vram%3E%3D24&sort=-vram%2Cprice")
    assert tab.get_by_role("row").count() > 5  # cards on a phone are still a table
    tab.get_by_role("link", name="Dark colours").click()
    assert tab.url.endswith("/market?filter=vram%3E%3D24&sort=-vram%2Cprice")
    assert tab.locator("html").get_attribute("data-theme") == "dark"
    context.close()
