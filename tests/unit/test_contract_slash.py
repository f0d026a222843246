"""Slashing: two receipts of one provider that cannot both be true, and nothing less, cost its stake."""

from __future__ import annotations

import pytest

from tests.support.escrow import Code
from tests.support.guild import GPU, OTHER_GPU, PEER, STAKE, Guild
from tests.support.probes import FIRST_TICK, QUBIX

NOW = FIRST_TICK + 100
ONE, TWO = b"\1" * 32, b"\2" * 32
Span = tuple[int, int]


@pytest.fixture
def guild() -> Guild:
    guild = Guild()
    assert guild.register() == Code.OK
    guild.tick_to(NOW)
    return guild


def span(start: int, end: int) -> Span:
    return FIRST_TICK + start, FIRST_TICK + end


def test_a_gpu_let_twice_costs_the_stake(guild: Guild) -> None:
    reserve = guild.host.reserve(QUBIX)
    first, second = guild.receipt(ONE, span(10, 60)), guild.receipt(TWO, span(50, 90))
    assert guild.slash(first, second) == Code.OK
    reward = STAKE // 100 * 25
    assert guild.balances() == (0, -STAKE, reward, 0)
    assert guild.host.reserve(QUBIX) == reserve + STAKE - reward
    assert (guild.view(), guild.info().stakes, guild.info().stakes_burned) == (None, 0, STAKE - reward)
    guild.check()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (span(10, 60), span(60, 90)),
        (span(60, 90), span(10, 60)),
        (span(10, 60), span(50, 50)),
        (span(10, 60), span(60, 50)),
        (span(60, 10), span(20, 50)),
        (span(10, 60), span(50, 101)),
        (span(-1, 60), span(50, 90)),
        (span(10, 60), (0, 2**32 - 1)),
    ],
    ids=[
        "after",
        "before",
        "empty",
        "reversed",
        "reversed first",
        "future",
        "before it registered",
        "always",
    ],
)
def test_receipts_that_prove_nothing(guild: Guild, first: Span, second: Span) -> None:
    assert guild.slash(guild.receipt(ONE, first), guild.receipt(TWO, second)) == Code.BAD_RECEIPTS
    assert guild.balances() == (0, -STAKE, 0, STAKE)
    assert guild.view()


@pytest.mark.parametrize(("first", "second"), [(span(0, 100), span(99, 100)), (span(5, 6), span(5, 6))])
def test_an_overlap_of_one_tick_is_one(guild: Guild, first: Span, second: Span) -> None:
    assert guild.slash(guild.receipt(ONE, first), guild.receipt(TWO, second)) == Code.OK


def test_one_lease_told_twice_proves_nothing(guild: Guild) -> None:
    first, second = guild.receipt(ONE, span(10, 60)), guild.receipt(ONE, span(50, 90))
    assert guild.slash(first, second) == Code.BAD_RECEIPTS


def test_an_honest_provider_whose_lease_ended_early_cannot_be_slashed(guild: Guild) -> None:
    """The lease was to last until tick 90 and ended at 40; the next began at 40. It signed what was."""
    early, next_one = guild.receipt(ONE, span(10, 40)), guild.receipt(TWO, span(40, 90))
    assert guild.slash(early, next_one) == Code.BAD_RECEIPTS
    as_planned = guild.receipt(ONE, span(10, 90))
    assert guild.slash(next_one, as_planned, signer=guild.caller) == Code.BAD_SIGNATURE
    assert guild.view()


def test_receipts_of_others_burn_the_bond(guild: Guild) -> None:
    first, second = guild.receipt(ONE, span(10, 60)), guild.receipt(TWO, span(50, 90))
    assert guild.slash(first, second, signer=guild.stranger) == Code.BAD_SIGNATURE
    assert guild.balances() == (0, -STAKE, -200, STAKE)
    assert guild.slash(first, second, attached=199) == Code.NEEDS_BOND
    assert guild.balances() == (0, -STAKE, -200, STAKE)
    guild.check()


def test_what_is_attached_beyond_the_bond_comes_back(guild: Guild) -> None:
    first, second = guild.receipt(ONE, span(10, 60)), guild.receipt(TWO, span(50, 90))
    assert guild.slash(first, second, signer=guild.stranger, attached=999) == Code.BAD_SIGNATURE
    assert guild.balances()[2] == -200


def test_two_gpus_may_be_let_at_once(guild: Guild) -> None:
    """A call names one GPU, so a receipt of another is a bad signature in it."""
    first, second = guild.receipt(ONE, span(10, 60)), guild.receipt(TWO, span(50, 90), gpu=OTHER_GPU)
    forged = guild.receipt(TWO, span(50, 90), gpu=GPU)
    signature = guild.provider.sign(second.digest(guild.network))
    assert signature != guild.provider.sign(forged.digest(guild.network))
    assert guild.slash(first, forged, signer=guild.caller) == Code.BAD_SIGNATURE


def test_receipts_of_another_network_prove_nothing(guild: Guild) -> None:
    first, second = guild.receipt(ONE, span(10, 60)), guild.receipt(TWO, span(50, 90))
    guild.network ^= 1
    assert guild.slash(first, second) == Code.BAD_SIGNATURE


def test_leaving_is_no_escape(guild: Guild) -> None:
    assert guild.exit() == Code.OK
    guild.next_epoch()
    first, second = guild.receipt(ONE, span(10, 60)), guild.receipt(TWO, span(50, 90))
    assert guild.slash(first, second) == Code.OK
    guild.next_epoch()
    assert guild.host.balance(guild.provider.public_key) < 10**13, "nothing is paid a second time"
    guild.check()


def test_a_proof_works_once(guild: Guild) -> None:
    first, second = guild.receipt(ONE, span(10, 60)), guild.receipt(TWO, span(50, 90))
    assert guild.slash(first, second) == Code.OK
    assert guild.slash(first, second) == Code.UNKNOWN_PROVIDER
    assert guild.register() == Code.OK
    assert guild.update(PEER, PEER, 5) == Code.OK
    assert guild.slash(first, second) == Code.BAD_RECEIPTS
    guild.check()
