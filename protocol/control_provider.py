"""The provider's part of the local control API: what this machine earns, sells and runs.

Arguments and answer of `provider`; frames and all else are in protocol/control.py. Money is whole QU, what
was earned is net of the contract's fee, sizes are MiB, times are milliseconds since 1970, days are UTC.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from protocol.control_schedule import ScheduleView

DAYS: Final = 14
"""Days of earnings told one by one."""
LAST_ENDED: Final = 10
"""Ended jobs told of; the ledger has them all."""


@dataclass(frozen=True)
class ProviderArgs:
    """How this machine does as a provider; before that take no new jobs (`pause`) or take them again
    (False). What runs goes on either way."""

    pause: bool | None = None


@dataclass(frozen=True)
class DayView:
    day: str
    """2026-11-21."""
    qu: int
    leases: int
    seconds: int


@dataclass(frozen=True)
class EarningsView:
    """From settled leases of the ledger, by the day on which each ended."""

    today_qu: int
    week_qu: int
    """The last 7 days, today among them."""
    month_qu: int
    """The last 30."""
    total_qu: int
    leases: int
    """That brought it all."""
    promised_qu: int
    """Vouchers in hand for leases that are not settled; the fee is taken off."""
    owed_qu: int
    """Metered beyond those, and not promised yet."""
    days: list[DayView]
    """DAYS of them, today first."""


@dataclass(frozen=True)
class HindranceView:
    """Why no jobs are taken, or why a part of the machine is not offered, and what to do."""

    code: str
    sentence: str
    closes: bool
    """Nothing at all is taken."""


@dataclass(frozen=True)
class ShopView:
    open: bool
    """New jobs are taken."""
    paused: bool
    """By the person."""
    hindrances: list[HindranceView]
    name: str
    region: str
    gpu_class: str
    price_qu_per_hour: int
    """Of each GPU, or of the machine without one, at this moment."""
    storage_qu_per_tib_hour: int
    suggested_low_qu_per_hour: int
    suggested_high_qu_per_hour: int
    usual_price_qu_per_hour: int = 0
    """Where the schedule names no other."""
    schedule: ScheduleView | None = None


@dataclass(frozen=True)
class ShareView:
    """A part of the machine: what there is, what is rented out, what is used at the moment by anyone."""

    total: int
    offered: int
    """What jobs can have together."""
    taken: int
    """Of that, by leases."""
    used: int


@dataclass(frozen=True)
class GpuView:
    digest: str
    uuid: str
    model: str
    vram_mib: int
    driver: str
    cuda: str
    pcie: str
    """Address, generation and width, such as "0000:01:00.0, gen 4 x16"; empty where that is not known."""
    use_permille: int | None
    memory_used_mib: int | None
    temperature_c: int | None
    power_mw: int | None
    health: str
    """"ok", or the code of why it is not offered."""
    sentence: str
    lease_id: str
    """Which lease has it; empty if none has."""


@dataclass(frozen=True)
class MachineView:
    cpu_model: str
    arch: str
    cpu_millis: ShareView
    memory_mib: ShareView
    disk_mib: ShareView
    gpus: list[GpuView]


@dataclass(frozen=True)
class RunnerView:
    runner: str
    """"docker", "docker+runsc", "process"; empty on a machine that runs no jobs."""
    answers: bool
    sentence: str
    """Why it does not answer."""
    internet: bool
    """Whether jobs may have it."""
    images: int
    """Fetched for jobs and kept."""
    images_mib: int


@dataclass(frozen=True)
class JobView:
    lease_id: str
    name: str
    phase: str
    detail: str
    """What happens in this phase, in words, or why it ended."""
    reason: str
    caller: str
    """Peer id."""
    image: str
    opened_at_ms: int
    ended_at_ms: int
    seconds: int
    price_qu_per_hour: int
    received_qu: int
    """Net of the fee; of a lease that is not settled, 0."""
    promised_qu: int
    owed_qu: int
    gpus: list[str]
    """Their digests."""
    cpu_millis: int
    memory_mib: int
    cpu_use_millis: int | None = None
    memory_use_mib: int | None = None
    gpu_use_permille: int | None = None
    """Of all its cards, on the average."""
    frozen: bool = False
    """Its caller has paused it; the meter runs on."""


@dataclass(frozen=True)
class ProviderView:
    at_ms: int
    peer_id: str
    identity: str
    balance: int | None
    """None if the chain does not answer."""
    network: str
    shop: ShopView
    earnings: EarningsView
    machine: MachineView
    runner: RunnerView
    jobs: list[JobView]
    ended: list[JobView]
    """The newest first."""
    score: float | None = None
    confidence: float = 0.0
    newcomer: bool = True
    addresses: list[str] = field(default_factory=list)
