"""The provider's door: who gets in, where to, and how it all ends."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from protocol import terminal_frames as t
from protocol.errors import PeerRefused
from protocol.file_frames import Look
from protocol.lease_state import Phase, Role
from protocol.messages import OpenFiles, OpenProgram, OpenTcp, OpenUdp
from protocol.relay_lease import RELAY
from protocol.units import LeaseId, PeerKey
from qubixd.link.stream import LinkStream
from qubixd.places import Buckets
from qubixd.runner import Dialed, Program, Terminal
from qubixd.runner.loopback import connect, fresh_socket
from qubixd.runner.process import ProcessRunner
from qubixd.runner.process_program import open_program
from qubixd.tunnels import door as door_module
from tests.support.doors import LEASE, Doors, doors, running_lease

LIMIT_SECONDS = 30


class Loopback(ProcessRunner):
    """Every lease has a job, whose network and programs are this machine's."""

    async def dial(self, lease_id: LeaseId, port: int, *, udp: bool = False) -> Dialed:
        return await connect(partial(fresh_socket, udp=udp), port, udp=udp)

    async def program(
        self, lease_id: LeaseId, command: Sequence[str], terminal: Terminal | None = None
    ) -> Program:
        order = {"workspace": "/tmp", "env": {"PATH": os.defpath}, "limits": {}, "cpus": []}
        return await open_program(order, command, terminal)


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Doors]:
    async with doors(tmp_path / "lease", Loopback(tmp_path / "state")) as made:
        yield made


@dataclass
class Server:
    """What listens "inside the job"."""

    port: int
    open: set[trio.SocketStream] = field(default_factory=set)


@asynccontextmanager
async def serving(talk: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncIterator[Server]:
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        server = Server(listeners[0].socket.getsockname()[1])

        async def one(stream: trio.SocketStream) -> None:
            server.open.add(stream)
            with suppress(trio.BrokenResourceError):
                await talk(stream)
            server.open.discard(stream)
            await stream.aclose()

        nursery.start_soon(trio.serve_listeners, one, listeners)
        yield server
        nursery.cancel_scope.cancel()


async def echo(stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data)


async def all_of(stream: LinkStream) -> bytes:
    got = bytearray()
    with trio.fail_after(LIMIT_SECONDS):
        while data := await stream.receive_some():
            got += data
    return bytes(got)


async def refused(there: Doors, opening: Any) -> tuple[str, str]:
    with pytest.raises(PeerRefused) as error, trio.fail_after(LIMIT_SECONDS):
        await there.open(opening)
    return error.value.refusal_code, str(error.value)


async def until_empty(there: Doors) -> None:
    with trio.fail_after(LIMIT_SECONDS):
        while there.door.streams(LEASE):
            await trio.sleep(0.005)


async def test_bytes_pass_both_ways_with_their_ends(there: Doors) -> None:
    data = os.urandom(2_000_000)
    async with serving(echo) as server:
        stream = await there.open(OpenTcp(LEASE, server.port))
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                await stream.send_all(data)
                await stream.send_eof()

            nursery.start_soon(send)
            assert await all_of(stream) == data
        await until_empty(there)


async def test_datagrams_pass_one_by_one(there: Doors) -> None:
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as inside:
        await inside.bind(("127.0.0.1", 0))
        stream = await there.open(OpenUdp(LEASE, inside.getsockname()[1]))
        await stream.send_all(b"\0\x03one\0\x00\0\x03two")
        got = [await inside.recvfrom(100) for _ in range(3)]
        assert [data for data, _ in got] == [b"one", b"", b"two"]
        await inside.sendto(b"answer", got[0][1])
        assert await stream.receive_some() == b"\0\x06answer"
        await stream.send_eof()
        assert await all_of(stream) == b""
        await stream.aclose()
        await until_empty(there)


async def test_a_stranger_learns_nothing(there: Doors) -> None:
    """Another's lease, one in the other role and none at all are refused in the same words."""
    unknown, others, own = (LeaseId(bytes([n]) * 32) for n in (1, 2, 3))
    lease = running_lease(others)
    there.book.leases[others] = replace(lease, terms=replace(lease.terms, caller=PeerKey(b"x" * 32)))
    there.book.leases[own] = replace(running_lease(own), role=Role.CALLER)
    for lease_id in (unknown, others, own):
        for opening in (OpenTcp(lease_id, 80), OpenFiles(lease_id), OpenProgram(lease_id, (), False)):
            code, sentence = await refused(there, opening)
            assert code == "lease.unknown"
            assert sentence == "there is no such lease with you"
    assert there.door.streams(others) == there.door.streams(own) == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"phase": Phase.PROVISIONING, "released": False, "started_at": 0}, "not begun yet"),
        ({"phase": Phase.RUNNING, "released": False}, "not begun yet"),
        ({"phase": Phase.QUOTED, "released": False, "started_at": 0}, "not begun yet"),
        ({"phase": Phase.PAUSED}, "paused until it is paid"),
        ({"frozen": True}, "frozen"),
        ({"phase": Phase.STOPPING, "sentence": "the budget is spent"}, "ended: the budget is spent"),
        ({"phase": Phase.DONE, "reason": "job.exited"}, "ended: job.exited"),
    ],
)
async def test_a_job_that_does_not_run_lets_nobody_in(
    there: Doors, changes: dict[str, Any], words: str
) -> None:
    there.book.change(**changes)
    code, sentence = await refused(there, OpenTcp(LEASE, 80))
    assert code == "tunnel.not_running" and words in sentence


