"""The control API's subscription: what a front end shows, told again whenever it has changed.

Arguments and events of `watch`; frames and all else are in protocol/control.py. First comes the present
state, then an event of the kind `present`, then each change. A reader who is slow gets the newest state
of everything rather than each step to it; notices are told one by one, of very many only the last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from msgspec import Meta

from protocol.control_leases import LeaseView
from protocol.control_wallet import WalletView

EVENTS_A_SECOND: Final = 4
"""At most so often each lease, the wallet and the market are told."""
NOTICES_IN_LEDGER: Final = 100
"""The daemon keeps so many."""
NOTICES_KEPT: Final = 64
"""That wait for one slow reader; of more the oldest are dropped."""


@dataclass(frozen=True)
class WatchArgs:
    """Follow this node. Events are WatchEvent; it ends with the connection only."""

    leases: bool = True
    """Of active leases the present state, then every lease that changes, to its end."""
    wallet: bool = True
    market: bool = False
    notices: bool = True
    """What happens from now on; nothing of the past."""


@dataclass(frozen=True)
class MarketPulse:
    """That the offers have changed, not how: `market` tells that."""

    changes: int
    """Grows with every offer that comes, changes or goes."""
    offers: int
    """Live ones known here."""


@dataclass(frozen=True)
class NoticeView:
    """Something a person wants to hear of wherever he looks just now."""

    code: str
    """A NOTICES key."""
    severity: Literal["good", "info", "warning", "bad"]
    sentence: str
    """Contains names that others chose."""
    lease_id: str
    """Empty where it is about no lease."""
    at_ms: int


@dataclass(frozen=True)
class NoticesArgs:
    """What happened lately, also while nobody watched: the last of those with a number above `after`."""

    limit: Annotated[int, Meta(ge=1, le=NOTICES_IN_LEDGER)] = NOTICES_IN_LEDGER
    after: Annotated[int, Meta(ge=0)] = 0


@dataclass(frozen=True)
class KeptNotice:
    number: int
    """Rises; never used twice."""
    notice: NoticeView


@dataclass(frozen=True)
class NoticesView:
    notices: list[KeptNotice]
    """Newest first."""


NOTICES: Final[dict[str, str]] = {
    "lease.ready": "a rented machine is ready and the job runs",
    "lease.budget": "a job has used 80 % of the time it was rented for",
    "lease.extended": "a job has been given more time",
    "lease.peer_lost": "a provider does not answer any more",
    "lease.peer_back": "it answers again",
    "lease.ended": "a job has ended, and how",
    "lease.taken": "a caller has rented this machine",
    "wallet.payout": "a lease was settled, and this provider has been paid",
    "wallet.received": "money came into the wallet that this node did not earn, or went that it did not send",
    "shop.closed": "this provider takes no new jobs any more, for a reason of the machine's",
    "shop.open": "it takes jobs again",
    "chain.behind": "the chain has to be waited for",
    "chain.back": "the chain goes on",
}
"""Code of a notice -> when it comes."""


@dataclass(frozen=True)
class WatchEvent:
    """One of the four below is set, the one that `kind` names; none for `present`."""

    kind: Literal["lease", "wallet", "market", "notice", "present"]
    """`present`: all that there was when it began has been told."""
    at_ms: int
    lease: LeaseView | None = None
    wallet: WalletView | None = None
    market: MarketPulse | None = None
    notice: NoticeView | None = None
