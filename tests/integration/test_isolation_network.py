"""What a job with Internet reaches, and what it does not: tried from inside, on a real engine.

Each forbidden place is first reached from a container without a fence, so that the job's failure means
something.
"""

from __future__ import annotations

import os
import socket
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import docker
import psutil
import pytest
import trio
from docker.errors import NotFound

from protocol.errors import InternetUnavailable
from protocol.images import image_tag
from protocol.units import LeaseId
from qubixd.runner import RunSpec, fence
from qubixd.runner.docker import DockerRunner
from qubixd.runner.docker_config import fence_name, host_options
from qubixd.runner.fence import FenceLimits, Fences
from qubixd.runner.fence_rules import NEW_AT_ONCE
from qubixd.wire_libp2p import WireConfig, open_wire
from tests.support import beyond
from tests.support.runners import LIMIT_SECONDS, MIB, Bench
from tests.support.wire_nodes import FAST, seed_of

pytestmark = pytest.mark.docker
needs_far_end = pytest.mark.skipif(bool(beyond.missing()), reason=beyond.missing())

METADATA = "169.254.169.254:80"
PROBE = (Path(beyond.__file__).parent / "reach.py").read_text()
FINE = {"tcp", "udp", "large udp", "bound tcp", "bound udp", "six mapped", "ping", "fast open"}
"""Ways to a public address that are a job's right. The others reach nothing at all."""
NOT_MAIL = {"udp", "large udp", "bound udp", "ping"}

Reached = dict[str, set[str]]
"""Ways that worked, by target."""


@pytest.fixture
def fences(tmp_path: Path, docker_engine: docker.DockerClient) -> Iterator[Fences]:
    made = Fences(tmp_path / "state", home=tmp_path.parent.name)
    yield made
    for lease_id in made.leases(docker_engine.api):
        made.remove(docker_engine.api, lease_id)


def spec(lease_id: LeaseId, **changes: Any) -> RunSpec:
    basics: dict[str, Any] = {
        "image": "",
        "script": "",
        "env": {},
        "workspace": Path("/tmp"),
        "gpu_uuids": (),
    }
    limits = {"cpu_millis": 1000, "memory_bytes": 256 * MIB, "disk_bytes": MIB, "internet": True}
    return RunSpec(lease_id=lease_id, **{**basics, **limits, **changes})


@contextmanager
def container(
    client: Any, image: str, command: list[str], options: dict[str, Any], **more: Any
) -> Iterator[Any]:
    """A container with the limits of a job and another program."""
    config = client.create_host_config(**{**options, "mounts": []})
    made = client.create_container(image, command, user="65432:65432", host_config=config, **more)["Id"]
    try:
        client.start(made)
        yield made
    finally:
        client.remove_container(made, force=True, v=True)


def reached(client: Any, image: str, options: dict[str, Any], targets: list[str]) -> Reached:
    command = ["python3", "-c", PROBE, *targets]
    with container(client, image, command, options, environment={"STATION": beyond.PUBLIC}) as made:
        assert client.wait(made)["StatusCode"] == 0, client.logs(made)
        said = client.logs(made, stderr=False).decode()
    found: Reached = defaultdict(set)
    for line in said.splitlines():
        way, address, port = line.split("|")
        found[f"{address}:{port}"].add(way)
    return found


def own_addresses() -> list[str]:
    """Every IPv4 address of this host that is not its loopback's."""
    each = [address for device in psutil.net_if_addrs().values() for address in device]
    found = [one.address for one in each if one.family is socket.AF_INET]
    return [one for one in found if not one.startswith("127.")]


def published(client: Any, made: str) -> int:
    ports = client.inspect_container(made)["NetworkSettings"]["Ports"]["7/tcp"]
    return int(ports[0]["HostPort"])


@needs_far_end
async def test_job_reaches_the_internet_and_nothing_else(
    fences: Fences, docker_engine: docker.DockerClient, python_image: str, busybox_image: str
) -> None:
    """The host's loopback, a node's real port, a port the engine publishes, private ranges, a resolver
    there, networks behind the host's own routes, metadata, mail: in every way that reach.py knows."""
    client, lease_id = docker_engine.api, LeaseId(os.urandom(32))
    serve = ["/bin/nc", "-ll", "-p", "7", "-e", "/bin/true"]
    public = {"network_mode": "bridge", "port_bindings": {"7/tcp": None}}
    wire_config = WireConfig("0.0.0.0", 0, ())
    with (
        beyond.far_end(),
        beyond.host_listener() as port,
        container(client, busybox_image, serve, public, ports=[7]) as other,
    ):
        async with open_wire(wire_config, seed_of(7), FAST) as wire:
            node = int(wire.addresses[0].split("/tcp/")[1].split("/")[0])
            doors = [port, node, published(client, other)]
            hosts = [f"{address}:{door}" for address in own_addresses() for door in doors]
            private = [f"{address}:{beyond.PORT}" for address in (*beyond.PRIVATE, beyond.ROUTED)]
            resolver = f"{beyond.PRIVATE[0]}:{beyond.DNS_PORT}"
            neighbour = address_of(client, other) + ":7"
            forbidden = [*hosts, *private, resolver, neighbour]
            allowed = [f"{beyond.PUBLIC}:{beyond.PORT}", f"{beyond.PUBLIC}:{beyond.DNS_PORT}"]
            mail = f"{beyond.PUBLIC}:{beyond.MAIL_PORT}"
            loopback = f"127.0.0.1:{port}"
            targets = [*forbidden, *allowed, mail, loopback, METADATA]
            found: list[Reached] = []

            def probe(options: dict[str, Any]) -> None:
                found.append(reached(client, python_image, options, targets))

            await trio.to_thread.run_sync(fences.start, client, lease_id)
            fenced = host_options(spec(lease_id), ())
            for options in ({**fenced, "network_mode": "bridge"}, fenced):
                await trio.to_thread.run_sync(probe, options)
    plain, job = found
    for target in (*forbidden, mail):
        assert "tcp" in plain[target], f"even without a fence nobody reaches {target}"
    assert {target: ways for target in (*forbidden, METADATA) if (ways := job[target])} == {}
    assert [job[target] for target in allowed] == [FINE, FINE]
    assert job[mail] <= NOT_MAIL and job[loopback] <= {"ping"}


