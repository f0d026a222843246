"""Performs the lease machine's effects: messages here, money in cashier.py, jobs in job_effects.py.

Each can be repeated without harm.

A QubixError that leaves here means "not yet": the lease loop tries again. Whatever can never
succeed comes back as an event, so that the machine decides what it means.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from escrow_bridge import layout
from escrow_bridge.bridge import Bridge
from escrow_bridge.qubic import Wallet
from ledger.store import Store
from protocol import lease_model as m
from protocol import messages
from protocol.errors import (
    ChainDisagrees,
    ChainUnreachable,
    PeerRefused,
)
from protocol.image_needs import NOTHING, Need
from protocol.lease_model import Effect, Event
from protocol.lease_state import Lease, Role
from protocol.relay_lease import is_relay
from protocol.signing import NodeKey, Signed
from qubixd import cashier, job_effects, relay_lease
from qubixd.jobfiles import JobFiles
from qubixd.leases import Clock, Task
from qubixd.progress import ProgressTeller
from qubixd.runner import Runner
from qubixd.talk import (
    FILES_PROTOCOL,
    ask,
    receive_signed,
    send_signed,
)
from qubixd.wire import Stream, Wire

log = logging.getLogger("qubix.effects")


class Verdict(Protocol):
    """Of a proof: an empty code says that the machine is what was rented."""

    @property
    def code(self) -> str: ...

    @property
    def sentence(self) -> str: ...


Prove = Callable[[Lease], Awaitable[Verdict]]

FOR_NOW: Final = ("disk.", "ledger.", "machine.", "runner.", "chain.", "internal.")
"""Beginnings of codes by which a peer tells of trouble of its own."""
GONE: Final = frozenset({"lease.unknown"})
"""Refusals that say: the peer has forgotten this lease, there is nobody to tell."""


@dataclass(frozen=True)
class Performer:
    """Everything an effect may touch. An instance is the lease loop's `Perform`."""

    wire: Wire
    key: NodeKey
    wallet: Wallet
    store: Store
    bridge: Bridge
    runner: Runner | None
    files: JobFiles
    now_ms: Clock
    gpu_uuid_of: Callable[[bytes], str]
    """GPU digest -> the UUID the runner is given."""
    addresses_of: Callable[[Lease], Sequence[str]]
    """Where the other side of a lease may be dialled now."""
    progress: ProgressTeller
    machine: Need = NOTHING
    """What images may need here."""
    prove: Prove | None = None
    """How a caller proves a machine; None: it cannot."""

    async def __call__(self, task: Task) -> Event | None:
        effect: Any = task.effect
        waits = (task.lease.lease_id, type(effect))
        try:
            event = await _performed(self, task, effect)
        except (ChainUnreachable, ChainDisagrees) as error:
            self.bridge.waiting.because(waits, str(error))
            raise
        except BaseException:  # of another kind: it is not the chain any more that it waits for
            self.bridge.waiting.over(waits)
            raise
        self.bridge.waiting.over(waits)
        return event

    # --- messages -----------------------------------------------------------------------------

    async def tell(self, lease: Lease, message: object) -> Signed | None:
        """Send and have it acknowledged. None when the peer refuses it for good: telling again is useless.

        A peer whose disk is full or whose engine is down will take it later: PeerRefused.
        """
        peer = lease.terms.provider if lease.role is Role.CALLER else lease.terms.caller
        try:
            return await ask(self.wire, self.key, peer, message, self.addresses_of(lease))
        except PeerRefused as error:
            if error.refusal_code.startswith(FOR_NOW):
                raise
            if error.refusal_code not in GONE:
                log.warning("%s was refused: %s", type(message).__name__, error)
            return None

    async def send_accept(self, task: Task, effect: m.SendAccept) -> Event | None:
        accept = messages.Accept(effect.signed_terms, self.wire.addresses[:8])
        terms, addresses = task.lease.terms, self.addresses_of(task.lease)
        try:
            await ask(self.wire, self.key, terms.provider, accept, addresses)
        except PeerRefused as error:
            return m.ReceiveRefused(error.refusal_code, str(error), self.now_ms())
        return m.ReceiveAccepted(self.now_ms())

    async def send_inputs(self, task: Task, effect: m.SendInputs) -> Event | None:
        lease, files = task.lease, self.files
        order = files.path(lease.lease_id, "order").read_bytes()
        secrets = files.path(lease.lease_id, "secrets").read_bytes()
        stream = await self.open(lease, FILES_PROTOCOL)
        async with stream:
            await send_signed(stream, self.key.sign(messages.PutInputs(lease.lease_id, order, secrets)))
            try:
                await receive_signed(stream, lease.terms.provider)  # ready to take the archive
                await files.send_file(stream, files.path(lease.lease_id, "inputs.tar"))
                await receive_signed(stream, lease.terms.provider)  # it is there and whole
            except PeerRefused as error:
                return m.ReceiveRefused(error.refusal_code, str(error), self.now_ms())
        return m.ReceiveInputs(self.now_ms())

    async def send_funded(self, task: Task, effect: m.SendFunded) -> Event | None:
        lease_id = task.lease.lease_id
        await self.tell(task.lease, messages.Funded(lease_id, effect.escrow_id, effect.open_tick))
        return None

    async def send_prepared(self, task: Task, effect: m.SendPrepared) -> Event | None:
        await self.tell(task.lease, messages.Prepared(task.lease.lease_id))
        return None

    async def send_go(self, task: Task, effect: m.SendGo) -> Event | None:
        await self.tell(task.lease, messages.Go(task.lease.lease_id))
        return None

    async def send_pause(self, task: Task, effect: m.SendPause) -> Event | None:
        await self.tell(task.lease, messages.Pause(task.lease.lease_id, effect.sequence))
        return None

    async def send_resume(self, task: Task, effect: m.SendResume) -> Event | None:
        await self.tell(task.lease, messages.Resume(task.lease.lease_id, effect.sequence))
        return None

    async def send_restart(self, task: Task, effect: m.SendRestart) -> Event | None:
        await self.tell(task.lease, messages.Restart(task.lease.lease_id, effect.nonce))
        return None

    async def send_extended(self, task: Task, effect: m.SendExtended) -> Event | None:
        await self.tell(task.lease, messages.Extended(task.lease.lease_id, effect.signed_extension))
        return None

    async def send_running(self, task: Task, effect: m.SendRunning) -> Event | None:
        age_ms = max(0, self.now_ms() - effect.started_at)
        await self.tell(task.lease, messages.Running(task.lease.lease_id, age_ms))
        return None

    async def send_meter(self, task: Task, effect: m.SendMeter) -> Event | None:
        await self.tell(task.lease, messages.Meter(task.lease.lease_id, effect.seconds))
        return None

    async def send_voucher(self, task: Task, effect: m.SendVoucher) -> Event | None:
        signature = self.wallet.sign(layout.voucher_digest(effect.escrow_id, effect.cumulative))
        lease_id = task.lease.lease_id
        await self.tell(
            task.lease, messages.Voucher(lease_id, effect.escrow_id, effect.cumulative, signature)
        )
        return None

    async def send_stop(self, task: Task, effect: m.SendStop) -> Event | None:
        await self.tell(task.lease, messages.Stop(task.lease.lease_id, effect.reason[:64]))
        return None

    async def send_exited(self, task: Task, effect: m.SendExited) -> Event | None:
        message = messages.Exited(
            lease_id=task.lease.lease_id,
            exit_code=effect.exit_code,
            reason=effect.reason[:64],
            sentence=effect.sentence[:512],
            seconds=effect.seconds,
            outputs_sha256=effect.outputs_sha256,
            outputs_bytes=effect.outputs_bytes,
        )
        await self.tell(task.lease, message)
        return None

    async def open(self, lease: Lease, protocol: str) -> Stream:
        return await self.wire.open(lease.terms.provider, protocol, self.addresses_of(lease))


