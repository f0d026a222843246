"""Two nodes that know nothing but their network link find each other: in two network namespaces joined by a
cable, each a real process with real sockets. And where there is no link, that is no failure."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest

from protocol.errors import PeerUnreachable
from protocol.signing import NodeKey
from qubixd.wire_libp2p import Limits, WireConfig, open_wire, peer_id_of
from qubixd.wire_libp2p.addresses import split_address
from qubixd.wire_libp2p.node import Libp2pWire
from tests.support.neighbour import seed_of

LIMIT_SECONDS: Final = 40
ROOT: Final = Path(__file__).parents[2]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=20)


@pytest.fixture
def spaces() -> Iterator[tuple[str, str]]:
    """Two network namespaces with a cable between them: 10.77.0.1 and 10.77.0.2."""
    if not sys.platform.startswith("linux") or shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("making network namespaces takes Linux, root and iproute2")
    first, second = (f"qubix-{os.getpid()}-{side}" for side in "ab")
    with ExitStack() as stack:
        for name in (first, second):
            try:
                ip("netns", "add", name)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"no network namespace can be made here: {error.stderr.strip()}")
            stack.callback(ip, "netns", "del", name)
        ip("-n", first, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", second)
        for name, address in ((first, "10.77.0.1/24"), (second, "10.77.0.2/24")):
            ip("-n", name, "addr", "add", address, "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
        yield first, second


@contextmanager
def neighbour(space: str, number: int) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        ["ip", "netns", "exec", space, sys.executable, "-m", "tests.support.neighbour", str(number)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        yield child
    finally:
        child.communicate(timeout=LIMIT_SECONDS)
        assert child.returncode == 0


def met(child: subprocess.Popen[str]) -> str:
    """The first peer that a child met. Waits for its line; the test's own limit ends a wait in vain."""
    assert child.stdout is not None
    return child.stdout.readline().strip()


def name_of(number: int) -> str:
    return peer_id_of(NodeKey(seed_of(number)).public)


@pytest.mark.timeout(LIMIT_SECONDS * 2)
def test_two_nodes_on_one_link_meet(spaces: tuple[str, str]) -> None:
    with neighbour(spaces[0], 1) as one, neighbour(spaces[1], 2) as other:
        assert met(one) == f"met {name_of(2)}"
        assert met(other) == f"met {name_of(1)}"


def test_a_node_without_a_link_runs_on(spaces: tuple[str, str]) -> None:
    for name in spaces:
        ip("-n", name, "link", "set", "cable", "down")
    with neighbour(spaces[0], 1) as one:
        assert one.poll() is None


async def test_a_rumour_is_believed_only_if_it_is_true() -> None:
    """A liar must not be able to push out the addresses that are known of a peer."""
    quiet, config = Limits(redial_attempts=0), WireConfig("127.0.0.1", 0, ())
    async with open_wire(config, seed_of(1), quiet) as one, open_wire(config, seed_of(2), quiet) as other:
        assert isinstance(one, Libp2pWire)
        book, (peer, true) = one.peer_book, split_address(other.addresses[0])
        book.learn(peer, [true])
        with pytest.raises(PeerUnreachable):
            await book.dial(peer, [split_address(one.addresses[0])[1]])  # there, somebody else answers
        assert book.addresses_of(peer) == [true]
        await book.dial(peer, [true])
        assert book.connected(peer) and book.addresses_of(peer) == [true]
