"""How the Docker runner fetches images and what it tells of those it has, on a real engine."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import docker
import pytest

from protocol.errors import ImageUnavailable
from protocol.images import image_tag
from qubixd.runner.docker import DockerRunner
from tests.support.registry import registry_of
from tests.support.runners import MIB, Bench

pytestmark = pytest.mark.docker


@pytest.fixture
async def bench(tmp_path: Path, busybox_image: str) -> AsyncIterator[Bench]:
    made = Bench.make(
        lambda: DockerRunner(tmp_path / "state", disk_check_seconds=0.2),
        busybox_image,
        tmp_path / "workspace",
    )
    yield made
    await made.remove_all()


@pytest.fixture
def layered_image(docker_engine: docker.DockerClient, busybox_image: str, tmp_path: Path) -> Iterator[str]:
    """An image of two layers, the upper one with 8 MiB that cannot be compressed."""
    name = f"qubix-test/layered:{tmp_path.parent.name[-20:]}"
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "noise").write_bytes(os.urandom(8 * MIB))
    (tmp_path / "context" / "Dockerfile").write_text(f"FROM {busybox_image}\nCOPY noise /noise\n")
    docker_engine.images.build(path=str(tmp_path / "context"), tag=name, rm=True)
    yield name
    with suppress(docker.errors.ImageNotFound):
        docker_engine.images.remove(name, force=True)


async def test_local_image_is_not_fetched_and_named_by_its_digest(
    bench: Bench, docker_engine: docker.DockerClient
) -> None:
    seen: list[tuple[str, float]] = []
    digest = await bench.runner.pull(bench.image, lambda phase, share: seen.append((phase, share)))
    assert digest == docker_engine.images.get(bench.image).id
    assert seen == [("image ready", 1.0)]


async def test_absent_image_is_fetched_with_progress(
    bench: Bench, docker_engine: docker.DockerClient
) -> None:
    seen: list[tuple[str, float]] = []
    with registry_of(docker_engine, bench.image) as (name, _):
        try:
            digest = await bench.runner.pull(name, lambda phase, share: seen.append((phase, share)))
            assert digest == docker_engine.images.get(name).id
            ended, said = await bench.run("echo from afar", image=name)
        finally:
            await bench.remove_all()
            docker_engine.images.remove(name, force=True)
    assert (ended.code, said) == (0, "from afar\n")
    assert {phase for phase, _ in seen[:-1]} == {"pulling the image"} and seen[-1] == ("image ready", 1.0)
    assert all(0 <= share <= 1 for _, share in seen)


async def test_stock_tells_of_a_fetched_image_first(
    bench: Bench, docker_engine: docker.DockerClient, layered_image: str
) -> None:
    with registry_of(docker_engine, layered_image) as (name, _):
        before = await bench.runner.stock()
        try:
            await bench.runner.pull(name, lambda phase, share: None)
            after, known = await bench.runner.stock(), await bench.runner.image(name)
        finally:
            docker_engine.images.remove(name, force=True)
    assert image_tag(name) not in before.tags and after.tags[0] == image_tag(name)
    assert known is not None and name in known.names
    diff_ids = docker_engine.images.get(layered_image).attrs["RootFS"]["Layers"]
    assert known.layers == tuple(bytes.fromhex(digest[7:23]) for digest in diff_ids)
    assert len(known.layers) == 2 and known.layers[0] in before.tags
    assert 2 <= known.mib <= 16
    assert image_tag(name) not in (await bench.runner.stock()).tags


async def test_stock_tells_first_of_what_jobs_wanted_last(
    bench: Bench, layered_image: str, python_image: str
) -> None:
    for wanted in (bench.image, layered_image, python_image, bench.image):
        await bench.runner.pull(wanted, lambda phase, share: None)
    told = (await bench.runner.stock()).tags
    assert told[:3] == tuple(map(image_tag, (bench.image, python_image, layered_image)))


async def test_pace_is_measured_at_pulls_that_fetch_something(
    bench: Bench, docker_engine: docker.DockerClient, layered_image: str
) -> None:
    with registry_of(docker_engine, layered_image) as (name, _):
        docker_engine.images.remove(layered_image, force=True)
        try:
            await bench.runner.pull(name, lambda phase, share: None)
            fetched = (await bench.runner.stock()).pull_mib_per_s
            await bench.runner.pull(name, lambda phase, share: None)
            assert (await bench.runner.stock()).pull_mib_per_s == fetched >= 1
        finally:
            docker_engine.images.remove(name, force=True)


async def test_an_image_that_is_not_here_is_none(bench: Bench) -> None:
    assert await bench.runner.image("qubix-test/absent:1") is None


async def test_stranger_s_image_is_not_fetched_with_the_provider_s_credentials(
    bench: Bench, docker_engine: docker.DockerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with registry_of(docker_engine, bench.image, private=True) as (name, authorizations):
        credentials = {"auths": {name.partition("/")[0]: {"auth": base64.b64encode(b"me:secret").decode()}}}
        (tmp_path / "config.json").write_text(json.dumps(credentials))
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
        bench.reopen()
        with pytest.raises(ImageUnavailable, match="credentials"):
            await bench.runner.pull(name, lambda phase, share: None)
    assert authorizations == []


@pytest.mark.parametrize("image", ["localhost:1/qubix-test/absent:1", "../containers/json", "", "a b", "-x"])
async def test_missing_image_is_named(bench: Bench, image: str) -> None:
    with pytest.raises(ImageUnavailable) as raised:
        await bench.runner.pull(image, lambda phase, share: None)
    assert image in str(raised.value)
    with pytest.raises(ImageUnavailable):
        await bench.runner.start(bench.spec("true", image=image))
