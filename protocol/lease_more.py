"""What the lease machine says of more time for a running lease; `lease_model` has the tables that number it.

The protocol is in lease_extension.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol.extension_messages import Extension
from protocol.units import Qu, Tick, UnixMs

# --- events -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ActionExtend:
    """Caller: a person takes more time. `signed` is the provider's envelope around the extension; `order` is
    the id under which it was ordered."""

    extension: Extension
    signed: bytes
    order: str
    now: UnixMs


@dataclass(frozen=True)
class ChainToppedUp:
    """The escrow has been seen to hold `deposit` in all, and that it lasts until `deadline_tick`."""

    deposit: Qu
    deadline_tick: Tick
    now: UnixMs


@dataclass(frozen=True)
class ChainTopUpFailed:
    """Caller: the money for the extension of that number is not in the escrow, and will not be."""

    number: int
    sentence: str
    now: UnixMs


@dataclass(frozen=True)
class ReceiveExtended:
    """Provider: the caller has paid for an extension, which this node had signed."""

    extension: Extension
    now: UnixMs


# --- effects ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ChainTopUp:
    """Caller: make the escrow hold `deposit` instead of `before`, until `deadline_tick`."""

    number: int
    before: Qu
    deposit: Qu
    deadline_tick: Tick


@dataclass(frozen=True)
class SendExtended:
    signed_extension: bytes
