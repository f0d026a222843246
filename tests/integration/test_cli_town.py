"""The command line against real daemons on a devnet: rent, connect and stop in three commands; apply."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from protocol.control import LeaseView, WaitArgs
from protocol.lease_state import TERMINAL
from tests.support.tui_pilot import RealTown, real_town
from tui import cli
from tui.client import connect


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealTown]:
    with real_town(tmp_path_factory.mktemp("c")) as town:
        yield town


@pytest.fixture
def here(town: RealTown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The caller's working folder."""
    monkeypatch.setenv("QUBIX_DATA_DIR", str(town.caller))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capfd: pytest.CaptureFixture[str], *words: str) -> list[Any]:
    """The JSON lines of a command that did what it should."""
    capfd.readouterr()
    assert cli.main([*words[:1], "--json", *words[1:]]) == 0, capfd.readouterr()
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]


def until(town: RealTown, lease_id: str, done: Callable[[LeaseView], bool]) -> LeaseView:
    """Follow a lease until it is so."""

    async def follow() -> LeaseView:
        async with (
            connect(town.caller / "control.sock") as client,
            aclosing(client.stream("wait", WaitArgs(lease_id))) as events,
        ):
            async for event in events:
                if done(event.lease):
                    return event.lease  # type: ignore[no-any-return]  # a stream is of any kind
        raise AssertionError("the lease ended otherwise")

    return asyncio.run(asyncio.wait_for(follow(), 120))


def runs(lease: LeaseView) -> bool:
    return lease.phase == "running"


def test_three_commands(town: RealTown, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "words.sh").write_text("echo hello; sleep 600")
    *_, rented = said(capfd, "run", "--detach", "--hours", "0.2", "--", "sh", "words.sh")
    lease = until(town, rented["lease_id"], runs).lease_id
    assert cli.main(["exec", "-T", lease[:8], "--", "cat", "words.sh"]) == 0
    assert capfd.readouterr().out == "echo hello; sleep 600"
    assert cli.main(["stop", lease[:8]]) == 0
    ended = until(town, lease, lambda one: one.phase in TERMINAL)
    assert (ended.name, ended.reason, ended.settled) == ("words", "lease.stopped_by_caller", True)
    assert "".join(line.get("log", "") for line in said(capfd, "logs", lease)).startswith("hello\n")


def test_a_job_that_is_given_more_time_runs_beyond_its_first_end(
    town: RealTown, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    *_, rented = said(capfd, "run", "--detach", "--hours", "0.007", "--", "sh", "-c", "sleep 30; echo whole")
    lease = until(town, rented["lease_id"], runs)
    order = ("extend", lease.lease_id, "--hours", "10m", "--id", "more")
    (checked,) = said(capfd, *order, "--check")
    (added,) = said(capfd, *order, "--max-cost", str(checked["cost_qu"]))
    (again,) = said(capfd, *order)
    assert added["state"] == again["state"] == "extended"
    assert added["max_seconds"] == again["max_seconds"] == lease.max_seconds + 600 == checked["max_seconds"]
    ended = until(town, lease.lease_id, lambda one: one.phase in TERMINAL)
    assert (ended.reason, ended.settled) == ("job.completed", True)
    assert ended.seconds > lease.max_seconds and ended.paid > lease.deposit
    assert ended.paid + ended.refunded == ended.deposit == checked["deposit"]
    assert "".join(line.get("log", "") for line in said(capfd, "logs", lease.lease_id)) == "whole\n"


def test_apply_is_asked_again_and_again(
    town: RealTown, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = here / "job.yaml"
    job.write_text(
        "name: web\nresources: {image: any}\nfile_mounts: {data.txt: data.txt}\nmax_hours: 0.2\n"
        "run: cp data.txt seen.txt; sleep 600\n"
    )
    (here / "data.txt").write_text("one")
    apply = ("apply", "-f", "job.yaml")
    first, *_, lease = said(capfd, *apply)
    assert first["apply"]["action"] == "start"
    until(town, lease["lease_id"], runs)
    (again,) = said(capfd, *apply)
    assert (again["apply"]["action"], again["apply"]["lease"]["lease_id"]) == ("nothing", lease["lease_id"])

    (here / "data.txt").write_text("two")
    (diff,) = said(capfd, *apply, "--diff")
    assert [one["field"] for one in diff["apply"]["changes"]] == ["file_mounts"]
    assert cli.main([*apply]) == 2, "nobody is there to be asked"
    *_, newer = said(capfd, *apply, "--yes", "--output", "second")
    assert newer["lease_id"] != lease["lease_id"]
    until(town, lease["lease_id"], lambda one: one.phase in TERMINAL)
    assert (Path(lease["output_dir"]) / "seen.txt").read_text() == "one"
    until(town, newer["lease_id"], runs)
    assert [one["lease_id"] for one in said(capfd, "ps")[0]["leases"]] == [newer["lease_id"]]
    assert cli.main(["stop", newer["lease_id"]]) == 0
    until(town, newer["lease_id"], lambda one: one.phase in TERMINAL)
