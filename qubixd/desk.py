"""The desk: what this node answers when peers come to it.

Three protocols: quotes and lease messages, job files, logs. Every message is signed by the peer
that the wire has authenticated, and everything about a lease only by that lease's other side.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from escrow_bridge import layout, qubic
from protocol import lease_model as m
from protocol import lease_provider, messages, signing
from protocol.errors import (
    CapacityTaken,
    ConfigInvalid,
    JobMissing,
    LeaseUnknown,
    MessageInvalid,
    QubixError,
    Refused,
    SignatureInvalid,
    StreamBroken,
    VoucherInvalid,
)
from protocol.image_needs import Need
from protocol.lease import max_loss_if_gone, max_loss_words
from protocol.lease_model import Event
from protocol.lease_state import BEFORE_RUNNING, TERMINAL, Lease, Role
from protocol.messages import MAX_MESSAGE_BYTES, MAX_ORDER_BYTES, MAX_SEALED_BYTES, Ack
from protocol.relay_lease import RELAY_IMAGE, RELAY_WISH, is_relay
from protocol.signing import NodeKey, Signed
from protocol.units import LeaseId, PeerKey, UnixMs
from qubixd import extensions, quotes
from qubixd.image_check import check_image
from qubixd.jobfiles import MIB, TAR_SLACK_BYTES, JobFiles, decode_secrets, write_private
from qubixd.leases import Clock, Leases
from qubixd.quotes import House
from qubixd.runner import Runner
from qubixd.seats import Seats
from qubixd.talk import (
    FILES_PROTOCOL,
    IDLE_TIMEOUT_S,
    LEASE_PROTOCOL,
    LOGS_PROTOCOL,
    REQUEST_TIMEOUT_S,
    answer_one,
    patience,
    receive_signed,
    refusal_of,
    send_signed,
)
from qubixd.wire import Stream, Wire

log = logging.getLogger("qubix.desk")

Write = Callable[[bytes], Awaitable[None]]
MAX_READERS: Final = 8
"""Of one lease's log at a time."""
MAX_UNFUNDED: Final = 32
MAX_UNFUNDED_PER_CALLER: Final = 8
MAX_PUT_BYTES: Final = MAX_ORDER_BYTES + MAX_SEALED_BYTES + signing.ENVELOPE_OVERHEAD_BYTES


