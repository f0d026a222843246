"""Everything about proofs that one node runs: as a caller it proves, as a provider it carries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import trio

from protocol.lease_state import Lease
from qubixd.effects import Prove
from qubixd.jobfiles import JobFiles
from qubixd.leases import Leases
from qubixd.parts import Parts
from qubixd.proof.door import ProofDoor
from qubixd.proof.rechallenge import Rechallenges
from qubixd.proof.run import Prover
from qubixd.wire import Wire


@dataclass(frozen=True)
class Proving:
    """`prove` is None where this node has no program to send."""

    prove: Prove | None
    door: ProofDoor | None
    rechallenges: Rechallenges | None

    @classmethod
    def build(
        cls,
        parts: Parts,
        leases: Leases,
        files: JobFiles,
        addresses_of: Callable[[Lease], Sequence[str]],
    ) -> Self:
        prover = None
        if parts.programs is not None:
            prover = Prover(parts.wire, parts.key, parts.programs, addresses_of, parts.in_thread)
        return cls(
            prove=parts.prove or prover,
            door=ProofDoor(parts.key, leases, files, parts.runner, parts.in_thread) if parts.runner else None,
            rechallenges=Rechallenges(leases, prover.light, parts.now_ms) if prover else None,
        )

    def open(self, wire: Wire) -> None:
        """Begin to answer on a wire."""
        if self.door is not None:
            self.door.open(wire)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Ask machines again while their jobs run, until cancelled."""
        task_status.started()
        if self.rechallenges is not None:
            await self.rechallenges.run()
