"""Images that a job should not get, on a real engine: absent ones, those for other processors, broken and
hostile ones. Each is refused with its code, and nothing is left behind."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import docker
import pytest
import trio

from protocol.errors import ImageBroken, ImageNotHere, ImageUnavailable, QubixError, WrongArchitecture
from protocol.image_needs import Need
from qubixd.runner import ExitReason
from qubixd.runner.docker import DockerRunner
from qubixd.runner.docker_images import check_at_registry
from tests.support.registry import registry_of
from tests.support.runners import LIMIT_SECONDS, Bench

pytestmark = pytest.mark.docker

Import = Callable[..., str]
OTHER_ARCH: Final = "s390x"


@pytest.fixture
async def bench(tmp_path: Path, busybox_image: str) -> AsyncIterator[Bench]:
    made = Bench.make(lambda: DockerRunner(tmp_path / "state"), busybox_image, tmp_path / "workspace")
    yield made
    await made.remove_all()


@pytest.fixture
def load(docker_engine: docker.DockerClient, tmp_path: Path) -> Iterator[Import]:
    """Make an image of these files with a config that is written by hand; its name."""
    made: list[str] = []

    def load(files: Mapping[str, bytes], *, architecture: str = "amd64", **config: Any) -> str:
        name = f"qubix-test/made-{len(made)}:{tmp_path.parent.name[-20:]}"
        docker_engine.images.load(_image_tar(name, files, architecture, config))
        made.append(name)
        return name

    yield load
    for name in made:
        with suppress(docker.errors.ImageNotFound):
            docker_engine.images.remove(name, force=True)


def _image_tar(name: str, files: Mapping[str, bytes], architecture: str, config: dict[str, Any]) -> bytes:
    """As `docker save` writes it (Docker image specification v1.2)."""
    layer = _tar({path: (data, 0o755) for path, data in files.items()})
    settings = {
        "architecture": architecture,
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "hand"}],
        "created": "2026-01-01T00:00:00Z",
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    parts = {"config.json": settings, "manifest.json": manifest}
    return _tar(
        {part: (json.dumps(value).encode(), 0o644) for part, value in parts.items()}
        | {"layer.tar": (layer, 0o644)}
    )


def _tar(files: Mapping[str, tuple[bytes, int]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path, (data, mode) in files.items():
            member = tarfile.TarInfo(path)
            member.mode, member.size = mode, len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


@pytest.fixture
def busybox_files(docker_engine: docker.DockerClient, busybox_image: str) -> dict[str, bytes]:
    """A shell and a few tools as plain files."""
    container = docker_engine.containers.create(busybox_image, ["true"])
    try:
        stream, _ = container.get_archive("/bin/busybox")
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
            file = archive.extractfile("busybox")
            assert file is not None
            binary = file.read()
    finally:
        container.remove(force=True)
    return {f"bin/{name}": binary for name in ("sh", "cat", "mkdir", "sleep", "rm", "mv", "env")}


async def left_nothing(bench: Bench, engine: docker.DockerClient) -> None:
    """No container of this job, running or ended."""
    assert await bench.runner.leases() == frozenset()
    label = f"qubix.workspace={bench.workspace.resolve()}"
    assert engine.containers.list(all=True, filters={"label": label}) == []


async def refused(bench: Bench, image: str, kind: type[QubixError], words: str) -> None:
    """At the pull or at the start, whichever sees it."""
    with pytest.raises(kind, match=words), trio.fail_after(LIMIT_SECONDS):
        await bench.runner.pull(image, lambda phase, share: None)
        await bench.runner.start(bench.spec("true", image=image))


@pytest.mark.parametrize(
    ("image", "kind", "words"),
    [
        ("localhost:1/qubix-test/absent:1", ImageUnavailable, "localhost:1/qubix-test/absent:1"),
        ("localhost/qubix/absent:1", ImageNotHere, "has not been built here"),
        (f"localhost:1/qubix-test/absent@sha256:{'0' * 64}", ImageUnavailable, "cannot be fetched"),
        ("../../etc", ImageUnavailable, "is not the name"),
    ],
)
async def test_an_image_that_does_not_exist(
    bench: Bench, docker_engine: docker.DockerClient, image: str, kind: type[QubixError], words: str
) -> None:
    await refused(bench, image, kind, words)
    await left_nothing(bench, docker_engine)


async def test_an_image_here_for_another_processor(
    bench: Bench, docker_engine: docker.DockerClient, load: Import, busybox_files: dict[str, bytes]
) -> None:
    image = load(busybox_files, architecture=OTHER_ARCH)
    known = await bench.runner.image(image)
    assert known is not None and known.need == Need(OTHER_ARCH, 0)
    await refused(bench, image, WrongArchitecture, f"for {OTHER_ARCH} processors and this machine has")
    await left_nothing(bench, docker_engine)


async def test_an_image_elsewhere_for_another_processor_is_not_fetched(
    bench: Bench, docker_engine: docker.DockerClient, load: Import, busybox_files: dict[str, bytes]
) -> None:
    """Its registry tells, so that no gigabytes come for nothing."""
    with registry_of(docker_engine, load(busybox_files, architecture=OTHER_ARCH)) as (name, _):
        await refused(bench, name, WrongArchitecture, OTHER_ARCH)
        assert await bench.runner.image(name) is None
    await left_nothing(bench, docker_engine)


async def test_one_that_comes_all_the_same_is_refused_before_it_runs(
    bench: Bench,
    docker_engine: docker.DockerClient,
    load: Import,
    busybox_files: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A registry that does not tell whom an image is for."""
    monkeypatch.setattr("qubixd.runner.docker_images.check_at_registry", lambda client, name: None)
    with registry_of(docker_engine, load(busybox_files, architecture=OTHER_ARCH)) as (name, _):
        try:
            await refused(bench, name, WrongArchitecture, OTHER_ARCH)
            assert await bench.runner.image(name) is not None
        finally:
            docker_engine.images.remove(name, force=True)
    await left_nothing(bench, docker_engine)


