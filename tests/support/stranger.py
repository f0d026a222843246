"""A peer that speaks the protocols by hand: honest messages, one of them changed by a test."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from escrow_bridge import layout
from escrow_bridge.bridge import Bridge, OpenOrder
from escrow_bridge.devnet.__main__ import CONTRACT_INDEX
from escrow_bridge.layout import EscrowView
from escrow_bridge.qubic import Wallet
from protocol import messages
from protocol.errors import PeerRefused, StreamBroken
from protocol.messages import Accept, Funded, JobOrder, PutInputs, QuoteRequest, Terms, Voucher, Wish
from protocol.signing import NodeKey, Signed, seal_for
from protocol.units import MAX_QU, Qu, Seconds
from qubixd.desk import lease_id_of
from qubixd.jobfiles import encode_secrets
from qubixd.talk import FILES_PROTOCOL, ask, receive_signed, send_signed
from qubixd.wire import Wire
from tests.support.world import FUNDS, Person, World

EMPTY_TAR = bytes(1_024)
WISH = Wish(gpu_model="", gpu_count=0, gpu_vram_mib=0, cpu_millis=1_000, memory_mib=64, disk_mib=10)


@dataclass
class Stranger:
    """A caller without a daemon. `terms` are the provider's, once `hire` has been called."""

    world: World
    wire: Wire
    provider: Person
    key: NodeKey
    wallet: Wallet
    script: str = "1000 0"
    secrets: bytes = field(default_factory=lambda: encode_secrets({"TOKEN": "sesame"}))
    """In clear; they travel sealed."""
    signed: Signed = field(init=False)

    @property
    def terms(self) -> Terms:
        terms: Terms = self.signed.message
        return terms

    @property
    def lease_id(self) -> Any:
        return lease_id_of(self.signed.raw)

    @property
    def sealed(self) -> bytes:
        return seal_for(self.provider.peer, self.secrets)

    @property
    def order(self) -> bytes:
        order = JobOrder(
            name="by-hand",
            image="test:1",
            script=self.script,
            envs={},
            secrets_sha256=hashlib.sha256(self.secrets).digest(),
            outputs=(),
            inputs_sha256=hashlib.sha256(EMPTY_TAR).digest(),
            inputs_bytes=len(EMPTY_TAR),
        )
        return messages.encode(order)

    def request(self, **changes: Any) -> QuoteRequest:
        request = QuoteRequest(
            nonce=hashlib.sha256(b"nonce").digest(),
            network="devnet",
            contract_index=CONTRACT_INDEX,
            caller_id=self.wallet.public_key,
            wish=WISH,
            image="test:1",
            order_sha256=hashlib.sha256(self.order).digest(),
            max_price_qu_per_hour=MAX_QU,
            max_seconds=Seconds(3_600),
            interval_seconds=Seconds(1),
        )
        return replace(request, **changes)

    async def say(self, message: object) -> Signed:
        """One message and its verified answer; a refusal is PeerRefused."""
        return await ask(self.wire, self.key, self.provider.peer, message)

    async def refusal(self, message: object) -> str:
        """The code with which a message is refused; "" if it is not."""
        try:
            await self.say(message)
        except PeerRefused as error:
            return error.refusal_code
        return ""

    async def hire(self, **changes: Any) -> None:
        """Up to the acknowledged acceptance."""
        self.signed = await self.say(self.request(**changes))
        await self.say(Accept(self.signed.raw, ()))

    async def put(self, archive: bytes = EMPTY_TAR, **changes: Any) -> str:
        """Deliver the inputs; the code of a refusal, "" if they were taken, "broken" if cut off."""
        put = replace(PutInputs(self.lease_id, self.order, self.sealed), **changes)
        stream = await self.wire.open(self.provider.peer, FILES_PROTOCOL)
        async with stream:
            try:
                await send_signed(stream, self.key.sign(put))
                await receive_signed(stream, self.provider.peer)
                await stream.send_all(archive)
                await stream.send_eof()
                await receive_signed(stream, self.provider.peer)
            except PeerRefused as error:
                return error.refusal_code
            except StreamBroken:
                return "broken"
        return ""

    async def fund(self, *, announce: bool = True, **changes: Any) -> EscrowView:
        """Open an escrow for the terms, changed as the test wants, and tell the provider of it."""
        terms = self.terms
        order = OpenOrder(
            terms.provider_id, self.lease_id, terms.deposit, terms.deadline_ticks, terms.challenge_ticks
        )
        bridge = Bridge(self.world.chain, self.wallet, CONTRACT_INDEX)
        view = await bridge.open_escrow(replace(order, **changes), b"", _forget)
        if announce:
            await self.say(Funded(self.lease_id, view.escrow_id, view.open_tick))
        return view

    def voucher(self, view: EscrowView, cumulative: int, **changes: Any) -> Voucher:
        amount = Qu(cumulative)
        signature = self.wallet.sign(layout.voucher_digest(view.escrow_id, amount))
        return replace(Voucher(self.lease_id, view.escrow_id, amount, signature), **changes)


async def _forget(scratch: bytes) -> None: ...


@asynccontextmanager
async def stranger(world: World, provider: Person, name: str = "mallory") -> AsyncIterator[Stranger]:
    """On the wire, with a funded wallet of its own."""
    person = Person(name, world.root / name, provider=False)
    world.people[name] = person
    world.fund(person.wallet.public_key, FUNDS)
    async with world.net.wire(person.peer) as wire:
        yield Stranger(world, wire, provider, NodeKey(person.node_seed), person.wallet)
