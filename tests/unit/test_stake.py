"""The registry from a provider's daemon: enter, add, leave, refusals, and kills anywhere on the way."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from escrow_bridge import layout_registry
from escrow_bridge.devnet.__main__ import CONTRACT_INDEX
from escrow_bridge.layout import Function, Procedure
from escrow_bridge.layout_registry import MIN_STAKE, ProviderView
from escrow_bridge.qubic import parse_transaction
from protocol.control_market import StakeArgs
from protocol.errors import NotFound, PaymentFailed, QubixError, Refused, UsageError
from qubixd.config import Config
from qubixd.stake_desk import metadata_of, stake
from tests.support.rental import due, rental
from tests.support.world import FUNDS, Killed, Person, World
from tests.support.world_jobs import job

Clock = trio.testing.MockClock


def record_of(world: World, person: Person) -> ProviderView | None:
    """What the contract says."""
    host = world.chain.engine.host
    return layout_registry.decode_provider(
        host.query(CONTRACT_INDEX, Function.GET_PROVIDER, person.wallet.public_key)
    )


def sent(world: World, procedure: Procedure) -> int:
    """Different transactions of a kind that ever reached the network."""
    kinds = [parse_transaction(raw).input_type for raw in set(world.chain.broadcasts)]
    return kinds.count(procedure)


async def test_a_provider_enters_adds_and_leaves(tmp_path: Path, autojump_clock: Clock) -> None:
    async with World(tmp_path) as world:
        alice = await world.start("alice", provider=True)
        nothing = await stake(alice.up, StakeArgs())
        assert not nothing.registered and f"qubix stake {MIN_STAKE}" in nothing.sentence
        entered = await stake(alice.up, StakeArgs("a", MIN_STAKE))
        assert (entered.registered, entered.stake, entered.sentence) == (True, MIN_STAKE, "in the registry")
        more = await stake(alice.up, StakeArgs("b", 500))
        assert more.stake == MIN_STAKE + 500
        found = record_of(world, alice)
        assert found is not None and found.peer_key == alice.peer
        assert found.metadata == metadata_of(alice.up.config)
        leaving = await stake(alice.up, StakeArgs("c", leave=True))
        assert leaving.exit_epoch and str(leaving.exit_epoch) in leaving.sentence
        assert await stake(alice.up, StakeArgs("d", leave=True)) == leaving
        assert world.balance(alice) == FUNDS - MIN_STAKE - 500
        for _ in range(3):
            world.chain.engine.end_epoch()
            await trio.sleep(3)
        assert world.balance(alice) == FUNDS, "the stake came back"
        assert not (await stake(alice.up, StakeArgs())).registered
        world.check_conservation()


async def test_leases_are_counted_from_then_on(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        await stake(one.alice.up, StakeArgs("a", MIN_STAKE))
        await one.rent(job(seconds=20))
        await one.ended()
        counted = await stake(one.alice.up, StakeArgs())
        assert (counted.completed, counted.volume) == (1, due(20))


async def test_asked_again_with_the_same_id_it_is_done_once(tmp_path: Path, autojump_clock: Clock) -> None:
    async with World(tmp_path) as world:
        alice = await world.start("alice", provider=True)
        for _ in range(3):
            await stake(alice.up, StakeArgs("a", MIN_STAKE))
        await stake(alice.up, StakeArgs("b", 0))
        assert sent(world, Procedure.REGISTER) == 1
        assert sent(world, Procedure.UPDATE) == 0
        with pytest.raises(UsageError, match="another payment"):
            await stake(alice.up, StakeArgs("a", 7))


async def test_what_cannot_be_is_said_before_anything_is_sent(tmp_path: Path, autojump_clock: Clock) -> None:
    async with World(tmp_path) as world:
        alice = await world.start("alice", provider=True)
        bob = await world.start("bob")

        async def refused(person: Person, args: StakeArgs, kind: type[QubixError], words: str) -> None:
            with pytest.raises(kind, match=words):
                await stake(person.up, args)

        await refused(bob, StakeArgs("a", MIN_STAKE), UsageError, "--provider")
        await refused(alice, StakeArgs("a", MIN_STAKE - 1), UsageError, "at least 1,000,000 QU")
        await refused(alice, StakeArgs("a", 10**15 + 1), UsageError, "at most")
        await refused(alice, StakeArgs("a", leave=True), NotFound, "nothing to leave")
        await refused(alice, StakeArgs("a", 5, leave=True), UsageError, "not both")
        await refused(alice, StakeArgs("", MIN_STAKE), UsageError, "the id of a payment")
        await refused(alice, StakeArgs("a", FUNDS + 1), PaymentFailed, "holds")
        assert world.chain.broadcasts == []
        await stake(alice.up, StakeArgs("b", MIN_STAKE))
        await stake(alice.up, StakeArgs("c", leave=True))
        await refused(alice, StakeArgs("d", 5), Refused, "is leaving")


async def test_a_contract_that_gives_the_stake_back_is_told(tmp_path: Path, autojump_clock: Clock) -> None:
    async with World(tmp_path) as world:
        alice = await world.start("alice", provider=True)
        world.chain.engine.host.set_reserve(CONTRACT_INDEX, 0)
        with pytest.raises(PaymentFailed, match="out of fuel"):
            await stake(alice.up, StakeArgs("a", MIN_STAKE))
        assert world.balance(alice) == FUNDS


@pytest.mark.parametrize("commit", range(1, 6))
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_killed_anywhere_it_is_entered_once(
    tmp_path: Path, autojump_clock: Clock, commit: int, moment: str
) -> None:
    """Between any two writes of the ledger, the one between signing and sending among them."""
    async with World(tmp_path) as world:
        alice = await world.start("alice", provider=True)
        if moment == "after":
            alice.kill_after = alice.commits + commit
        else:
            alice.kill_before = alice.calls + commit
        with trio.move_on_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_try, alice)
                await alice.dead.wait()
                nursery.cancel_scope.cancel()
        alice.kill_after = alice.kill_before = None
        if alice.node is None:
            await world.start("alice", provider=True)
        view = await stake(alice.up, StakeArgs("a", MIN_STAKE))
        assert view.stake == MIN_STAKE
        assert world.balance(alice) == FUNDS - MIN_STAKE
        assert sent(world, Procedure.REGISTER) == 1


async def _try(alice: Person) -> None:
    try:
        await stake(alice.up, StakeArgs("a", MIN_STAKE))
    except Killed:
        pass
    except RuntimeError:  # trio's: another task of the node was killed first, and its nurseries are closed
        await alice.dead.wait()


def test_the_metadata_says_name_and_region() -> None:
    one = metadata_of(Config(name="a", region="eu"))
    assert len(one) == 32
    assert one != metadata_of(Config(name="a", region="us")) != metadata_of(Config(name="b", region="us"))
