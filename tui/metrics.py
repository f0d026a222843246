"""`qubix metrics`: what a job uses. A live table for a person, a line a sample for a pipe, or JSON."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from itertools import pairwise
from typing import Final

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from protocol.control_meters import (
    GpuSampleView,
    LevelView,
    MetricsArgs,
    MetricsView,
    SampleView,
    SpanView,
)
from tui import show
from tui.client import connect
from tui.places import control_socket, data_dir
from tui.safe import safe_line
from tui.verbs import ask, out, tell

SPARKS: Final = "▁▂▃▄▅▆▇█"
SPARK_CHARS: Final = 24
GPU_CHARS: Final = 6
SPARK_SECONDS: Final = 600
"""How much time the curves of one look show; of a live one they show a character a second."""
UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
MAX_DAYS: Final = 366
UNKNOWN: Final = "-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("lease", metavar="LEASE", help="a lease, or the start of its id")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the job ends")
    parser.add_argument(
        "--since",
        type=_seconds,
        default=0,
        metavar="TIME",
        help="the history as well, so far back: 30m, 2h, 3d",
    )


async def metrics(options: argparse.Namespace) -> int:
    args = MetricsArgs(options.lease, options.follow, options.since)
    if options.follow:
        return await _follow(options, args)
    view: MetricsView = await ask(options, "metrics", args)
    return tell(options, view, _screen(view))


async def _follow(options: argparse.Namespace, args: MetricsArgs) -> int:
    """What is known first, then every sample as it comes."""
    known: MetricsView = await ask(options, "metrics", MetricsArgs(options.lease))
    if options.json or not sys.stdout.isatty():
        return await _follow_plainly(options, args)
    seen = deque(known.samples, maxlen=SPARK_CHARS)
    with Live(_table(known, seen), console=out(), transient=False, auto_refresh=False) as live:
        async for item in _items(options, args):
            if isinstance(item, SampleView):
                seen.append(item)
                live.update(_table(known, seen), refresh=True)
            elif item.history:
                live.console.print(_history(item.history))
    return 0


async def _follow_plainly(options: argparse.Namespace, args: MetricsArgs) -> int:
    async for item in _items(options, args):
        if options.json:
            show.print_json({"sample": item} if isinstance(item, SampleView) else item)
        elif isinstance(item, SampleView):
            sys.stdout.write(_line(item) + "\n")
            sys.stdout.flush()
        elif item.history:
            out().print(_history(item.history))
    return 0


async def _items(options: argparse.Namespace, args: MetricsArgs) -> AsyncIterator[SampleView | MetricsView]:
    """Samples as they come, then the answer."""
    async with (
        connect(control_socket(data_dir(options.data_dir))) as client,
        aclosing(client.stream("metrics", args)) as items,
    ):
        async for item in items:
            yield item


def _seconds(text: str) -> int:
    """30m, 2h, 3d; a number alone is seconds."""
    found = re.fullmatch(r"(\d{1,9})([smhd]?)", text)
    seconds = int(found[1]) * UNITS[found[2] or "s"] if found else 0
    if not 0 < seconds <= MAX_DAYS * UNITS["d"]:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 30m, 2h or 3d (at most {MAX_DAYS}d)")
    return seconds


# --- what it looks like (pure) ----------------------------------------------------------------


def _screen(view: MetricsView) -> RenderableType:
    parts: list[RenderableType] = []
    if view.samples:
        parts.append(_table(view, _thinned(view.samples)))
    elif not view.history:
        short = show.short_id(view.lease_id)
        parts.append(Text(f"Nothing is known of what lease {short} uses; it is {safe_line(view.phase)}."))
    if view.history:
        parts.append(_history(view.history))
    if view.trouble:
        parts.append(Text(f"The provider could not be asked: {safe_line(view.trouble, 300)}", show.BAD))
    return Group(*parts)


def _thinned(samples: Sequence[SampleView]) -> list[SampleView]:
    """As many as a curve has characters, in equal steps, the newest among them."""
    step = max(1, SPARK_SECONDS // SPARK_CHARS)
    return list(reversed(samples[::-1][::step]))


def _table(view: MetricsView, samples: Sequence[SampleView]) -> Table:
    """The newest sample, what is rented, and the curves."""
    if not samples:
        return show.table(("lease",), [(show.cell(f"{show.short_id(view.lease_id)}: no sample yet"),)])
    now = samples[-1]
    measured = (
        ("cpu", f"{now.cpu_millis / 1_000:.2f} cores", f"{view.cpu_rented_millis / 1_000:g} cores",
         [one.cpu_millis for one in samples], view.cpu_rented_millis),
        ("memory", show.size(now.memory_mib), show.size(view.memory_rented_mib),
         [one.memory_mib for one in samples], view.memory_rented_mib),
        ("disk", show.size(now.disk_mib), show.size(view.disk_rented_mib),
         [one.disk_mib for one in samples], view.disk_rented_mib),
        ("received", _bytes(now.received_bytes), "", _steps([one.received_bytes for one in samples]), 0),
        ("sent", _bytes(now.sent_bytes), "", _steps([one.sent_bytes for one in samples]), 0),
    )  # fmt: skip
    rows = [_row(name, said, rented, _spark(values, full)) for name, said, rented, values, full in measured]
    for gpu in now.gpus:
        use = [_use_of(one.gpus, gpu.gpu) for one in samples]
        rows.append(_row(f"gpu {gpu.gpu[:GPU_CHARS]}", _gpu(gpu), "", _spark(use, 1_000)))
    return show.table(("", "now", "rented", "lately"), rows, flexible={"now": 0})


def _row(name: str, now: str, rented: str, spark: str) -> tuple[Text, ...]:
    return (show.cell(name), show.cell(now, "bold"), Text(rented), Text(spark, show.BUSY))


def _gpu(gpu: GpuSampleView) -> str:
    parts = [
        UNKNOWN if gpu.use_permille is None else f"{gpu.use_permille / 10:.0f} %",
        show.size(gpu.memory_mib),
    ]
    if gpu.temperature_c is not None:
        parts.append(f"{gpu.temperature_c} °C")
    if gpu.power_mw is not None:
        parts.append(f"{gpu.power_mw / 1_000:.0f} W")
    return ", ".join(parts)


def _use_of(gpus: Iterable[GpuSampleView], name: str) -> int:
    return next((one.use_permille or 0 for one in gpus if one.gpu == name), 0)


def _steps(totals: Sequence[int]) -> list[int]:
    return [max(0, after - before) for before, after in pairwise(totals)]


def _spark(values: Sequence[int], full: int = 0) -> str:
    """A curve of characters; `full` is the height of the highest, else the greatest value is."""
    top = max(full, *values, 1) if values else 1
    return "".join(SPARKS[min(len(SPARKS) - 1, value * len(SPARKS) // top)] for value in values)


def _bytes(count: int) -> str:
    """In units of 1,000, as networks count."""
    size, units = float(count), ["B", "kB", "MB", "GB", "TB", "PB"]
    while size >= 1_000 and len(units) > 1:
        size, units = size / 1_000, units[1:]
    return f"{size:.0f} {units[0]}" if units[0] == "B" else f"{size:.1f} {units[0]}"


def _line(sample: SampleView) -> str:
    """One sample for a pipe: names and numbers in base units."""
    pairs: list[tuple[str, object]] = [
        ("at", sample.at_ms),
        ("cpu_millis", sample.cpu_millis),
        ("memory_mib", sample.memory_mib),
        ("disk_mib", sample.disk_mib),
        ("received_bytes", sample.received_bytes),
        ("sent_bytes", sample.sent_bytes),
    ]
    for gpu in sample.gpus:
        pairs += [(f"gpu_{gpu.gpu}_{name}", value) for name, value in vars(gpu).items() if name != "gpu"]
    return " ".join(f"{name}={UNKNOWN if value is None else value}" for name, value in pairs)


def _history(spans: Sequence[SpanView]) -> Table:
    rows = [_span_row(span) for span in spans]
    columns = ("when", "span", "cpu", "memory", "disk", "received", "sent", "gpu")
    return show.table(columns, rows, ("cpu", "memory", "disk", "received", "sent"), {"gpu": 0})


def _span_row(span: SpanView) -> tuple[Text, ...]:
    when = time.strftime("%m-%d %H:%M", time.localtime(span.start_ms / 1_000))
    cells = (
        when,
        show.duration(span.span_s),
        _of(span.cpu_millis, 1_000, ".2f"),
        f"{_of(span.memory_mib, 1, '.0f')} MB",
        f"{_of(span.disk_mib, 1, '.0f')} MB",
        _bytes(span.received_bytes),
        _bytes(span.sent_bytes),
        "; ".join(
            f"{_of(gpu.use_permille, 10, '.0f')} %, {_of(gpu.memory_mib, 1, '.0f')} MB, "
            f"{_of(gpu.temperature_c, 1, '.0f')} °C, {_of(gpu.power_mw, 1_000, '.0f')} W"
            for gpu in span.gpus
        ),
    )
    *numbers, gpus = cells
    return (*(show.cell(text) for text in numbers), Text(safe_line(gpus, 2_000) or UNKNOWN))


def _of(level: LevelView, unit: float, form: str) -> str:
    """Mean and highest, as 0.50/0.98."""
    if level.mean is None or level.most is None:
        return UNKNOWN
    return f"{level.mean / unit:{form}}/{level.most / unit:{form}}"
