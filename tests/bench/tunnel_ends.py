"""The two daemons' ends of a tunnel, each a process: `near` is the caller's, `far` the provider's.

`far` prints what it needs to be dialled; `near` listens on a port and carries each connection over a stream
of its links to `far`, which carries it to the port of the job's program. Both answer questions on their
standard input, one JSON line each: see `_answer`.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import trio

from protocol.errors import QubixError
from protocol.paths import PathKind
from protocol.relay_messages import Reserve, Reserved
from protocol.tunnel_messages import OpenTcp
from protocol.units import LeaseId, PeerKey, UnixMs
from qubixd.link import Carrier
from qubixd.link.carriers import StreamCarrier
from qubixd.link.links import Links
from qubixd.link.pump import carry
from qubixd.link.stream import LinkStream
from qubixd.link.tls import Identity, TlsDoor, tls_client
from qubixd.memory import freeze_what_stays
from qubixd.relay import RELAY_PROTOCOL, Relay
from qubixd.talk import receive_bare, send_bare
from qubixd.wire import Stream, Wire
from qubixd.wire_libp2p import WireConfig, open_wire, peer_key_of

_LINK_PROTOCOL: Final = "/qubix/link/1"
_LEASE: Final = LeaseId(bytes(32))
_SEEDS: Final = {"near": bytes([1]) * 32, "far": bytes([2]) * 32, "relay": bytes([3]) * 32}


class _Dialler:
    """TLS to a fixed port, or a stream of the wire."""

    def __init__(self, wire: Wire, identity: Identity, far: dict[str, Any]) -> None:
        self._wire, self._identity, self._far = wire, identity, far

    async def carrier(
        self, peer: PeerKey, addresses: Sequence[str], *, better_than: PathKind | None = None
    ) -> Carrier:
        if self._far["over"] != "tls":
            return StreamCarrier(await self._wire.open(peer, _LINK_PROTOCOL), PathKind.WIRE, "the wire")
        stream = await trio.open_tcp_stream("127.0.0.1", self._far["tls"])
        certificate = bytes.fromhex(self._far["certificate"])
        return await tls_client(stream, self._identity, certificate, PathKind.DIRECT)


async def _relay() -> None:
    """A node in between, which lets all through as fast as it can."""
    async with open_wire(WireConfig("127.0.0.1", 0, ()), _SEEDS["relay"]) as wire:
        Relay(wire, lambda: UnixMs(0)).rented = lambda peer: True
        _say(wire=wire.addresses[0])
        await trio.sleep_forever()


async def _reserve(wire: Wire, relay: str) -> None:
    """Let this node be reached through `relay` alone."""
    key = peer_key_of(relay.rsplit("/", 1)[1])
    place = await wire.open(key, RELAY_PROTOCOL, [relay])
    await send_bare(place, Reserve())
    await receive_bare(place, Reserved)
    wire.be_reached_through({key: [relay]})


async def _far(job_port: int, over: str, nursery: trio.Nursery) -> None:
    """Its standard input begins with the other side's key and certificate. `over`: tls, wire, or the
    address of a relay."""
    hidden = ("/ip4/127.0.0.1/tcp/1",) if over.startswith("/") else ()
    async with open_wire(WireConfig("127.0.0.1", 0, (), hidden), _SEEDS["far"]) as wire:
        if hidden:
            await _reserve(wire, over)
        identity = Identity(wire.peer_key)
        links, door = Links(wire.peer_key, _NoDialler()), TlsDoor(identity)
        await nursery.start(links.run)
        links.serve(lambda stream: _to_job(stream, job_port))

        async def take_stream(stream: Stream, peer: PeerKey) -> None:
            links.take(peer, StreamCarrier(stream, PathKind.WIRE, "the wire"))
            await trio.sleep_forever()

        async def take_socket(sock: trio.SocketStream) -> None:
            peer, carrier = await door.accept(sock, PathKind.DIRECT)
            links.take(peer, carrier)

        wire.serve(_LINK_PROTOCOL, take_stream)
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, take_socket, [listener])
        _say(
            over=over,
            wire=wire.addresses[-1],
            tls=listener.socket.getsockname()[1],
            certificate=identity.certificate.hex(),
        )
        near = json.loads(await _line())
        door.expect(PeerKey(bytes.fromhex(near["key"])), bytes.fromhex(near["certificate"]))
        await _answers(None, None)


class _NoDialler:
    async def carrier(
        self, peer: PeerKey, addresses: Sequence[str], *, better_than: PathKind | None = None
    ) -> Carrier:
        await trio.sleep_forever()
        raise AssertionError


async def _to_job(stream: LinkStream, port: int) -> None:
    sock = await trio.open_tcp_stream("127.0.0.1", port)
    await stream.accept()
    await carry(stream, sock)


async def _near(far: dict[str, Any], nursery: trio.Nursery) -> None:
    async with open_wire(WireConfig("127.0.0.1", 0, ()), _SEEDS["near"]) as wire:
        identity = Identity(wire.peer_key)
        peer = peer_key_of(far["wire"].rsplit("/", 1)[1])
        links = Links(wire.peer_key, _Dialler(wire, identity, far))
        await nursery.start(links.run)
        await wire.round_trip(peer, [far["wire"]])
        if far["over"].startswith("/") and wire.path_of(peer) != PathKind.RELAYED:
            raise SystemExit("the two ends have met without the relay")

        async def forward(sock: trio.SocketStream) -> None:
            try:
                await carry(await links.open(peer, OpenTcp(_LEASE, 1)), sock)
            except QubixError as error:
                print(error, file=sys.stderr)

        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=512)
        _say(
            port=listener.socket.getsockname()[1],
            key=wire.peer_key.hex(),
            certificate=identity.certificate.hex(),
        )
        nursery.start_soon(trio.serve_listeners, forward, [listener])
        await _answers(wire, peer)


def _say(**words: object) -> None:
    print(json.dumps(words), flush=True)


async def _line() -> str:
    return await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)


async def _answers(wire: Wire | None, peer: PeerKey | None) -> None:
    freeze_what_stays()
    while line := await _line():
        _say(**await _answer(json.loads(line), wire, peer))


async def _answer(question: dict[str, Any], wire: Wire | None, peer: PeerKey | None) -> dict[str, object]:
    """{"ping": n}: milliseconds of n pings over the wire. {}: what this process uses,
    after it has collected its garbage if {"collect": true}."""
    if wire is not None and peer is not None and "ping" in question:
        times = []
        for _ in range(question["ping"]):
            times.append(await wire.round_trip(peer) * 1_000)
            await trio.sleep(0.01)
        return {"ms": times}
    if question.get("collect"):
        gc.collect()
    return {
        "cpu_s": time.process_time(),
        "at_s": time.perf_counter(),
        "rss_mb": int(Path("/proc/self/statm").read_text().split()[1]) * 4_096 / 1e6,
        "descriptors": len(list(Path("/proc/self/fd").iterdir())) - 1,
        "tasks": trio.lowlevel.current_statistics().tasks_living,
    }


async def _main(arguments: list[str]) -> None:
    async with trio.open_nursery() as nursery:
        if arguments[0] == "relay":
            await _relay()
        elif arguments[0] == "far":
            await _far(int(arguments[1]), arguments[2], nursery)
        else:
            await _near(json.loads(arguments[1]), nursery)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(_main, sys.argv[1:])
