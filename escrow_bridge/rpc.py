"""Chain over Qubic's public HTTP RPC: the Live service for now, the Archive service for past ticks.

One operator answers all of it. What it says has to fit together: every transaction of a past tick must
have a hash that its tick lists, and that one of ours was not in its tick counts only when four answers of
both services say so (`_missed`). The archive lags behind the network, so it is asked how far it has come
before anything else: what it does not know yet says nothing.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec
import trio

from escrow_bridge import rpc_records as answers
from escrow_bridge.chain import Balance, Chain, Outcome, TickInfo
from escrow_bridge.node_peer import Timing
from escrow_bridge.qubic import (
    identity_of,
    parse_identity,
    parse_transaction,
    transaction_digest,
    transaction_hash,
)
from escrow_bridge.shared import Shared
from protocol.errors import ChainDisagrees, ChainUnreachable, ConfigInvalid, MessageInvalid, UsageError
from protocol.units import Qu, QubicId, Tick

SCHEMES: Final = ("rpc+http://", "rpc+https://")
DEFAULT_PORTS: Final = {"http": 80, "https": 443}
LIVE: Final = "/live/v1"
ARCHIVE: Final = "/query/v1"
MAX_BODY_BYTES: Final = 16 << 20
"""Largest answer read: a full tick of 4,096 transactions as JSON has about 10 MB."""
MAX_MESSAGE_CHARS: Final = 200
MAX_CONNECTIONS: Final = 16
POOL_WAITS: Final = 4
"""How many answers' time a request waits until one of the connections is free."""
WHOLE_WAITS: Final = 2 * POOL_WAITS
"""How many answers' time all of it may take: an answer that trickles in for ever is none."""
INVALID_ARGUMENT: Final = 3
NOT_FOUND: Final = 5
SETTLED_TICKS: Final = 3
"""How far beyond a tick the archive must have come before that tick counts as empty or skipped: its parts
are not written at one moment."""
T = TypeVar("T")


