"""Every page in a real browser, on the live mirrors of two daemons: nothing that axe finds, no error, no
request to elsewhere, no page wider than its window; and both mirrors show the same market.

QUBIX_SCREENSHOTS names a directory that keeps the pictures.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import trio
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from escrow_bridge import qubic
from protocol.control import StatusArgs, StatusView
from protocol.control_mirror import MirrorArgs, MirrorView
from protocol.query import provider_key
from qubix import connect
from tests.support.browser import browser as browser
from tests.support.tui_pilot import real_town
from tests.support.web_process import web_process

JOB: Final = "name: marzipan\nresources: {image: any}\nmax_hours: 0.1\nrun: echo pomegranate\n"
WINDOWS: Final = ((360, "light", "en"), (820, "dark", "pt"), (1440, "light", "pt"), (1440, "dark", "en"))
PATIENCE_SECONDS: Final = 60
PAGES: Final = {
    "home": "",
    "market": "market",
    "market-sorted": "market?filter=cpus%3E%3D1&sort=-price",
    "market-wrong": "market?filter=price%3C%3Dmuch",
    "market-none": "market?filter=vram%3E%3D999",
    "gpus": "gpus",
    "gpu": "gpus/RTX4090",
    "provider": "providers/{peer}",
    "provider-unknown": "providers/12D3KooWAbsent",
    "start": "start",
    "start-gpu": "start?use=sdxl",
    "start-how": "start?use=docker&gpu=none",
    "start-run": "start?use=docker&gpu=none&connect=command",
    "network": "network",
    "verify": "verify?provider={peer}",
    "docs": "docs",
    "docs-caller": "docs/caller",
    "docs-verb": "docs/cli/run",
    "api": "v1/docs",
    "nowhere": "nowhere",
}


@dataclass(frozen=True)
class Live:
    """Two web processes, each on its own daemon's mirror."""

    url: str
    other: str
    peer: str
    mirrors: tuple[Path, ...]
    """The provider's last."""
    caller: StatusView


async def rented(directory: Path, job: Path) -> None:
    async with connect(directory) as node:
        async for _ in node.run(job, output_dir=job.parent / "out"):
            pass


async def who(directory: Path) -> StatusView:
    async with connect(directory) as node:
        status: StatusView = await node.client.call("status", StatusArgs())
        return status


async def mirrored(directory: Path) -> MirrorView:
    async with connect(directory) as node:
        with trio.fail_after(PATIENCE_SECONDS):
            view: MirrorView = await node.client.call("mirror", MirrorArgs(True))
            while not (view.updated_ms and view.offers):
                await trio.sleep(0.2)
                view = await node.client.call("mirror", MirrorArgs())
        return view


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("w")
    (folder / "job.yaml").write_text(JOB)
    with real_town(tmp_path_factory.mktemp("t")) as town, ExitStack() as stack:
        trio.run(rented, town.caller, folder / "job.yaml")
        mirrors = [trio.run(mirrored, root).path for root in (town.caller, town.provider)]
        one, other = (
            stack.enter_context(web_process(path, "--requests-per-minute=100000")) for path in mirrors
        )
        (offer,) = httpx.get(f"{one.url}v1/offers").raise_for_status().json()["offers"]
        caller = trio.run(who, town.caller)
        yield Live(one.url, other.url, offer["peer_id"], tuple(map(Path, mirrors)), caller)


def test_two_indexers_show_the_same_offers(live: Live) -> None:
    one, other = (
        httpx.get(f"{url}v1/offers").raise_for_status().json()["offers"] for url in (live.url, live.other)
    )
    assert [(each["peer_id"], each["signed"]) for each in one] == [
        (each["peer_id"], each["signed"]) for each in other
    ]


def test_the_lease_that_was_is_shown_with_its_transaction(live: Live) -> None:
    (lease,) = _when_settled(live.url)
    assert (lease["provider"], lease["outcome"]) == (live.peer, "completed") and lease["paid_qu"] > 0
    assert re.fullmatch("[a-z]{60}", lease["transaction"]) and lease["close_tick"] > lease["open_tick"]
    for path in ("network", f"providers/{live.peer}"):
        assert lease["transaction"] in httpx.get(live.url + path).raise_for_status().text


def test_nothing_of_the_caller_is_in_a_mirror(live: Live) -> None:
    """Neither who it is nor what it ran, whatever table it might be in."""
    caller = live.caller
    peer, wallet = bytes.fromhex(provider_key(caller.peer_id)), bytes(qubic.parse_identity(caller.identity))
    never = [peer, wallet, caller.identity.encode(), peer.hex().encode(), b"marzipan", b"pomegranate"]
    assert _when_settled(live.url) and _when_settled(live.other)
    for path in live.mirrors:
        held = b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))
        provider = bytes.fromhex(provider_key(live.peer))
        assert provider in held and live.peer.encode() in held  # so that it is looked for in the right place
        assert not [one for one in never if one in held]
    assert caller.peer_id.encode() not in held  # another one's; its own tells whose it is


def _when_settled(url: str) -> list[dict[str, Any]]:
    """A mirror looks for receipts every ten seconds, and for the transactions that settled them."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (told := _settled(url)) or not told[0]["transaction"]:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return told


def _settled(url: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(f"{url}v1/settlements").raise_for_status().json()["settlements"]
    return found


@pytest.mark.parametrize(("width", "theme", "language"), WINDOWS)
def test_every_page(browser: Browser, live: Live, width: int, theme: Any, language: str) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=theme, locale=language, reduced_motion="reduce"
    )
    tab, said = context.new_page(), []
    tab.set_default_timeout(PATIENCE_SECONDS * 1_000)
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda one: said.append(one.url) if not one.url.startswith(live.url) else None)
    tab.on("console", lambda one: said.append(one.text) if _is_trouble(one.type, one.text) else None)
    wrong = {}
    for name, path in PAGES.items():
        tab.goto(live.url + path.format(peer=live.peer), wait_until="load")
        _keep(tab, f"{name}-{width}-{theme}-{language}.png")
        found = [each["id"] for each in Axe().run(tab).response["violations"]]
        room = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        if found or room > 0 or said:
            wrong[name] = (found, room, said.copy())
        said.clear()
    context.close()
    assert wrong == {}


def _is_trouble(kind: str, text: str) -> bool:
    """A page that is not there is told by the browser as well."""
    return kind == "error" and not re.search(r"status of 40[04]\b", text)


def _keep(tab: Page, name: str) -> None:
    if folder := os.environ.get("QUBIX_SCREENSHOTS"):
        tab.screenshot(path=Path(folder) / name, full_page=True)
