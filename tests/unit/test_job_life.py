"""Fields of a job file that speak of the job's life: their meaning, their presets, their mistakes."""

from __future__ import annotations

import pytest

from protocol.errors import JobFileInvalid
from protocol.job_life import Life
from protocol.jobspec import parse

LEAST = "resources: {image: a}\nrun: x\n"


def test_all_of_them() -> None:
    job = parse(
        "resources: {image: a, internet: true, cuda: '>=12.4', arch: arm64}\nrun: x\nready: test -e up\n"
        "ready_within: 90s\nrestart: on_failure\nrestarts: 3\nidle_stop: 30m\nbudget: 5000\nproof: always\n"
    )
    assert job.life == Life("test -e up", 90, "on_failure", 3, 1_800)  # type: ignore[arg-type]  # plain numbers
    assert (job.budget, job.proof) == (5_000, "always")
    assert (job.wish.internet, job.wish.cuda, job.wish.arch) == (True, 12_040, "arm64")


def test_what_holds_if_nothing_is_said() -> None:
    job = parse(LEAST)
    assert job.life == Life() and (job.budget, job.proof) == (0, "auto")
    assert not job.wish.internet and not job.wish.cuda and not job.wish.arch
    assert parse(LEAST + "restart: always").life.restarts == 10


@pytest.mark.parametrize(
    ("time", "seconds"), [("90s", 90), ("10m", 600), ("0.5h", 1_800), ("1.5m", 90), ("20 m", 1_200)]
)
def test_ways_to_write_a_time(time: str, seconds: int) -> None:
    assert parse(LEAST + f"ready_within: {time}").life.ready_seconds == seconds


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("ready_within: 10", "ready_within: must be a time such as 90s, 10m or 1.5h"),
        ("ready_within: 31m", "ready_within: must be between 1 s and 1800 s"),
        ("idle_stop: 59s", "idle_stop: must be between 60 s and 2592000 s"),
        ("restart: sometimes", "restart: must be one of never, on_failure, always, not 'sometimes'"),
        ("restarts: 2", "restarts: needs `restart: on_failure` or `restart: always`"),
        ("restart: always\nrestarts: 1.5", "restarts: must be a whole number"),
        ("restart: always\nrestarts: 1001", "restarts: must be between 0 and 1000, not 1001"),
        ("budget: 0", "budget: must be at least 1 QU; leave it out for no limit beside `max_hours`"),
        ("budget: 1.5", "budget: must be whole QU"),
        ("proof: maybe", "proof: must be one of auto, always, never, not 'maybe'"),
        ("ready: [a]", "ready: must be text"),
    ],
)
def test_a_mistake_names_the_field(line: str, message: str) -> None:
    with pytest.raises(JobFileInvalid) as caught:
        parse(LEAST + line)
    assert str(caught.value).endswith(message)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("internet: maybe", "must be one of true, false, not 'maybe'"),
        ("cuda: new", "must be the least CUDA version, such as 12.4 or >=12.4"),
        ("arch: sparc", "must be one of amd64, arm64, not 'sparc'"),
    ],
)
def test_a_mistake_among_the_resources_names_the_field(field: str, message: str) -> None:
    with pytest.raises(JobFileInvalid) as caught:
        parse(f"resources: {{image: a, {field}}}\nrun: x\n")
    name = field.partition(":")[0]
    assert str(caught.value) == f"line 1, resources.{name}: {message}"