@dataclass(frozen=True)
class Desk:
    """Serves the protocols of one node. `house` says what there is to rent at this moment."""

    key: NodeKey
    leases: Leases
    files: JobFiles
    runner: Runner | None
    now_ms: Clock
    house: Callable[[], House]
    relay_house: Callable[[], House]
    """The same of this node's relay. RelayNotForRent."""
    accepting: trio.Lock
    uploads: dict[LeaseId, trio.CancelScope] = field(default_factory=dict)
    """Input files that are arriving."""
    readers: Seats = field(default_factory=lambda: Seats(MAX_READERS, "readers follow the log"))
    """Each holds a thread of the runner's while it waits for output."""
    progress: dict[LeaseId, messages.Progress] = field(default_factory=dict)
    """Caller: what providers say of how far they have come."""

    def open(self, wire: Wire) -> None:
        """Begin to answer on a wire."""
        wire.serve(LEASE_PROTOCOL, self.serve_lease)
        wire.serve(FILES_PROTOCOL, self.serve_files)
        wire.serve(LOGS_PROTOCOL, self.serve_logs)

    async def serve_lease(self, stream: Stream, peer: PeerKey) -> None:
        await answer_one(stream, peer, self.key, self.answer)

    async def answer(self, signed: Signed) -> object:
        handler = ANSWERS.get(type(signed.message))
        if handler is None:
            raise MessageInvalid(f"{type(signed.message).__name__} is not a question")
        return await handler(self, signed)

    # --- making a lease -----------------------------------------------------------------------

    async def quote(self, signed: Signed) -> object:
        house = self._house(signed.message.image, signed.message.wish)
        terms = quotes.make_terms(house, signed.message, signed.signer, self.now_ms())
        if self.runner is not None and not is_relay(terms):
            await check_image(self.runner, terms.image, terms.wish, Need(house.arch, house.cuda))
        log.info(
            "quote for %s: %d QU per hour; you can lose %s, or %d QU if this node never comes back",
            signed.signer.hex()[:12],
            terms.price_qu_per_hour,
            max_loss_words(Role.PROVIDER, terms),
            max_loss_if_gone(terms),
        )
        return terms

    async def accept(self, signed: Signed) -> object:
        accept: messages.Accept = signed.message
        own = signing.verify(accept.signed_terms)
        if own.signer != self.key.public or not isinstance(own.message, messages.Terms):
            raise SignatureInvalid("these terms were not signed by this provider")
        lease_id = lease_id_of(accept.signed_terms)
        async with self.accepting:  # two acceptances never take the same capacity
            try:
                lease = await self.leases.get(lease_id)
                if lease.terms.caller != signed.signer:
                    raise Refused("these terms are between other parties")
            except LeaseUnknown:
                now = self.now_ms()
                house = self._house(own.message.image, own.message.wish)
                quotes.check_acceptable(own.message, house, signed.signer, now)
                self._check_unfunded(signed.signer)
                lease, effects = lease_provider.new(
                    lease_id, own.message, peer_addresses=accept.addresses, now=now
                )
                await self.leases.add(lease, effects, m.ReceiveAccepted(now))
        return Ack()

    def _house(self, image: str, wish: messages.Wish) -> House:
        """What is rented out under that name."""
        if image != RELAY_IMAGE:
            return self.house()
        if wish != RELAY_WISH:  # or somebody could send it files
            raise ConfigInvalid("a relay is rented as it is; it has no parts to choose from")
        return self.relay_house()

    def _check_unfunded(self, caller: PeerKey) -> None:
        """Whoever has locked no money yet costs us memory, disk and traffic: so many of them, no more."""
        waiting = [one.terms.caller for one in self.leases.active() if _is_unfunded(one)]
        if waiting.count(caller) >= MAX_UNFUNDED_PER_CALLER or len(waiting) >= MAX_UNFUNDED:
            raise CapacityTaken("too many leases here wait for their deposit; lock it, or try again later")

    # --- during a lease -----------------------------------------------------------------------

    async def voucher(self, signed: Signed) -> object:
        message: messages.Voucher = signed.message
        lease = await self._lease_with(signed, Role.PROVIDER)
        check_voucher(message, lease)
        event = m.ReceiveVoucher(message.cumulative, message.signature, self.now_ms())
        await self.leases.feed(lease.lease_id, event)
        return Ack()

    async def progressed(self, signed: Signed) -> object:
        """Kept in memory, the newest of each lease that is being prepared."""
        lease = await self._lease_with(signed, Role.CALLER)
        if lease.phase in BEFORE_RUNNING:
            active = {one.lease_id for one in self.leases.active()}
            for ended in self.progress.keys() - active:
                del self.progress[ended]
            self.progress[lease.lease_id] = signed.message
            self.leases.announce(lease.lease_id)
        return Ack()

    async def _lease_with(self, signed: Signed, role: Role) -> Lease:
        """The lease a message speaks of, if its signer is the other side of it."""
        return await self.leases.shared(LeaseId(signed.message.lease_id), signed.signer, role)

    # --- files and logs -----------------------------------------------------------------------

    async def serve_files(self, stream: Stream, peer: PeerKey) -> None:
        with patience(REQUEST_TIMEOUT_S):
            signed = await receive_signed(stream, peer, MAX_PUT_BYTES)
        await self._or_refuse(stream, self._files(stream, signed))

    async def _files(self, stream: Stream, signed: Signed) -> None:
        match signed.message:
            case messages.PutInputs():
                await self._take_inputs(stream, signed)
            case messages.GetOutputs():
                await self._give_outputs(stream, signed)
            case _:
                raise MessageInvalid("this is the protocol for job files")

    async def _take_inputs(self, stream: Stream, signed: Signed) -> None:
        lease = await self._lease_with(signed, Role.PROVIDER)
        put: messages.PutInputs = signed.message
        order = _checked_order(put, lease, self.key)
        folder = self.files.folder(lease.lease_id)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._only_upload(lease.lease_id):
            await send_signed(stream, self.key.sign(Ack()))
            archive = folder / "inputs.tar"
            await self.files.receive_file(stream, archive, order.inputs_bytes, order.inputs_sha256)
        await self.files.in_thread(lambda: write_private(folder / "secrets", put.secrets))
        await self.files.in_thread(lambda: write_private(folder / "order", put.order))
        event = m.ReceiveInputs(self.now_ms(), order.restart, order.restarts, awaits_ready=bool(order.ready))
        await self.leases.feed(lease.lease_id, event)
        await send_signed(stream, self.key.sign(Ack()))

    @contextmanager
    def _only_upload(self, lease_id: LeaseId) -> Iterator[None]:
        """A caller that begins anew has lost the stream before, or wants to fill this disk."""
        scope = trio.CancelScope()
        if before := self.uploads.pop(lease_id, None):
            before.cancel()
        self.uploads[lease_id] = scope
        try:
            with scope:
                yield
        finally:
            if self.uploads.get(lease_id) is scope:
                del self.uploads[lease_id]
        if scope.cancelled_caught:
            raise StreamBroken("the caller began to send its files anew")

    async def _give_outputs(self, stream: Stream, signed: Signed) -> None:
        lease = await self._lease_with(signed, Role.PROVIDER)
        archive = self.files.path(lease.lease_id, "outputs.tar")
        if not archive.exists():
            raise JobMissing("the outputs of this job are not kept here any more")
        await send_signed(stream, self.key.sign(Ack()))
        await self.files.send_file(stream, archive, signed.message.offset)

    async def serve_logs(self, stream: Stream, peer: PeerKey) -> None:
        with patience(REQUEST_TIMEOUT_S):
            signed = await receive_signed(stream, peer)
        await self._or_refuse(stream, self._logs(stream, signed))

    async def _logs(self, stream: Stream, signed: Signed) -> None:
        if not isinstance(signed.message, messages.GetLogs):
            raise MessageInvalid("this is the protocol for logs")
        lease = await self._lease_with(signed, Role.PROVIDER)

        async def write(data: bytes) -> None:
            with patience(IDLE_TIMEOUT_S):
                await stream.send_all(data)

        with self.readers.one(lease.lease_id):
            await send_signed(stream, self.key.sign(Ack()))
            await self.give_log(lease, signed.message, write)

    async def give_log(self, lease: Lease, wanted: messages.GetLogs, write: Write) -> None:
        """A job's output from this machine: what the runner has (and will have), then what was kept of it.

        A follower that comes before the job waits for it. One that is still reading when the container
        goes is given the rest from the kept log.
        """
        kept = self.files.path(lease.lease_id, "job.log")
        if wanted.follow:
            await self._until_started(lease.lease_id)
        given = wanted.offset
        if self.runner is not None and not kept.exists():
            chunks = self.runner.logs(lease.lease_id, follow=wanted.follow, offset=wanted.offset)
            with suppress(JobMissing):
                async with aclosing(chunks):
                    async for chunk in chunks:
                        await write(chunk)
                        given += len(chunk)
        if kept.exists():
            with kept.open("rb") as file:
                file.seek(given)
                while chunk := await self.files.in_thread(lambda: file.read(MAX_MESSAGE_BYTES)):
                    await write(chunk)

    async def _until_started(self, lease_id: LeaseId) -> None:
        with self.leases.listen(lease_id) as changes:
            lease = await self.leases.get(lease_id)
            while lease.phase in BEFORE_RUNNING and not lease.released:
                lease = await changes.receive()

    async def _or_refuse(self, stream: Stream, serving: Awaitable[None]) -> None:
        try:
            await serving
        except StreamBroken:
            raise
        except QubixError as error:
            await send_signed(stream, self.key.sign(refusal_of(error)))
        await stream.send_eof()


