"""What this node measures, for Prometheus (`--metrics HOST:PORT`).

Names follow Prometheus' conventions: base units, `_total` for what only grows, `_ratio` from 0 to 1. Each
look is made from what is in memory, so it costs the node little; jobs that have ended vanish with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from protocol.lease_state import ACTIVE, LIVE, Lease, Role
from protocol.messages import Sample
from protocol.units import LeaseId
from qubixd.market_desk import live_offers
from qubixd.meters_desk import gpu_name
from qubixd.node import Node

FRESH_SECONDS: Final = 15.0
"""A job of which nothing newer is known is left out: a gap says more than an old number."""
LEASE_CHARS: Final = 12
MIB: Final = 1 << 20

JOB_GAUGES: Final = (
    ("cpu_cores", "Processor cores that the job used over the last second."),
    ("memory_bytes", "Memory of the job without cached files that nobody uses."),
    ("disk_bytes", "What is in the job's workspace, as it was measured last."),
)
JOB_COUNTERS: Final = (
    ("network_receive_bytes", "Bytes that the job has received."),
    ("network_transmit_bytes", "Bytes that the job has sent."),
)
GPU_GAUGES: Final = (
    ("usage_ratio", "Share of the last period in which the card computed for the job."),
    ("memory_bytes", "Memory in use on the job's card."),
    ("temperature_celsius", "Temperature of the job's card."),
    ("power_watts", "Power that the job's card draws."),
)


def registry_of(node: Node) -> CollectorRegistry:
    """Everything that is exposed: this node's own figures and those of its process."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_NodeCollector(node))
    return registry


class _NodeCollector(Collector):
    def __init__(self, node: Node) -> None:
        self._node = node

    def describe(self) -> list[Metric]:
        """Nothing beforehand: the names are only here."""
        return []

    def collect(self) -> Iterator[Metric]:
        leases = self._node.leases.active()
        yield from self._jobs(leases)
        yield self._metered(leases)
        yield self._leases(leases)
        yield from self._cards()
        yield from self._market()

    def _jobs(self, leases: tuple[Lease, ...]) -> Iterator[Metric]:
        meters = self._node.metering.meters
        fresh = {
            lease.lease_id: sample
            for lease in leases
            if (sample := meters.latest(lease.lease_id, FRESH_SECONDS)) is not None
        }
        gauges = [GaugeMetricFamily(f"qubix_job_{name}", text, labels=["lease"]) for name, text in JOB_GAUGES]
        totals = [
            CounterMetricFamily(f"qubix_job_{name}", text, labels=["lease"]) for name, text in JOB_COUNTERS
        ]
        for lease_id, sample in fresh.items():
            label = [_short(lease_id)]
            values = (sample.cpu_millis / 1_000, sample.memory_mib * MIB, sample.disk_mib * MIB)
            for gauge, value in zip(gauges, values, strict=True):
                gauge.add_metric(label, value)
            for total, count in zip(totals, (sample.received_bytes, sample.sent_bytes), strict=True):
                total.add_metric(label, count)
        yield from (*gauges, *totals, *_gpus(fresh))

    def _metered(self, leases: tuple[Lease, ...]) -> Metric:
        text = "Seconds of the job that are to be paid for."
        metered = CounterMetricFamily("qubix_job_metered_seconds", text, labels=["lease"])
        for lease in leases:
            if lease.phase in LIVE:
                metered.add_metric([_short(lease.lease_id)], lease.seconds)
        return metered

    def _leases(self, leases: tuple[Lease, ...]) -> Metric:
        found = Counter((lease.phase, lease.role) for lease in leases)
        gauge = GaugeMetricFamily("qubix_leases", "Open leases.", labels=["phase", "role"])
        for phase in sorted(ACTIVE):
            for role in Role:
                gauge.add_metric([phase, role], found[phase, role])
        return gauge

    def _cards(self) -> Iterator[Metric]:
        cards, uuids = self._node.provider.cards, self._node.parts.machine.gpu_uuids
        if cards is None or not uuids:
            return
        gauge = GaugeMetricFamily(
            "qubix_gpu_healthy", "Whether the card can be rented out (1) or not (0).", labels=["gpu"]
        )
        for digest, uuid in uuids.items():
            gauge.add_metric([gpu_name(digest)], float(uuid not in cards.health.unfit))
        yield gauge

    def _market(self) -> Iterator[Metric]:
        node = self._node
        if node.config.provider:
            earned = node.provider.earnings.view((), node.parts.now_ms()).total_qu
            text = "QU earned with settled leases, after the fee."
            yield CounterMetricFamily("qubix_earned_qu", text, value=earned)
        yield GaugeMetricFamily("qubix_offers", "Live offers known here.", value=live_offers(node))
        yield GaugeMetricFamily("qubix_peers", "Connected peers.", value=len(node.parts.wire.peers()))


def _gpus(fresh: dict[LeaseId, Sample]) -> list[GaugeMetricFamily]:
    """What a card does not tell has no line."""
    labels = ["lease", "gpu"]
    gauges = [GaugeMetricFamily(f"qubix_job_gpu_{name}", text, labels=labels) for name, text in GPU_GAUGES]
    for lease_id, sample in fresh.items():
        for gpu in sample.gpus:
            values = (
                None if gpu.use_permille is None else gpu.use_permille / 1_000,
                gpu.memory_mib * MIB,
                gpu.temperature_c,
                None if gpu.power_mw is None else gpu.power_mw / 1_000,
            )
            for gauge, value in zip(gauges, values, strict=True):
                if value is not None:
                    gauge.add_metric([_short(lease_id), gpu_name(gpu.digest)], value)
    return gauges


def _short(lease_id: LeaseId) -> str:
    return lease_id.hex()[:LEASE_CHARS]
