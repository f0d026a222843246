"""What a node is built on: opened resources that differ between the program and tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from escrow_bridge.chain import Chain
from escrow_bridge.qubic import Wallet
from ledger.store import RunSync, Store
from protocol.signing import NodeKey
from qubixd.effects import Prove
from qubixd.leases import Clock
from qubixd.machine import Machine
from qubixd.proof.build import Programs
from qubixd.runner import Runner
from qubixd.wire import Wire

DEFAULT_POLL_S: Final = 0.25


@dataclass(frozen=True)
class Parts:
    """Opened resources of one node; whoever opened them closes them."""

    key: NodeKey
    wallet: Wallet
    store: Store
    wire: Wire
    chain: Chain
    runner: Runner | None
    machine: Machine
    in_thread: RunSync
    now_ms: Clock
    poll_seconds: float = DEFAULT_POLL_S
    engine: Runner | None = None
    """A caller's own, asked of images only."""
    programs: Programs | None = None
    """What it sends into containers to prove machines; None: it proves none."""
    prove: Prove | None = None
    """How a caller proves a machine; None: it cannot."""
    internet: bool = False
    """Jobs may have it here."""
    hands_gpus: bool = True
    """What runs jobs can give them this machine's cards."""
    remarks: tuple[tuple[str, str], ...] = ()
    """(code, sentence) of what this machine could offer and does not."""
