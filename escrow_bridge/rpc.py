"""Chain over Qubic's public HTTP RPC: the Live service for now, the Archive service for past ticks.

One operator answers all of it and is believed, as a single node is; what can be checked is: every
transaction of a past tick must have the hash that its tick lists. The archive lags behind the network,
so it is asked how far it has come before anything else: what it does not know yet says nothing.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec

from escrow_bridge.chain import Balance, Chain, Outcome, TickInfo
from escrow_bridge.node_peer import Timing
from escrow_bridge.qubic import (
    identity_of,
    parse_identity,
    parse_transaction,
    transaction_digest,
)
from escrow_bridge.shared import Shared
from protocol.errors import ChainUnreachable, ConfigInvalid, MessageInvalid, UsageError
from protocol.units import MAX_QU, Qu, QubicId, Tick

SCHEMES: Final = ("rpc+http://", "rpc+https://")
LIVE: Final = "/live/v1"
ARCHIVE: Final = "/query/v1"
MAX_BODY_BYTES: Final = 16 << 20
"""Largest answer read: a full tick of 4,096 transactions as JSON has about 10 MB."""
MAX_MESSAGE_CHARS: Final = 200
MAX_CONNECTIONS: Final = 16
POOL_WAITS: Final = 4
"""How many answers' time a request waits until one of the connections is free."""
INVALID_ARGUMENT: Final = 3
U32 = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]
U16 = Annotated[int, msgspec.Meta(ge=0, lt=1 << 16)]
Amount = Annotated[int, msgspec.Meta(ge=0, le=MAX_QU)]
T = TypeVar("T")


