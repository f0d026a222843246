"""How smoothly the market scrolls through ten thousand offers: from a key to the terminal's new picture.

The app runs as it does for a person, with the daemon's side in another process. A frame is the time from the
key (or the wheel) to the last byte of the picture that follows; the wait for the next of 60 frames a second
is contained. The reference is a sixtieth of a second.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, Final, cast

from textual import events
from textual._compositor import CompositorUpdate
from textual.screen import Screen

from tests.support import market_views, tui_views
from tests.support.control_server import control_server
from tests.support.tui_pilot import canned, settled, short_folder, until
from tui.app import QubixApp
from tui.full_screen import spare_frames
from tui.screens.market_table import OfferTable

SIZE: Final = (200, 60)
FRAME_MS: Final = 1_000 / 60
LONGEST_S: Final = 2.0
STEPS: Final = (("down", 150), ("pagedown", 150), ("wheel", 150), ("pageup", 80), ("end", 1), ("up", 80))
JUMPS: Final = 30


class TimedApp(QubixApp):
    """Draws what it would write to a terminal, and says when that is done."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.drawn = asyncio.Event()
        self.drawn_at = 0.0
        self.bytes = 0

    def _display(self, screen: Screen[Any], renderable: Any) -> None:
        super()._display(screen, renderable)
        if isinstance(renderable, CompositorUpdate):
            self.bytes += len(renderable.render_segments(self.console))
        self.drawn_at = time.perf_counter()
        self.drawn.set()


def _serve(path: Path, ready: Event, stop: Event) -> None:
    market_views.found("", "price", market_views.MANY)  # beforehand
    with control_server(path, canned(tui_views.ANSWERS, tui_views.EVENTS)):
        ready.set()
        stop.wait()


@contextmanager
def _daemon_side(path: Path) -> Iterator[None]:
    spawn = multiprocessing.get_context("spawn")
    ready, stop = spawn.Event(), spawn.Event()
    server = spawn.Process(target=_serve, args=(path, ready, stop))
    server.start()
    try:
        assert ready.wait(60)
        yield
    finally:
        stop.set()
        server.join()


async def _frame(app: TimedApp, event: events.Event) -> float | None:
    """Milliseconds from this event to the next picture; None if it changes nothing."""
    app.drawn.clear()
    began = time.perf_counter()
    app.post_message(event)
    try:
        async with asyncio.timeout(LONGEST_S):
            await app.drawn.wait()
    except TimeoutError:
        return None
    return 1_000 * (app.drawn_at - began)


def _event(app: TimedApp, step: str) -> events.Event:
    if step != "wheel":
        return events.Key(step, None)
    return events.MouseScrollDown(None, 40, 20, 0, 0, 0, False, False, False, 40, 20)


async def _scroll(app: TimedApp) -> tuple[list[float], list[float]]:
    """Frames of keys held down, of the wheel, of jumps far away; and how long a jump's rows take to come."""
    frames: list[float] = []
    filled: list[float] = []
    table = app.screen.query_one(OfferTable)
    for step, count in STEPS:
        for _ in range(count):
            frames += filter(None, [await _frame(app, _event(app, step))])
    for jump in range(JUMPS):
        began = time.perf_counter()
        table.cursor = (jump * 3_571 + 500) % market_views.MANY
        app.drawn.clear()
        while not _is_full(table):
            await asyncio.wait_for(app.drawn.wait(), LONGEST_S)
            app.drawn.clear()
        filled.append(1_000 * (time.perf_counter() - began))
        frames += filter(None, [await _frame(app, _event(app, "down"))])
    return frames, filled


def _is_full(table: OfferTable) -> bool:
    """Whether all rows that are seen have come."""
    first, last = table.seen
    return all(table.offers.get(row) for row in range(first, min(last, market_views.MANY - 1) + 1))


async def _measure() -> dict[str, object]:
    with short_folder() as root, _daemon_side(root / "control.sock"):
        app = TimedApp(root)
        spare_frames()
        async with app.run_test(size=SIZE) as pilot:
            await until(pilot, lambda: app.link.state == "up")
            await app.switch_mode("market")
            await until(pilot, lambda: app.screen.query_one(OfferTable).offers.total == market_views.MANY)
            await settled(cast(Any, pilot))
            frames, filled = await _scroll(app)
            written = app.bytes
    return _figure(frames, filled, written)


def _figure(frames: list[float], filled: list[float], written: int) -> dict[str, object]:
    hundredths = statistics.quantiles(frames, n=100)
    return {
        "value": round(hundredths[98], 1),
        "unit": "ms",
        "reference": f"a frame of 60 a second: {FRAME_MS:.1f} ms; at most 50",
        "detail": {
            "rows": market_views.MANY,
            "terminal": "x".join(map(str, SIZE)),
            "frames": len(frames),
            "median_ms": round(hundredths[49], 1),
            "most_ms": round(max(frames), 1),
            "rows_of_a_jump_there_p50_ms": round(statistics.median(filled), 1),
            "rows_of_a_jump_there_most_ms": round(max(filled), 1),
            "kilobytes_a_frame": round(written / len(frames) / 1_000, 1),
        },
    }


def frame_p99() -> dict[str, object]:
    return asyncio.run(_measure())


BENCHES = {"tui.frame_p99_ms_10k": frame_p99}