class _Refused(Exception):
    """The service answered with an error object."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class RpcChain:
    """Obtained from `open_rpc_chain`."""

    def __init__(self, client: httpx.AsyncClient, base: str, timing: Timing) -> None:
        self._client = client
        self._base = base
        self._seconds = WHOLE_WAITS * timing.answer_seconds
        self._tick_info = Shared(self._ask_tick_info)

    @property
    def name(self) -> str:
        return f"the Qubic RPC {self._base}"

    async def tick_info(self) -> TickInfo:
        return await self._tick_info()

    async def _ask_tick_info(self) -> TickInfo:
        info = (await self._get(f"{LIVE}/tick-info", answers.TickInfoAnswer)).tick_info
        return TickInfo(Tick(info.tick), info.epoch, Tick(info.initial_tick), info.duration)

    async def balance(self, owner: QubicId) -> Balance:
        known = await self._account(owner)
        return Balance(Qu(known.balance), Tick(known.valid_for_tick))

    async def _account(self, owner: QubicId) -> answers.BalanceRecord:
        identity = identity_of(owner)
        known = (await self._get(f"{LIVE}/balances/{identity}", answers.BalanceAnswer)).balance
        if known.id != identity:
            raise self._garbled("a balance of somebody else")
        return known

    async def broadcast(self, transaction: bytes) -> None:
        body = {"encodedTransaction": base64.b64encode(transaction).decode()}
        try:
            await self._post(f"{LIVE}/broadcast-transaction", body, answers.Record)
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
            answer = await self._post(f"{LIVE}/querySmartContract", body, answers.ContractAnswer)
        except _Refused as error:
            raise self._refused(error) from error
        return self._decoded(answer.response_data)

    async def outcome(self, transaction: bytes) -> Outcome:
        tick = parse_transaction(transaction).tick
        if (await self.tick_info()).tick <= tick:
            return Outcome.PENDING
        listed = await self._listed(tick)
        if isinstance(listed, Outcome):
            return listed
        if transaction_digest(transaction) in listed:
            return Outcome.INCLUDED
        return await self._missed(transaction, listed)

    async def transactions(self, tick: Tick) -> tuple[bytes, ...] | None:
        listed = await self._listed(tick)
        if not isinstance(listed, Outcome):
            return await self._in_tick(tick, listed)
        if listed is Outcome.PENDING and (await self.tick_info()).tick > tick:
            # However old the tick is by now: it must not pass for one that is forgotten.
            raise ChainUnreachable(
                f"the archive of the Qubic RPC at {self._base} does not know tick {tick} yet; wait, or take "
                "another one"
            )
        return None

    async def _listed(self, tick: Tick) -> tuple[bytes, ...] | Outcome:
        """The digests of a tick's transactions in slot order, none if it was empty or the network skipped
        it; PENDING or UNKNOWN if the archive cannot say."""
        last = (await self._get(f"{ARCHIVE}/getLastProcessedTick", answers.LastProcessed)).tick_number
        if last < tick:
            return Outcome.PENDING
        try:
            digests = await self._digests(tick)
        except _Refused as error:
            outcome = await self._why_refused(tick, error)
            if outcome is not Outcome.MISSED:
                return outcome
            digests = ()
        return digests if digests or last >= tick + SETTLED_TICKS else Outcome.PENDING

    async def _digests(self, tick: Tick) -> tuple[bytes, ...]:
        """As a processed tick lists them."""
        answer = await self._post(f"{ARCHIVE}/getTickData", {"tickNumber": tick}, answers.TickDataAnswer)
        data = answer.tick_data
        if data is None:
            return ()
        if data.tick_number != tick:
            raise self._garbled("the data of another tick")
        try:
            return tuple(bytes(parse_identity(text.upper())) for text in data.transaction_hashes)
        except UsageError:
            raise self._garbled("a transaction hash that is none") from None

    async def _why_refused(self, tick: Tick, error: _Refused) -> Outcome:
        """What the refusal of a processed tick means: skipped by the network, or before the archive."""
        if error.code != INVALID_ARGUMENT:
            raise self._refused(error) from error
        answer = await self._get(f"{ARCHIVE}/getProcessedTickIntervals", answers.Intervals)
        intervals = answer.processed_tick_intervals
        if not any(interval.first_tick <= tick for interval in intervals):
            return Outcome.UNKNOWN
        if any(interval.first_tick <= tick <= interval.last_tick for interval in intervals):
            return Outcome.PENDING
        return Outcome.MISSED

    async def _in_tick(self, tick: Tick, listed: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """The transactions of a processed tick, which must be exactly those that it lists."""
        try:
            answer = await self._post(
                f"{ARCHIVE}/getTransactionsForTick", {"tickNumber": tick}, answers.Transactions
            )
        except _Refused as error:
            if listed or error.code != INVALID_ARGUMENT:
                raise self._refused(error) from error
            return ()  # of a tick that the network skipped
        found = {transaction_digest(raw): raw for raw in map(self._raw, answer.transactions)}
        if not set(listed) <= found.keys():
            raise self._garbled(f"not all transactions of tick {tick}")
        if len(found) > len(listed):
            raise self._contradiction(tick, "it has transactions of it that the tick does not list")
        return tuple(found[digest] for digest in listed)

    async def _missed(self, transaction: bytes, listed: tuple[bytes, ...]) -> Outcome:
        """A tick that does not list one of our transactions, held against all else that the operator says:
        the tick's transactions, the index by hash, and the live service's record of our account."""
        ours = parse_transaction(transaction)
        others = await self._in_tick(ours.tick, listed)
        if await self._knows(transaction):
            raise self._contradiction(ours.tick, "it knows a transaction of it that the tick does not list")
        account = await self._account(ours.source)
        if account.valid_for_tick <= ours.tick:
            return Outcome.PENDING
        if account.latest_outgoing_transfer_tick == ours.tick and not _has_of(ours.source, others):
            raise self._contradiction(
                ours.tick, "our account sent something in it and the tick lists nothing"
            )
        return Outcome.MISSED

    async def _knows(self, transaction: bytes) -> bool:
        body = {"hash": transaction_hash(transaction)}
        try:
            answer = await self._post(f"{ARCHIVE}/getTransactionByHash", body, answers.TransactionAnswer)
        except _Refused as error:
            if error.code != NOT_FOUND:
                raise self._refused(error) from error
            return False
        return answer.transaction is not None

    def _raw(self, record: answers.TransactionRecord) -> bytes:
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
            with trio.fail_after(self._seconds):
                async with self._client.stream(method, self._base + path, json=body) as response:
                    content = await self._read(response)
        except (httpx.HTTPError, httpx.StreamError, trio.TooSlowError) as error:
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
            error = msgspec.json.decode(content, type=answers.ErrorObject, strict=False)
        except (msgspec.DecodeError, RecursionError):
            error = answers.ErrorObject()
        if not error.code:
            return ChainUnreachable(f"the Qubic RPC at {self._base} answers with HTTP status {status}")
        return _Refused(error.code, _printable(error.message))

    def _refused(self, error: _Refused) -> ChainUnreachable:
        return ChainUnreachable(f"the Qubic RPC at {self._base} refuses: {error} (code {error.code})")

    def _garbled(self, what: str) -> ChainUnreachable:
        return ChainUnreachable(f"the Qubic RPC at {self._base} answers with {what}; it is not usable")

    def _contradiction(self, tick: Tick, what: str) -> ChainDisagrees:
        return ChainDisagrees(
            f"the Qubic RPC at {self._base} contradicts itself about tick {tick}: {what}; take another one"
        )


_NUMBERS: Final = struct.Struct("<qIHH")
"""Amount, tick, input type and input size of a transaction, between its keys and its input."""


def _has_of(source: QubicId, transactions: tuple[bytes, ...]) -> bool:
    return any(parse_transaction(raw).source == source for raw in transactions)


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:MAX_MESSAGE_CHARS])


def _named(error: Exception) -> str:
    if isinstance(error, trio.TooSlowError):
        return "too slowly"
    return _printable(str(error)) or type(error).__name__


def parse_url(url: str) -> str:
    """The base address of "rpc+http://HOST:PORT[/PATH]"; the services' own paths follow it. Spelled in one
    way only, so that two ways of writing it do not count as two RPCs.

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
    host = parts.netloc.lower().removesuffix(f":{DEFAULT_PORTS[parts.scheme]}").removesuffix(":")
    return f"{parts.scheme}://{host}{parts.path.rstrip('/')}"


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
        yield RpcChain(client, base, patience)
