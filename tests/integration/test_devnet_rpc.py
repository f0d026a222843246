"""The devnet's RPC under raw HTTP: it answers in Qubic's form and survives what is thrown at it."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import trio

from escrow_bridge.devnet.__main__ import CONTRACT_INDEX, FIRST_TICK
from escrow_bridge.devnet.engine import Engine
from escrow_bridge.devnet.rpc_server import ARCHIVE, GIFT, LIVE, MAX_BODY_BYTES, RpcServer
from escrow_bridge.qubic import identity_of, sign_transaction, transaction_hash
from protocol.units import Qu, QubicId, Tick
from tests.support.nodes import OTHER, RICH, engine_at, serving


@pytest.fixture
def engine() -> Engine:
    return engine_at(5)


@pytest.fixture
async def address(engine: Engine) -> AsyncIterator[str]:
    async with serving(RpcServer(engine).handle) as addresses:
        yield addresses[0]


@pytest.fixture
async def client(address: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as client:
        yield client


async def test_sixty_four_bit_numbers_are_strings(engine: Engine, client: httpx.AsyncClient) -> None:
    balance = (await client.get(f"{LIVE}/balances/{RICH.identity}")).json()["balance"]
    assert balance == {
        "id": RICH.identity,
        "balance": "1000",
        "validForTick": FIRST_TICK + 5,
        "latestIncomingTransferTick": balance["latestIncomingTransferTick"],
        "latestOutgoingTransferTick": 0,
        "incomingAmount": "1000",
        "outgoingAmount": "0",
        "numberOfIncomingTransfers": 1,
        "numberOfOutgoingTransfers": 0,
    }


async def test_a_transaction_as_the_archive_shows_it(engine: Engine, client: httpx.AsyncClient) -> None:
    tick = Tick(FIRST_TICK + 8)
    raw = sign_transaction(RICH, OTHER.public_key, Qu(5), tick, 7, b"abc")
    encoded = base64.b64encode(raw).decode()
    sent = await client.post(f"{LIVE}/broadcast-transaction", json={"encodedTransaction": encoded})
    assert sent.json()["transactionId"] == transaction_hash(raw)
    for _ in range(7):
        engine.advance()
    data = (await client.post(f"{ARCHIVE}/getTickData", json={"tickNumber": tick})).json()["tickData"]
    assert (data["tickNumber"], data["transactionHashes"]) == (tick, [transaction_hash(raw)])
    answer = await client.post(f"{ARCHIVE}/getTransactionsForTick", json={"tickNumber": str(tick)})
    (shown,) = answer.json()["transactions"]
    assert shown == {
        "hash": transaction_hash(raw),
        "amount": "5",
        "source": RICH.identity,
        "destination": identity_of(OTHER.public_key),
        "tickNumber": tick,
        "timestamp": "0",
        "inputType": 7,
        "inputSize": 3,
        "inputData": base64.b64encode(b"abc").decode(),
        "signature": base64.b64encode(raw[-64:]).decode(),
        "moneyFlew": False,
    }


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/", None, 404, 5),
        ("GET", f"{LIVE}/balances/nobody", None, 400, 3),
        ("GET", f"{LIVE}/querySmartContract", None, 404, 5),
        ("POST", f"{LIVE}/tick-info", {}, 404, 5),
        ("POST", f"{LIVE}/broadcast-transaction", {"encodedTransaction": "AAAA"}, 400, 3),
        ("POST", f"{LIVE}/broadcast-transaction", {"encodedTransaction": "!"}, 400, 3),
        ("POST", f"{LIVE}/broadcast-transaction", {"encodedTransaction": 5}, 400, 3),
        ("POST", f"{LIVE}/querySmartContract", {"contractIndex": CONTRACT_INDEX, "inputSize": 1}, 400, 3),
        ("POST", f"{LIVE}/querySmartContract", {"contractIndex": -1}, 400, 3),
        ("POST", f"{LIVE}/querySmartContract", {"contractIndex": 1.5}, 400, 3),
        ("POST", f"{LIVE}/querySmartContract", {"inputType": 1 << 40}, 400, 3),
        ("POST", f"{ARCHIVE}/getTickData", [], 400, 3),
        ("POST", f"{ARCHIVE}/getTickData", {"tickNumber": FIRST_TICK + 5}, 400, 3),
        ("POST", f"{ARCHIVE}/getTickData", {"tickNumber": 1}, 400, 3),
        ("POST", f"{ARCHIVE}/getTickData", {"tickNumber": True}, 400, 3),
    ],
)
async def test_what_is_refused(
    client: httpx.AsyncClient, method: str, path: str, body: Any, status: int, code: int
) -> None:
    answer = await client.request(method, path, json=body)
    assert answer.status_code == status
    error = answer.json()
    assert error["code"] == code and error["message"] and error["details"] == []


@pytest.mark.attack
@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00" * 100,
        b"HELO example\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1)
        + bytes(MAX_BODY_BYTES + 1),
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 100_000,
    ],
)
async def test_garbage_costs_only_its_own_connection(
    address: str, client: httpx.AsyncClient, garbage: bytes
) -> None:
    host, _, port = address.rpartition(":")
    stream = await trio.open_tcp_stream(host, int(port))
    try:
        await stream.send_all(garbage)
        while await stream.receive_some():
            pass
    except trio.BrokenResourceError:
        pass
    await stream.aclose()
    assert (await client.get(f"{LIVE}/tick-info")).status_code == 200


@pytest.mark.attack
async def test_a_body_that_is_no_json_is_refused(client: httpx.AsyncClient) -> None:
    for body in (b"", b"{", b"[" * 10_000, b"\xff\xfe"):
        answer = await client.post(f"{ARCHIVE}/getTickData", content=body)
        assert answer.status_code == 400


async def test_play_money_is_given_up_to_a_sum_and_only_by_a_devnet_told_so(
    engine: Engine, client: httpx.AsyncClient
) -> None:
    asked = {"identity": identity_of(bytes(range(32)))}
    assert (await client.post(GIFT, json=asked)).status_code == 404
    async with (
        serving(RpcServer(engine, gift=Qu(700)).handle) as addresses,
        httpx.AsyncClient(base_url=f"http://{addresses[0]}", trust_env=False) as generous,
    ):
        for _ in range(2):
            assert (await generous.post(GIFT, json=asked)).json() == {"balance": "700"}
        rich = await generous.post(GIFT, json={"identity": RICH.identity})
        assert rich.json() == {"balance": "1000"}, "who has more keeps it"
        for wrong in ({}, {"identity": 5}, {"identity": RICH.identity.lower()}):
            assert (await generous.post(GIFT, json=wrong)).status_code == 400
    assert engine.balance(QubicId(bytes(range(32)))) == 700
