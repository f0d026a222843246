"""The chain around the contracts: one object that holds balances, states, tick and epoch.

A thin, checked door to the library of contracts/host (see contracts/README.md for what it models).
Nothing here knows what a contract means. Ids are 32 bytes, amounts whole QU. Not for several threads
at a time.
"""

from __future__ import annotations

import ctypes
import datetime
import functools
import weakref
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from escrow_bridge import qubic
from escrow_bridge.devnet.compiler import QUBIX_HEADER, compile_contracts
from protocol.errors import MachineError
from protocol.units import MAX_QU, QubicId

__all__ = ["QUBIX_HEADER", "Cost", "Entity", "Host", "contract_id"]

ID_BYTES: Final = 32
DEFAULT_RESERVE: Final = 1_000_000_000
"""QU in each contract's execution-fee reserve at the start; the host never charges it for time."""
START_MS: Final = 1_735_689_600_000
"""The chain's clock at its first tick, if nobody says otherwise: 2025-01-01 UTC."""
LAST_MS: Final = 4_102_444_800_000
"""No clock here goes past 2100-01-01 UTC."""
DEFAULT_TICK_MS: Final = 1_000
MAX_SNAPSHOT_BYTES: Final = 1 << 31

_MAX_TICK: Final = 999_999_999
_MAX_U16: Final = 0xFFFF


@dataclass(frozen=True)
class Entity:
    """What the chain knows of one id. Balance = incoming - outgoing, in QU; ticks are of the last move."""

    incoming: int
    outgoing: int
    incoming_count: int
    outgoing_count: int
    last_incoming_tick: int
    last_outgoing_tick: int

    @property
    def balance(self) -> int:
        return self.incoming - self.outgoing


@dataclass(frozen=True)
class Cost:
    """What contracts used in one call of the host, those included that money reached on its way."""

    nanoseconds: int
    """Of this machine's clock in their code, hashing and checks of signatures left out."""
    hashes: int
    hashed_bytes: int
    hash_nanoseconds: int
    signatures: int
    """Checked, right or wrong."""


class _RawEntity(ctypes.Structure):
    _fields_ = (
        ("public_key", ctypes.c_uint8 * ID_BYTES),
        ("incoming", ctypes.c_int64),
        ("outgoing", ctypes.c_int64),
        ("incoming_count", ctypes.c_uint32),
        ("outgoing_count", ctypes.c_uint32),
        ("last_incoming_tick", ctypes.c_uint32),
        ("last_outgoing_tick", ctypes.c_uint32),
    )


def contract_id(index: int) -> bytes:
    """The id of a contract: its index as u64, then 24 zero bytes."""
    return index.to_bytes(8, "little") + bytes(24)


