"""Peer exchange: a node that knows one bootstrap peer meets others through it.

One stream of /qubix/peers/1: the asker sends its own addresses, the answer is addresses of other
peers, each a list of texts "/ip4/.../tcp/.../p2p/<id>" in msgpack. Both lists are short and checked;
what a peer says of itself is kept only while it is connected, and nobody is dialled before the node
has too few peers.
"""

from __future__ import annotations

import logging
import random
from typing import Final

import msgspec
import trio

from protocol.errors import ConfigInvalid, MessageInvalid, PeerUnreachable, QubixError
from protocol.paths import PathKind
from protocol.units import PeerKey
from qubixd.wire import Stream, Wire, receive_frame, send_frame
from qubixd.wire_libp2p.addresses import is_circuit, split_address
from qubixd.wire_libp2p.identity import key_of, libp2p_id
from qubixd.wire_libp2p.peers import Peers

log = logging.getLogger(__name__)

PROTOCOL: Final = "/qubix/peers/1"
_MAX_BYTES: Final = 8_192
_MAX_ADDRESS: Final = 256
_MAX_OWN: Final = 4
_MAX_ANSWER: Final = 16
_ENOUGH_PEERS: Final = 8
_DIALS_PER_ROUND: Final = 4
_ROUND_SECONDS: Final = 30.0
_TALK_SECONDS: Final = 10.0


class PeerExchange:
    """Tells each new peer this node's addresses and asks it for others."""

    def __init__(self, wire: Wire, book: Peers) -> None:
        self._wire, self._book = wire, book
        self._told: dict[PeerKey, list[str]] = {}
        self._new_send, self._new = trio.open_memory_channel[PeerKey](64)
        wire.serve(PROTOCOL, self._answer)
        wire.on_peer(self._note)

    async def run(self) -> None:
        """Ask every new peer once, and a random one now and then while there are too few."""
        while True:
            with trio.move_on_after(_ROUND_SECONDS):
                await self._ask(await self._new.receive())
                continue
            peers = self._wire.peers()
            self._told = {peer: told for peer, told in self._told.items() if peer in peers}
            if peers and len(peers) < _ENOUGH_PEERS:
                await self._ask(random.choice(peers))

    def _note(self, peer: PeerKey) -> None:
        try:
            self._new_send.send_nowait(peer)
        except trio.WouldBlock:
            log.debug("many new peers at once; one is not asked")

    async def _ask(self, peer: PeerKey) -> None:
        try:
            with trio.fail_after(_TALK_SECONDS):
                found = await self._talk(peer)
        except (QubixError, trio.TooSlowError) as error:
            log.debug("peer exchange: %r", error)
            return
        random.shuffle(found)
        for address in found[:_DIALS_PER_ROUND]:
            if len(self._wire.peers()) < _ENOUGH_PEERS:
                await self._dial(address)

    async def _talk(self, peer: PeerKey) -> list[str]:
        async with await self._wire.open(peer, PROTOCOL) as stream:
            await send_frame(stream, msgspec.msgpack.encode(self._own()))
            found = await _receive_addresses(stream, _MAX_ANSWER)
            await stream.send_eof()
        return found

    def _own(self) -> list[str]:
        """None that leads through a relay: those are for who has business with us."""
        return [address for address in self._wire.addresses if not is_circuit(address)][:_MAX_OWN]

    async def _dial(self, text: str) -> None:
        peer, address = split_address(text)
        if key_of(peer) == self._wire.peer_key or self._book.connected(peer):
            return
        self._book.learn(peer, [address])
        try:
            await self._book.dial(peer)
        except PeerUnreachable as error:
            log.debug("peer exchange: %s", error)

    async def _answer(self, stream: Stream, peer: PeerKey) -> None:
        with trio.move_on_after(_TALK_SECONDS):
            own = [a for a in await _receive_addresses(stream, _MAX_OWN) if _names(a, peer)]
            connected = set(self._wire.peers())
            others = [t[0] for p, t in self._told.items() if t and p != peer and p in connected]
            self._told[peer] = own
            if self._wire.path_of(peer) is PathKind.RELAYED:
                self._book.try_plain(libp2p_id(peer), [split_address(address)[1] for address in own])
            chosen = random.sample(others, min(len(others), _MAX_ANSWER))
            await send_frame(stream, msgspec.msgpack.encode(chosen))


async def _receive_addresses(stream: Stream, most: int) -> list[str]:
    """Well-formed addresses a peer sent; MessageInvalid for anything else."""
    payload = await receive_frame(stream, _MAX_BYTES)
    try:
        texts = msgspec.msgpack.decode(payload or b"", type=list[str])
        if len(texts) > most or any(len(text) > _MAX_ADDRESS for text in texts):
            raise MessageInvalid("a peer sent too many or too long addresses")
        for text in texts:
            if is_circuit(split_address(text)[1]):
                raise MessageInvalid("a peer sent an address that leads through a relay")
    except (msgspec.MsgspecError, ConfigInvalid) as error:
        raise MessageInvalid("a peer sent something that is no list of addresses") from error
    return texts


def _names(text: str, peer: PeerKey) -> bool:
    return key_of(split_address(text)[0]) == peer
