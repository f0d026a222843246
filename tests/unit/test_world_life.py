"""A job's life between two nodes: proof, readiness, pauses, restarts, budget, secrets, and deaths."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
import trio.testing

from ledger.store import inline
from protocol import lease_model as m
from protocol.errors import InternetUnavailable, PeerUnreachable
from protocol.jobspec import parse
from protocol.lease_job import PROOF_PATIENCE_MS
from protocol.lease_state import Lease, Phase
from protocol.messages import GetLogs
from protocol.units import UnixMs
from qubixd.jobfiles import JobFiles
from qubixd.runner import RunSpec
from tests.support.rental import Rental, due, rental
from tests.support.world import Killed
from tests.support.world_jobs import job, now_ms

Clock = trio.testing.MockClock
PROVEN = "proof: always"
RESTART = b"restart1"


@dataclass(frozen=True)
class Said:
    code: str = ""
    sentence: str = "the machine is what was rented"


TRUE = Said()


@dataclass
class Prover:
    """Takes its time, and says what it was told to."""

    said: Said = TRUE
    seconds: float = 5
    unreachable: int = 0
    asked: int = 0

    async def __call__(self, lease: Lease) -> Said:
        self.asked += 1
        await trio.sleep(self.seconds)
        if self.asked <= self.unreachable:
            raise PeerUnreachable("try again")
        return self.said


async def feed(one: Rental, *events: m.Event) -> None:
    for event in events:
        await one.bob.up.leases.feed(one.lease_id, event)


# --- proof ----------------------------------------------------------------------------------------


async def test_nothing_runs_and_nothing_is_paid_until_the_machine_is_proved(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with rental(tmp_path, prove=Prover(seconds=30)) as one:
        await one.rent(job(seconds=10, extra=PROVEN))
        await one.world.until(one.lease_id, one.alice, lambda lease: lease.container_at > 0)
        await trio.sleep(20)
        assert one.alice.engine.jobs[one.lease_id].released_at is None
        served, paid = await one.ended()
        assert (served.reason, paid.reason) == ("job.completed", "job.completed")
        assert paid.paid == due(10)
        one.check_books(served, paid)


async def test_a_proof_that_fails_brings_the_deposit_back(tmp_path: Path, autojump_clock: Clock) -> None:
    prover = Prover(Said("proof.wrong", "the answer is wrong"))
    async with rental(tmp_path, prove=prover) as one:
        await one.rent(job(seconds=10, extra=PROVEN))
        served, paid = await one.ended()
        assert (paid.phase, paid.reason, prover.asked) == (Phase.FAILED, "proof.wrong", 1)
        assert served.seconds == 0 and one.lease_id not in one.alice.engine.jobs
        one.check_nothing_paid(served, paid)


async def test_a_proof_is_tried_again_when_the_line_breaks(tmp_path: Path, autojump_clock: Clock) -> None:
    prover = Prover(Said(), 1, unreachable=2)
    async with rental(tmp_path, prove=prover) as one:
        await one.rent(job(seconds=5, extra=PROVEN))
        served, paid = await one.ended()
        assert (paid.reason, prover.asked) == ("job.completed", 3)
        one.check_books(served, paid)


async def test_a_caller_that_vanishes_at_the_gate_holds_the_machine_for_a_while_only(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with rental(tmp_path, prove=Prover(seconds=100_000)) as one:
        await one.rent(job(seconds=5, extra=PROVEN))
        await one.world.until(one.lease_id, one.alice, lambda lease: lease.container_at > 0)
        await one.world.kill(one.bob)
        began = trio.current_time()
        served = (await one.world.until_ended(one.lease_id, one.alice))[0]
        assert (served.reason, served.paid) == ("lease.proof_timeout", 0)
        assert trio.current_time() - began <= PROOF_PATIENCE_MS / 1_000 + 30
        assert not one.alice.engine.jobs


async def test_who_can_prove_asks_everybody_for_a_proof(tmp_path: Path, autojump_clock: Clock) -> None:
    """Also machines that say they run plain processes: else every cheat would say so."""
    for number, prove in enumerate((None, Prover())):
        async with rental(tmp_path / str(number), prove=prove) as one:
            lease = await one.rent(job(seconds=2))
            assert lease.terms.proof == (prove is not None)
            await one.ended()


async def test_a_container_that_dies_at_its_gate_costs_nothing(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path, prove=Prover(seconds=30)) as one:
        await one.rent(job(seconds=10, extra=PROVEN))
        await one.world.until(one.lease_id, one.alice, lambda lease: lease.container_at > 0)
        one.alice.engine.reboot()
        served, paid = await one.ended()
        assert served.reason == paid.reason == "job.not_ready"
        one.check_nothing_paid(served, paid)


async def test_a_machine_that_cannot_start_the_job_says_so_at_once(
    tmp_path: Path, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unable(spec: RunSpec) -> UnixMs:
        raise InternetUnavailable("the job's network cannot be fenced here")

    async with rental(tmp_path) as one:
        monkeypatch.setattr(one.alice.engine, "start", unable)
        began = trio.current_time()
        await one.rent(job(seconds=10))
        served, paid = await one.ended()
        assert served.reason == paid.reason == "runner.no_internet"
        assert trio.current_time() - began < 60
        one.check_nothing_paid(served, paid)


# --- ready ----------------------------------------------------------------------------------------


async def test_billing_begins_when_the_job_is_ready(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=20, extra="ready: after 8"))
        served, paid = await one.ended()
        assert paid.reason == "job.completed"
        assert due(11) <= paid.paid <= due(13), "20 seconds less 8, and up to a second until it is asked"
        one.check_books(served, paid)


async def test_a_job_that_is_not_ready_in_time_costs_nothing_and_leaves_its_log(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=1_000, extra="ready: after 900\nready_within: 30s"))
        served, paid = await one.ended()
        assert served.reason == paid.reason == "lease.ready_timeout"
        assert one.bob.up.files.path(one.lease_id, "job.log").read_bytes() == b"hello from the job\n"
        one.check_nothing_paid(served, paid)


async def test_the_log_can_be_followed_while_the_job_gets_ready(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=30, extra="ready: after 20"))
        lease = await one.world.until(one.lease_id, one.alice, lambda lease: lease.released)
        heard: list[bytes] = []

        async def write(data: bytes) -> None:
            heard.append(data)

        with trio.fail_after(5):
            await one.alice.up.desk.give_log(lease, GetLogs(one.lease_id, 0, True), write)
        assert heard == [b"hello from the job\n"]
        assert (await one.alice.up.leases.get(one.lease_id)).phase is Phase.PROVISIONING
        await one.ended()


async def test_a_job_that_ends_before_it_is_ready_is_free(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=5, exit_code=3, extra="ready: after 60"))
        served, paid = await one.ended()
        assert (paid.phase, paid.reason, paid.exit_code) == (Phase.FAILED, "job.not_ready", 3)
        assert (one.bob.root / "out" / "result.txt").exists(), "outputs come all the same"
        one.check_nothing_paid(served, paid)


# --- while it runs --------------------------------------------------------------------------------


async def test_a_frozen_job_stands_still_and_is_paid_for(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=20))
        await one.until_paid(due(5))
        await feed(one, m.ActionPause(now_ms()))
        await trio.sleep(30)
        assert one.alice.engine.jobs[one.lease_id].paused_at
        await feed(one, m.ActionResume(now_ms()))
        served, paid = await one.ended()
        assert due(49) <= paid.paid <= due(52)
        one.check_books(served, paid)


async def test_a_job_is_begun_anew_when_its_caller_says_so(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=20))
        await one.until_paid(due(10))
        await feed(one, *[m.ActionRestart(RESTART, now_ms())] * 2)
        served, paid = await one.ended()
        assert len(one.alice.engine.starts) == 1 and paid.reason == "job.completed"
        assert due(29) <= paid.paid <= due(33)
        one.check_books(served, paid)


@pytest.mark.parametrize("policy", ["on_failure", "always"])
async def test_a_job_that_fails_is_begun_anew_as_often_as_its_file_says(
    tmp_path: Path, autojump_clock: Clock, policy: str
) -> None:
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=5, exit_code=1, extra=f"restart: {policy}\nrestarts: 2"))
        served, paid = await one.ended()
        assert (served.restarts, paid.reason) == (2, "job.failed")
        assert due(3 * 5 + 1 + 2) <= paid.paid <= due(3 * 5 + 1 + 2 + 3), "and the waits between"
        one.check_books(served, paid)


async def test_a_restart_of_the_engine_ends_no_job_that_may_be_begun_anew(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=20, extra="restart: on_failure"))
        await one.until_paid(due(10))
        one.alice.engine.reboot()
        served, paid = await one.ended()
        assert (served.restarts, paid.reason) == (1, "job.completed")
        assert due(30) <= paid.paid <= due(33)
        one.check_books(served, paid)


async def test_nobody_pays_while_the_provider_and_its_engine_are_away(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=20, extra="restart: on_failure"))
        await one.until_paid(due(10))
        await one.world.kill(one.alice)
        one.alice.engine.reboot()
        await trio.sleep(60)
        await one.world.start("alice")
        served, paid = await one.ended()
        assert (served.restarts, paid.reason) == (1, "job.completed")
        assert due(30) <= paid.paid <= due(35)
        one.check_books(served, paid)


async def test_a_budget_holds_although_the_caller_is_gone(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        lease = await one.rent(job(seconds=1_000, extra="budget: 20000"))
        assert lease.terms.deposit == due(20)
        await one.until_paid(due(18))
        await one.world.kill(one.bob)
        served = await one.world.until(one.lease_id, one.alice, lambda lease: lease.exited)
        assert (served.reason, served.seconds) == ("lease.budget_reached", 20)
        await one.world.start("bob")
        served, paid = await one.ended()
        assert (paid.phase, paid.paid) == (Phase.DONE, due(20))
        one.check_books(served, paid)


@pytest.mark.parametrize(
    ("hours", "wish", "seen", "reason", "seconds"),
    [
        (0.005, "", 6, "lease.duration_reached", range(18, 19)),
        (1, "idle_stop: 1m", 20, "lease.idle", range(60, 75)),
    ],
)
async def test_time_and_idling_are_watched_although_the_caller_is_gone(
    tmp_path: Path, autojump_clock: Clock, hours: float, wish: str, seen: int, reason: str, seconds: range
) -> None:
    async with rental(tmp_path, unpaid_intervals=100) as one:
        one.alice.engine.load_millis = 0
        await one.rent(job(seconds=1_000, hours=hours, extra=wish))
        await one.until_paid(due(seen))
        await one.world.kill(one.bob)
        served = await one.world.until(one.lease_id, one.alice, lambda lease: lease.exited)
        assert served.reason == reason and served.seconds in seconds
        await one.world.start("bob")
        served, paid = await one.ended()
        assert (paid.phase, paid.paid) == (Phase.DONE, due(served.seconds))
        one.check_books(served, paid)


# --- progress and secrets -------------------------------------------------------------------------


async def test_the_caller_hears_how_far_its_provider_is(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        one.alice.engine.pull_seconds = 20
        await one.rent(job(seconds=2))
        with trio.fail_after(30):
            while not (told := one.bob.up.desk.progress.get(one.lease_id)) or told.permille < 400:
                await trio.sleep(0.1)
        assert told.phase == "pulling" and told.permille <= 600
        served, paid = await one.ended()
        one.check_books(served, paid)


def every_file(root: Path) -> Iterator[bytes]:
    for path in root.rglob("*"):
        with suppress(FileNotFoundError):
            if path.is_file():
                yield path.read_bytes()


async def test_secrets_are_in_no_file_of_either_side(
    tmp_path: Path, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    secrets = {"TOKEN": "open sesame"}
    async with rental(tmp_path) as one:
        await one.rent(
            job(seconds=10, extra="secrets: [TOKEN]\nrestart: always\nrestarts: 1"), secrets=secrets
        )
        await one.until(one.bob, Phase.RUNNING)
        assert one.alice.engine.jobs[one.lease_id].secrets == secrets
        assert not any(b"open sesame" in data for data in every_file(tmp_path))
        await one.world.until(one.lease_id, one.alice, lambda lease: lease.restarts == 1)
        await trio.sleep(5)
        assert one.alice.engine.jobs[one.lease_id].secrets == secrets, (
            "a job that is begun anew has them, too"
        )
        await one.ended()
        assert not any(b"open sesame" in data for data in every_file(tmp_path))
        assert not one.alice.up.files.path(one.lease_id, "secrets").exists()
        assert "open sesame" not in caplog.text


async def test_a_submission_does_not_show_its_secrets(tmp_path: Path) -> None:
    files = JobFiles(tmp_path, inline)
    submission = await files.submit(parse(job(extra="secrets: [TOKEN]")), tmp_path, {"TOKEN": "sesame"})
    assert b"sesame" in submission.secrets and "sesame" not in repr(submission)


# --- deaths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["alice", "bob"])
@pytest.mark.parametrize("when", ["gate", "ready", "frozen", "restart"])
async def test_a_daemon_that_dies_finds_its_job_as_it_was(
    tmp_path: Path, autojump_clock: Clock, who: str, when: str
) -> None:
    """In each of the states that a job's life has, either daemon is down for 20 seconds."""
    text = job(seconds=30, extra=f"{PROVEN}\nready: after 10\nrestart: on_failure")
    async with rental(tmp_path, prove=Prover(seconds=8)) as one:
        await one.rent(text)
        await _until(one, when)
        person = {"alice": one.alice, "bob": one.bob}[who]
        await one.world.kill(person)
        await trio.sleep(20)
        await one.world.start(who)
        if when == "frozen":
            await trio.sleep(5)
            await feed(one, m.ActionResume(now_ms()))
        with suppress(Killed):
            served, paid = await one.ended()
        assert served.reason == paid.reason == "job.completed"
        assert len(one.alice.engine.starts) == 1
        one.check_books(served, paid)


async def _until(one: Rental, when: str) -> None:
    if when == "gate":
        await one.world.until(one.lease_id, one.alice, lambda lease: lease.container_at > 0)
    elif when == "ready":
        await one.world.until(one.lease_id, one.alice, lambda lease: lease.released)
    else:
        await one.until_paid(due(5))
        await feed(one, m.ActionPause(now_ms()) if when == "frozen" else m.ActionRestart(RESTART, now_ms()))
        await trio.sleep(0.2)
