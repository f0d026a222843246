"""The devnet's public HTTP RPC: the Live and the Archive service over one engine, as Qubic serves them.

Bodies are JSON; 64-bit integers are strings, errors `{code, message, details}` with gRPC's codes. Paths
and field names as in the descriptions that Qubic publishes for its partners. HTTP itself is h11's. One
thing no network has: a devnet that was told so gives play money to whoever asks.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import h11
import trio

from escrow_bridge.devnet.engine import Engine
from escrow_bridge.qubic import (
    MAX_INPUT_BYTES,
    MAX_TRANSACTION_BYTES,
    SIGNATURE_BYTES,
    identity_of,
    parse_identity,
    parse_transaction,
    transaction_hash,
)
from protocol.errors import MessageInvalid, UsageError
from protocol.units import Qu, Tick

_LOG: Final = logging.getLogger(__name__)
LIVE: Final = "/live/v1"
ARCHIVE: Final = "/query/v1"
GIFT: Final = "/devnet/v1/gift"
ARCHIVE_LAG_TICKS: Final = 2
"""How many past ticks the archive has not processed yet."""
MAX_BODY_BYTES: Final = 16_384
READ_CHUNK_BYTES: Final = 16_384
MAX_CONNECTIONS: Final = 256
IDLE_SECONDS: Final = 60.0
SEND_SECONDS: Final = 10.0
INVALID_ARGUMENT: Final = 3
NOT_FOUND: Final = 5
UNAVAILABLE: Final = 14
STATUS: Final = {INVALID_ARGUMENT: 400, NOT_FOUND: 404, UNAVAILABLE: 503}
"""gRPC code -> HTTP status."""
Body = dict[str, Any]


class _Refused(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class RpcServer:
    """Answers connections over one engine; `handle` goes to `trio.serve_listeners` and the like."""

    engine: Engine
    archive_lag_ticks: int = ARCHIVE_LAG_TICKS
    gift: Qu = Qu(0)
    """Any account is filled up to that on request; 0: none is."""
    connections: int = 0

    async def handle(self, stream: trio.abc.Stream) -> None:
        """One connection, any number of requests; beyond MAX_CONNECTIONS it is closed at once."""
        self.connections += 1
        try:
            if self.connections <= MAX_CONNECTIONS:
                await _Exchange(self, stream).run()
        except (h11.ProtocolError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            _LOG.debug("connection ended: %s", error)
        except trio.TooSlowError:
            _LOG.debug("connection ended: too slow")
        finally:
            self.connections -= 1

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Body]:
        """(HTTP status, JSON object) for one request."""
        try:
            return 200, self._dispatch(method, path, body)
        except _Refused as error:
            return STATUS[error.code], {"code": error.code, "message": str(error), "details": []}

    def _dispatch(self, method: str, path: str, body: bytes) -> Body:
        if self.engine.silent:
            raise _Refused(UNAVAILABLE, "no node answers")
        prefix, _, identity = path.rpartition("/")
        if (method, prefix) == ("GET", f"{LIVE}/balances"):
            return _balance(self.engine, identity)
        handler = _HANDLERS.get((method, path))
        if handler is None:
            raise _Refused(NOT_FOUND, "Not Found")
        return handler(self, _object(body) if method == "POST" else {})

    @property
    def last_processed(self) -> Tick:
        info = self.engine.tick_info()
        return Tick(max(info.tick - 1 - self.archive_lag_ticks, self.engine.first_tick - 1))

    def past(self, request: Body) -> tuple[Tick, dict[bytes, bytes]]:
        tick = _number(request, "tickNumber")
        if tick > self.last_processed:
            raise _Refused(
                INVALID_ARGUMENT,
                f"invalid tick number: {tick} is greater than last processed tick {self.last_processed}",
            )
        included = self.engine.past(Tick(tick))
        if included is None:
            raise _Refused(INVALID_ARGUMENT, f"invalid tick number: {tick} is not in the archive")
        return Tick(tick), included

    def find(self, digest: bytes) -> bytes | None:
        """A transaction in one of the ticks that are processed."""
        last = self.last_processed
        for tick in range(last, last - self.engine.rules.keep_ticks, -1):
            raw = (self.engine.past(Tick(tick)) or {}).get(digest)
            if raw is not None:
                return raw
        return None


class _Exchange:
    """One connection's requests and answers."""

    def __init__(self, server: RpcServer, stream: trio.abc.Stream) -> None:
        self._server = server
        self._stream = stream
        self._http = h11.Connection(h11.SERVER)

    async def run(self) -> None:
        while (request := await self._request()) is not None:
            await self._answer(*self._server.answer(*request))
            if self._http.our_state is h11.MUST_CLOSE:
                return
            self._http.start_next_cycle()

    async def _request(self) -> tuple[str, str, bytes] | None:
        """(method, path, body) of the next request, None at the end of the connection."""
        head, body = await self._next(), b""
        if not isinstance(head, h11.Request):
            return None
        while isinstance(data := await self._next(), h11.Data):
            body += data.data
            if len(body) > MAX_BODY_BYTES:
                raise h11.RemoteProtocolError(f"a body has at most {MAX_BODY_BYTES} bytes")
        return head.method.decode(), head.target.decode(), body

    async def _next(self) -> h11.Event | type[h11.PAUSED]:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            with trio.fail_after(IDLE_SECONDS):
                self._http.receive_data(bytes(await self._stream.receive_some(READ_CHUNK_BYTES)))
        assert not isinstance(event, type) or event is h11.PAUSED
        return event

    async def _answer(self, status: int, answer: Body) -> None:
        body = json.dumps(answer).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(body)))]
        events = (h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage())
        with trio.fail_after(SEND_SECONDS):
            await self._stream.send_all(b"".join(self._http.send(event) or b"" for event in events))


