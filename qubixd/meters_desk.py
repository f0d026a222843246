"""The control API's verb `metrics`: what a job uses, from this node's own meters or from its provider."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from ledger.meters import GpuLevels, Level, MeterRow
from protocol.control_meters import (
    MAX_HISTORY_ROWS,
    GpuSampleView,
    GpuSpanView,
    LevelView,
    MetricsArgs,
    MetricsView,
    SampleView,
    SpanView,
)
from protocol.errors import QubixError
from protocol.lease_state import LIVE, Lease, Role
from protocol.messages import GetMeters, GpuUse, Sample
from protocol.units import UnixMs
from qubixd.lease_desk import find_lease
from qubixd.meters_door import goes_on, samples_of
from qubixd.node import Node

Emit = Callable[[object], Awaitable[None]]
GPU_CHARS: Final = 12


async def metrics(node: Node, args: MetricsArgs, emit: Emit) -> MetricsView:
    lease = await find_lease(node, args.lease)
    trouble = await _follow(node, lease, emit) if args.follow else await _ask(node, lease)
    return await _view(node, await node.leases.get(lease.lease_id), args.since_s, trouble)


async def _ask(node: Node, lease: Lease) -> str:
    """Bring a rented job's samples up to date; why that could not be, "" if it could."""
    if lease.role is Role.PROVIDER or lease.phase not in LIVE:
        return ""
    try:
        await node.metering.follower.fetch(lease)
    except QubixError as error:
        return str(error)
    except trio.BrokenResourceError:
        return "the connection to the provider broke"
    return ""


async def _follow(node: Node, lease: Lease, emit: Emit) -> str:
    """Every sample from now on, until the job has ended. A front end that takes too long loses some."""
    metering, since = node.metering, UnixMs(await node.metering.meters.newest(lease.lease_id))
    wanted = GetMeters(lease.lease_id, since, follow=goes_on(lease))
    if lease.role is Role.PROVIDER:
        async for sample in samples_of(node.leases, metering.meters, lease, wanted):
            await emit(sample_view(sample))
    else:
        with metering.follower.looking(lease.lease_id):
            async for sample in samples_of(node.leases, metering.meters, lease, wanted):
                await emit(sample_view(sample))
    return ""


async def _view(node: Node, lease: Lease, since_s: int, trouble: str) -> MetricsView:
    wish, meters = lease.terms.wish, node.metering.meters
    rows: tuple[MeterRow, ...] = ()
    if since_s:
        since = UnixMs(node.parts.now_ms() - since_s * 1_000)
        rows = await meters.history(lease.lease_id, since, MAX_HISTORY_ROWS)
    return MetricsView(
        lease_id=lease.lease_id.hex(),
        role=lease.role,
        phase=lease.phase,
        cpu_rented_millis=wish.cpu_millis,
        memory_rented_mib=wish.memory_mib,
        disk_rented_mib=wish.disk_mib,
        samples=[sample_view(one) for one in meters.since(lease.lease_id, UnixMs(0))],
        history=[span_view(row) for row in rows],
        trouble=trouble,
    )


def sample_view(sample: Sample) -> SampleView:
    return SampleView(
        at_ms=sample.at,
        cpu_millis=sample.cpu_millis,
        memory_mib=sample.memory_mib,
        disk_mib=sample.disk_mib,
        received_bytes=sample.received_bytes,
        sent_bytes=sample.sent_bytes,
        gpus=[_gpu(use) for use in sample.gpus],
    )


def _gpu(use: GpuUse) -> GpuSampleView:
    return GpuSampleView(
        gpu_name(use.digest), use.use_permille, use.memory_mib, use.temperature_c, use.power_mw
    )


def gpu_name(digest: bytes) -> str:
    """A card as front ends and metrics call it."""
    return digest.hex()[:GPU_CHARS]


def span_view(row: MeterRow) -> SpanView:
    return SpanView(
        start_ms=row.start_ms,
        span_s=row.span_ms // 1_000,
        samples=row.samples,
        cpu_millis=_level(row.cpu_millis),
        memory_mib=_level(row.memory_mib),
        disk_mib=_level(row.disk_mib),
        received_bytes=row.received_bytes,
        sent_bytes=row.sent_bytes,
        gpus=[_gpu_span(gpu) for gpu in row.gpus],
    )


def _gpu_span(gpu: GpuLevels) -> GpuSpanView:
    levels = (gpu.use_permille, gpu.memory_mib, gpu.temperature_c, gpu.power_mw)
    return GpuSpanView(gpu_name(gpu.digest), *(_level(one) for one in levels))


def _level(level: Level) -> LevelView:
    return LevelView(round(level.mean, 1), level.most) if level.count else LevelView(None, None)
