"""Trouble with this machine in the middle of a lease: the lease ends well, the daemon lives."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import trio.testing

from protocol.lease_state import Phase
from tests.support import world
from tests.support.deals import gpu
from tests.support.rental import due, rental
from tests.support.world import MACHINE
from tests.support.world_jobs import job

Clock = trio.testing.MockClock


async def test_a_callers_files_deleted_behind_its_back(tmp_path: Path, autojump_clock: Clock) -> None:
    """The inputs can never be sent: the deposit comes back, and the daemon goes on."""
    async with rental(tmp_path) as one:
        one.when(one.bob, Phase.FUNDING, lambda: shutil.rmtree(one.bob.root / "leases"))
        await one.rent()
        served, paid = await one.ended()
        assert served.reason == paid.reason == "lease.start_timeout"
        one.check_books(served, paid)
        one.check_nothing_paid(served, paid)
        await one.rent(job(seconds=2))
        one.lease_id, _ = one.lease_id, await one.ended()
        assert one.world.balance(one.bob) == one.world.funds - due(2)


async def test_a_card_that_is_gone_after_a_restart_costs_nothing(
    tmp_path: Path, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = gpu(1)
    with_card = replace(
        MACHINE, capacity=replace(MACHINE.capacity, gpus=(card,)), gpu_uuids={card.digest: "GPU-1"}
    )
    wanting = job(seconds=5).replace("resources: {", "resources: {gpu: RTX4090, ")
    with monkeypatch.context() as present:
        present.setattr(world, "MACHINE", with_card)
        async with rental(tmp_path) as one:
            await one.rent(wanting)
            await one.until(one.bob, Phase.FUNDING)
            await one.world.kill(one.alice)
            present.setattr(world, "MACHINE", MACHINE)
            await one.world.start("alice")
            served, paid = await one.ended()
            assert served.reason == paid.reason == "runner.start_failed"
            assert "graphics card" in paid.sentence
            one.check_nothing_paid(served, paid)


async def test_a_gpu_job_gets_its_card(
    tmp_path: Path, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards = {gpu(n).digest: f"GPU-{n}" for n in range(2)}
    capacity = replace(MACHINE.capacity, gpus=(gpu(0), gpu(1)))
    monkeypatch.setattr(world, "MACHINE", replace(MACHINE, capacity=capacity, gpu_uuids=cards))
    wanting = job(seconds=5).replace("resources: {", "resources: {gpu: RTX4090, ")
    async with rental(tmp_path) as one:
        first = await one.rent(wanting)
        await one.until(one.bob, Phase.FUNDING)
        second = await one.rent(wanting)
        await one.until(one.bob, Phase.RUNNING)
        given = [one.alice.engine.jobs[lease.lease_id].spec.gpu_uuids for lease in (first, second)]
        assert sorted(given) == [("GPU-0",), ("GPU-1",)]
        kept = {(await one.bob.up.leases.get(lease.lease_id)).cards for lease in (first, second)}
        assert kept == {(gpu(0),), (gpu(1),)}, "what they were sold as, whatever offers say from now on"


async def test_an_unwritable_folder_for_the_outputs_is_said(tmp_path: Path, autojump_clock: Clock) -> None:
    """The money is settled all the same: the job has run."""
    async with rental(tmp_path) as one:
        one.bob.root.joinpath("out").write_text("a file, where a folder should be")
        await one.rent(job(seconds=3))
        served, paid = await one.ended()
        assert (served.phase, paid.phase) == (Phase.DONE, Phase.FAILED)
        assert paid.reason == "disk.unwritable" and "could not be fetched" in paid.sentence
        assert paid.paid == due(3)
        one.check_books(served, paid)