def _object(body: bytes) -> Body:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _Refused(INVALID_ARGUMENT, "the body is not a JSON object")
    return value


def _number(request: Body, name: str) -> int:
    """An unsigned 32-bit integer of a request; as in protobuf's JSON it may be a string, missing is 0."""
    value = request.get(name, 0)
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 32:
        raise _Refused(INVALID_ARGUMENT, f"invalid value for {name}")
    return value


def _bytes(request: Body, name: str, most: int) -> bytes:
    try:
        value = base64.b64decode(request.get(name, ""), validate=True)
    except (TypeError, ValueError, binascii.Error):
        value = bytes(most + 1)
    if len(value) > most:
        raise _Refused(INVALID_ARGUMENT, f"{name} is not base64 of at most {most} bytes")
    return value


def _tick_info(server: RpcServer, _: Body) -> Body:
    info = server.engine.tick_info()
    return {
        "tickInfo": {
            "tick": info.tick,
            "duration": info.tick_duration_ms,
            "epoch": info.epoch,
            "initialTick": info.initial_tick,
        }
    }


def _balance(engine: Engine, identity: str) -> Body:
    try:
        owner = parse_identity(identity)
    except UsageError:
        raise _Refused(INVALID_ARGUMENT, "invalid identity") from None
    known = engine.entity(owner)
    incoming, outgoing = (known.incoming, known.outgoing) if known else (0, 0)
    return {
        "balance": {
            "id": identity,
            "balance": str(incoming - outgoing),
            "validForTick": engine.tick_info().tick,
            "latestIncomingTransferTick": known.last_incoming_tick if known else 0,
            "latestOutgoingTransferTick": known.last_outgoing_tick if known else 0,
            "incomingAmount": str(incoming),
            "outgoingAmount": str(outgoing),
            "numberOfIncomingTransfers": known.incoming_count if known else 0,
            "numberOfOutgoingTransfers": known.outgoing_count if known else 0,
        }
    }


def _gift(server: RpcServer, request: Body) -> Body:
    if not server.gift:
        raise _Refused(NOT_FOUND, "this devnet gives no money away")
    try:
        owner = parse_identity(str(request.get("identity")))
    except UsageError:
        raise _Refused(INVALID_ARGUMENT, "invalid identity") from None
    return {"balance": str(server.engine.fill_up(owner, server.gift))}