Do = Callable[[Performer, Task, Any], Awaitable[Event | None]]


async def _performed(performer: Performer, task: Task, effect: Any) -> Event | None:
    if is_relay(task.lease.terms) and (answer := relay_lease.ANSWERS.get(type(effect))):
        return answer(task.lease, effect, performer.now_ms())
    return await PERFORMERS[type(effect)](performer, task, effect)


PERFORMERS: Final[dict[type[Effect], Do]] = {
    m.SendAccept: Performer.send_accept,
    m.SendInputs: Performer.send_inputs,
    m.SendFunded: Performer.send_funded,
    m.SendRunning: Performer.send_running,
    m.SendMeter: Performer.send_meter,
    m.SendVoucher: Performer.send_voucher,
    m.SendStop: Performer.send_stop,
    m.SendExited: Performer.send_exited,
    m.ChainOpen: cashier.chain_open,
    m.ChainVerify: cashier.chain_verify,
    m.ChainClose: cashier.chain_close,
    m.ChainRedeem: cashier.chain_redeem,
    m.ChainRequestClose: cashier.chain_request_close,
    m.RunPull: job_effects.run_pull,
    m.RunStart: job_effects.run_start,
    m.RunPause: job_effects.run_pause,
    m.RunResume: job_effects.run_resume,
    m.RunStop: job_effects.run_stop,
    m.RunCollect: job_effects.run_collect,
    m.RunDiscard: job_effects.run_discard,
    m.RunFetch: job_effects.run_fetch,
    m.SendPrepared: Performer.send_prepared,
    m.RunProve: job_effects.run_prove,
    m.SendGo: Performer.send_go,
    m.RunGo: job_effects.run_go,
    m.SendPause: Performer.send_pause,
    m.SendResume: Performer.send_resume,
    m.SendRestart: Performer.send_restart,
    m.RunRestart: job_effects.run_restart,
    m.ChainTopUp: cashier.chain_top_up,
    m.SendExtended: Performer.send_extended,
}
"""Every effect has its performer; a missing one fails the test that compares both tables."""