async def test_a_frozen_job_s_files_can_be_had(there: Doors) -> None:
    there.book.change(frozen=True)
    assert await (await there.files()).listed() == {}


async def test_programs_are_not_begun_without_end(there: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(there.door, "_programs", Buckets(0.0, 2.0))
    for _ in range(2):
        (await there.open(OpenProgram(LEASE, ("true",), False))).abort("a.code", "enough")
    code, sentence = await refused(there, OpenProgram(LEASE, ("true",), False))
    assert code == "tunnel.too_many" and "wait a little" in sentence


async def test_files_of_an_unpaid_job_are_not_copied_on(there: Doors) -> None:
    copier, other = await there.files(), await there.open(OpenFiles(LEASE))
    assert await copier.ask(Look(b"")) is not None
    there.book.change(phase=Phase.PAUSED)
    for stream in (copier.stream, other):
        with pytest.raises(PeerRefused, match="paused until it is paid") as error:
            await stream.receive_some()
        assert error.value.refusal_code == "tunnel.not_running"
    await until_empty(there)


async def test_a_relay_s_lease_has_no_job(there: Doors) -> None:
    lease = there.book.leases[LEASE]
    there.book.change(terms=replace(lease.terms, runner=RELAY))
    assert "for a relay" in (await refused(there, OpenTcp(LEASE, 80)))[1]


async def test_a_job_that_is_between_two_runs(there: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("dial", "program"):
        monkeypatch.setattr(Loopback, name, getattr(ProcessRunner, name))
    for opening in (OpenTcp(LEASE, 80), OpenUdp(LEASE, 80), OpenProgram(LEASE, (), False)):
        code, sentence = await refused(there, opening)
        assert code == "tunnel.not_running" and "about to begin anew" in sentence


async def test_a_port_where_nothing_listens_is_said_so(there: Doors) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        code, sentence = await refused(there, OpenTcp(LEASE, port))
    assert code == "tunnel.port_closed" and f"nothing listens at TCP port {port} inside the job" in sentence
    await until_empty(there)


async def test_the_end_of_the_lease_ends_every_stream_with_its_reason(there: Doors) -> None:
    async with serving(echo) as server:
        streams = [await there.open(OpenTcp(LEASE, server.port)) for _ in range(3)]
        streams.append(await there.open(OpenProgram(LEASE, ("sleep", "600"), False)))
        there.book.change(phase=Phase.PAUSED)
        await streams[0].send_all(b"still there")
        assert await streams[0].receive_some() == b"still there"
        there.book.change(phase=Phase.RUNNING)
        streams.append((await there.files()).stream)
        assert there.door.streams(LEASE) == 5
        there.book.change(phase=Phase.STOPPING, sentence="the job used up its budget")
        for stream in streams:
            with pytest.raises(PeerRefused, match="the job has ended: the job used up its budget") as error:
                await all_of(stream)
            assert error.value.refusal_code == "tunnel.lease_ended"
        await until_empty(there)
        with trio.fail_after(LIMIT_SECONDS):
            while server.open:
                await trio.sleep(0.005)


async def test_so_many_streams_and_no_more(there: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_module, "MAX_STREAMS", 2)
    async with serving(echo) as server:
        first = await there.open(OpenTcp(LEASE, server.port))
        await there.open(OpenTcp(LEASE, server.port))
        assert (await refused(there, OpenTcp(LEASE, server.port)))[0] == "tunnel.too_many"
        first.abort("test.done", "enough")
        with trio.fail_after(LIMIT_SECONDS):
            while there.door.streams(LEASE) == 2:
                await trio.sleep(0.005)
        await there.open(OpenTcp(LEASE, server.port))
        monkeypatch.setattr(door_module, "MAX_STREAMS", 9)
        monkeypatch.setattr(door_module, "MAX_IN_ALL", 2)
        assert "this provider has as many" in (await refused(there, OpenTcp(LEASE, server.port)))[1]


async def test_a_peer_that_never_reads_holds_up_itself_alone(there: Doors) -> None:
    async def flood(stream: trio.SocketStream) -> None:
        while True:
            await stream.send_all(bytes(1 << 20))

    async with serving(flood) as server, serving(echo) as other:
        deaf = [await there.open(OpenTcp(LEASE, server.port)) for _ in range(8)]
        await deaf[0].receive_some()
        stream = await there.open(OpenTcp(LEASE, other.port))
        for _ in range(20):
            with trio.fail_after(LIMIT_SECONDS):
                await stream.send_all(b"ping")
                assert await stream.receive_some() == b"ping"
        there.book.change(phase=Phase.DONE, reason="job.exited")
        await until_empty(there)


async def test_a_program_that_resets_its_connections(there: Doors) -> None:
    async def rude(stream: trio.SocketStream) -> None:
        await stream.send_all(b"hello")
        await stream.receive_some()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    async with serving(rude) as server:
        stream = await there.open(OpenTcp(LEASE, server.port))
        assert await stream.receive_some() == b"hello"
        await stream.send_all(b"x")
        with pytest.raises(PeerRefused, match="reset"):
            await all_of(stream)
        await until_empty(there)


# Programs -----------------------------------------------------------------------------------------


async def heard(stream: LinkStream, until: bytes | None = None) -> tuple[bytes, bytes, int | None]:
    """(output, errors, code) to the program's end, or until its output contains a text."""
    reader, out, err = t.reader_from_program(), b"", b""
    code: int | None = None
    with trio.fail_after(LIMIT_SECONDS):
        while (until is None or until not in out) and (data := await stream.receive_some()):
            for frame in reader.feed(data):
                match frame:
                    case t.Output(data=said):
                        out += said
                    case t.Errors(data=said):
                        err += said
                    case t.Exit(code=given):
                        code = given
    return out, err, code


async def test_a_program_by_its_frames(there: Doors) -> None:
    script = "cat; echo bad >&2; exit 7"
    stream = await there.open(OpenProgram(LEASE, ("sh", "-c", script), False))
    data = os.urandom(300_000)
    await stream.send_all(t.pack_data(t.Input, data) + t.pack(t.InputEnd()))
    assert await heard(stream) == (data, b"bad\n", 7)
    await stream.aclose()
    for bad in (
        OpenProgram(LEASE, ("no-such-program",), False),
        OpenProgram(LEASE, ("",), False),
        OpenProgram(LEASE, ("echo", "a\0b"), False),
        OpenProgram(LEASE, ("echo",), True, term="x\ny"),
    ):
        assert (await refused(there, bad))[0] == "runner.start_failed"


async def test_a_terminal_by_its_frames(there: Doors) -> None:
    stream = await there.open(OpenProgram(LEASE, ("sh",), True, columns=90, rows=20, term="vt100"))
    await stream.send_all(t.pack(t.Input(b"stty size; echo $TERM\n")))
    assert b"20 90\r\nvt100" in (await heard(stream, b"vt100"))[0]
    await stream.send_all(t.pack(t.Resize(33, 44)) + t.pack(t.Input(b"stty size; exit 5\n")))
    out, _, code = await heard(stream)
    assert b"44 33" in out and code == 5
    await stream.aclose()


async def test_a_signal_overtakes_input_that_nobody_takes(there: Doors) -> None:
    script = "trap 'exit 6' USR1; echo up; while :; do sleep 0.05; done"
    stream = await there.open(OpenProgram(LEASE, ("sh", "-c", script), False))
    await heard(stream, b"up")
    await stream.send_all(t.pack_data(t.Input, bytes(400_000)) + t.pack(t.Signal("USR1")))
    assert (await heard(stream))[2] == 6
    await stream.aclose()


async def test_a_caller_that_is_gone_for_good_leaves_nothing_behind(
    there: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qubixd.link.limits.RESUME_SECONDS", 0.05)
    async with serving(echo) as server:
        await there.open(OpenTcp(LEASE, server.port))
        await there.files()
        stream = await there.open(OpenProgram(LEASE, ("sh", "-c", "echo $$; exec sleep 600"), False))
        pid = int((await heard(stream, b"\n"))[0])
        there.pair.there.open = there.pair.back.open = False
        await there.pair.cut()
        await until_empty(there)
        with trio.fail_after(LIMIT_SECONDS):
            while server.open or Path(f"/proc/{pid}").exists():
                await trio.sleep(0.005)


@pytest.mark.parametrize("how", ["abort", "nonsense", "half"])
async def test_a_program_ends_with_its_stream(there: Doors, how: str) -> None:
    stream = await there.open(OpenProgram(LEASE, ("sh", "-c", "echo $$; exec sleep 600"), False))
    pid = int((await heard(stream, b"\n"))[0])
    if how == "abort":
        stream.abort("test.cut", "the caller has gone")
    elif how == "nonsense":
        await stream.send_all(b"\x63\0\0\0\0")
    else:
        await stream.send_all(t.pack(t.Input(b"x"))[:-1])
        await stream.send_eof()
    with trio.fail_after(LIMIT_SECONDS):
        while Path(f"/proc/{pid}").exists():
            await trio.sleep(0.005)
    await until_empty(there)
