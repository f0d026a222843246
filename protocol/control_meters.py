"""The meters' part of the local control API: what a job uses now, and what it has used.

Argument and answer of `metrics`; frames and all else are in protocol/control.py. Times are Unix milliseconds
of the provider's clock. None: the card does not tell.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Final

from msgspec import Meta

MAX_HISTORY_ROWS: Final = 10_300
"""More than one lease ever has."""


@dataclass(frozen=True)
class MetricsArgs:
    """What a job uses. Events (`follow`) are SampleView, until it has ended; the answer is MetricsView."""

    lease: Annotated[str, Meta(max_length=64)]
    """A lease id or an unambiguous prefix of one."""
    follow: bool = False
    since_s: Annotated[int, Meta(ge=0, le=366 * 86_400)] = 0
    """How far the rolled-up history in the answer goes back; 0 for none."""


@dataclass(frozen=True)
class GpuSampleView:
    gpu: str
    """The first 12 hex digits of the card's digest."""
    use_permille: int | None
    memory_mib: int
    temperature_c: int | None
    power_mw: int | None


@dataclass(frozen=True)
class SampleView:
    at_ms: int
    cpu_millis: int
    memory_mib: int
    disk_mib: int
    received_bytes: int
    sent_bytes: int
    gpus: list[GpuSampleView] = field(default_factory=list)


@dataclass(frozen=True)
class LevelView:
    """Of a span of time. Both None if nothing was told in it."""

    mean: float | None
    most: int | None


@dataclass(frozen=True)
class GpuSpanView:
    gpu: str
    use_permille: LevelView
    memory_mib: LevelView
    temperature_c: LevelView
    power_mw: LevelView


@dataclass(frozen=True)
class SpanView:
    """One minute, or one hour, of a job. Traffic counts from the job's start to the span's end."""

    start_ms: int
    span_s: int
    samples: int
    cpu_millis: LevelView
    memory_mib: LevelView
    disk_mib: LevelView
    received_bytes: int
    sent_bytes: int
    gpus: list[GpuSpanView] = field(default_factory=list)


@dataclass(frozen=True)
class MetricsView:
    lease_id: str
    role: str
    phase: str
    cpu_rented_millis: int
    memory_rented_mib: int
    disk_rented_mib: int
    samples: list[SampleView]
    """The last ten minutes as far as they are known here, oldest first."""
    history: list[SpanView]
    """Oldest first; hours, then minutes."""
    trouble: str = ""
    """Why the provider could not be asked just now, in a sentence."""
