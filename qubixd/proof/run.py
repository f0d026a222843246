"""The caller's side: opens the stream, sends the program, plays the verifier over it."""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from ledger.store import RunSync
from protocol import messages
from protocol.errors import (
    CompilerMissing,
    MachineError,
    PeerRefused,
    PeerUnreachable,
    StreamBroken,
)
from protocol.lease_state import Lease
from protocol.signing import NodeKey
from qubixd.proof.build import Programs
from qubixd.proof.plan import NotProvable, Plan, light_plan, plan_of
from qubixd.proof.verify import NO_ANSWER, TOO_SLOW, Proof, Verifier
from qubixd.talk import IDLE_TIMEOUT_S, patience, receive_signed, send_signed
from qubixd.wire import Stream, Wire

log = logging.getLogger("qubix.proof")

PROOF_PROTOCOL: Final = "/qubix/proof/1"
OPEN_S: Final = 30.0
"""For connecting and opening a stream."""
PIECE: Final = 65_536
TRIES: Final = 2
"""A line that hangs once must not end a lease. What was wrong is never tried again."""

Clock = Callable[[], float]


async def prove(
    stream: trio.abc.HalfCloseableStream,
    plan: Plan,
    now: Clock = trio.current_time,
    random_bytes: Callable[[int], bytes] = secrets.token_bytes,
) -> Proof:
    """Challenge the program at the other end of a stream. `now`: seconds, by which times are judged."""
    verifier = Verifier(plan, random_bytes)
    out = verifier.begin(now())
    while verifier.proof is None:
        with trio.move_on_after(max(0.0, verifier.deadline - now())) as scope:
            try:
                if out:
                    await stream.send_all(out)
                data = bytes(await stream.receive_some(PIECE))
            except (trio.BrokenResourceError, StreamBroken):
                data = b""
            out = verifier.receive(data, now()) if data else b""
            if not data:
                verifier.closed()
        if scope.cancelled_caught:
            verifier.expired()
    return verifier.proof


@dataclass(frozen=True)
class Prover:
    """Proves the machines of this node's leases, as their providers' offers had them when they were hired."""

    wire: Wire
    key: NodeKey
    programs: Programs
    addresses_of: Callable[[Lease], Sequence[str]]
    in_thread: RunSync

    async def __call__(self, lease: Lease) -> Proof:
        """The full proof of a lease. PeerUnreachable or StreamBroken before it has begun: ask again."""
        return await self._prove(lease, plan_of)

    async def light(self, lease: Lease) -> Proof:
        """While the job runs: little work, and time hardly counts."""
        return await self._prove(lease, light_plan)

    async def _prove(self, lease: Lease, planned: Callable[..., Plan]) -> Proof:
        arch = lease.arch or lease.terms.wish.arch
        try:
            plan = planned(lease.terms, lease.cards)
            program = await self.in_thread(lambda: self.programs.program(arch, plan.cuda))
        except (NotProvable, CompilerMissing, MachineError) as error:
            return Proof(False, error.code, str(error))
        proof = await prove_lease(self.wire, self.key, lease, self.addresses_of(lease), program, plan)
        log.info("machine of lease %s: %s", lease.lease_id.hex()[:16], told(proof))
        return proof


def told(proof: Proof) -> str:
    """A proof in a line of the log. Names are the machine's own: they come in quotes."""
    if not proof.ok:
        return f"{proof.code}: {proof.sentence}"
    names = sorted({repr(device.name) for device in proof.devices})
    return (
        f"proved, {proof.rate / 1e9:.0f} thousand million operations a second in {proof.compute_ms} ms, "
        f"memory read in {proof.memory_ms} ms, {len(proof.devices)} x {', '.join(names)}"
    )


async def prove_lease(
    wire: Wire, key: NodeKey, lease: Lease, addresses: Sequence[str], program: bytes, plan: Plan
) -> Proof:
    """Prove the machine of a lease whose container runs. What its provider refuses for good is no answer."""
    for more in reversed(range(TRIES)):
        proof = await _once(wire, key, lease, addresses, program, plan)
        if proof.ok or proof.code not in (NO_ANSWER, TOO_SLOW) or not more:
            break
    return proof


async def _once(
    wire: Wire, key: NodeKey, lease: Lease, addresses: Sequence[str], program: bytes, plan: Plan
) -> Proof:
    stream = None
    with trio.move_on_after(OPEN_S):
        stream = await wire.open(lease.terms.provider, PROOF_PROTOCOL, addresses)
    if stream is None:
        raise PeerUnreachable(f"the provider could not be reached within {OPEN_S:g} s")
    async with stream:
        try:
            await _start(stream, key, lease, program)
        except PeerRefused as error:
            return Proof(False, NO_ANSWER, f"the provider could not run the proof: {error}")
        return await prove(stream, plan)


async def _start(stream: Stream, key: NodeKey, lease: Lease, program: bytes) -> None:
    """Have the program run in the lease's container. PeerRefused, StreamBroken."""
    digest = hashlib.sha256(program).digest()
    await send_signed(stream, key.sign(messages.OpenProof(lease.lease_id, digest, len(program))))
    await receive_signed(stream, lease.terms.provider)  # it takes the program
    with patience(IDLE_TIMEOUT_S):
        try:
            await stream.send_all(program)
        except trio.BrokenResourceError as error:
            raise StreamBroken("the connection broke while the program of the proof was sent") from error
    await receive_signed(stream, lease.terms.provider)  # it runs
