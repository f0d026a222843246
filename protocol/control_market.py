"""The market's part of the local control API: what a front end asks about offers, and what it is told.

Arguments and answers of `offer`, `market`, `why`, `score`, `deny`, `stake` and `directories`; frames and
all else are in protocol/control.py. Shares are 0 to 1, money is whole QU (per hour where it says so).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Final

from msgspec import Meta

from protocol.control_schedule import ScheduleText, ScheduleView

STANDARD_DISK_MIB: Final = 10_240
"""The disk whose price is in an all-in price where nobody says how much is needed."""
MAX_TEXT: Final = 4_096

Text = Annotated[str, Meta(max_length=MAX_TEXT)]

# --- arguments --------------------------------------------------------------------------------


@dataclass(frozen=True)
class OfferArgs:
    """Set the price of this machine or its schedule ("": none), or withdraw (`withdraw`) or put back its
    offer. Shows it anyway."""

    price_qu_per_hour: Annotated[int, Meta(ge=0)] | None = None
    withdraw: bool | None = None
    schedule: ScheduleText | None = None
    """In the words of docs/provider.md."""


@dataclass(frozen=True)
class MarketArgs:
    """Offers known here, by default the cheapest (all in) first.

    `gpu` is a model or class, matched without case or separators. `filter` and `sort` are in the words of
    docs/market.md. With `use_case` they come in the order of fitness for it, with reasons; `sort` then
    must be empty. With `image` the estimated start is told, too.
    """

    gpu: str = ""
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 100
    filter: Text = ""
    sort: Text = ""
    use_case: Text = ""
    image: Text = ""
    measure: bool = False
    """Measure the round trip to the first of them now."""
    disk_mib: Annotated[int, Meta(ge=1, le=2**31)] = STANDARD_DISK_MIB
    after: Annotated[int, Meta(ge=0, le=2**31)] = 0
    """So many are left out from the front: a list is read page by page. Needs `sort`, or `use_case` and
    then is at most 10,000."""
    brief: bool = False
    """Tell what is known of them at once: no score is computed for the answer."""


@dataclass(frozen=True)
class WhyArgs:
    """Why nobody takes a job: this one, or (no `job_yaml`) the last that nobody took.

    `ask` asks the providers that fit for real quotes, and takes none.
    """

    job_yaml: str = ""
    ask: bool = False
    where: Text = ""
    """Conditions beside the job file's own, as in RunArgs."""
    provider: str = ""
    max_price_qu_per_hour: Annotated[int, Meta(ge=0)] | None = None


@dataclass(frozen=True)
class ScoreArgs:
    """How trustworthy a provider is, and why."""

    provider: str
    """A peer id or the end of one, or the start of a name; must name one provider."""
    evidence: bool = False
    """All that the score is computed from as well, for a file that anyone can check."""


@dataclass(frozen=True)
class DenyArgs:
    """Never hire a provider (`add`), hire it again (`remove`), or only list who is not hired."""

    add: str = ""
    remove: str = ""


@dataclass(frozen=True)
class StakeArgs:
    """Show this provider's record in the contract's registry; before that enter it or add to its stake
    (`add`), or `leave`. Asked again with the same id nothing is sent a second time."""

    payment_id: Annotated[str, Meta(max_length=64)] = ""
    add: Annotated[int, Meta(ge=0)] | None = None
    leave: bool = False


@dataclass(frozen=True)
class DirectoriesArgs:
    pass


# --- answers ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class OfferView:
    peer_id: str
    name: str
    region: str
    gpu_class: str
    gpus: int
    vram_mib: int
    cpu_millis: int
    memory_mib: int
    disk_mib: int
    runner: str
    price_qu_per_hour: int
    """Of each GPU, or of the machine for a job that wants none; without disk."""
    sequence: int
    expires_in_s: int
    own: bool
    withdrawn: bool
    storage_qu_per_tib_hour: int = 0
    all_in_qu_per_hour: int = 0
    """Machine and the disk asked for; the fee and the traffic of the job's files are contained."""
    suggested_low_qu_per_hour: int = 0
    suggested_high_qu_per_hour: int = 0
    """What the catalogue suggests for this GPU."""
    score: float | None = None
    """None while nobody has measured or computed it."""
    reliability: float | None = None
    newcomer: bool = False
    """No lease of it is known to be settled yet."""
    rtt_ms: float | None = None
    jitter_ms: float | None = None
    """How much several pings differ; only where they were measured for this answer."""
    start_s: int | None = None
    """Estimate for the image that was named."""
    image_there: bool = False
    shared_gpu_with: list[str] = field(default_factory=list)
    """Other providers who offer a card with the same digest."""
    missing_at: list[str] = field(default_factory=list)
    """Directories in use that do not show this offer."""
    not_hired: str = ""
    """Why hiring leaves it out: denied, or failed lately."""
    reasons: list[str] = field(default_factory=list)
    """Why it stands where it does, for a use case."""
    arch: str = ""
    cuda: str = ""
    """Newest CUDA version of its driver, such as "12.4"; empty without one."""
    internet: bool = False
    """Jobs may have it there."""
    closes_in_s: int | None = None
    """Jobs whose rented time is longer are not taken; None: it does not close."""


