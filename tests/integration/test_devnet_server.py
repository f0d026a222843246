"""The devnet process under raw bytes: it answers as a node does and survives what is thrown at it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
import trio

from escrow_bridge import wire_format as wire
from escrow_bridge.devnet.server import MAX_REQUEST_BYTES
from escrow_bridge.qubic import sign_transaction, transaction_digest
from escrow_bridge.wire_format import HEADER_BYTES, Kind, Message, MessageReader, encode
from protocol.errors import PortBusy
from protocol.units import Qu, Tick
from tests.support.chains import wallet_of
from tests.support.devnet_process import DevnetProcess, devnet_process

RICH, OTHER = wallet_of(0), wallet_of(1)


@pytest.fixture
async def devnet() -> AsyncIterator[DevnetProcess]:
    async with devnet_process([(RICH.public_key, Qu(1_000))]) as process:
        with trio.fail_after(60):
            yield process


class Client:
    """A bare connection that has been greeted."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.reader = MessageReader(stream)
        self.dejavu = 100

    @classmethod
    async def connect(cls, devnet: DevnetProcess) -> Client:
        client = cls(await trio.open_tcp_stream("127.0.0.1", devnet.port))
        greeting = await client.receive()
        assert (greeting.kind, len(greeting.payload)) == (Kind.PEERS, 16)
        return client

    async def receive(self) -> Message:
        message = await self.reader.receive()
        assert message is not None
        return message

    async def ask(self, kind: Kind, payload: bytes = b"") -> Message:
        self.dejavu += 1
        await self.stream.send_all(encode(kind, self.dejavu, payload))
        answer = await self.receive()
        assert answer.dejavu == self.dejavu
        return answer

    async def tick(self) -> Tick:
        return wire.parse_tick_info((await self.ask(Kind.REQUEST_TICK_INFO)).payload).tick

    async def reach(self, tick: int) -> None:
        while await self.tick() < tick:
            await trio.sleep(0.01)


async def test_an_exact_repeat_is_dropped_from_any_connection(devnet: DevnetProcess) -> None:
    first, second = await Client.connect(devnet), await Client.connect(devnet)
    request = encode(Kind.REQUEST_TICK_INFO, 7)
    await first.stream.send_all(request)
    assert (await first.receive()).dejavu == 7
    for client in (first, second):
        client.dejavu += 100 * (client is second)
        await client.stream.send_all(request)
        assert (await client.ask(Kind.REQUEST_TICK_INFO)).kind == Kind.TICK_INFO


async def test_a_transaction_shows_in_its_tick_and_in_the_balances(devnet: DevnetProcess) -> None:
    client = await Client.connect(devnet)
    tick = Tick(await client.tick() + 28)  # nearly as far ahead as may be: a machine may be slow
    good = sign_transaction(RICH, OTHER.public_key, Qu(300), tick)
    forged = good[:-1] + bytes([good[-1] ^ 1])
    for raw in (forged, good[:-1], good, b""):
        await client.stream.send_all(encode(Kind.TRANSACTION, 0, raw))
    await client.reach(tick + 1)
    answer = await client.ask(Kind.REQUEST_TICK_DATA, wire.pack_tick(tick))
    assert wire.parse_tick_data(answer.payload, tick).digests == (transaction_digest(good),)
    request = wire.pack_tick_transactions_request(tick, wire.SLOTS)
    assert (await client.ask(Kind.REQUEST_TICK_TRANSACTIONS, request)).payload == good
    assert (await client.receive()).kind == Kind.END
    entity = await client.ask(Kind.REQUEST_ENTITY, OTHER.public_key)
    assert wire.parse_entity(entity.payload, OTHER.public_key)[0] == 300
    empty = await client.ask(Kind.REQUEST_TICK_DATA, wire.pack_tick(Tick(tick - 1)))
    assert empty.kind == Kind.END


async def test_garbage_costs_only_its_own_connection(devnet: DevnetProcess) -> None:
    bystander = await Client.connect(devnet)
    too_large = (MAX_REQUEST_BYTES + 1).to_bytes(3, "little") + bytes(5)
    too_small = (HEADER_BYTES - 1).to_bytes(3, "little") + bytes(5)
    for garbage in (too_large, too_small, b"\xff" * 5_000):
        client = await Client.connect(devnet)
        await client.stream.send_all(garbage)
        assert await client.stream.receive_some() == b""
    for kind in (*Kind, 0xEE):
        for payload in (b"", b"\xff", b"\xff" * 31, b"\xff" * 200):
            size = (HEADER_BYTES + len(payload)).to_bytes(3, "little")
            await bystander.stream.send_all(size + bytes([kind]) + b"\x09\0\0\0" + payload)
    half = await Client.connect(devnet)
    await half.stream.send_all(encode(Kind.REQUEST_TICK_INFO, 1)[:5])
    await half.stream.aclose()
    bystander.dejavu = 1_000
    await bystander.stream.send_all(encode(Kind.REQUEST_TICK_INFO, 2_000))
    while (await bystander.receive()).dejavu != 2_000:
        pass


async def test_a_busy_port_ends_in_one_sentence(devnet: DevnetProcess) -> None:
    command = [sys.executable, "-m", "escrow_bridge.devnet", "--port", str(devnet.port)]
    result = await trio.run_process(command, capture_stderr=True, check=False)
    assert result.returncode == PortBusy.exit_code
    assert result.stderr.count(b"\n") == 1 and PortBusy.code.encode() in result.stderr


@pytest.mark.parametrize(
    "arguments", [["--tick-seconds", "0"], ["--fund", "nobody=1"], ["--keep-ticks", "1"]]
)
def test_wrong_arguments_end_in_one_sentence(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "escrow_bridge.devnet", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
