"""The verb `metrics` of a running node, for a provider and for a caller."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio
import trio.testing

from protocol.control_meters import MetricsView
from protocol.lease_state import Phase
from qubixd.control import open_control
from tests.support.front_end import front_end
from tests.support.rental import Rental, rental
from tests.support.world import Person
from tests.support.world_jobs import job, now_ms

Clock = trio.testing.MockClock


async def ask(person: Person, one: Rental, **args: Any) -> MetricsView:
    async with open_control(person.up) as path, front_end(path) as door:
        view: MetricsView = await door.ask("metrics", lease=one.lease_id.hex()[:8], **args)
        return view


async def test_a_caller_is_told_what_its_provider_sees(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=500))
        await one.until(one.bob, Phase.RUNNING)
        await trio.sleep(30)
        provided, rented = await ask(one.alice, one), await ask(one.bob, one)
        assert (provided.role, rented.role, rented.phase, rented.trouble) == (
            "provider",
            "caller",
            "running",
            "",
        )
        assert rented.samples[: len(provided.samples)] == provided.samples and len(rented.samples) >= 28
        assert (rented.cpu_rented_millis, rented.memory_rented_mib, rented.disk_rented_mib) == (1_000, 64, 10)
        assert now_ms() - rented.samples[-1].at_ms < 2_000 and rented.history == []

        one.world.net.cut(one.alice.peer, one.bob.peer)
        cut = await ask(one.bob, one, since_s=3_600)
        assert cut.trouble and len(cut.samples) >= 28 and cut.history[-1].cpu_millis.mean == 500


async def test_following_ends_with_the_job(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=90))
        await one.until(one.alice, Phase.FUNDING, Phase.PROVISIONING)
        async with trio.open_nursery() as nursery:
            counts: dict[str, list[int]] = {}

            async def follow(person: Person) -> None:
                async with open_control(person.up) as path, front_end(path) as door:
                    events, last = await door.follow(
                        "metrics", lease=one.lease_id.hex(), follow=True, since_s=600
                    )
                    counts[person.name] = [len(events), sum(span.samples for span in last.history)]

            nursery.start_soon(follow, one.alice)
            nursery.start_soon(follow, one.bob)
        assert 80 <= counts["bob"][0] <= counts["alice"][0] <= 90
        assert counts["alice"][1] >= counts["alice"][0]
        ended = await ask(one.bob, one, follow=True, since_s=600)
        assert sum(span.samples for span in ended.history) >= counts["alice"][0]
