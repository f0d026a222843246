"""From a job's meters to the curves of its page. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from protocol.control_meters import GpuSampleView, GpuSpanView, LevelView, MetricsView, SampleView, SpanView
from tui.safe import safe_line
from tui.screens.instances_graph import Point, Series

HOT_C: Final = 87.0
"""At about this temperature cards of all makers begin to run slower."""
GPU_CHARS: Final = 6
WINDOWS: Final = (600, 3_600, 6 * 3_600, 86_400, 7 * 86_400)
"""Seconds that the curves show; the daemon keeps samples for the first, minutes and hours for the others."""


@dataclass(frozen=True)
class Meters:
    """What is known of a job: `samples` of the last minutes, `history` of the time before."""

    rented: MetricsView
    samples: Sequence[SampleView]

    @property
    def spans(self) -> list[SpanView]:
        """What lies before the first sample."""
        first = self.samples[0].at_ms if self.samples else 1 << 62
        return [one for one in self.rented.history if _end(one) <= first]

    @property
    def newest_ms(self) -> int:
        return self.samples[-1].at_ms if self.samples else max(map(_end, self.rented.history), default=0)


def _end(span: SpanView) -> int:
    return span.start_ms + span.span_s * 1_000


def curves(meters: Meters) -> list[Series]:
    """GPU use, memory, temperature and power of every card, then the processor and the rest."""
    cards = _cards(meters)
    made = [
        one
        for number, card in enumerate(cards, 1)
        for one in _card(meters, card, number if len(cards) > 1 else 0)
    ]
    return [*made, *_machine(meters)]


def _cards(meters: Meters) -> list[str]:
    lists: list[Iterable[GpuSampleView | GpuSpanView]] = [one.gpus for one in meters.samples]
    lists += [one.gpus for one in meters.spans]
    return list(dict.fromkeys(gpu.gpu for gpus in lists for gpu in gpus))


def _card(meters: Meters, card: str, number: int) -> Iterator[Series]:
    """`number` is 0 where it is the only one."""
    name = f"GPU {number} ({safe_line(card, GPU_CHARS)})" if number else "GPU"

    def points(
        now: Callable[[GpuSampleView], int | None], then: Callable[[GpuSpanView], LevelView], unit: float
    ) -> list[Point]:
        before = [(_end(one), _mean(_of(one.gpus, card, then), unit)) for one in meters.spans]
        lately = [(one.at_ms, _scaled(_now(one.gpus, card, now), unit)) for one in meters.samples]
        return [*before, *lately]

    yield Series(f"{name} use", "%", points(lambda g: g.use_permille, lambda g: g.use_permille, 10), 100)
    yield Series(f"{name} memory", "MB", points(lambda g: g.memory_mib, lambda g: g.memory_mib, 1))
    yield Series(
        f"{name} temperature",
        "°C",
        points(lambda g: g.temperature_c, lambda g: g.temperature_c, 1),
        100,
        HOT_C,
    )
    yield Series(f"{name} power", "W", points(lambda g: g.power_mw, lambda g: g.power_mw, 1_000))


def _machine(meters: Meters) -> Iterator[Series]:
    rented = meters.rented
    cores = rented.cpu_rented_millis / 1_000

    def points(
        now: Callable[[SampleView], int], then: Callable[[SpanView], LevelView], unit: float
    ) -> list[Point]:
        before = [(_end(one), _mean(then(one), unit)) for one in meters.spans]
        return [*before, *((one.at_ms, now(one) / unit) for one in meters.samples)]

    yield Series("processor", "cores", points(lambda s: s.cpu_millis, lambda s: s.cpu_millis, 1_000), cores)
    yield Series(
        "memory", "MB", points(lambda s: s.memory_mib, lambda s: s.memory_mib, 1), rented.memory_rented_mib
    )
    yield Series("disk", "MB", points(lambda s: s.disk_mib, lambda s: s.disk_mib, 1), rented.disk_rented_mib)
    yield Series("received", "B/s", _rate(meters, lambda one: one.received_bytes))
    yield Series("sent", "B/s", _rate(meters, lambda one: one.sent_bytes))


def _rate(meters: Meters, total: Callable[[SampleView | SpanView], int]) -> list[Point]:
    """What a counter that only grows does in a second; a restart begins it anew."""
    totals = [(_end(one), total(one)) for one in meters.spans]
    totals += [(one.at_ms, total(one)) for one in meters.samples]
    return [
        (after[0], max(0, after[1] - before[1]) * 1_000 / (after[0] - before[0]))
        for before, after in pairwise(totals)
        if after[0] > before[0]
    ]


def _now(
    gpus: Iterable[GpuSampleView], card: str, value: Callable[[GpuSampleView], int | None]
) -> int | None:
    return next((value(one) for one in gpus if one.gpu == card), None)


def _of(gpus: Iterable[GpuSpanView], card: str, level: Callable[[GpuSpanView], LevelView]) -> LevelView:
    return next((level(one) for one in gpus if one.gpu == card), LevelView(None, None))


def _mean(level: LevelView, unit: float) -> float | None:
    return None if level.mean is None else level.mean / unit


def _scaled(value: int | None, unit: float) -> float | None:
    return None if value is None else value / unit
