"""What happened is kept for one who did not watch: the last hundred, each once, also over a restart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import trio.testing

from ledger import notices as kept
from ledger.arrivals import Arrival
from ledger.store import inline, open_store
from protocol.control_watch import KeptNotice, NoticesArgs, NoticesView, NoticeView
from qubixd.control import open_control
from qubixd.watch_desk import notices
from tests.support.rental import rental
from tests.support.views import HOSTILE
from tests.support.world_jobs import job
from tui.notices import screen

Clock = trio.testing.MockClock


async def nobody(event: object) -> None: ...


async def test_the_last_hundred_are_kept_and_numbers_go_on() -> None:
    async with open_store(":memory:", inline) as store:
        for number in range(kept.KEPT + 7):
            await kept.note(store, "lease.ended", "good", f"job {number}", "", number)
        rows = await kept.newest(store, 1_000)
        assert len(rows) == kept.KEPT and rows[0].sentence == f"job {kept.KEPT + 6}"
        assert [row.number for row in rows] == list(range(kept.KEPT + 7, 7, -1))
        assert [row.number for row in await kept.newest(store, 2, after=rows[3].number)] == [107, 106]


async def test_a_job_that_nobody_watched_is_told_of_afterwards(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        bob = one.bob
        async with open_control(bob.up):
            await one.rent(job(seconds=5))
            await one.ended()
            bob.up.arrivals.on_arrival[0](Arrival(b"x", "received", 1_234, b"s" * 32, 5, 5, 1))
            await trio.sleep(5)
        view = await notices(bob.up, NoticesArgs(), nobody)
        assert [one.notice.code for one in view.notices] == ["wallet.received", "lease.ended", "lease.ready"]
        assert "+1,234 QU" in view.notices[0].notice.sentence
        newer = await notices(bob.up, NoticesArgs(after=view.notices[1].number), nobody)
        assert newer.notices == view.notices[:1]
        await one.world.kill(bob)
        await one.world.start(bob.name)
        assert await notices(bob.up, NoticesArgs(), nobody) == view


def test_they_are_shown_oldest_first_and_harmless() -> None:
    first = NoticeView("lease.ready", "good", "first", "", 1)
    view = NoticesView(
        [KeptNotice(2, replace(first, sentence=HOSTILE, severity="bad")), KeptNotice(1, first)]
    )
    lines = screen(view).plain.splitlines()
    assert len(lines) == 2 and "first" in lines[0] and "✗" in lines[1]
    assert all(line.isprintable() for line in lines)
    assert "Nothing has happened" in screen(NoticesView([])).plain