class Host:
    """One chain. Made by `build`; ticks go begin_tick, apply any number of times, end_tick."""

    def __init__(self, library: ctypes.CDLL, machine: int, indexes: Sequence[int]) -> None:
        self._library = library
        self._machine = machine
        self._indexes = tuple(indexes)
        self._now_ms = START_MS
        weakref.finalize(self, library.host_free, machine)

    @classmethod
    def build(
        cls,
        contracts: Mapping[int, Path],
        *,
        first_tick: int,
        epoch: int,
        reserve: int = DEFAULT_RESERVE,
        compiler: Sequence[str] | None = None,
    ) -> Host:
        """Compiles the contracts (index -> header), deploys them and runs INITIALIZE and BEGIN_EPOCH.

        Raises CompilerMissing or MachineError.
        """
        library = _load(compile_contracts(contracts, compiler))
        library.host_set_crypto(_k12_address(), ctypes.cast(_VERIFY, ctypes.c_void_p))
        _check_range("first tick", first_tick, _MAX_TICK)
        _check_range("epoch", epoch, _MAX_U16)
        machine = library.host_new(first_tick, epoch, _packed_time(START_MS), reserve)
        return cls(library, machine, sorted(contracts))

    @property
    def tick(self) -> int:
        return int(self._library.host_tick(self._machine))

    @property
    def epoch(self) -> int:
        return int(self._library.host_epoch(self._machine))

    @property
    def destroyed(self) -> int:
        """QU taken out of circulation so far: burned, sent to the zero id, paid as dividends to no shares."""
        return int(self._library.host_destroyed(self._machine))

    def credit(self, owner: bytes, amount: int) -> None:
        """Creates money, as at genesis."""
        self._library.host_credit(self._machine, _id(owner), _amount(amount))

    def entity(self, owner: bytes) -> Entity | None:
        """What is known of an id; None if it never sent or received anything."""
        raw = _RawEntity()
        if not self._library.host_entity(self._machine, _id(owner), ctypes.byref(raw)):
            return None
        return Entity(
            raw.incoming,
            raw.outgoing,
            raw.incoming_count,
            raw.outgoing_count,
            raw.last_incoming_tick,
            raw.last_outgoing_tick,
        )

    def balance(self, owner: bytes) -> int:
        entity = self.entity(owner)
        return entity.balance if entity else 0

    def reserve(self, index: int) -> int:
        """QU in the contract's execution-fee reserve; may be negative."""
        self._check_index(index)
        reserve = ctypes.c_int64()
        self._library.host_reserve(self._machine, index, ctypes.byref(reserve))
        return reserve.value

    def set_reserve(self, index: int, amount: int) -> None:
        self._check_index(index)
        self._library.host_set_reserve(self._machine, index, amount)

    def state(self, index: int) -> bytes:
        """The contract's raw state."""
        self._check_index(index)
        size = ctypes.c_uint64()
        address = self._library.host_state(self._machine, index, ctypes.byref(size))
        return ctypes.string_at(address, size.value)

    def state_changed(self, index: int) -> bool:
        """Whether the contract opened its state for writing since the tick began (it pays for the hash)."""
        self._check_index(index)
        return bool(self._library.host_changed(self._machine, index))

    def begin_tick(self, tick: int, at_ms: int | None = None) -> None:
        """Starts a tick: BEGIN_TICK of all contracts. `at_ms`: its time, unix milliseconds.

        Contracts see the time of the tick before, and never an earlier one than they saw.
        """
        _check_range("tick", tick, _MAX_TICK)
        _check_range("time", at_ms or 0, LAST_MS)
        self._now_ms = max(self._now_ms, self._now_ms + DEFAULT_TICK_MS if at_ms is None else at_ms)
        self._library.host_begin_tick(self._machine, tick, _packed_time(self._now_ms))

    def apply(self, source: bytes, destination: bytes, amount: int, input_type: int, payload: bytes) -> bool:
        """Runs one transaction. False: skipped, as one that the source cannot afford.

        True does not say that a contract accepted it.
        """
        _check_range("input type", input_type, _MAX_U16)
        arguments = (_id(source), _id(destination), _amount(amount), input_type, payload, len(payload))
        return bool(self._library.host_apply(self._machine, *arguments))

    def call(
        self, source: bytes, destination: bytes, amount: int, input_type: int, payload: bytes
    ) -> bytes | None:
        """Like `apply`, but gives the procedure's output, which a real chain throws away.

        None: skipped. b"": no procedure ran.
        """
        done = self.apply(source, destination, amount, input_type, payload)
        return self._output() if done else None

    def end_tick(self) -> None:
        self._library.host_end_tick(self._machine)

    def change_epoch(self) -> None:
        """END_EPOCH of all contracts, then BEGIN_EPOCH in the next one. Ticks go on."""
        self._library.host_change_epoch(self._machine)

    def query(self, index: int, input_type: int, payload: bytes) -> bytes:
        """Calls a read function. b"": there is no such function or contract."""
        _check_range("input type", input_type, _MAX_U16)
        _check_range("contract index", index, 0xFFFF_FFFF)
        if not self._library.host_query(self._machine, index, input_type, payload, len(payload)):
            return b""
        return self._output()

    def cost(self) -> Cost:
        """Of the last begin_tick, apply, call, end_tick, change_epoch or query."""
        raw = (ctypes.c_uint64 * 5)()
        self._library.host_cost(self._machine, raw)
        return Cost(*raw)

    def snapshot(self) -> bytes:
        """The whole chain; for `restore` into a host with the same contracts."""
        size = self._library.host_snapshot_size(self._machine)
        buffer = ctypes.create_string_buffer(size)
        self._library.host_snapshot_write(self._machine, buffer)
        head = self._now_ms.to_bytes(8, "little")
        return head + zlib.compress(buffer.raw, level=1)

    def restore(self, blob: bytes) -> None:
        """Puts a snapshot back. Raises MachineError, changing nothing, if it is none of these contracts."""
        now_ms = int.from_bytes(blob[:8], "little")
        try:
            raw = _inflated(blob[8:]) if now_ms <= LAST_MS else b""
        except (zlib.error, ValueError):
            raw = b""
        if not self._library.host_snapshot_read(self._machine, raw, len(raw)):
            raise MachineError(
                "the saved chain does not fit these contracts: it is damaged or of another version; "
                "remove it to start a new chain"
            )
        self._now_ms = now_ms

    def _output(self) -> bytes:
        size = ctypes.c_uint64()
        address = self._library.host_output(self._machine, ctypes.byref(size))
        return ctypes.string_at(address, size.value) if size.value else b""

    def _check_index(self, index: int) -> None:
        if index not in self._indexes:
            raise ValueError(f"this chain has no contract with index {index}")