def address_of(client: Any, name: str) -> str:
    return str(client.inspect_container(name)["NetworkSettings"]["Networks"]["bridge"]["IPAddress"])


LISTEN = "import socket; s = socket.create_server(('', 8080)); print('listening', flush=True); s.accept()"


def until_said(client: Any, name: str, word: str) -> None:
    for line in client.logs(name, stream=True, follow=True):
        if word in line.decode():
            return
    raise AssertionError(f"{name} ended without a word")


def test_jobs_reach_neither_each_other_nor_are_reached_by_the_host(
    fences: Fences, docker_engine: docker.DockerClient, python_image: str
) -> None:
    client, one, other = docker_engine.api, LeaseId(os.urandom(32)), LeaseId(os.urandom(32))
    server = ["python3", "-c", LISTEN]
    for lease_id in (one, other):
        fences.start(client, lease_id)
    options = host_options(spec(one), ())
    with container(client, python_image, server, {**options, "network_mode": "bridge"}) as open_one:
        until_said(client, open_one, "listening")
        with socket.create_connection((address_of(client, open_one), 8080), timeout=5):
            pass  # so it would be without a fence
    with container(client, python_image, server, options) as fenced:
        until_said(client, fenced, "listening")
        address = address_of(client, fence_name(one))
        with pytest.raises(OSError):
            socket.create_connection((address, 8080), timeout=1)
        theirs = reached(client, python_image, host_options(spec(other), ()), [f"{address}:8080"])
        own = reached(client, python_image, options, [f"{address}:8080"])
    assert not theirs[f"{address}:8080"] and "tcp" in own[f"{address}:8080"]


def test_fence_stands_for_its_daemon_and_leaves_nothing(
    fences: Fences, docker_engine: docker.DockerClient, tmp_path: Path
) -> None:
    client, lease_id = docker_engine.api, LeaseId(os.urandom(32))
    name = fences.start(client, lease_id)
    first = client.inspect_container(name)
    assert fences.start(client, lease_id) == name and fences.leases(client) == {lease_id}
    assert client.inspect_container(name)["State"]["Pid"] == first["State"]["Pid"]
    client.kill(name)
    fences.start(client, lease_id)
    again = client.inspect_container(name)
    assert again["Id"] == first["Id"] and again["State"]["Running"]
    assert not again["HostConfig"]["Privileged"] and again["HostConfig"]["CapAdd"] == ["NET_ADMIN"]
    stranger = Fences(tmp_path / "other", home="other")
    with pytest.raises(InternetUnavailable, match="not this daemon's"):
        stranger.start(client, lease_id)
    stranger.remove(client, lease_id)
    assert stranger.leases(client) == frozenset() and fences.leases(client) == {lease_id}
    fences.remove(client, lease_id)
    fences.remove(client, lease_id)
    with pytest.raises(NotFound):
        client.inspect_container(name)


def test_names_are_asked_of_public_resolvers(
    fences: Fences, docker_engine: docker.DockerClient, busybox_image: str
) -> None:
    client, lease_id = docker_engine.api, LeaseId(os.urandom(32))
    fences.start(client, lease_id)
    show = ["/bin/sh", "-c", "cat /etc/resolv.conf /etc/hosts; hostname"]
    with container(client, busybox_image, show, host_options(spec(lease_id), ())) as made:
        client.wait(made)
        said = client.logs(made).decode()
    assert "nameserver 9.9.9.9" in said and said.endswith("\nqubix\n")
    assert socket.gethostname() not in said.split()