def _is_unfunded(lease: Lease) -> bool:
    return lease.role is Role.PROVIDER and not lease.escrow_id


def lease_id_of(signed_terms: bytes) -> LeaseId:
    """SHA-256 of the provider's envelope around the terms."""
    return LeaseId(hashlib.sha256(signed_terms).digest())


def check_voucher(voucher: messages.Voucher, lease: Lease) -> None:
    """VoucherInvalid unless the escrow of this lease would pay it. One that is for no more than an earlier
    one is right but worth nothing; the lease machine passes over it."""
    if lease.phase in TERMINAL:
        raise LeaseUnknown("this lease has ended, its escrow takes no more vouchers")
    if voucher.escrow_id != lease.escrow_id:
        raise VoucherInvalid("the voucher is for another escrow")
    if voucher.cumulative > lease.terms.deposit:
        raise VoucherInvalid(f"the voucher is above the deposit of {lease.terms.deposit} QU")
    digest = layout.voucher_digest(voucher.escrow_id, voucher.cumulative)
    if not qubic.verify(lease.terms.caller_id, digest, voucher.signature):
        raise VoucherInvalid("the voucher's signature is not the caller's")


def _checked_order(put: messages.PutInputs, lease: Lease, key: NodeKey) -> messages.JobOrder:
    if lease.phase in TERMINAL:
        raise LeaseUnknown("this lease has ended")
    if hashlib.sha256(put.order).digest() != lease.terms.order_sha256:
        raise MessageInvalid("this is not the job that was quoted")
    order: Any = messages.decode(put.order, MAX_ORDER_BYTES)
    if not isinstance(order, messages.JobOrder) or order.image != lease.terms.image:
        raise MessageInvalid("this is not the job that was quoted")
    secrets = key.open_sealed(put.secrets)
    if hashlib.sha256(secrets).digest() != order.secrets_sha256:
        raise MessageInvalid("the secrets are not those of this job")
    decode_secrets(secrets)
    if order.inputs_bytes > lease.terms.wish.disk_mib * MIB + TAR_SLACK_BYTES:
        raise MessageInvalid("the input files are larger than the disk that was rented")
    return order


