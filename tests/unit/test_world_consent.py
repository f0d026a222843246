"""Before anything is signed both sides are told what they can lose, and a person can still say no."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from protocol.control import ConfirmArgs, RunArgs, RunEvent
from protocol.errors import LeaseUnknown, QuoteDeclined
from protocol.lease import max_loss, max_loss_if_gone, max_loss_words
from protocol.lease_state import Role
from protocol.units import Qu, Seconds, amount_due, fee_of
from qubixd.control import confirm, run
from tests.support.lease_plan import make_terms
from tests.support.rental import Rental, rental
from tests.support.world import PRICE
from tests.support.world_jobs import job
from tui.consent import terms

Clock = trio.testing.MockClock


async def nobody(event: object) -> None: ...


class Asked:
    """A front end: collects the events and answers the quote as told."""

    def __init__(self, one: Rental, accept: bool | None) -> None:
        self.one, self.accept = one, accept
        self.events: list[RunEvent] = []

    async def take(self, event: object) -> None:
        assert isinstance(event, RunEvent)
        self.events.append(event)
        if event.quote and self.accept is not None:
            await confirm(self.one.bob.up, ConfirmArgs(event.quote.token, self.accept), nobody)

    async def run(self, *, ask: bool, extra: str = "") -> RunEvent:
        text = job(seconds=3, extra=extra)
        args = RunArgs(text, str(self.one.world.root), str(self.one.bob.root / "out"), ask=ask)
        return await run(self.one.bob.up, args, self.take)


@asynccontextmanager
async def asked(root: Path, accept: bool | None) -> AsyncIterator[Asked]:
    async with rental(root) as one:
        yield Asked(one, accept)


@pytest.mark.parametrize("ask", [True, False])
async def test_the_quote_comes_before_the_lease(
    tmp_path: Path, autojump_clock: Clock, caplog: pytest.LogCaptureFixture, ask: bool
) -> None:
    caplog.set_level(logging.INFO)
    async with asked(tmp_path, accept=True if ask else None) as front:
        last = await front.run(ask=ask)
        assert last.lease is not None and last.phase == "done"
        at = next(number for number, event in enumerate(front.events) if event.quote)
        assert all(event.lease is None for event in front.events[: at + 1])
        quote = front.events[at].quote
        assert quote is not None
        assert (quote.max_loss_qu, quote.deposit) == (last.lease.max_loss_qu, last.lease.deposit)
        assert quote.max_loss_qu == 7_000 and quote.max_loss_intervals == 7
        assert "at most 7,000 QU = 7 intervals of 1 s" in front.events[at].detail
        assert "you can lose at most 5,000 QU = 5 intervals of 1 s" in caplog.text, "the provider's own log"
        assert re.search(r"intervals of 1 s, or [\d]+ QU if this node never comes back", caplog.text)


async def test_a_quote_is_one_number_and_its_parts(tmp_path: Path, autojump_clock: Clock) -> None:
    """For 10 MiB of disk: a hundred-thousandth of the price of a TiB, rounded up."""
    async with rental(tmp_path, storage_price=100_000 * 3_600) as one:
        front = Asked(one, accept=False)
        with pytest.raises(QuoteDeclined):
            await front.run(ask=True)
        quote = next(event.quote for event in front.events if event.quote)
        assert quote.disk_qu_per_hour == -(-100_000 * 3_600 * 10 // 2**20)
        assert quote.price_qu_per_hour == quote.machine_qu_per_hour + quote.disk_qu_per_hour
        assert quote.machine_qu_per_hour == PRICE
        assert quote.fee_qu_per_hour == fee_of(Qu(quote.price_qu_per_hour))
        assert quote.deposit == amount_due(Qu(quote.price_qu_per_hour), Seconds(quote.max_seconds))
        asking = next(event for event in front.events if event.phase == "quoting")
        assert f"alice: {quote.price_qu_per_hour:,} QU/h all in, image is there" in asking.detail


async def test_of_a_game_the_way_is_measured_and_told_before_anything_is_signed(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with asked(tmp_path, accept=False) as front:
        front.one.world.net.link(front.one.alice.peer, front.one.bob.peer).delay_seconds = 0.03
        game = "ports: [{name: video, port: 47998, protocol: udp, kind: game}]\n"
        with pytest.raises(QuoteDeclined):
            await front.run(ask=True, extra=game)
        quote = next(event.quote for event in front.events if event.quote)
        assert quote.way is not None
        assert (quote.way.kind, quote.way.rtt_ms, quote.way.jitter_ms) == ("wire", 60, 0)
        assert "60 ms there and back, varying by less than 1 ms: fine for slow games" in terms(quote)


async def test_a_job_that_is_no_game_is_not_kept_waiting(tmp_path: Path, autojump_clock: Clock) -> None:
    async with asked(tmp_path, accept=False) as front:
        with pytest.raises(QuoteDeclined):
            await front.run(ask=True)
        quote = next(event.quote for event in front.events if event.quote)
        assert quote.way is None and "playing" not in terms(quote)


async def test_no_means_that_nothing_is_signed(tmp_path: Path, autojump_clock: Clock) -> None:
    async with asked(tmp_path, accept=False) as front:
        with pytest.raises(QuoteDeclined, match="nothing is owed"):
            await front.run(ask=True)
        assert await front.one.bob.up.all_leases() == await front.one.alice.up.all_leases() == []
        front.one.check_nothing_sent()
        token = next(event.quote.token for event in front.events if event.quote)
        with pytest.raises(LeaseUnknown):
            await confirm(front.one.bob.up, ConfirmArgs(token, True), nobody)


async def test_a_front_end_that_goes_away_unanswered_signs_nothing(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with asked(tmp_path, accept=None) as front:
        with trio.move_on_after(30):
            await front.run(ask=True)
        assert any(event.quote for event in front.events)
        assert await front.one.bob.up.all_leases() == []
        assert front.one.bob.up.consents == {}
        front.one.check_nothing_sent()


def test_the_words_and_the_numbers() -> None:
    usual = make_terms()
    assert max_loss_words(Role.CALLER, usual) == "at most 22,000 QU = 4.4 intervals of 5 s"
    assert max_loss_words(Role.PROVIDER, usual) == "at most 16,000 QU = 3.2 intervals of 5 s"
    short = make_terms(max_seconds=Seconds(2))
    assert max_loss_if_gone(make_terms(max_seconds=Seconds(9_999))) == 1_000 * (1_260 + 3 * 16)
    assert max_loss_if_gone(short) == short.deposit
    assert max_loss(Role.PROVIDER, short) == max_loss(Role.CALLER, short) == short.deposit
    assert max_loss_words(Role.CALLER, short) == "at most 2,000 QU = 0.4 intervals of 5 s"
