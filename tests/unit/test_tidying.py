"""What is left of leases is found and removed, and nothing of those that live."""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio.testing

from protocol.control import RunArgs
from protocol.control_again import JobFileArgs
from protocol.errors import NotFound, UsageError
from protocol.lease_state import Phase
from protocol.units import LeaseId, UnixMs
from qubixd.control import run
from qubixd.lease_desk import job_file
from qubixd.requests import KEEP_MS
from qubixd.runner.image_tidy import Policy
from qubixd.tidying import EVERY_SECONDS, KEEP_FILES_MS, LATE_MS, Leftovers, Tidying
from tests.support.rental import rental
from tests.support.world import Person
from tests.support.world_jobs import job, now_ms

Clock = trio.testing.MockClock
STRANGER = LeaseId(bytes([7]) * 32)


def leftovers(person: Person, later_ms: int = 0) -> Leftovers:
    """The service as it looks so much later."""
    node = person.up
    return Leftovers(node.files, node.parts.store, person.engine, lambda: UnixMs(now_ms() + later_ms))


async def test_an_ended_lease_keeps_results_for_a_day_and_nothing_else(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=5))
        await one.ended()
        await trio.sleep(30)
        folder = one.alice.up.files.folder(one.lease_id)
        (folder / "workspace").mkdir(exist_ok=True)
        (folder / "workspace" / "big").write_text("x")
        await leftovers(one.alice).tidy()
        assert not (folder / "workspace").exists() and (folder / "outputs.tar").exists()
        await leftovers(one.alice, KEEP_FILES_MS).tidy()
        assert not folder.exists()


async def test_a_running_lease_is_left_alone(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=60))
        await one.until(one.alice, Phase.RUNNING)
        tidy = leftovers(one.alice, 2 * KEEP_FILES_MS)
        for _ in range(3):
            await tidy.tidy()
        folder = one.alice.up.files.folder(one.lease_id)
        assert (folder / "workspace").is_dir() and one.lease_id in one.alice.engine.jobs
        served, paid = await one.ended()
        one.check_books(served, paid)


async def test_what_lets_in_outlives_the_daemon_and_not_the_lease(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=60, extra="envs: {KEY: open sesame}\nports: [{port: 80, path: '/{KEY}'}]"))
        await one.until(one.bob, Phase.RUNNING)
        await one.world.kill(one.bob)
        await one.world.start(one.bob.name)
        await leftovers(one.bob).tidy()
        files, key = one.bob.up.files, one.bob.up.parts.key
        assert files.access(one.lease_id, key).values == {"KEY": "open sesame"}
        await one.ended()
        await leftovers(one.bob).tidy()
        assert not files.path(one.lease_id, "access").exists()


async def test_files_of_no_lease_go_at_the_second_look(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        files, tidy = one.bob.up.files, leftovers(one.bob)
        files.folder(STRANGER).mkdir(parents=True)
        other = files.root / "leases" / "notes of a person"
        other.mkdir()
        await tidy.tidy()
        assert files.folder(STRANGER).is_dir()  # its lease may be written down in a moment
        await tidy.tidy()
        assert not files.folder(STRANGER).exists() and other.is_dir()


async def test_a_container_of_a_lease_that_is_over_or_unknown_goes(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with rental(tmp_path) as one:
        engine = one.alice.engine
        await one.rent(job(seconds=50))
        await one.until(one.alice, Phase.RUNNING)
        left = engine.jobs[one.lease_id]
        await one.ended()
        await trio.sleep(30)
        engine.jobs |= {one.lease_id: left, STRANGER: left}  # as if nobody had removed them
        await leftovers(one.alice).tidy()
        assert set(engine.jobs) == {one.lease_id}  # its own effects may be at work yet
        await leftovers(one.alice, LATE_MS).tidy()
        assert engine.jobs == {}


@dataclass
class Keeper:
    """Of a DockerRunner what the service asks."""

    asked: list[tuple[Policy, UnixMs]] = field(default_factory=list)

    async def tidy_images(self, policy: Policy, now: UnixMs) -> list[str]:
        self.asked.append((policy, now))
        return []


async def test_images_are_looked_at_every_ten_minutes(autojump_clock: Clock) -> None:
    keeper, policy = Keeper(), Policy(share=0.5)
    with trio.move_on_after(2.5 * EVERY_SECONDS):
        await Tidying(keeper, policy, now_ms).run()  # type: ignore[arg-type]  # all that it asks
    times = [now for _, now in keeper.asked]
    assert [policy for policy, _ in keeper.asked] == [policy] * 3
    assert times[2] - times[0] == 2 * EVERY_SECONDS * 1_000


async def test_what_a_job_was_asked_for_with_is_kept_for_a_month(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with rental(tmp_path) as one:

        async def take(event: object) -> None: ...

        text = job(seconds=5, extra="secrets: [TOKEN]\n")
        args = RunArgs(text, str(tmp_path), str(tmp_path / "out"), {"TOKEN": "s3cret"}, 10**9, detach=True)
        lease = (await run(one.bob.up, args, take)).lease
        assert lease is not None
        (kept,) = (one.bob.up.config.root / "requests").iterdir()
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600 and b"s3cret" not in kept.read_bytes()
        view = await job_file(one.bob.up, JobFileArgs(lease.lease_id[:8]), take)
        assert (view.name, view.job_yaml, view.base_dir) == ("test", text, str(tmp_path))
        assert view.max_price_qu_per_hour == 10**9
        await one.world.until_ended(LeaseId(bytes.fromhex(lease.lease_id)), one.bob, one.alice)
        with pytest.raises(UsageError):
            await job_file(one.alice.up, JobFileArgs(lease.lease_id), take)
        await leftovers(one.bob, KEEP_MS - 3_600_000).tidy()
        assert kept.exists()
        await leftovers(one.bob, KEEP_MS + 3_600_000).tidy()
        with pytest.raises(NotFound, match="is not kept here"):
            await job_file(one.bob.up, JobFileArgs(lease.lease_id), take)
