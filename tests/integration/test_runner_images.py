"""Images that cannot run a job: refused at the start with a sentence, and nothing is left behind."""

from __future__ import annotations

import io
import tarfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import pytest

from protocol.errors import ImageUnavailable
from qubixd.runner.docker import DockerRunner
from tests.support.runners import Bench

pytestmark = pytest.mark.docker

OTHER_PROCESSOR = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\x16\x00" + bytes(200)
"""The head of a program for IBM's S/390."""


@pytest.fixture
async def bench(tmp_path: Path, busybox_image: str) -> AsyncIterator[Bench]:
    made = Bench.make(lambda: DockerRunner(tmp_path / "state"), busybox_image, tmp_path / "workspace")
    yield made
    await made.remove_all()


@contextmanager
def image_of(engine: docker.DockerClient, name: str, files: dict[str, bytes]) -> Iterator[str]:
    """An image with these programs and nothing else."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.mode, member.size = 0o755, len(content)
            tar.addfile(member, io.BytesIO(content))
    tag = f"qubix-test/{name}:latest"
    engine.api.import_image_from_data(archive.getvalue(), repository=f"qubix-test/{name}", tag="latest")
    try:
        yield tag
    finally:
        engine.images.remove(tag, force=True)


@pytest.mark.parametrize(
    "name, files, words",
    [
        ("no-shell", {"bin/true": b"#!/bin/nothing\n"}, "no /bin/sh"),
        ("foreign", {"bin/sh": OTHER_PROCESSOR}, "another kind of processor"),
        ("dying", {"bin/sh": b"#!/bin/nothing\n"}, "/bin/sh"),
    ],
)
async def test_an_image_that_cannot_run_a_job_is_refused(
    bench: Bench, docker_engine: docker.DockerClient, name: str, files: dict[str, bytes], words: str
) -> None:
    with image_of(docker_engine, name, files) as image:
        spec = bench.spec("true", image=image)
        with pytest.raises(ImageUnavailable, match=words) as raised:
            await bench.runner.start(spec)
    assert image in str(raised.value)
    assert await bench.runner.leases() == frozenset()
    assert not list((bench.workspace.parent / "state").rglob(spec.lease_id.hex()))
