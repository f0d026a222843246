"""Performs the lease machine's effects: messages, money, jobs. Each can be repeated without harm.

A QubixError that leaves here means "not yet": the lease loop tries again. Whatever can never
succeed comes back as an event, so that the machine decides what it means.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from escrow_bridge import layout
from escrow_bridge.bridge import Bridge
from escrow_bridge.qubic import Wallet
from ledger.store import Store
from protocol import lease_model as m
from protocol import messages
from protocol.errors import (
    ChainDisagrees,
    ChainUnreachable,
    DiskFull,
    FilesInvalid,
    ImageUnavailable,
    JobMissing,
    MessageInvalid,
    PeerRefused,
    QubixError,
    StartFailed,
)
from protocol.lease_model import Effect, Event
from protocol.lease_state import Lease, Role
from protocol.messages import MAX_MESSAGE_BYTES
from protocol.signing import NodeKey, Signed
from qubixd import cashier
from qubixd.jobfiles import MIB, JobFiles
from qubixd.leases import Clock, Task
from qubixd.runner import JobState, Runner, RunSpec
from qubixd.talk import (
    FILES_PROTOCOL,
    IDLE_TIMEOUT_S,
    LOGS_PROTOCOL,
    ask,
    patience,
    receive_signed,
    send_signed,
)
from qubixd.wire import Stream, Wire

log = logging.getLogger("qubix.effects")

STOP_GRACE_S: Final = 10.0
MAX_RESULT_BYTES: Final = 1 << 30
"""How much log a caller takes from a provider."""
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

    async def __call__(self, task: Task) -> Event | None:
        effect: Any = task.effect
        waits = (task.lease.lease_id, type(effect))
        try:
            event = await PERFORMERS[type(effect)](self, task, effect)
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
        stream = await self._open(lease, FILES_PROTOCOL)
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

    # --- jobs ---------------------------------------------------------------------------------

    async def run_pull(self, task: Task, effect: m.RunPull) -> Event | None:
        try:
            await self._runner.pull(task.lease.terms.image, lambda phase, share: None)
        except (ImageUnavailable, DiskFull) as error:
            return self._failed(error)
        return m.RunPulled(self.now_ms())

    async def run_start(self, task: Task, effect: m.RunStart) -> Event | None:
        lease_id = task.lease.lease_id
        try:
            if (await self._runner.status(lease_id)).state is JobState.ABSENT:
                await self.files.prepare_workspace(lease_id, task.lease.terms.wish.disk_mib)
            started_at = await self._runner.start(self._spec(task.lease))
        except (StartFailed, ImageUnavailable, DiskFull, FilesInvalid, MessageInvalid) as error:
            return self._failed(error)
        return m.RunStarted(started_at, self.now_ms())

    async def run_pause(self, task: Task, effect: m.RunPause) -> Event | None:
        await self._if_there(self._runner.pause(task.lease.lease_id))
        return None

    async def run_resume(self, task: Task, effect: m.RunResume) -> Event | None:
        await self._if_there(self._runner.resume(task.lease.lease_id))
        return None

    async def run_stop(self, task: Task, effect: m.RunStop) -> Event | None:
        await self._runner.stop(task.lease.lease_id, STOP_GRACE_S)
        return None

    async def run_collect(self, task: Task, effect: m.RunCollect) -> Event | None:
        lease_id, disk_mib = task.lease.lease_id, task.lease.terms.wish.disk_mib
        await self._if_there(self.files.keep_log(lease_id, self._runner.logs(lease_id, follow=False)))
        try:
            packed = await self.files.collect_outputs(lease_id, disk_mib)
        except FilesInvalid as error:
            log.warning("lease %s: outputs not collected: %s", lease_id.hex()[:12], error)
            packed = None
        await self._runner.remove(lease_id)
        if packed is None:
            return m.RunCollected(bytes(32), 0, self.now_ms())
        return m.RunCollected(packed.sha256, packed.size, self.now_ms())

    async def run_discard(self, task: Task, effect: m.RunDiscard) -> Event | None:
        await self._runner.stop(task.lease.lease_id, STOP_GRACE_S)
        await self._runner.remove(task.lease.lease_id)
        await self.files.forget(task.lease.lease_id, ("workspace", "inputs.tar", "secrets"))
        return None

    async def run_fetch(self, task: Task, effect: m.RunFetch) -> Event | None:
        lease, size = task.lease, effect.outputs_bytes
        try:
            await self._fetch_log(lease)
            if size:
                await self._fetch_outputs(lease, effect)
                target = Path(lease.output_dir)
                await self.files.deliver_outputs(lease.lease_id, effect.outputs_sha256, target)
        except (PeerRefused, FilesInvalid, MessageInvalid, DiskFull, OSError) as error:
            code = error.code if isinstance(error, QubixError) else "disk.unwritable"
            return m.RunFetched(code, f"the outputs could not be fetched: {error}", self.now_ms())
        return m.RunFetched("", "", self.now_ms())

    async def _fetch_outputs(self, lease: Lease, effect: m.RunFetch) -> None:
        limit = lease.terms.wish.disk_mib * MIB + 2 * MIB
        if effect.outputs_bytes > limit:
            raise MessageInvalid(f"the provider announces {effect.outputs_bytes} bytes of outputs")
        target = self.files.path(lease.lease_id, "outputs.tar")
        stream = await self._open(lease, FILES_PROTOCOL)
        async with stream:
            await send_signed(stream, self.key.sign(messages.GetOutputs(lease.lease_id, 0)))
            await stream.send_eof()
            await receive_signed(stream, lease.terms.provider)
            await self.files.receive_file(stream, target, effect.outputs_bytes, effect.outputs_sha256)

    async def _fetch_log(self, lease: Lease) -> None:
        stream = await self._open(lease, LOGS_PROTOCOL)
        async with stream:
            request = messages.GetLogs(lease.lease_id, offset=0, follow=False)
            await send_signed(stream, self.key.sign(request))
            await stream.send_eof()
            await receive_signed(stream, lease.terms.provider)
            await self.files.keep_log(lease.lease_id, read_all(stream, MAX_RESULT_BYTES))

    async def _open(self, lease: Lease, protocol: str) -> Stream:
        return await self.wire.open(lease.terms.provider, protocol, self.addresses_of(lease))

    @property
    def _runner(self) -> Runner:
        assert self.runner is not None, "only providers have jobs to run"
        return self.runner

    async def _if_there(self, action: Awaitable[None]) -> None:
        try:
            await action
        except JobMissing:
            log.debug("no job is left to act on")

    def _failed(self, error: QubixError) -> Event:
        return m.RunFailed(error.code, str(error), self.now_ms())

    def _gpu_uuids(self, lease: Lease) -> tuple[str, ...]:
        try:
            return tuple(self.gpu_uuid_of(digest) for digest in lease.terms.gpu_digests)
        except KeyError as error:
            raise StartFailed("a graphics card of this lease is not in this machine any more") from error

    def _spec(self, lease: Lease) -> RunSpec:
        order, wish = self.files.order(lease.lease_id), lease.terms.wish
        return RunSpec(
            lease_id=lease.lease_id,
            image=order.image,
            script=order.script,
            env=order.envs,
            secrets=self.files.secrets(lease.lease_id),
            workspace=self.files.path(lease.lease_id, "workspace"),
            gpu_uuids=self._gpu_uuids(lease),
            cpu_millis=wish.cpu_millis,
            memory_bytes=wish.memory_mib * MIB,
            disk_bytes=wish.disk_mib * MIB,
        )


async def read_all(stream: Stream, max_bytes: int) -> Any:
    """The rest of a stream in chunks, cut off at `max_bytes`."""
    left = max_bytes
    while left:
        with patience(IDLE_TIMEOUT_S):
            chunk = bytes(await stream.receive_some(min(MAX_MESSAGE_BYTES, left)))
        if not chunk:
            return
        left -= len(chunk)
        yield chunk


Do = Callable[[Performer, Task, Any], Awaitable[Event | None]]
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
    m.RunPull: Performer.run_pull,
    m.RunStart: Performer.run_start,
    m.RunPause: Performer.run_pause,
    m.RunResume: Performer.run_resume,
    m.RunStop: Performer.run_stop,
    m.RunCollect: Performer.run_collect,
    m.RunDiscard: Performer.run_discard,
    m.RunFetch: Performer.run_fetch,
}
"""Every effect has its performer; a missing one fails the test that compares both tables."""
