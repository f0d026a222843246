"""The whole of the provider's side on a real container: ports, programs and files of one hostile job."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from protocol import file_frames as f
from protocol import terminal_frames as t
from protocol.errors import PeerRefused
from protocol.lease_state import Phase
from protocol.messages import OpenProgram, OpenTcp
from qubixd.link.stream import LinkStream
from qubixd.runner.docker import DockerRunner
from qubixd.runner.docker_jobs import JOB_UID
from tests.support.doors import LEASE, Doors, doors
from tests.support.runners import LIMIT_SECONDS, MIB, Bench

pytestmark = pytest.mark.docker

# Everything that leads somewhere is turned into a link to what the daemon, not the job, may write.
HOSTILE = """
nc -ll -p 4711 -e cat &
mkdir -p spot
while :; do
  mv spot old$$ 2>/dev/null; ln -s {outside} spot; sleep 0.01
  rm -f spot; rm -rf old$$; mkdir -p spot; echo job > spot/x; sleep 0.03
done
"""


@pytest.fixture
async def there(tmp_path: Path, busybox_image: str) -> AsyncIterator[Doors]:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x").write_text("of the host")
    folder = tmp_path / "lease"
    folder.mkdir()
    bench = Bench.make(lambda: DockerRunner(tmp_path / "state"), busybox_image, folder / "workspace")
    spec = replace(bench.spec(HOSTILE.format(outside=tmp_path / "outside")), lease_id=LEASE, cpu_millis=500)
    await bench.runner.remove(LEASE)
    await bench.begin(spec)
    async with doors(folder, bench.runner) as made:
        yield made
    await bench.remove_all()


async def output(stream: LinkStream) -> tuple[str, int | None]:
    reader, said, code = t.reader_from_program(), b"", None
    with trio.fail_after(LIMIT_SECONDS):
        while data := await stream.receive_some():
            for frame in reader.feed(data):
                said += frame.data if isinstance(frame, t.Output) else b""
                code = frame.code if isinstance(frame, t.Exit) else code
    await stream.aclose()
    return said.decode(), code


async def run(there: Doors, script: str) -> tuple[str, int | None]:
    return await output(await there.open(OpenProgram(LEASE, ("sh", "-c", script), False)))


async def put(there: Doors, name: bytes, data: bytes) -> f.Frame:
    copier = await there.files()
    answer = await copier.ask(f.Write(name, len(data), 7 * 10**9, 0o640))
    if isinstance(answer, f.Ready):
        pieces = [
            f.Data(data[at : at + f.MAX_DATA_BYTES])
            for at in range(answer.offset, len(data), f.MAX_DATA_BYTES)
        ]
        answer = await copier.ask(*pieces, f.End(hashlib.sha256(data).digest()))
    assert isinstance(answer, f.Done | f.Failed)
    return answer


async def test_a_hostile_job_and_its_caller(there: Doors, tmp_path: Path) -> None:
    data = os.urandom(MIB)
    # What comes in is the job's user's, and works as its own.
    copier = await there.files()
    assert await copier.ask(f.MakeDirectory(b"mine/deep", 0o750)) == f.Done()
    assert await put(there, b"mine/deep/x", data) == f.Done()
    uid = JOB_UID if os.geteuid() == 0 else os.geteuid()
    look = "stat -c '%u %a' mine mine/deep mine/deep/x; stat -c %Y mine/deep/x; echo more >> mine/deep/x"
    assert await run(there, look) == (f"{uid} 755\n{uid} 750\n{uid} 640\n7\n", 0)
    got, _ = await copier.read(b"mine/deep/x")
    assert got == data + b"more\n"
    # While the job turns a directory into a link and back.
    outcomes = list[str]()
    with trio.fail_after(LIMIT_SECONDS):
        while len(outcomes) < 40 or "done" not in outcomes:
            answer = await put(there, b"spot/x", b"of the caller")
            outcomes.append(answer.code if isinstance(answer, f.Failed) else "done")
            answer = await copier.ask(f.Read(b"spot/x"))
            while isinstance(answer, f.Entry | f.Data):
                assert not isinstance(answer, f.Data) or answer.data != b"of the host"
                answer = await copier.next()
    assert set(outcomes) <= {"done", "files.missing", "files.not_a_file"}
    outside = tmp_path / "outside"
    assert (outside / "x").read_text() == "of the host" and os.listdir(outside) == ["x"]


async def test_the_lease_s_end_cuts_what_goes_into_the_container(there: Doors) -> None:
    with trio.fail_after(LIMIT_SECONDS):
        while True:
            with suppress(PeerRefused):
                stream = await there.open(OpenTcp(LEASE, 4711))
                break
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"
        terminal = await there.open(OpenProgram(LEASE, ("sleep", "7649"), True))
        assert (await run(there, "ps | grep -c '[s]leep 7649'"))[0] == "1\n"
        there.book.change(phase=Phase.STOPPING, reason="budget.spent")
        for one in (stream, terminal):
            with pytest.raises(PeerRefused, match=r"budget\.spent"):
                while await one.receive_some():
                    pass
        there.book.change(phase=Phase.RUNNING)
        while (await run(there, "ps | grep -c '[s]leep 7649'"))[0] != "0\n":
            await trio.sleep(0.05)
