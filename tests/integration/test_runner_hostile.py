"""Images whose /bin/sh is no shell: they neither compute for nothing nor hold the runner's threads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import docker
import pytest
import trio

from protocol.errors import ImageBroken
from qubixd.runner import JobState
from qubixd.runner.docker import DockerRunner
from tests.integration.test_runner_images import image_of
from tests.support.c_programs import static_program
from tests.support.runners import LIMIT_SECONDS, Bench

pytestmark = pytest.mark.docker

HOSTILE_SH = Path(__file__).parents[1] / "support" / "hostile_sh.c"


@pytest.fixture(scope="module")
def hostile_image(
    docker_engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    program = static_program(HOSTILE_SH, tmp_path_factory.mktemp("hostile") / "sh")
    with image_of(docker_engine, "unending", {"bin/sh": program.read_bytes()}) as image:
        yield image


@pytest.fixture
async def bench(tmp_path: Path, hostile_image: str) -> AsyncIterator[Bench]:
    def runner() -> DockerRunner:
        return DockerRunner(tmp_path / "state", limiter_tokens=1, gate_seconds=1.0)

    made = Bench.make(runner, hostile_image, tmp_path / "workspace")
    yield made
    await made.remove_all()


async def test_a_job_that_never_comes_to_its_gate_is_ended(bench: Bench) -> None:
    with trio.fail_after(LIMIT_SECONDS), pytest.raises(ImageBroken, match="does not wait"):
        await bench.runner.start(bench.spec("stuck"))
    assert await bench.runner.leases() == frozenset()


async def test_a_program_that_cannot_be_ended_holds_nobody_up(bench: Bench) -> None:
    spec = bench.spec("polite")
    with trio.fail_after(LIMIT_SECONDS):
        await bench.runner.start(spec)
        inside = await bench.runner.inside(spec.lease_id, ["anything"])
        await inside.aclose()
        assert (await bench.runner.status(spec.lease_id)).state is JobState.RUNNING
