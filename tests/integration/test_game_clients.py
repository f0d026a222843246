"""A game's packets and iperf3, TCP and UDP, through `qubix forward` and two real daemons into a container."""

from __future__ import annotations

import io
import json
import logging
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import docker
import pytest

from protocol.templates import TEMPLATES
from tests.support import moonlight
from tests.support.client_town import Person, client_town
from tests.support.engine import skip_or_fail
from tests.support.template_images import NO_MIRROR, Build

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(300)]

log = logging.getLogger(__name__)

IMAGE: Final = "qubix-test/iperf3:cpu"
DOCKERFILE: Final = """
FROM {base}
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends iperf3
"""
FEW: Final = 0.05
"""Of datagrams, the share that may be lost. A machine that is busy with other things loses more now and then,
so there are some tries; a way that loses by itself loses in each."""
TRIES: Final = 4


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory, docker_engine: object) -> Iterator[Person]:
    if not shutil.which("iperf3"):
        pytest.skip("iperf3 is not on this machine")
    with client_town(tmp_path_factory.mktemp("t")) as someone:
        yield someone


@pytest.fixture(scope="module")
def lease(person: Person, docker_engine: docker.DockerClient, template_image: Build) -> str:
    """A job with a game and iperf3's server."""
    said = DOCKERFILE.format(base=template_image("moonlight")).encode()
    try:
        docker_engine.images.build(fileobj=io.BytesIO(said), tag=IMAGE)
    except docker.errors.BuildError as error:
        if NO_MIRROR.search(str(error)):
            skip_or_fail(f"no mirror of Debian answers: {error}")
        raise
    setup = "setup: iperf3 --server --bind 127.0.0.1 --logfile iperf3.log &\n"
    person.begin("game", "moonlight", IMAGE, extra=setup)
    return person.running("game")


@contextmanager
def forwarded(person: Person, lease: str, *ports: str) -> Iterator[list[dict[str, Any]]]:
    """The ports that `qubix forward` says it listens on, while it does."""
    with person.beside("forward", lease, *ports, "--json") as process:
        assert process.stdout is not None
        event = json.loads(process.stdout.readline())["event"]
        assert event["what"] == "listening"
        yield event["ports"]


def free_for_both() -> int:
    """A port that is free for TCP and UDP: iperf3 wants one number for both."""
    while True:
        with ExitStack() as stack:
            tcp = stack.enter_context(socket.socket())
            tcp.bind((moonlight.HOST, 0))
            udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            try:
                udp.bind(tcp.getsockname())
            except OSError:
                continue
            port: int = tcp.getsockname()[1]
            return port


def iperf3(port: int, *words: str) -> dict[str, Any]:
    command = ["iperf3", "--client", moonlight.HOST, "--port", str(port), "--json", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-2_000:]
    told: dict[str, Any] = json.loads(done.stdout)["end"]
    return told


def test_iperf3_over_tcp_both_ways(person: Person, lease: str) -> None:
    with forwarded(person, lease, "0:5201") as ports:
        up = iperf3(ports[0]["local"], "--bytes", "32M")
        down = iperf3(ports[0]["local"], "--bytes", "32M", "--reverse", "--parallel", "4")
    # It stops counting when its sender has sent all; what is under way then is not in the sum.
    assert min(up["sum_received"]["bytes"], down["sum_received"]["bytes"]) > 16 << 20


@pytest.mark.parametrize("way", [(), ("--reverse",)], ids=["to the job", "from the job"])
def test_iperf3_over_udp(person: Person, lease: str, way: tuple[str, ...]) -> None:
    port = free_for_both()
    with forwarded(person, lease, f"{port}:5201", f"{port}:5201/udp"):
        for _ in range(TRIES):
            words = ("--udp", "--bitrate", "10M", "--length", "1200", "--time", "2", *way)
            told = iperf3(port, *words)["sum"]
            log.info("iperf3: %s", told)
            if told["lost_packets"] < FEW * told["packets"]:
                break
    assert told["packets"] > 1_000 and told["lost_packets"] < FEW * told["packets"]


def test_all_ports_of_a_game_are_one_profile_and_its_packets_come(person: Person, lease: str) -> None:
    with forwarded(person, lease) as ports:
        wanted = {(one.port, one.protocol) for one in TEMPLATES["moonlight"].ports}
        assert {(one["remote"], one["protocol"]) for one in ports} == wanted
        assert all(one["local"] == one["remote"] for one in ports), "Moonlight expects these numbers"
        here = {one["remote"]: one["local"] for one in ports}
        assert "SUNSHINE_SERVER_FREE" in moonlight.web(here[47_989], "/serverinfo", tls=False)
        assert "<paired>1" in moonlight.web(here[47_984], "/pair?phrase=getservercert", tls=True)
        assert "CSeq: 3" in moonlight.rtsp(here[48_010], 3)
        for _ in range(TRIES):
            played = moonlight.play(here, 3)
            log.info("played: %s", played)
            if played.lost < FEW:
                break
    assert played.video.sizes == {1_200} and len(played.video.frames) > 60
    assert played.audio.sizes == {160} and played.inputs > 60
    assert played.lost < FEW


def test_the_way_is_measured_before_anything_is_paid(person: Person) -> None:
    (offer,) = person.told("market", "--measure")["offers"]
    assert offer["rtt_ms"] > 0 and offer["jitter_ms"] >= 0
