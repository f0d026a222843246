"""One port for libp2p, for what others take by its first byte, and for the question from where one comes."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
import trio

from protocol.errors import ConfigInvalid, PortBusy
from protocol.paths import PathKind
from qubixd.wire import Wire
from qubixd.wire_libp2p import WireConfig, open_wire, peer_id_of
from qubixd.wire_libp2p.opening import check_free
from tests.support.wire_nodes import (
    FAST,
    assert_echoes,
    connected,
    host_and_port,
    node,
    seed_of,
    tcp_to,
    until,
)

QUESTION = b"QUBIX/1\n" + b"8 bytes!"


async def all_of(stream: trio.SocketStream) -> bytes:
    received = b""
    with suppress(trio.BrokenResourceError):
        async for chunk in stream:
            received += chunk
    return received


async def test_the_port_tells_who_asks_from_where_it_comes_and_keeps_that_open() -> None:
    async with node(1) as wire, await tcp_to(wire) as tcp:
        await tcp.send_all(QUESTION[:5])
        await tcp.send_all(QUESTION[5:])
        answer = b""
        while not answer.endswith(b"\n"):
            answer += await tcp.receive_some()
        ip, port = tcp.socket.getsockname()
        assert answer == b"8 bytes!" + f"{ip}:{port}\n".encode()
        await assert_echoes_from(wire)
        await tcp.send_all(b"nothing more is answered")
        assert await all_of(tcp) == b""


async def assert_echoes_from(wire: Wire) -> None:
    async with node(2) as other:
        await assert_echoes(other, wire)


@pytest.mark.parametrize("words", [b"QUBIX/2\n", b"Quit", b"GET / HTTP/1.0\r\n\r\n", b"\x00"])
async def test_whoever_asks_something_else_hears_nothing(words: bytes) -> None:
    async with node(1) as wire, await tcp_to(wire) as tcp:
        await tcp.send_all(words + b" " * 16)
        assert await all_of(tcp) == b""


async def test_sockets_go_by_their_first_byte_to_who_takes_them() -> None:
    taken: list[trio.SocketStream] = []

    async def take(stream: trio.SocketStream) -> None:
        assert await stream.receive_some(1) == b"\x16"
        taken.append(stream)

    async with node(1) as wire, await tcp_to(wire) as tcp:
        wire.take_sockets(0x16, take)
        await tcp.send_all(b"\x16hello")
        await until(lambda: bool(taken))
        async with taken[0] as kept:  # it stays open after the handler's return
            assert await kept.receive_some() == b"hello"
            await kept.send_all(b"good-bye")
        assert await all_of(tcp) == b"good-bye"
        await assert_echoes_from(wire)


async def test_a_handler_that_fails_or_never_ends_costs_its_socket() -> None:
    async def take(stream: trio.SocketStream) -> None:
        if await stream.receive_some(2) == b"\x16!":
            raise ValueError("a bug of ours")
        await trio.sleep_forever()

    async with node(1, limits=replace(FAST, handshake_seconds=1.0)) as wire:
        wire.take_sockets(0x16, take)
        for words in (b"\x16!", b"\x16?"):
            async with await tcp_to(wire) as tcp:
                await tcp.send_all(words)
                assert await all_of(tcp) == b""
        await assert_echoes_from(wire)


async def test_a_node_listens_at_several_places_and_misses_those_it_cannot_have(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with node(1) as busy:
        taken = host_and_port(busy.addresses[0])
        config = WireConfig("127.0.0.1", 0, (), also=(("127.0.0.2", 0), taken, ("::1", 0)))
        async with open_wire(config, seed_of(2), FAST) as wire:
            first, second, third = wire.addresses
            assert "/127.0.0.1/" in first and "/127.0.0.2/" in second and "/ip6/::1/" in third
            assert f"port {taken[1]}" in caplog.text
            for number, address in enumerate(wire.addresses, 3):
                async with node(number, [address]) as other:
                    await connected((other, wire))
                    ip = address.split("/")[2]
                    assert other.remote_ip(wire.peer_key) == ip
                    assert [where[0] for where in other.dialled()] == [ip] and wire.dialled() == ()
                    assert other.path_of(wire.peer_key) is PathKind.WIRE
                    assert other.relay_of(wire.peer_key) is None


async def test_a_place_that_is_not_here_is_a_clear_error() -> None:
    with pytest.raises(PortBusy, match="does not have that address"):
        check_free("192.0.2.1", 4001)
    with pytest.raises(ConfigInvalid, match="announce"):
        async with open_wire(WireConfig("127.0.0.1", 0, (), announce=("example.org",)), seed_of(1), FAST):
            pass


async def test_announced_addresses_may_have_the_peer_id_already() -> None:
    at = "/ip4/192.0.2.7/tcp/4001"
    config = WireConfig("127.0.0.1", 0, (), announce=(at, "/dns4/example.org/tcp/443"))
    async with open_wire(config, seed_of(1), FAST) as wire:
        name = peer_id_of(wire.peer_key)
        assert wire.addresses == (f"{at}/p2p/{name}", f"/dns4/example.org/tcp/443/p2p/{name}")
        again = replace(config, announce=wire.addresses)
    async with open_wire(again, seed_of(1), FAST) as wire:
        assert wire.addresses == again.announce


async def test_a_node_finds_out_for_another_whether_it_can_be_reached() -> None:
    async with node(1) as asked, node(2, asked.addresses) as asker:
        await connected((asked, asker))
        port = host_and_port(asker.addresses[0])[1]
        other = host_and_port(asked.addresses[0])[1]
        assert await asked.reaches(asker.peer_key, port)
        assert not await asked.reaches(asker.peer_key, other), "there is somebody, with another key"
        assert not await asked.reaches(asker.peer_key, 1)
        assert len(asker.peers()) == 1
    assert not await asked.reaches(asker.peer_key, port)


async def test_connections_that_do_not_answer_end_when_the_network_has_changed() -> None:
    async with node(1, limits=replace(FAST, recheck_seconds=0.2)) as a, node(2, a.addresses) as b:
        await connected((a, b))
        for _ in range(3):
            a.recheck()
        await assert_echoes(a, b)
        assert a.peers() == (b.peer_key,)