@functools.cache
def _load(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    machine, raw_id, u64 = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint64
    u32, u16, i64, blob = ctypes.c_uint32, ctypes.c_uint16, ctypes.c_int64, ctypes.c_char_p
    size, flag = ctypes.POINTER(u64), ctypes.c_int
    signatures: dict[str, tuple[object, tuple[object, ...]]] = {
        "host_new": (machine, (u32, u16, u64, i64)),
        "host_free": (None, (machine,)),
        "host_tick": (u32, (machine,)),
        "host_epoch": (u16, (machine,)),
        "host_destroyed": (i64, (machine,)),
        "host_credit": (None, (machine, raw_id, i64)),
        "host_entity": (flag, (machine, raw_id, ctypes.POINTER(_RawEntity))),
        "host_reserve": (flag, (machine, u32, ctypes.POINTER(i64))),
        "host_set_reserve": (flag, (machine, u32, i64)),
        "host_changed": (flag, (machine, u32)),
        "host_begin_tick": (None, (machine, u32, u64)),
        "host_apply": (flag, (machine, raw_id, raw_id, i64, u16, blob, u64)),
        "host_end_tick": (None, (machine,)),
        "host_change_epoch": (None, (machine,)),
        "host_query": (flag, (machine, u32, u16, blob, u64)),
        "host_cost": (None, (machine, size)),
        "host_output": (ctypes.c_void_p, (machine, size)),
        "host_state": (ctypes.c_void_p, (machine, u32, size)),
        "host_snapshot_size": (u64, (machine,)),
        "host_snapshot_write": (None, (machine, ctypes.c_char_p)),
        "host_snapshot_read": (flag, (machine, blob, u64)),
        "host_set_crypto": (None, (ctypes.c_void_p, ctypes.c_void_p)),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _k12(data: int, size: int, output: int, output_size: int) -> None:
    ctypes.memmove(output, qubic.k12(ctypes.string_at(data, size), output_size), output_size)


def _verify(public_key: int, digest: int, signature: int) -> bool:
    # Always by way of Python: contracts must take no signature that anyone here refuses.
    return qubic.verify(
        QubicId(ctypes.string_at(public_key, qubic.KEY_BYTES)),
        ctypes.string_at(digest, qubic.DIGEST_BYTES),
        ctypes.string_at(signature, qubic.SIGNATURE_BYTES),
    )


_K12: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint, ctypes.c_void_p, ctypes.c_uint)(_k12)
_VERIFY: Final = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(_verify)


def _k12_address() -> ctypes.c_void_p:
    """The native function where there is one: contracts hash far more often than they verify."""
    library = qubic.native()
    return ctypes.cast(_K12 if library is None else library.lib.KangarooTwelve, ctypes.c_void_p)


def _inflated(data: bytes) -> bytes:
    inflater = zlib.decompressobj()
    raw = inflater.decompress(data, MAX_SNAPSHOT_BYTES)
    if not inflater.eof:
        raise ValueError("cut off or too long")
    return raw


def _packed_time(unix_ms: int) -> int:
    """DateAndTime of QPI in one word; its bits are described in contracts/host/qpi_types.h."""
    at = datetime.datetime.fromtimestamp(unix_ms / 1_000, datetime.UTC)
    date = at.year << 46 | at.month << 42 | at.day << 37
    return date | at.hour << 32 | at.minute << 26 | at.second << 20 | unix_ms % 1_000 << 10


def _id(value: bytes) -> bytes:
    if len(value) != ID_BYTES:
        raise ValueError(f"an id has {ID_BYTES} bytes, not {len(value)}")
    return bytes(value)


def _amount(value: int) -> int:
    _check_range("amount", value, MAX_QU)
    return value


def _check_range(name: str, value: int, highest: int) -> None:
    if not 0 <= value <= highest:
        raise ValueError(f"{name} must be 0 to {highest}, not {value}")
