"""What a provider's daemon settles with its engine at the start: runtime and Internet, or why it has none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from protocol.errors import ConfigInvalid, EngineUnreachable, InternetUnavailable
from qubixd import engine_choice
from qubixd.config import Config
from qubixd.engine_choice import NO_GPUS, NO_INTERNET, NO_SANDBOX, choose_engine, docker_of
from qubixd.runner.fence import FenceLimits, Fences


def config(root: Path, **changes: Any) -> Config:
    return replace(Config(data_dir=str(root), provider=True), **changes)


@pytest.mark.docker
@pytest.mark.parametrize(("egress", "internet"), [("auto", True), ("internet", True), ("none", False)])
async def test_jobs_get_the_internet_that_was_set(tmp_path: Path, egress: str, internet: bool) -> None:
    chosen = await choose_engine(config(tmp_path, egress=egress, runtime="runc"), gpus=())
    assert (chosen.runner.name, chosen.internet, chosen.remarks) == ("docker", internet, ())


def test_what_a_provider_forbids_reaches_the_fence(tmp_path: Path) -> None:
    runner = docker_of(config(tmp_path, egress_forbid=("203.0.113.0/24",), egress_mbit=8))
    assert runner.fences._limits == FenceLimits(bytes_per_second=1_000_000, forbidden=("203.0.113.0/24",))
    assert "203.0.113.0/24" in runner.fences._forbidden()


@pytest.mark.docker
async def test_a_fence_that_does_not_hold_is_said_or_ends_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(self: Fences, client: object) -> None:
        raise InternetUnavailable("the engine's kernel has no nf_tables")

    monkeypatch.setattr(Fences, "prepare", prepare)
    chosen = await choose_engine(config(tmp_path), gpus=())
    assert not chosen.internet
    assert chosen.remarks[-1] == (
        NO_INTERNET,
        "jobs get no Internet here: the engine's kernel has no nf_tables",
    )
    with pytest.raises(InternetUnavailable, match="nf_tables; start with --egress none"):
        await choose_engine(config(tmp_path, egress="internet"), gpus=())
    assert (await choose_engine(config(tmp_path, egress="none"), gpus=())).remarks == ()


@pytest.mark.docker
async def test_a_sandbox_that_does_not_run_is_done_without_or_ends_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def installed(info: object) -> dict[str, tuple[str, ...]]:
        return {"runc": (), "runsc": ("--network=host",)}

    monkeypatch.setattr(engine_choice, "installed", installed)
    monkeypatch.setattr(engine_choice, "prove", lambda client, runtime, image, gpu: "no such file")
    chosen = await choose_engine(config(tmp_path), gpus=())
    assert chosen.runner.name == "docker"
    assert chosen.remarks[0][0] == NO_SANDBOX and "no such file" in chosen.remarks[0][1]
    with pytest.raises(ConfigInvalid, match=r"runsc does not run here: no such file; choose another"):
        await choose_engine(config(tmp_path, runtime="runsc"), gpus=())


@pytest.mark.docker
async def test_an_unknown_runtime_names_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"no runtime 'magic'; it has .*runc"):
        await choose_engine(config(tmp_path, runtime="magic"), gpus=())


async def test_without_an_engine_jobs_are_processes_on_loopback_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    chosen = await choose_engine(config(tmp_path), gpus=())
    assert (chosen.runner.name, chosen.internet) == ("process", False)
    with pytest.raises(ConfigInvalid, match=r"127\.0\.0\.1"):
        await choose_engine(config(tmp_path, listen=("0.0.0.0:0",)), gpus=())
    with pytest.raises(EngineUnreachable):
        await choose_engine(config(tmp_path, runner="docker"), gpus=())


async def test_no_card_is_offered_where_the_engine_cannot_hand_it_over(tmp_path: Path) -> None:
    """No machine of these tests has NVIDIA's toolkit in its engine; one that has gives another answer."""
    chosen = await choose_engine(config(tmp_path, egress="none"), gpus=("GPU-5f0c",))
    [(code, sentence)] = chosen.remarks
    assert code == NO_GPUS
    assert chosen.hands_gpus is ("toolkit" not in sentence)