def test_a_registry_that_cannot_be_asked_forbids_nothing(docker_engine: docker.DockerClient) -> None:
    check_at_registry(docker_engine.api, "localhost:1/qubix-test/absent:1")


async def test_a_program_for_another_processor_in_an_image_that_says_it_is_for_this(
    bench: Bench, docker_engine: docker.DockerClient, load: Import
) -> None:
    """An ELF header for s390x and nothing behind it."""
    header = b"\x7fELF\x02\x02\x01" + bytes(9) + b"\x00\x02\x00\x16\x00\x00\x00\x01" + bytes(40)
    await refused(bench, load({"bin/sh": header}), WrongArchitecture, "another kind of processor")
    await left_nothing(bench, docker_engine)


@pytest.mark.parametrize("files", [{"bin/hello": b"#!/bin/none\n"}, {"bin/sh": b"#!/bin/none\n"}])
async def test_an_image_without_a_shell(
    bench: Bench, docker_engine: docker.DockerClient, load: Import, files: dict[str, bytes]
) -> None:
    await refused(bench, load(files), ImageBroken, "has no /bin/sh")
    await left_nothing(bench, docker_engine)


async def test_a_shell_that_dies_at_once(
    bench: Bench, docker_engine: docker.DockerClient, load: Import, busybox_files: dict[str, bytes]
) -> None:
    dies = busybox_files | {"bin/sh": b"#!/bin/cat /etc/why\n", "etc/why": b"no jobs today"}
    await refused(bench, load(dies), ImageBroken, r"before the job began \(exit code 1\)")
    await left_nothing(bench, docker_engine)


async def test_an_entry_point_that_dies_is_not_asked(
    bench: Bench, load: Import, busybox_files: dict[str, bytes]
) -> None:
    image = load(busybox_files, Entrypoint=["/bin/none"], Cmd=["none"])
    ended, said = await bench.run("echo ran", image=image)
    assert (ended.code, ended.reason, said) == (0, ExitReason.EXITED, "ran\n")


async def test_a_hostile_config_has_no_power(
    bench: Bench, docker_engine: docker.DockerClient, load: Import, busybox_files: dict[str, bytes]
) -> None:
    """Thousands of variables, volumes over the system, a health check, triggers, labels of ours."""
    before = {volume.id for volume in docker_engine.volumes.list()}
    image = load(
        busybox_files,
        Env=[f"V{number}={'x' * 100}" for number in range(2_000)] + ["LD_PRELOAD=/evil.so", "NVIDIA_X=all"],
        Volumes={"/proc2": {}, "/workspace": {}, "/data/deep": {}, "/etc": {}},
        Healthcheck={"Test": ["CMD", "/bin/sh", "-c", "echo > /workspace/health"], "Interval": 1_000_000_000},
        OnBuild=["RUN false"],
        Labels={"qubix.home": "stranger", "qubix.lease": "00" * 32, "qubix.cuda": "99.9"},
        User="root",
        WorkingDir="/etc",
        StopSignal="SIGSTOP",
        ExposedPorts={"22/tcp": {}},
        Shell=["/bin/none"],
    )
    script = (
        "echo in $PWD; env | while IFS= read -r l; do case $l in LD_*|NVIDIA_X*) echo $l;; esac; done; id"
    )
    ended, said = await bench.run(script.replace("; id", ""), image=image)
    assert ended.code == 0, said
    assert said == "in /workspace\n"
    await bench.remove_all()
    await left_nothing(bench, docker_engine)
    assert {volume.id for volume in docker_engine.volumes.list()} == before
    assert [path.name for path in bench.workspace.iterdir() if path.name == "health"] == []


async def test_an_environment_beyond_what_the_kernel_takes(
    bench: Bench, docker_engine: docker.DockerClient, load: Import, busybox_files: dict[str, bytes]
) -> None:
    image = load(busybox_files, Env=[f"V{number}={'x' * 100_000}" for number in range(60)])
    await refused(bench, image, ImageBroken, "argument list too long")
    await left_nothing(bench, docker_engine)
