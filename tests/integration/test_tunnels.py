"""Into a running job from the command line: programs with pipes and with a terminal, files both ways, ports,
and what people do wrong. Two daemons and a job that runs as plain processes, for the whole module."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.client_town import Person, client_town
from tests.support.daemons import PATIENCE_SECONDS

pytestmark = pytest.mark.timeout(300)
PROVIDER: Final = ("--provider", "--price", "3600000", "--runner", "process", "--name", "alice")
SERVER: Final = """
import os, socket, threading
tcp, udp = socket.create_server(("127.0.0.1", 0)), socket.socket(type=socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", 0))
with open("ports.new", "w") as file:
    print(tcp.getsockname()[1], udp.getsockname()[1], file=file)
os.rename("ports.new", "ports")

def say_back(sock):
    while data := sock.recv(65536):
        sock.sendall(data.upper())
    sock.close()

def listen():
    while True:
        threading.Thread(target=say_back, args=(tcp.accept()[0],)).start()

threading.Thread(target=listen).start()
while True:
    data, who = udp.recvfrom(65535)
    udp.sendto(data.upper(), who)
"""
JOB: Final = """
name: room
resources: {image: "any:1", cpus: 1, memory: 256MB, disk: 200MB}
file_mounts: {server.py: server.py}
max_hours: 0.5
proof: never
run: |
  mkdir -p results
  echo 0.25 > results/loss.csv
  exec python3 server.py
"""


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    with client_town(tmp_path_factory.mktemp("town"), PROVIDER) as bob:
        (bob.home / "server.py").write_text(SERVER)
        (bob.home / "room.yaml").write_text(JOB)
        out = str(bob.home / "out")
        lease = bob.told("run", str(bob.home / "room.yaml"), "--detach", "--output", out)
        bob.leases["room"] = lease["lease_id"]
        bob.running("room")
        yield bob


@pytest.fixture(scope="module")
def lease(person: Person) -> str:
    return person.leases["room"][:10]


@pytest.fixture(scope="module")
def ports(person: Person, lease: str) -> tuple[int, int]:
    """TCP and UDP, inside the job."""
    done = person.run("exec", lease, "--", "sh", "-c", "until cat ports 2>/dev/null; do sleep 0.1; done")
    tcp, udp = map(int, done.stdout.split())
    return tcp, udp


# --- programs ---------------------------------------------------------------------------------


def test_a_program_with_pipes(person: Person, lease: str) -> None:
    script = "cat; echo to the other >&2; exit 7"
    done = person.run("exec", lease, "--", "sh", "-c", script, input="to the one\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, "to the one\n", "to the other\n")


@pytest.mark.parametrize("given", ["", "a line\n", "half a line"])
def test_input_that_ends_does_so_on_a_terminal_too(person: Person, lease: str, given: str) -> None:
    done = person.run("exec", lease, "-t", "sh", "-c", "cat; echo end", input=given)
    assert done.returncode == 0 and done.stdout.rstrip().endswith("end"), done
    assert given.strip() in done.stdout


def test_much_goes_through_as_it_is(person: Person, lease: str) -> None:
    data = os.urandom(3_000_000)
    done: Any = person.run("exec", lease, "--", "cat", input=data, text=False)
    assert done.stdout == data


def test_a_signal_reaches_the_program(person: Person, lease: str) -> None:
    script = "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.1; done"
    with person.beside("exec", lease, "--", "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "caught\n"
        assert process.wait(PATIENCE_SECONDS) == 9


@dataclass
class Typist:
    """A person at a terminal of 100 x 30 characters."""

    terminal: int
    process: subprocess.Popen[bytes]
    said: str = ""
    seen: list[int] = field(default_factory=list)

    def type(self, keys: str) -> None:
        os.write(self.terminal, keys.encode())

    def until(self, words: str) -> None:
        """Read on until these are shown after all that was waited for before."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (at := self.said.find(words, self.seen[-1] if self.seen else 0)) < 0:
            assert time.monotonic() < deadline, f"{words!r} did not come: {self.said!r}"
            try:
                self.said += os.read(self.terminal, 4_096).decode(errors="replace")
            except OSError as error:
                raise AssertionError(f"{words!r} did not come before the end: {self.said!r}") from error
        self.seen.append(at + len(words))

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process.send_signal(signal.SIGWINCH)  # as the system does for whose terminal it is


@contextmanager
def at_terminal(person: Person, *words: str) -> Iterator[Typist]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    before = termios.tcgetattr(theirs)
    process = subprocess.Popen(
        person.command(*words),
        env=person.environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    try:
        yield Typist(ours, process)
        process.wait(PATIENCE_SECONDS)
        assert termios.tcgetattr(theirs) == before, "the terminal is not what it was"
    finally:
        process.kill()
        process.wait()
        os.close(theirs)
        os.close(ours)


def test_a_shell_in_a_real_terminal(person: Person, lease: str) -> None:
    with at_terminal(person, "attach", lease) as me:
        me.type("echo $((6*7)) $(stty size) $TERM\r")
        me.until("42 30 100 xterm")
        me.resize(120, 40)
        me.type("sleep 0.3; echo now $(stty size)\r")
        me.until("now 40 120")
        me.type("echo begin; sleep 100\r")
        me.until("\rbegin")
        me.type("\x03")  # ctrl-C ends what runs there and nothing else
        me.type("echo still $((1+1))\r")
        me.until("still 2")
        me.type("exit 5\r")
        assert me.process.wait(PATIENCE_SECONDS) == 5


def test_there_is_a_way_out_of_a_program_that_does_not_answer(person: Person, lease: str) -> None:
    script = r"printf '\033[?1049h\033[?25lfull'; trap '' INT HUP TERM; while :; do sleep 1; done"
    with at_terminal(person, "exec", lease, "--", "sh", "-c", script) as me:
        me.until("full")
        me.type("\r~?")
        me.until("~. leaves")
        me.type("~.")
        me.until("\x1b[?1049l\x1b[?25h")  # the screen is given back, and the cursor
        assert me.process.wait(PATIENCE_SECONDS) == 130


def test_a_killed_terminal_gives_itself_back_and_ends_the_program(person: Person, lease: str) -> None:
    with at_terminal(person, "exec", lease, "--", "sh", "-c", "echo $$ > pid; echo on; sleep 1000") as me:
        me.until("on")
        me.process.terminate()
        assert me.process.wait(PATIENCE_SECONDS) == 130
    gone = "until ! kill -0 $(cat pid) 2>/dev/null; do sleep 0.1; done; echo gone"
    assert person.run("exec", lease, "--", "sh", "-c", gone).stdout == "gone\n"


# --- files ------------------------------------------------------------------------------------


def test_a_tree_there_and_back(person: Person, lease: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "deep" / "empty").mkdir(parents=True)
    for number in range(40):
        (tree / "deep" / f"file {number}").write_bytes(os.urandom(number * 997))
    (tree / "run.sh").write_text("echo hi")
    (tree / "run.sh").chmod(0o750)
    (tree / "link").symlink_to("run.sh")
    for path in (tree / "run.sh", tree / "deep"):
        os.utime(path, ns=(1, 981_173_106_789_000_000))
    there = person.told("cp", "-r", str(tree), f"{lease}:tree")
    assert (there["copied"], there["left_out"], there["failed"]) == (41, 1, 0)
    assert person.told("cp", "-r", str(tree), f"{lease}:")["unchanged"] == 41
    back = person.told("cp", "-r", f"{lease}:tree", str(tmp_path / "back"))
    assert (back["copied"], back["bytes"]) == (41, there["bytes"])
    (tree / "link").unlink()
    compared = subprocess.run(
        ["diff", "-r", tree, tmp_path / "back"], capture_output=True, text=True, check=False
    )
    assert compared.returncode == 0, compared.stdout
    for name in ("run.sh", "deep"):
        was, now = (tree / name).stat(), (tmp_path / "back" / name).stat()
        assert (was.st_mode, was.st_mtime_ns) == (now.st_mode, now.st_mtime_ns)


def test_several_files_and_what_is_missing(person: Person, lease: str, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("1")
    (tmp_path / "two").write_text("2")
    person.told("cp", str(tmp_path / "one"), str(tmp_path / "two"), f"{lease}:new/folder/")
    assert person.run("exec", lease, "--", "cat", "new/folder/one", "new/folder/two").stdout == "12"
    assert person.told("cp", f"{lease}:results/loss.csv", str(tmp_path))["copied"] == 1
    assert (tmp_path / "loss.csv").read_text() == "0.25\n"
    for words, code in (
        ((f"{lease}:nothing", "."), "files.missing"),
        ((str(tmp_path / "nothing"), f"{lease}:"), "files.missing"),
        ((f"{lease}:results", "."), "files.not_a_file"),
        ((f"{lease}:../../secrets", "."), "usage.error"),
        ((str(tmp_path / "one"), str(tmp_path / "two")), "usage.error"),
        (("00000000:x", "."), "lease.unknown"),
    ):
        done = person.run("cp", *words, "--json")
        assert json.loads(done.stdout)["error"]["code"] == code, done.stdout
        assert done.returncode in (2, 3, 4)


def test_a_copy_that_was_cut_off_goes_on(person: Person, lease: str, tmp_path: Path) -> None:
    script = "import os; f = open('big', 'wb'); [f.write(os.urandom(1 << 20)) for _ in range(64)]"
    assert person.run("exec", lease, "--", "python3", "-c", script).returncode == 0
    here = tmp_path / "big"
    with person.beside("cp", f"{lease}:big", str(here)) as process:
        while not (parts := list(tmp_path.glob(".big.*.qubix-part"))) or parts[0].stat().st_size < 1 << 20:
            assert process.poll() is None, "it was too fast to be cut off"
        process.kill()
    kept = parts[0].stat().st_size
    again = person.told("cp", f"{lease}:big", str(here))
    assert 0 < again["bytes"] <= (64 << 20) - kept
    summed = person.run("exec", lease, "--", "sha256sum", "big").stdout.split()[0]
    mine = subprocess.run(["sha256sum", here], capture_output=True, text=True, check=True).stdout.split()[0]
    assert mine == summed
    assert list(tmp_path.iterdir()) == [here], "something was left behind"


def test_a_job_whose_disk_is_full(person: Person, lease: str, tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(10_000_000_000)
    done = person.run("cp", str(tmp_path / "huge"), f"{lease}:")
    assert done.returncode == 5 and "[disk.full]" in done.stderr, done.stderr
    assert "huge" not in person.run("exec", lease, "--", "ls", "-a").stdout


# --- ports ------------------------------------------------------------------------------------


def test_ports_lead_into_the_job(person: Person, lease: str, ports: tuple[int, int]) -> None:
    tcp, udp = ports
    with person.beside("forward", lease, f"0:{tcp}", f"0:{udp}/udp", "0:1", "--json") as process:
        assert process.stdout is not None
        listening = json.loads(process.stdout.readline())["event"]
        assert listening["what"] == "listening"
        here = [port["local"] for port in listening["ports"]]
        with socket.create_connection(("127.0.0.1", here[0])) as stream:
            stream.sendall(b"over tcp")
            stream.shutdown(socket.SHUT_WR)
            assert stream.makefile("rb").read() == b"OVER TCP"
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.settimeout(PATIENCE_SECONDS)
            sock.sendto(b"over udp", ("127.0.0.1", here[1]))
            assert sock.recv(100) == b"OVER UDP"
        with socket.create_connection(("127.0.0.1", here[2])) as stream, pytest.raises(ConnectionResetError):
            stream.recv(1)
        events = [json.loads(process.stdout.readline())["event"]]
        while events[-1]["what"] != "refused":
            events.append(json.loads(process.stdout.readline())["event"])
        assert events[-1]["code"] == "tunnel.port_closed"
        assert {"path", "opened", "closed"} <= {event["what"] for event in events}
        (shown,) = person.told("ps")["leases"]
        assert shown["path"]["kind"] == "direct"
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_SECONDS) == 130
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", here[0]))


def test_a_port_that_is_taken(person: Person, lease: str, ports: tuple[int, int]) -> None:
    done = person.run("forward", lease, str(ports[0]), "--json")  # a job of plain processes has it itself
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (5, "net.port_busy")
    assert re.search(rf"\b0:{ports[0]}\b", error["message"])


def test_a_port_as_standard_input_and_output(person: Person, lease: str, ports: tuple[int, int]) -> None:
    assert person.run("connect", lease, str(ports[0]), input="hello").stdout == "HELLO"
    done = person.run("connect", lease, "1")
    assert done.returncode == 3 and "[tunnel.port_closed]" in done.stderr


def test_a_port_as_a_socket_that_is_handed_on(person: Person, lease: str, ports: tuple[int, int]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = person.command("connect", "--fdpass", lease, str(ports[0]))
        assert (
            subprocess.run(command, env=person.environment, stdout=theirs.fileno(), check=False).returncode
            == 0
        )
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    with socket.socket(fileno=fds[0]) as handed:
        handed.sendall(b"after its process has ended")
        handed.shutdown(socket.SHUT_WR)
        assert handed.makefile("rb").read() == b"AFTER ITS PROCESS HAS ENDED"
    done = person.run("connect", "--fdpass", lease, str(ports[0]))
    assert done.returncode == 2 and "--fdpass is for ssh" in done.stderr


# --- the end ----------------------------------------------------------------------------------


def test_tunnels_end_with_their_job_and_say_so(person: Person, lease: str, ports: tuple[int, int]) -> None:
    """The last of this module: the job is stopped."""
    with (
        person.beside("exec", lease, "--", "sh", "-c", "echo on; sleep 1000") as program,
        person.beside("forward", lease, f"0:{ports[0]}", "--json") as forward,
    ):
        assert program.stdout is not None and program.stderr is not None and forward.stdout is not None
        assert program.stdout.readline() == "on\n"
        forward.stdout.readline()
        person.told("stop", lease)
        assert program.wait(PATIENCE_SECONDS) == 4
        assert "the job has ended" in program.stderr.read()
        assert forward.wait(PATIENCE_SECONDS) == 4
        assert "ended" in json.loads(forward.stdout.readlines()[-1])["sentence"]
    for words in (("exec", lease, "--", "ls"), ("cp", f"{lease}:x", "."), ("forward", lease, "80")):
        done = person.run(*words)
        assert done.returncode == 4 and "[tunnel.not_running]" in done.stderr, done.stderr
