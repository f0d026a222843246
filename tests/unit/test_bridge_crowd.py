"""Small deposits are taken while there is room. A refusal is foreseen, or comes back, with a sentence."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from escrow_bridge import layout
from escrow_bridge.devnet.__main__ import CONTRACT_INDEX
from escrow_bridge.escrow import read_info
from escrow_bridge.layout import CROWD, Procedure
from escrow_bridge.qubic import contract_id, sign_transaction
from protocol.errors import FundingFailed
from protocol.units import LeaseId, Qu, Tick
from tests.support import escrow
from tests.support.chains import FUNDS, Store, World, make_world

OURS = LeaseId(b"ours" * 8)


@pytest.fixture
async def world(nursery: trio.Nursery) -> World:
    world = make_world()
    nursery.start_soon(world.tick_for_ever)
    return world


async def crowd(world: World, first: int, count: int) -> None:
    """Hand in as many openings of 1 QU, for the nearest tick that is left to them."""
    tick = Tick(world.chain.engine.tick_info().tick + 3)
    network = (await read_info(world.chain, CONTRACT_INDEX)).network
    for number in range(first, first + count):
        terms = LeaseId(number.to_bytes(32, "little"))
        payload = layout.open_input(world.provider.public_key, terms, Tick(tick + 200), 16, network)
        raw = sign_transaction(
            world.caller, contract_id(CONTRACT_INDEX), Qu(1), tick, Procedure.OPEN, payload
        )
        assert world.chain.engine.submit(raw) is None


def test_the_crowd_is_the_contracts() -> None:
    assert CROWD == escrow.CROWD


async def test_a_deposit_too_small_for_the_crowd_is_not_sent(world: World, autojump_clock: MockClock) -> None:
    await crowd(world, 0, CROWD)
    await trio.sleep(6)
    info = await read_info(world.chain, CONTRACT_INDEX)
    assert (info.taken, info.least_deposit) == (CROWD, 2)
    order, store = replace(world.order(1), terms=OURS), Store()
    sentence = "while 256 of the contract's 4,096 places are taken, it must be at least 2"
    with pytest.raises(FundingFailed, match=sentence):
        await world.bridge(world.caller).open_escrow(order, b"", store.save)
    assert (store.saves, world.chain.broadcasts) == (0, [])
    view = await world.bridge(world.caller).open_escrow(replace(order, deposit=Qu(2)), b"", store.save)
    assert view.deposit == 2


async def test_a_deposit_that_a_crowd_forestalls_comes_back(world: World, autojump_clock: MockClock) -> None:
    await crowd(world, 0, CROWD - 1)
    await trio.sleep(6)
    store = Store()

    async def save(scratch: bytes) -> None:
        await crowd(world, CROWD, 1)
        await store.save(scratch)

    order = replace(world.order(1), terms=OURS)
    with pytest.raises(FundingFailed, match="too full for so little"):
        await world.bridge(world.caller).open_escrow(order, b"", save)
    assert world.balance(world.caller) == FUNDS - CROWD == FUNDS - world.locked


async def test_a_full_contract_is_told(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = await read_info(world.chain, CONTRACT_INDEX)

    async def full(chain: object, index: int) -> layout.ContractInfo:
        return replace(info, opened=5_000, closed=5_000 - info.capacity)

    monkeypatch.setattr("escrow_bridge.bridge.read_info", full)
    with pytest.raises(FundingFailed, match="4,096 of the contract's 4,096 places are taken; try again"):
        await world.bridge(world.caller).open_escrow(world.order(FUNDS - 1), b"", Store().save)
    assert world.chain.broadcasts == []