Handler = Callable[[Desk, Signed], Awaitable[object]]


def _happens(role: Role, event: Callable[[Any, UnixMs], Event]) -> Handler:
    """The answer to a message that is an event for the lease it names; `role` is ours in it."""

    async def answer(desk: Desk, signed: Signed) -> object:
        lease = await desk._lease_with(signed, role)
        await desk.leases.feed(lease.lease_id, event(signed.message, desk.now_ms()))
        return Ack()

    return answer


def _exited(said: messages.Exited, now: UnixMs) -> Event:
    return m.ReceiveExited(
        exit_code=said.exit_code,
        reason=said.reason,
        sentence=said.sentence,
        seconds=said.seconds,
        outputs_sha256=said.outputs_sha256,
        outputs_bytes=said.outputs_bytes,
        now=now,
    )


ANSWERS: Final[dict[type, Handler]] = {
    messages.QuoteRequest: Desk.quote,
    messages.Accept: Desk.accept,
    messages.Voucher: Desk.voucher,
    messages.Progress: Desk.progressed,
    messages.Extend: extensions.extend,
    messages.Extended: extensions.extended,
    messages.Funded: _happens(
        Role.PROVIDER, lambda said, now: m.ReceiveFunded(said.escrow_id, said.open_tick, now)
    ),
    messages.Go: _happens(Role.PROVIDER, lambda said, now: m.ReceiveGo(now)),
    messages.Pause: _happens(Role.PROVIDER, lambda said, now: m.ReceivePause(said.sequence, now)),
    messages.Resume: _happens(Role.PROVIDER, lambda said, now: m.ReceiveResume(said.sequence, now)),
    messages.Restart: _happens(Role.PROVIDER, lambda said, now: m.ReceiveRestart(said.nonce, now)),
    messages.Stop: _happens(Role.PROVIDER, lambda said, now: m.ReceiveStop(said.reason, now)),
    messages.Prepared: _happens(Role.CALLER, lambda said, now: m.ReceivePrepared(now)),
    messages.Running: _happens(Role.CALLER, lambda said, now: m.ReceiveRunning(said.age_ms, now)),
    messages.Meter: _happens(Role.CALLER, lambda said, now: m.ReceiveMeter(said.seconds, now)),
    messages.Exited: _happens(Role.CALLER, _exited),
}
