"""A transfer over real sockets that has to wait says which node is late, differs or is silent."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import trio

from escrow_bridge import waiting
from escrow_bridge.bridge import Bridge
from escrow_bridge.devnet.__main__ import CONTRACT_INDEX
from escrow_bridge.devnet.engine import Engine
from escrow_bridge.devnet.server import Server
from escrow_bridge.node import open_node_chain
from escrow_bridge.transfer import TransferOrder
from protocol.units import Qu
from tests.support.chains import Store
from tests.support.nodes import FAST, OTHER, RICH, engine_at, serving

ORDER = TransferOrder(OTHER.public_key, Qu(300))
Break = Callable[[list[Server], Engine], None]


def two_fall_back(servers: list[Server], engine: Engine) -> None:
    servers[1].engine = servers[2].engine = engine_at(2)


def two_are_silent(servers: list[Server], engine: Engine) -> None:
    servers[1].engine = servers[2].engine = engine_at()
    servers[1].engine.silent = True


def one_differs_and_one_is_silent(servers: list[Server], engine: Engine) -> None:
    two_are_silent(servers, engine)
    servers[1].engine = engine_at(engine.tick_info().tick - engine.first_tick)


@pytest.mark.parametrize(
    ("breaks", "sentence"),
    [
        (two_fall_back, r"1 of 3 Qubic nodes .*B: it is at tick \d+, behind tick \d+; C: it is at tick"),
        (two_are_silent, r"1 of 3 Qubic nodes .*B: no answer within .*; C: no answer within"),
        (one_differs_and_one_is_silent, r"do not agree on .* in tick \d+: [AB] says .*, [AB] says "),
    ],
)
async def test_the_sentence_names_the_node(
    monkeypatch: pytest.MonkeyPatch, breaks: Break, sentence: str
) -> None:
    monkeypatch.setattr(waiting, "GRACE_SECONDS", 0.1)
    engine, told = engine_at(10), trio.Event()
    servers = [Server(engine) for _ in range(3)]
    async with (
        serving(*(server.handle for server in servers)) as addresses,
        open_node_chain(addresses, FAST) as chain,
        trio.open_nursery() as nursery,
    ):
        bridge = Bridge(chain, RICH, CONTRACT_INDEX, tick_offset=4, poll_seconds=0.02)
        bridge.waiting.on_change.append(told.set)
        nursery.start_soon(bridge.transfer, ORDER, b"", Store().save)
        while not engine.balance(OTHER.public_key):
            await trio.sleep(0.05)
            engine.advance()
        engine.advance()
        breaks(servers, engine)
        await told.wait()
        why = bridge.waiting.why
        for server in servers:
            server.engine = engine
        while bridge.waiting.why:
            await trio.sleep(0.05)
    for letter, address in zip("ABC", addresses, strict=True):
        why = why.replace(address, letter)
    assert re.search(sentence, why), why
    assert engine.balance(OTHER.public_key) == 300