def refusing(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """The kernel then takes no rules from the fence."""
    real: Callable[[FenceLimits], dict[str, Any]] = fence._host_options
    monkeypatch.setattr(fence, "_host_options", lambda limits: {**real(limits), **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cap_add": []}, "no nf_tables: the kernel refused the rules: Operation not permitted"),
        ({"network_mode": "none", "dns": None}, "a forbidden packet was not refused: Network is unreachable"),
    ],
)
def test_a_fence_that_does_not_hold_is_no_internet(
    fences: Fences,
    docker_engine: docker.DockerClient,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    words: str,
) -> None:
    refusing(monkeypatch, **changes)
    with pytest.raises(InternetUnavailable, match=words):
        fences.prepare(docker_engine.api)
    assert fences.leases(docker_engine.api) == frozenset()


FLOOD = f"""
import socket, sys
sock, refused, packets, size = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0, *map(int, sys.argv[1:])
for port in range(packets):
    try:
        sock.sendto(bytes(size), ("{beyond.PUBLIC}", 10_000 + port))
    except PermissionError:
        refused += 1
print(refused)
"""


def flood(client: Any, image: str, lease_id: LeaseId, packets: int, size: int) -> int:
    """How many of a fenced job's first packets, each to another port, do not leave."""
    command = ["python3", "-c", FLOOD, str(packets), str(size)]
    with container(client, image, command, host_options(spec(lease_id), ())) as made:
        assert client.wait(made)["StatusCode"] == 0
        return int(client.logs(made))


def test_scans_and_floods_are_slowed_down(
    fences: Fences, docker_engine: docker.DockerClient, python_image: str
) -> None:
    """Conversations that are begun and not answered fill the host's table of connections."""
    client, lease_id = docker_engine.api, LeaseId(os.urandom(32))
    fences.start(client, lease_id)
    assert flood(client, python_image, lease_id, NEW_AT_ONCE // 2, 8) == 0
    assert flood(client, python_image, lease_id, 20 * NEW_AT_ONCE, 8) > 10 * NEW_AT_ONCE


def test_a_rented_line_is_as_wide_as_agreed(
    tmp_path: Path, docker_engine: docker.DockerClient, python_image: str
) -> None:
    """400 kB at once: with 1 kB a second the kernel refuses all but what may come at one time."""
    client, refused = docker_engine.api, []
    for width in (0, 1_000):
        lease_id = LeaseId(os.urandom(32))
        fences = Fences(tmp_path / "state", tmp_path.name, FenceLimits(bytes_per_second=width))
        try:
            fences.start(client, lease_id)
            refused.append(flood(client, python_image, lease_id, 400, 1_000))
        finally:
            with suppress(InternetUnavailable):
                fences.remove(client, lease_id)
    assert refused[0] == 0 and 300 < refused[1] < 400


ASK = f"""
nc -w 5 {beyond.PUBLIC} {beyond.PORT} </dev/null && echo " reached"
nc -w 1 {beyond.PRIVATE[0]} {beyond.PORT} </dev/null 2>/dev/null || echo refused
"""


@needs_far_end
async def test_a_job_keeps_its_fence_for_all_its_life(
    docker_engine: docker.DockerClient, busybox_image: str, tmp_path: Path
) -> None:
    """Through the runner: at its start, when it begins anew although its fence has died, and no longer."""
    bench = Bench.make(lambda: DockerRunner(tmp_path / "state"), busybox_image, tmp_path / "workspace")
    job, client = bench.spec(ASK, internet=True), docker_engine.api
    said = f"{beyond.SAID} reached\nrefused\n"
    try:
        with beyond.far_end(), trio.fail_after(LIMIT_SECONDS):
            await bench.begin(job)
            assert (await bench.runner.wait(job.lease_id)).code == 0
            assert await bench.said(job.lease_id) == said
            client.kill(fence_name(job.lease_id))
            begun = await bench.runner.restart(job.lease_id, {}, 0, bytes(8))
            while (await bench.runner.wait(job.lease_id)).finished_at < begun:
                await trio.sleep(0.05)
            assert await bench.said(job.lease_id) == 2 * said
    finally:
        await bench.remove_all()
    with pytest.raises(NotFound):
        client.inspect_container(fence_name(job.lease_id))


async def test_what_a_crash_leaves_of_a_fence_is_found(
    docker_engine: docker.DockerClient, busybox_image: str, tmp_path: Path
) -> None:
    bench = Bench.make(lambda: DockerRunner(tmp_path / "state"), busybox_image, tmp_path / "workspace")
    job = bench.spec("true", internet=True)
    runner = bench.runner
    assert isinstance(runner, DockerRunner)
    runner.fences.start(docker_engine.api, job.lease_id)  # and no more
    assert await bench.runner.leases() == {job.lease_id}
    await bench.runner.remove(job.lease_id)
    assert await bench.runner.leases() == frozenset()


async def test_the_fence_s_image_is_no_news_to_the_market(
    fences: Fences, docker_engine: docker.DockerClient, tmp_path: Path
) -> None:
    fences.prepare(docker_engine.api)
    names = {name for image in docker_engine.images.list() for name in image.tags}
    fence_images = {name for name in names if name.startswith("qubix-fence:")}
    assert fence_images
    told = set((await DockerRunner(tmp_path / "other").stock()).tags)
    assert not told & set(map(image_tag, fence_images))