class _Refused(Exception):
    """The service answered with an error object."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class _Record(msgspec.Struct, rename="camel"):
    """A JSON object of the service. Integers may come as strings; unknown fields are ignored."""


class _TickInfo(_Record):
    tick: U32
    epoch: U16
    initial_tick: U32
    duration: U32 = 0


class _TickInfoAnswer(_Record):
    tick_info: _TickInfo


class _Balance(_Record):
    id: str
    balance: Amount
    valid_for_tick: U32


class _BalanceAnswer(_Record):
    balance: _Balance


class _ContractAnswer(_Record):
    response_data: str = ""


class _LastProcessed(_Record):
    tick_number: U32


class _Interval(_Record):
    first_tick: U32
    last_tick: U32


class _Intervals(_Record):
    processed_tick_intervals: list[_Interval] = []


class _TickData(_Record):
    tick_number: U32
    transaction_hashes: list[str] = []


class _TickDataAnswer(_Record):
    tick_data: _TickData | None = None


class _Transaction(_Record):
    source: str
    destination: str
    amount: Amount
    tick_number: U32
    signature: str
    input_type: U16 = 0
    input_size: U16 = 0
    input_data: str = ""


class _Transactions(_Record):
    transactions: list[_Transaction] = []


class _Error(_Record):
    code: int = 0
    message: str = ""


class RpcChain:
    """Obtained from `open_rpc_chain`."""

    def __init__(self, client: httpx.AsyncClient, base: str) -> None:
        self._client = client
        self._base = base
        self._tick_info = Shared(self._ask_tick_info)

    async def tick_info(self) -> TickInfo:
        return await self._tick_info()

    async def _ask_tick_info(self) -> TickInfo:
        info = (await self._get(f"{LIVE}/tick-info", _TickInfoAnswer)).tick_info
        return TickInfo(Tick(info.tick), info.epoch, Tick(info.initial_tick), info.duration)

    async def balance(self, owner: QubicId) -> Balance:
        identity = identity_of(owner)
        known = (await self._get(f"{LIVE}/balances/{identity}", _BalanceAnswer)).balance
        if known.id != identity:
            raise self._garbled("a balance of somebody else")
        return Balance(Qu(known.balance), Tick(known.valid_for_tick))

    async def broadcast(self, transaction: bytes) -> None:
        body = {"encodedTransaction": base64.b64encode(transaction).decode()}
        try:
            await self._post(f"{LIVE}/broadcast-transaction", body, _Record)
        except _Refused as error:
            # Dropped, as nodes drop in silence what they do not like: `outcome` will tell.
            if error.code != INVALID_ARGUMENT:
                raise self._refused(error) from error

    async def query(
        self, contract_index: int, input_type: int, payload: bytes, *, tick_at: int | None = None
    ) -> bytes:
        body = {
            "contractIndex": contract_index,
            "inputType": input_type,
            "inputSize": len(payload),
            "requestData": base64.b64encode(payload).decode(),
        }
        try:
            answer = await self._post(f"{LIVE}/querySmartContract", body, _ContractAnswer)
        except _Refused as error:
            raise self._refused(error) from error
        return self._decoded(answer.response_data)

    async def outcome(self, transaction_digest: bytes, tick: Tick) -> Outcome:
        if (await self.tick_info()).tick <= tick or not await self._processed(tick):
            return Outcome.PENDING
        try:
            digests = await self._digests(tick)
        except _Refused as error:
            return await self._why_not_there(tick, error)
        return Outcome.INCLUDED if transaction_digest in digests else Outcome.MISSED

    async def transactions(self, tick: Tick) -> tuple[bytes, ...] | None:
        if not await self._processed(tick):
            return None
        try:
            digests = await self._digests(tick)
            if not digests:
                return ()
            answer = await self._post(
                f"{ARCHIVE}/getTransactionsForTick", {"tickNumber": tick}, _Transactions
            )
        except _Refused as error:
            return () if await self._why_not_there(tick, error) is Outcome.MISSED else None
        found = {transaction_digest(raw): raw for raw in map(self._raw, answer.transactions)}
        if not set(digests) <= found.keys():
            raise self._garbled(f"not all transactions of tick {tick}")
        return tuple(found[digest] for digest in digests)

    async def _processed(self, tick: Tick) -> bool:
        """Whether the archive has come as far as `tick`."""
        last = await self._get(f"{ARCHIVE}/getLastProcessedTick", _LastProcessed)
        return tick <= last.tick_number

    async def _digests(self, tick: Tick) -> tuple[bytes, ...]:
        """Of the transactions of a processed tick, in slot order; none if the tick was empty."""
        answer = await self._post(f"{ARCHIVE}/getTickData", {"tickNumber": tick}, _TickDataAnswer)
        data = answer.tick_data
        if data is None:
            return ()
        if data.tick_number != tick:
            raise self._garbled("the data of another tick")
        try:
            return tuple(bytes(parse_identity(text.upper())) for text in data.transaction_hashes)
        except UsageError:
            raise self._garbled("a transaction hash that is none") from None

    async def _why_not_there(self, tick: Tick, error: _Refused) -> Outcome:
        """What the refusal of a processed tick means: skipped by the network, or before the archive."""
        if error.code != INVALID_ARGUMENT:
            raise self._refused(error) from error
        answer = await self._get(f"{ARCHIVE}/getProcessedTickIntervals", _Intervals)
        intervals = answer.processed_tick_intervals
        if not any(interval.first_tick <= tick for interval in intervals):
            return Outcome.UNKNOWN
        if any(interval.first_tick <= tick <= interval.last_tick for interval in intervals):
            return Outcome.PENDING
        return Outcome.MISSED

    def _raw(self, record: _Transaction) -> bytes:
        """The bytes of a transaction; its digest tells whether they are right."""
        payload, signature = self._decoded(record.input_data), self._decoded(record.signature)
        try:
            source, destination = parse_identity(record.source), parse_identity(record.destination)
            numbers = _NUMBERS.pack(record.amount, record.tick_number, record.input_type, record.input_size)
            raw = source + destination + numbers + payload + signature
            parse_transaction(raw)
        except (UsageError, MessageInvalid):
            raise self._garbled("a transaction that is none") from None
        return raw

    def _decoded(self, text: str) -> bytes:
        try:
            return base64.b64decode(text, validate=True)
        except (ValueError, binascii.Error):
            raise self._garbled("data that is not base64") from None

    # --- HTTP ---------------------------------------------------------------------------------

    async def _get(self, path: str, kind: type[T]) -> T:
        try:
            return await self._call("GET", path, None, kind)
        except _Refused as error:
            raise self._refused(error) from error

    async def _post(self, path: str, body: dict[str, Any], kind: type[T]) -> T:
        return await self._call("POST", path, body, kind)

    async def _call(self, method: str, path: str, body: dict[str, Any] | None, kind: type[T]) -> T:
        try:
            async with self._client.stream(method, self._base + path, json=body) as response:
                content = await self._read(response)
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise ChainUnreachable(
                f"the Qubic RPC at {self._base} does not answer ({_named(error)}); check that it runs"
            ) from error
        if response.status_code != httpx.codes.OK:
            raise self._error(response.status_code, content)
        return self._parse(content, kind)

    async def _read(self, response: httpx.Response) -> bytes:
        content = bytearray()
        async for chunk in response.aiter_bytes():
            content += chunk
            if len(content) > MAX_BODY_BYTES:
                raise self._garbled(f"more than {MAX_BODY_BYTES} bytes")
        return bytes(content)

    def _parse(self, content: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(content, type=kind, strict=False)
        except (msgspec.DecodeError, RecursionError):
            raise self._garbled("something else than it should") from None

    def _error(self, status: int, content: bytes) -> _Refused | ChainUnreachable:
        try:
            error = msgspec.json.decode(content, type=_Error, strict=False)
        except (msgspec.DecodeError, RecursionError):
            error = _Error()
        if not error.code:
            return ChainUnreachable(f"the Qubic RPC at {self._base} answers with HTTP status {status}")
        return _Refused(error.code, _printable(error.message))

    def _refused(self, error: _Refused) -> ChainUnreachable:
        return ChainUnreachable(f"the Qubic RPC at {self._base} refuses: {error} (code {error.code})")

    def _garbled(self, what: str) -> ChainUnreachable:
        return ChainUnreachable(f"the Qubic RPC at {self._base} answers with {what}; it is not usable")


_NUMBERS: Final = struct.Struct("<qIHH")
"""Amount, tick, input type and input size of a transaction, between its keys and its input."""


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:MAX_MESSAGE_CHARS])


def _named(error: Exception) -> str:
    return _printable(str(error)) or type(error).__name__


def parse_url(url: str) -> str:
    """The base address of "rpc+http://HOST:PORT[/PATH]"; the services' own paths follow it.

    Raises ConfigInvalid.
    """
    sentence = f"{url!r} is not the address of a Qubic RPC; write rpc+https://HOST or rpc+http://HOST:PORT"
    try:
        parts = urlsplit(url.removeprefix("rpc+"))
        valid = bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ConfigInvalid(sentence) from None
    if not url.startswith(SCHEMES) or not valid or parts.query or parts.fragment or "@" in parts.netloc:
        raise ConfigInvalid(sentence)
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


@asynccontextmanager
async def open_rpc_chain(url: str, timing: Timing | None = None) -> AsyncIterator[Chain]:
    """A Chain over the RPC at `url` ("rpc+http://HOST:PORT", "rpc+https://HOST").

    Raises ConfigInvalid for a wrong address; a service that is down shows as ChainUnreachable later.
    """
    base, patience = parse_url(url), timing or Timing()
    timeout = httpx.Timeout(
        patience.answer_seconds, connect=patience.connect_seconds, pool=POOL_WAITS * patience.answer_seconds
    )
    limits = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS)
    # No proxies or credentials from the environment: the address given is the one that is asked.
    client = httpx.AsyncClient(timeout=timeout, limits=limits, trust_env=False, follow_redirects=False)
    async with client:
        yield RpcChain(client, base)
