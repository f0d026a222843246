"""Jobs' images go when the policy says so, on a real engine; everybody else's stay."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import docker
import pytest
import trio
from docker.errors import ImageNotFound

from protocol.units import UnixMs
from qubixd.runner.docker import DockerRunner
from qubixd.runner.docker_images import Images, disk_bytes, now_ms
from qubixd.runner.image_tidy import DAY_MS, HOUR_MS, Policy
from tests.support.registry import registry_of
from tests.support.runners import LIMIT_SECONDS, Bench

pytestmark = pytest.mark.docker

NONE: Final = Policy(share=0, idle_days=14)
"""Nothing may stay that may go."""
MIB: Final = 1 << 20


@pytest.fixture
async def bench(tmp_path: Path, busybox_image: str) -> AsyncIterator[Bench]:
    made = Bench.make(lambda: DockerRunner(tmp_path / "state"), busybox_image, tmp_path / "workspace")
    yield made
    await made.remove_all()


@contextmanager
def fetchable(engine: docker.DockerClient, base: str, folder: Path, number: int = 0) -> Iterator[str]:
    """The name of an image of 4 MiB that is at a registry and not here."""
    context = folder / f"context-{number}"
    context.mkdir()
    (context / "noise").write_bytes(os.urandom(4 * MIB))
    (context / "Dockerfile").write_text(f"FROM {base}\nCOPY noise /noise\n")
    source = f"qubix-test/source-{number}:{folder.parent.name[-20:]}"
    engine.images.build(path=str(context), tag=source, rm=True)
    with registry_of(engine, source) as (name, _):
        engine.images.remove(source, force=True)
        try:
            yield name
        finally:
            with suppress(ImageNotFound):
                engine.images.remove(name, force=True)


def later(hours: float) -> UnixMs:
    return UnixMs(now_ms() + int(hours * HOUR_MS))


async def fetch(bench: Bench, name: str) -> None:
    with trio.fail_after(LIMIT_SECONDS):
        await bench.runner.pull(name, lambda phase, share: None)


async def tidy(bench: Bench, policy: Policy, now: UnixMs) -> list[str]:
    assert isinstance(bench.runner, DockerRunner)
    return await bench.runner.tidy_images(policy, now)


async def test_what_a_job_brought_goes_and_what_was_here_stays(
    bench: Bench, docker_engine: docker.DockerClient, tmp_path: Path
) -> None:
    with fetchable(docker_engine, bench.image, tmp_path) as name:
        await fetch(bench, name)
        await fetch(bench, bench.image)  # was here, a job only used it
        ended, said = await bench.run("wc -c < /noise", image=name)
        assert (ended.code, said.strip()) == (0, str(4 * MIB))
        assert await tidy(bench, NONE, later(3)) == []  # the ended job's container still has it
        await bench.remove_all()
        assert await tidy(bench, NONE, later(4)) == []  # was in use a moment ago
        bench.reopen()  # a restarted daemon knows it, too
        assert await tidy(bench, Policy(share=1, idle_days=14), later(24 * 13)) == []
        assert await tidy(bench, NONE, later(24)) == [name]
        assert await bench.runner.image(name) is None
        assert await bench.runner.image(bench.image) is not None
        assert await tidy(bench, NONE, later(24)) == []
        await fetch(bench, name)  # and comes again
        assert await bench.runner.image(name) is not None


async def test_the_share_of_the_disk_decides_and_the_longest_unused_goes_first(
    bench: Bench, docker_engine: docker.DockerClient, tmp_path: Path
) -> None:
    with (
        fetchable(docker_engine, bench.image, tmp_path, 1) as first,
        fetchable(docker_engine, bench.image, tmp_path, 2) as second,
    ):
        await fetch(bench, first)
        await fetch(bench, second)
        await fetch(bench, first)  # used again
        sizes = [docker_engine.images.get(name).attrs["Size"] for name in (first, second)]
        disk = disk_bytes(docker_engine.api, tmp_path)
        one_and_a_half = Policy(share=(max(sizes) * 1.5) / disk, idle_days=14)
        assert await tidy(bench, one_and_a_half, later(1)) == []  # too young
        assert await tidy(bench, one_and_a_half, later(3)) == [second]
        assert await tidy(bench, one_and_a_half, later(3)) == []
        assert await tidy(bench, Policy(share=1, idle_days=1), UnixMs(later(1) + DAY_MS)) == [first]


async def test_what_somebody_named_or_the_settings_keep_stays(
    bench: Bench, docker_engine: docker.DockerClient, tmp_path: Path
) -> None:
    own = f"qubix-test/own:{tmp_path.parent.name[-20:]}"
    with fetchable(docker_engine, bench.image, tmp_path) as name:
        await fetch(bench, name)
        assert await tidy(bench, Policy(share=0, keep=(name,)), later(3)) == []
        docker_engine.images.get(name).tag(own)
        try:
            assert await tidy(bench, NONE, later(3)) == []
            assert await bench.runner.image(own) is not None
        finally:
            docker_engine.images.remove(own)
        assert await tidy(bench, NONE, later(30)) == []  # it was given up for good


async def test_what_others_are_built_on_stays(
    bench: Bench, docker_engine: docker.DockerClient, tmp_path: Path
) -> None:
    child = f"qubix-test/child:{tmp_path.parent.name[-20:]}"
    with fetchable(docker_engine, bench.image, tmp_path) as name:
        await fetch(bench, name)
        (tmp_path / "child").mkdir()
        (tmp_path / "child" / "Dockerfile").write_text(f"FROM {name}\nLABEL of=somebody\n")
        docker_engine.images.build(path=str(tmp_path / "child"), tag=child, rm=True)
        try:
            assert await tidy(bench, NONE, later(3)) == []
            assert name in docker_engine.images.get(name).tags
        finally:
            docker_engine.images.remove(child)


async def test_what_came_while_the_daemon_died_goes_too(
    bench: Bench, docker_engine: docker.DockerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(images: Images, client: object, name: str, before: object) -> None:
        raise Killed

    with fetchable(docker_engine, bench.image, tmp_path) as name:
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(Images, "_noted", die)
            await fetch(bench, name)
        bench.reopen()
        assert await bench.runner.image(name) is not None
        assert await tidy(bench, NONE, later(1)) == []
        assert await tidy(bench, NONE, later(3)) == []  # now it is known whose it is
        assert await tidy(bench, NONE, later(6)) == [name]


async def test_an_image_that_somebody_removed_is_forgotten(
    bench: Bench, docker_engine: docker.DockerClient, tmp_path: Path
) -> None:
    with fetchable(docker_engine, bench.image, tmp_path) as name:
        await fetch(bench, name)
        docker_engine.images.remove(name, force=True)
        assert await tidy(bench, NONE, later(3)) == []
