"""Messages of the native node protocol, built and parsed by size; used by node.py and the devnet.

Header, 8 bytes: size u24 (header included), type u8, dejavu u32. All integers little-endian. Layouts
as in Qubic core's network_messages, version 1.288. Every parser raises MessageInvalid on a wrong size.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any, Final

import trio

from escrow_bridge.chain import TickInfo
from escrow_bridge.qubic import DIGEST_BYTES, KEY_BYTES, MAX_INPUT_BYTES
from protocol.errors import MessageInvalid, MessageTooLarge, StreamBroken
from protocol.units import Qu, QubicId, Tick

HEADER_BYTES: Final = 8
MAX_MESSAGE_BYTES: Final = 1 << 20
"""Largest message read; the largest real one, tick data with 4096 slots, has 139 KB."""
READ_CHUNK_BYTES: Final = 65_536


class Kind(enum.IntEnum):
    PEERS = 0
    TICK_DATA = 8
    REQUEST_TICK_DATA = 16
    TRANSACTION = 24
    REQUEST_TICK_INFO = 27
    TICK_INFO = 28
    REQUEST_TICK_TRANSACTIONS = 29
    REQUEST_ENTITY = 31
    ENTITY = 32
    END = 35
    REQUEST_FUNCTION = 42
    FUNCTION = 43
    TRY_AGAIN = 54


@dataclass(frozen=True)
class Message:
    kind: int
    """A Kind, or a number not known here."""
    dejavu: int
    payload: bytes


def encode(kind: Kind, dejavu: int, payload: bytes = b"") -> bytes:
    size = HEADER_BYTES + len(payload)
    return size.to_bytes(3, "little") + bytes([kind]) + dejavu.to_bytes(4, "little") + payload


class MessageReader:
    """Cuts a byte stream into messages."""

    def __init__(self, stream: trio.abc.ReceiveStream, max_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._stream = stream
        self._max_bytes = max_bytes
        self._buffer = bytearray()

    async def receive(self) -> Message | None:
        """The next message, None at the end of the stream.

        Raises MessageTooLarge, MessageInvalid (a size below the header's) or StreamBroken (cut inside).
        """
        if not await self._fill(HEADER_BYTES):
            return None
        size = int.from_bytes(self._buffer[:3], "little")
        if size > self._max_bytes:
            raise MessageTooLarge(
                f"a message of {size} bytes was announced; at most {self._max_bytes} are taken"
            )
        if size < HEADER_BYTES:
            raise MessageInvalid(f"a message cannot have {size} bytes")
        await self._fill(size)
        kind, dejavu = self._buffer[3], int.from_bytes(self._buffer[4:HEADER_BYTES], "little")
        message = Message(kind, dejavu, bytes(self._buffer[HEADER_BYTES:size]))
        del self._buffer[:size]
        return message

    async def _fill(self, size: int) -> bool:
        while len(self._buffer) < size:
            try:
                chunk = await self._stream.receive_some(READ_CHUNK_BYTES)
            except trio.BrokenResourceError as error:
                raise StreamBroken("the connection broke") from error
            if not chunk:
                if self._buffer:
                    raise StreamBroken("the connection ended inside a message")
                return False
            self._buffer += chunk
        return True


_TICK_INFO: Final = struct.Struct("<HHIHHI")


def pack_tick_info(info: TickInfo) -> bytes:
    """tickDuration u16 (ms), epoch u16, tick u32, aligned u16, misaligned u16, initialTick u32."""
    return _TICK_INFO.pack(info.tick_duration_ms, info.epoch, info.tick, 0, 0, info.initial_tick)


def parse_tick_info(payload: bytes) -> TickInfo:
    duration, epoch, tick, _, _, initial = _unpack(_TICK_INFO, payload, "tick info")
    return TickInfo(Tick(tick), epoch, Tick(initial), duration)


_ENTITY: Final = struct.Struct("<32sqqIIIIIi768x")
"""Key, incoming, outgoing, counts in and out, last ticks in and out, tick, index, 24 x 32 siblings."""


@dataclass(frozen=True)
class EntityRecord:
    """What a node knows of an account. Balance = incoming - outgoing."""

    incoming: int
    outgoing: int
    incoming_count: int
    outgoing_count: int
    last_incoming_tick: int
    last_outgoing_tick: int


def pack_entity(owner: QubicId, record: EntityRecord | None, tick: Tick) -> bytes:
    """None: an unknown account, shown by the index -1. The siblings are zero."""
    if record is None:
        return _ENTITY.pack(owner, 0, 0, 0, 0, 0, 0, tick, -1)
    return _ENTITY.pack(owner, *astuple(record), tick, 0)


def parse_entity(payload: bytes, owner: QubicId) -> tuple[Qu, Tick]:
    """(balance, tick) of `owner`."""
    key, incoming, outgoing, _, _, _, _, tick, _ = _unpack(_ENTITY, payload, "entity")
    if key != owner or incoming < outgoing:
        raise MessageInvalid("an entity record is of somebody else or below zero")
    return Qu(incoming - outgoing), Tick(tick)


_TICK: Final = struct.Struct("<I")
_TICK_HEAD: Final = struct.Struct("<HHIHBBBBBB32s")
"""Computor u16, epoch u16, tick u32, ms u16, second, minute, hour, day, month, year; timelock 32."""
TICK_HEAD_BYTES: Final = _TICK_HEAD.size
_TICK_TAIL_BYTES: Final = 1_024 * 8 + 64
SLOTS: Final = 1_024


def parse_tick(payload: bytes, what: str) -> Tick:
    return Tick(_unpack(_TICK, payload, what)[0])


def pack_tick(tick: Tick) -> bytes:
    return _TICK.pack(tick)


def pack_tick_data(epoch: int, tick: Tick, digests: Sequence[bytes]) -> bytes:
    """Tick data with SLOTS slots; time, timelock, fees and signature are zero."""
    head = _TICK_HEAD.pack(0, epoch, tick, 0, 0, 0, 0, 0, 0, 0, bytes(32))
    return head + b"".join(digests).ljust(SLOTS * DIGEST_BYTES, b"\0") + bytes(_TICK_TAIL_BYTES)


@dataclass(frozen=True)
class TickData:
    slots: int
    """Room for transactions in a tick of this node's version."""
    digests: tuple[bytes, ...]
    """Of the transactions in the tick, in slot order, 32 bytes each."""


def parse_tick_data(payload: bytes, tick: Tick) -> TickData:
    """The number of slots follows from the length (it differs by version)."""
    slots, rest = divmod(len(payload) - _TICK_HEAD.size - _TICK_TAIL_BYTES, DIGEST_BYTES)
    if slots < 1 or rest or _TICK_HEAD.unpack_from(payload)[2] != tick:
        raise MessageInvalid("tick data of a wrong size or another tick")
    start, end = _TICK_HEAD.size, _TICK_HEAD.size + slots * DIGEST_BYTES
    digests = (payload[at : at + DIGEST_BYTES] for at in range(start, end, DIGEST_BYTES))
    return TickData(slots, tuple(digest for digest in digests if any(digest)))


def pack_tick_transactions_request(tick: Tick, slots: int) -> bytes:
    """The tick, then one flag bit a slot; 0 = wanted. `slots` must be the node's own number."""
    return _TICK.pack(tick) + bytes(slots // 8)


def parse_tick_transactions_request(payload: bytes) -> tuple[Tick, frozenset[int]]:
    """(tick, unwanted slots)."""
    if len(payload) != _TICK.size + SLOTS // 8:
        raise MessageInvalid("a request for a tick's transactions has a wrong size")
    flags = payload[_TICK.size :]
    unwanted = frozenset(slot for slot in range(SLOTS) if flags[slot // 8] >> slot % 8 & 1)
    return Tick(_TICK.unpack_from(payload)[0]), unwanted


_FUNCTION: Final = struct.Struct("<IHH")


def pack_function_request(contract_index: int, input_type: int, payload: bytes) -> bytes:
    return _FUNCTION.pack(contract_index, input_type, len(payload)) + payload


def parse_function_request(payload: bytes) -> tuple[int, int, bytes]:
    """(contract index, input type, input)."""
    if len(payload) < _FUNCTION.size:
        raise MessageInvalid("a contract call is too short")
    contract_index, input_type, size = _FUNCTION.unpack_from(payload)
    if len(payload) != _FUNCTION.size + size or size > MAX_INPUT_BYTES:
        raise MessageInvalid("a contract call's length does not fit its input size")
    return contract_index, input_type, payload[_FUNCTION.size :]


def parse_owner(payload: bytes) -> QubicId:
    if len(payload) != KEY_BYTES:
        raise MessageInvalid("a request for an entity holds no public key")
    return QubicId(payload)


def _unpack(layout: struct.Struct, payload: bytes, what: str) -> tuple[Any, ...]:
    if len(payload) != layout.size:
        raise MessageInvalid(f"{what} must have {layout.size} bytes, not {len(payload)}")
    return layout.unpack(payload)
