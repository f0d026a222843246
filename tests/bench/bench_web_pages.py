"""How much a browser loads for the first page, and what it has to wait for before it draws."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import CDPSession, sync_playwright

from tests.support.web_mirror import filled
from tests.support.web_process import web_process

OFFERS: Final = 100_000
MOST_KB: Final = 150
"""Of a first page in all, by the issue."""
BLOCKING: Final = """
  performance.getEntriesByType('resource')
    .filter(one => one.initiatorType === 'script' && one.renderBlockingStatus === 'blocking').length
"""
PAINT_MS: Final = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


def first_page_kb() -> dict[str, object]:
    """Bytes as they came over the wire, headers and all, in a browser that has nothing yet."""
    with tempfile.TemporaryDirectory() as folder:
        mirror = filled(Path(folder) / "mirror.db", OFFERS)
        with web_process(str(mirror), "--requests-per-minute=1000") as web:
            home, market = _loaded(web.url), _loaded(web.url + "market")
    detail = (
        f"{OFFERS:,} offers; the market {market['kb']} kB; {home['requests']} and {market['requests']}"
        f" requests; {home['blocking'] + market['blocking']} scripts that block drawing; first paint after"
        f" {home['paint_ms']} and {market['paint_ms']} ms"
    )
    return {"value": home["kb"], "unit": "kB", "reference": MOST_KB, "detail": detail}


def _loaded(url: str) -> dict[str, Any]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
        sizes = _counting(tab.context.new_cdp_session(tab))
        tab.goto(url, wait_until="load")
        tab.wait_for_timeout(1_000)
        found = {
            "kb": round(sum(sizes) / 1_000, 1),
            "requests": len(sizes),
            "blocking": tab.evaluate(BLOCKING),
            "paint_ms": round(tab.evaluate(PAINT_MS) or 0),
        }
        browser.close()
    return found


def _counting(session: CDPSession) -> list[float]:
    """Of every answer that has come, its bytes."""
    sizes: list[float] = []
    session.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    session.send("Network.enable")
    return sizes


BENCHES = {"web.first_page_kb": first_page_kb}