def _broadcast(server: RpcServer, request: Body) -> Body:
    raw = _bytes(request, "encodedTransaction", MAX_TRANSACTION_BYTES)
    try:
        parse_transaction(raw)
    except MessageInvalid as error:
        raise _Refused(INVALID_ARGUMENT, str(error)) from None
    drop = server.engine.submit(raw)
    if drop is not None:
        # Whoever sends it learns nothing of that, as on the network.
        _LOG.debug("dropped a transaction: %s", drop)
    return {
        "peersBroadcasted": 1,
        "encodedTransaction": base64.b64encode(raw).decode(),
        "transactionId": transaction_hash(raw),
    }


def _query_contract(server: RpcServer, request: Body) -> Body:
    payload = _bytes(request, "requestData", MAX_INPUT_BYTES)
    if len(payload) != _number(request, "inputSize"):
        raise _Refused(INVALID_ARGUMENT, "inputSize is not the size of requestData")
    index, input_type = _number(request, "contractIndex"), _number(request, "inputType")
    output = server.engine.host.query(index, input_type & 0xFFFF, payload)
    return {"responseData": base64.b64encode(output).decode()}


def _last_processed_tick(server: RpcServer, _: Body) -> Body:
    info = server.engine.tick_info()
    return {
        "tickNumber": server.last_processed,
        "epoch": info.epoch,
        "intervalInitialTick": server.engine.first_tick,
    }


def _intervals(server: RpcServer, _: Body) -> Body:
    oldest = max(server.engine.first_tick, server.engine.tick_info().tick - server.engine.rules.keep_ticks)
    interval = {
        "epoch": server.engine.host.epoch,
        "firstTick": oldest,
        "lastTick": server.last_processed,
    }
    return {"processedTickIntervals": [interval]}


def _tick_data(server: RpcServer, request: Body) -> Body:
    tick, included = server.past(request)
    if not included:
        return {"tickData": None}
    hashes = [transaction_hash(raw) for raw in included.values()]
    return {
        "tickData": {
            "tickNumber": tick,
            "epoch": server.engine.host.epoch,
            "computorIndex": 0,
            "timestamp": "0",
            "varStruct": "",
            "timeLock": "",
            "transactionHashes": hashes,
            "contractFees": [],
            "signature": "",
        }
    }


def _transactions_for_tick(server: RpcServer, request: Body) -> Body:
    # In another order than in the tick: the archive promises none.
    _, included = server.past(request)
    return {"transactions": [_transaction(raw) for _, raw in sorted(included.items())]}


def _transaction_by_hash(server: RpcServer, request: Body) -> Body:
    try:
        raw = server.find(parse_identity(str(request.get("hash")).upper()))
    except UsageError:
        raise _Refused(INVALID_ARGUMENT, "invalid hash") from None
    if raw is None:
        raise _Refused(NOT_FOUND, "transaction not found")
    return {"transaction": _transaction(raw)}


def _transaction(raw: bytes) -> Body:
    transaction = parse_transaction(raw)
    return {
        "hash": transaction_hash(raw),
        "amount": str(transaction.amount),
        "source": identity_of(transaction.source),
        "destination": identity_of(transaction.destination),
        "tickNumber": transaction.tick,
        "timestamp": "0",
        "inputType": transaction.input_type,
        "inputSize": len(transaction.payload),
        "inputData": base64.b64encode(transaction.payload).decode(),
        "signature": base64.b64encode(raw[-SIGNATURE_BYTES:]).decode(),
        "moneyFlew": False,
    }


_HANDLERS: Final[dict[tuple[str, str], Callable[[RpcServer, Body], Body]]] = {
    ("GET", f"{LIVE}/tick-info"): _tick_info,
    ("POST", f"{LIVE}/broadcast-transaction"): _broadcast,
    ("POST", GIFT): _gift,
    ("POST", f"{LIVE}/querySmartContract"): _query_contract,
    ("GET", f"{ARCHIVE}/getLastProcessedTick"): _last_processed_tick,
    ("GET", f"{ARCHIVE}/getProcessedTickIntervals"): _intervals,
    ("POST", f"{ARCHIVE}/getTickData"): _tick_data,
    ("POST", f"{ARCHIVE}/getTransactionsForTick"): _transactions_for_tick,
    ("POST", f"{ARCHIVE}/getTransactionByHash"): _transaction_by_hash,
}
