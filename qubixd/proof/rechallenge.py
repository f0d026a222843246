"""Random proofs while a job runs: whoever swaps the machine after the first one is found within minutes.

They are light: the job uses the same GPUs. A wrong answer ends the lease, no answer counts only when it
comes several times in a row.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import trio

from protocol import lease_model as m
from protocol.errors import QubixError
from protocol.lease_state import Lease, Phase, Role
from protocol.units import LeaseId
from qubixd.leases import Clock, Leases
from qubixd.proof.verify import NO_ANSWER, TOO_SLOW, Proof

MEAN_S: Final = 600.0
"""Between two proofs of one lease. A look every LOOK_S decides by chance, so that none can be foreseen."""
LOOK_S: Final = 10.0
PATIENCE: Final = 3
"""So many proofs in a row may go without an answer: the job may have filled the GPU's memory, or the line
is bad. The vouchers end a lease whose provider is really gone."""
FORGIVEN: Final = frozenset({NO_ANSWER, TOO_SLOW})


@dataclass(frozen=True)
class Rechallenges:
    """`light` proves one lease; `chance` draws a number from 0 to 1."""

    leases: Leases
    light: Callable[[Lease], Awaitable[Proof]]
    now_ms: Clock
    chance: Callable[[], float] = lambda: secrets.randbelow(1 << 53) / (1 << 53)
    mean_s: float = MEAN_S
    missed: Counter[LeaseId] = field(default_factory=Counter)
    busy: set[LeaseId] = field(default_factory=set)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look at every running lease now and then, until cancelled."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                await trio.sleep(LOOK_S)
                running = {lease.lease_id: lease for lease in self.leases.active() if wants_proof(lease)}
                for lease_id in self.missed.keys() - running.keys():
                    del self.missed[lease_id]
                for lease_id in running.keys() - self.busy:
                    if self.chance() < LOOK_S / self.mean_s:
                        nursery.start_soon(self.challenge, running[lease_id])

    async def challenge(self, lease: Lease) -> None:
        """One light proof, and what follows from it."""
        self.busy.add(lease.lease_id)
        try:
            proof = await self.light(lease)
        except QubixError as error:
            proof = Proof(False, NO_ANSWER, str(error))
        finally:
            self.busy.discard(lease.lease_id)
        if not wants_proof(await self.leases.get(lease.lease_id)):
            return  # frozen or ended meanwhile: no answer was to be expected
        if proof.ok:
            del self.missed[lease.lease_id]
        elif proof.code in FORGIVEN:
            self.missed[lease.lease_id] += 1
        if proof.ok or proof.code not in FORGIVEN or self.missed[lease.lease_id] >= PATIENCE:
            await self.leases.feed(lease.lease_id, m.RunProved(proof.code, proof.sentence, self.now_ms()))


def wants_proof(lease: Lease) -> bool:
    """A caller's lease that asked for proofs and whose job runs now."""
    is_running = lease.phase is Phase.RUNNING and not lease.frozen
    return lease.role is Role.CALLER and lease.terms.proof and is_running
