"""When a job counts as idle: pure. Unknown is never idle; docs/meters.md argues the numbers.

A stretch of samples is idle if its mean is below every line; a job is, when stretches have been idle for as
long as the terms say, without a gap.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from protocol.messages import Sample, Terms
from protocol.units import UnixMs

STRETCH_MS: Final = 10_000
"""Of which the mean counts, so that a heartbeat of a server nobody uses is not work."""
GAP_MS: Final = 5_000
"""Samples that far apart do not belong together."""
IDLE_GPU_PERMILLE: Final = 20
IDLE_CPU_PERMILLE: Final = 20
"""Of what is rented ..."""
IDLE_CPU_MILLIS: Final = 100
"""... and never more than a tenth of a core, which on large machines is a download or a single thread."""
LEAST_CPU_MILLIS: Final = 5
IDLE_BYTES_PER_SECOND: Final = 65_536
"""Of traffic, both ways: a job that fetches its data is at work."""


@dataclass(frozen=True)
class Idleness:
    """What is known so far. Instants in Unix milliseconds; 0 for none."""

    since: UnixMs = UnixMs(0)
    """Idle from then on, up to the end of the last whole stretch."""
    stretch_from: UnixMs = UnixMs(0)
    last: UnixMs = UnixMs(0)
    samples: int = 0
    cpu_millis: int = 0
    """Summed over the stretch."""
    gpu_permille: int = 0
    """Of the busiest card, summed over the stretch."""
    bytes_before: int = 0
    """Of traffic, when the stretch began."""

    def idle_ms(self) -> int:
        """For how long it has been idle for certain."""
        return self.stretch_from - self.since if self.since else 0


NOT_IDLE: Final = Idleness()


def after(before: Idleness, sample: Sample, terms: Terms) -> Idleness:
    """The same with one more sample. One that does not tell of every rented card what it does begins anew."""
    busiest = _busiest_gpu(sample, terms)
    if busiest is None:
        return NOT_IDLE
    traffic = sample.received_bytes + sample.sent_bytes
    if not before.last or not 0 < sample.at - before.last <= GAP_MS or traffic < before.bytes_before:
        return Idleness(stretch_from=sample.at, last=sample.at, bytes_before=traffic)
    now = replace(
        before,
        last=sample.at,
        samples=before.samples + 1,
        cpu_millis=before.cpu_millis + sample.cpu_millis,
        gpu_permille=before.gpu_permille + busiest,
    )
    return now if sample.at - now.stretch_from < STRETCH_MS else _stretch_over(now, traffic, terms)


def passed_over(before: Idleness, sample: Sample) -> Idleness:
    """The same after a second that says nothing of the job, because others computed beside it: it counts as
    neither idle nor busy."""
    passed = sample.at - before.last
    if not before.last or not 0 < passed <= GAP_MS:
        return NOT_IDLE
    since = UnixMs(before.since + passed) if before.since else before.since
    return replace(before, last=sample.at, stretch_from=UnixMs(before.stretch_from + passed), since=since)


def _stretch_over(now: Idleness, traffic: int, terms: Terms) -> Idleness:
    lasted_ms = now.last - now.stretch_from
    idle = (
        now.cpu_millis < now.samples * cpu_line_millis(terms.wish.cpu_millis)
        and now.gpu_permille < now.samples * IDLE_GPU_PERMILLE
        and (traffic - now.bytes_before) * 1_000 < lasted_ms * IDLE_BYTES_PER_SECOND
    )
    since = (now.since or now.stretch_from) if idle else UnixMs(0)
    return Idleness(since=since, stretch_from=now.last, last=now.last, bytes_before=traffic)


def cpu_line_millis(rented_millis: int) -> int:
    """Below it the processor counts as idle, in thousandths of a core."""
    return max(LEAST_CPU_MILLIS, min(IDLE_CPU_MILLIS, rented_millis * IDLE_CPU_PERMILLE // 1_000))


def _busiest_gpu(sample: Sample, terms: Terms) -> int | None:
    """Permille; None if that is not known of every rented card. 0 without any."""
    use = {gpu.digest: gpu.use_permille for gpu in sample.gpus}
    known = [use.get(digest) for digest in terms.gpu_digests]
    numbers = [one for one in known if one is not None]
    return max(numbers, default=0) if len(numbers) == len(known) else None