@dataclass(frozen=True)
class OfferAnswer:
    offer: OfferView | None
    """None on a machine that offers nothing."""
    schedule: ScheduleView | None = None


@dataclass(frozen=True)
class DirectoryView:
    """A directory in use: how many live offers it shows, and how many others show that it does not."""

    peer_id: str
    offers: int
    missing: int


@dataclass(frozen=True)
class UseCaseView:
    name: str
    title: str
    min_vram_gib: float
    recommended_vram_gib: float
    connection: str
    why: str


@dataclass(frozen=True)
class MarketView:
    offers: list[OfferView]
    total: int = 0
    """How many match; `offers` holds the first of them."""
    known: int = 0
    """How many live offers are known here at all."""
    peers: int = 0
    order: str = ""
    """What they are ordered by, in words."""
    use_case: UseCaseView | None = None
    directories: list[DirectoryView] = field(default_factory=list)
    unmet: list[str] = field(default_factory=list)
    """Where nothing matches: the conditions that no offer known here meets, each by itself."""


@dataclass(frozen=True)
class ReasonView:
    """One provider and why it does not take the job, in a sentence."""

    peer_id: str
    name: str
    sentence: str


@dataclass(frozen=True)
class ReasonGroup:
    code: str
    """price, gpu_none, gpu_busy, gpu_model, gpu_vram, gpu_count, cpus, memory, disk, provider, denied,
    backed_off, filter.FIELD, the code of a refusal, or fits."""
    title: str
    count: int
    """Providers; one that several reasons keep away is in several groups."""
    providers: list[ReasonView]
    """Those nearest to fitting, at most MAX_REASONS."""


@dataclass(frozen=True)
class ChangeView:
    """A change of the job that would help."""

    sentence: str
    providers: int
    """How many would then fit."""
    cost: float
    """How large the change is, see docs/market.md; the list is ordered by it."""
    fields: dict[str, str]
    """Field of the job file -> what it should say ("" = leave it out)."""


@dataclass(frozen=True)
class WhyView:
    job: str
    at_ms: int
    known: int
    """Live offers."""
    looked_at: int
    """All of them, or those nearest if there are very many."""
    fitting: int
    """Of those looked at."""
    asked: int
    """Providers asked for a quote."""
    agreed: int
    """Those of them that quoted."""
    groups: list[ReasonGroup]
    changes: list[ChangeView]


MAX_REASONS: Final = 50
"""Providers told by name in each group of a WhyView."""


@dataclass(frozen=True)
class ScoreView:
    """performance x reliability x efficiency, each 0 to 1, and sentences that say what they rest on."""

    peer_id: str
    name: str
    score: float
    performance: float
    reliability: float
    efficiency: float
    confidence: float
    newcomer: bool
    reasons: list[str]
    evidence: str = ""
    """Text of an evidence file, if it was asked for."""


@dataclass(frozen=True)
class StakeView:
    """A record in the contract's registry. Money in QU, over all leases that the contract counted."""

    registered: bool
    sentence: str
    stake: int = 0
    volume: int = 0
    completed: int = 0
    disputed: int = 0
    failed: int = 0
    """Disputes lost."""
    ratings: int = 0
    stars: int = 0
    """Sum of all ratings."""
    since_tick: int = 0
    exit_epoch: int = 0
    """At whose end the stake comes back; 0: it stays."""


@dataclass(frozen=True)
class DeniedView:
    peer_id: str
    name: str
    reason: str
    """"denied" or the code of what it failed with."""
    sentence: str
    until_ms: int
    """0 = until somebody removes it."""


@dataclass(frozen=True)
class DenyView:
    denied: list[DeniedView]
    """Everyone who is not hired at the moment, by choice or after a failure."""


@dataclass(frozen=True)
class DirectoriesView:
    directories: list[DirectoryView]
    heartbeats: list[str] = field(default_factory=list)
    """Peer ids of the directories that this provider's signs of life go to."""
    serving: int | None = None
    """If this node is a directory: providers heard from lately."""
