"""Real clients in real jobs, by way of two daemons: OpenSSH, scp, sftp, rsync, curl, a kernel of Jupyter, and
a browser that shows a desktop."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pty
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import trio
from trio_websocket import open_websocket_url

from tests.support.chromium import chromium, tab
from tests.support.client_town import Person, client_town
from tests.support.daemons import PATIENCE_SECONDS
from tests.support.template_images import Build

T = TypeVar("T")
pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(300)]

SERVER: Final = """
import http.server, os, re, sys

class Ranges(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        found = re.fullmatch(r"bytes=([0-9]+)-([0-9]*)", self.headers.get("Range", ""))
        path = self.translate_path(self.path)
        if not found:
            return super().do_GET()
        size = os.path.getsize(path)
        first, last = int(found[1]), min(int(found[2] or size), size - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        with open(path, "rb") as file:
            file.seek(first)
            self.wfile.write(file.read(last + 1 - first))

http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Ranges).serve_forever()
"""
SIZE: Final = 4_000_000
WEB: Final = f"""
file_mounts: {{server.py: server.py}}
ports: [{{name: web, port: 8000, kind: http}}]
setup: |
  python3 -c 'import os; open("big", "wb").write(os.urandom({SIZE}))'
  python3 server.py 2> /dev/null &
"""


@pytest.fixture(scope="module")
def person(
    tmp_path_factory: pytest.TempPathFactory, docker_engine: object, template_image: Build
) -> Iterator[Person]:
    """Who has rented three machines: for "shell", "notes" (which has a web server besides) and "desk"."""
    if not shutil.which("ssh"):
        pytest.skip("OpenSSH's clients are not on this machine")
    images = {name: template_image(name) for name in ("ssh", "jupyter", "desktop")}
    with client_town(tmp_path_factory.mktemp("t")) as someone:
        (someone.home / "server.py").write_text(SERVER)
        someone.begin("shell", "ssh", images["ssh"])
        someone.begin("notes", "jupyter", images["jupyter"], extra=WEB)
        someone.begin("desk", "desktop", images["desktop"])
        yield someone


@pytest.fixture
def lease(person: Person) -> str:
    return person.running("shell")


@pytest.fixture
def named(person: Person, lease: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a program of OpenSSH's with the entries that `qubix ssh-config` writes."""
    told = person.told("ssh-config")
    assert [one["host"] for one in told["hosts"]] == ["qubix-shell"]

    def run(program: str, *words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        if not shutil.which(program):
            pytest.skip(f"{program} is not on this machine")
        done = subprocess.run(
            [program, "-F", told["config"], *words],
            env=person.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    return run


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_command_its_output_and_its_exit_code(person: Person, lease: str) -> None:
    done = person.run("ssh", lease[:8], "whoami; cat >&2; exit 7", input="to standard error")
    assert (done.returncode, done.stdout, done.stderr) == (7, "qubix\n", "to standard error"), done.stderr


def test_a_terminal(person: Person, lease: str) -> None:
    ours, theirs = pty.openpty()
    command = person.command("ssh", lease[:8])
    with subprocess.Popen(
        command, env=person.environment, stdin=theirs, stdout=theirs, stderr=theirs
    ) as shell:
        os.close(theirs)
        os.write(ours, b"tty && echo $((6 * 7)) && exit 3\n")
        said = b""
        while shell.poll() is None and b"\n42\r" not in said:
            said += os.read(ours, 4_096)
        assert shell.wait(PATIENCE_SECONDS) == 3
    os.close(ours)
    assert b"/dev/pts/" in said and b"42" in said


def test_a_port_led_here_by_ssh_itself(person: Person, lease: str) -> None:
    local = free_port()
    tunnel = person.command("ssh", lease[:8], "--", "-N", "-L", f"{local}:127.0.0.1:2222")
    with subprocess.Popen(tunnel, env=person.environment, stderr=subprocess.DEVNULL) as ssh:
        try:
            assert eventually(lambda: first_line(local)).startswith(b"SSH-2.0-OpenSSH")
        finally:
            ssh.terminate()


def test_scp_and_sftp_by_name(
    named: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, person: Person
) -> None:
    here, back, again = tmp_path / "here", tmp_path / "back", tmp_path / "again"
    here.write_bytes(os.urandom(SIZE))
    named("scp", here, "qubix-shell:there")
    assert named("ssh", "qubix-shell", "sha256sum there").stdout.split()[0] == digest(here)
    named("scp", "qubix-shell:there", back)
    batch = tmp_path / "batch"
    batch.write_text(f"get there {again}\nrename there gone\n")
    named("sftp", "-b", batch, "qubix-shell")
    assert digest(back) == digest(again) == digest(here)
    assert "No such file" in named("scp", "qubix-shell:there", back, check=False).stderr


def test_rsync_goes_on_where_it_was_cut_off(
    named: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, person: Person
) -> None:
    if not shutil.which("rsync"):
        pytest.skip("rsync is not on this machine")
    there, back = tmp_path / "data", tmp_path / "back"
    there.mkdir()
    (there / "big").write_bytes(os.urandom(SIZE))
    config = person.told("ssh-config")["config"]
    rsync = ["rsync", "-a", "--inplace", "-e", f"ssh -F '{config}'", "--stats"]
    slow: list[str | Path] = [*rsync, "--bwlimit=1000", there, "qubix-shell:copies"]
    with subprocess.Popen(slow, env=person.environment, stdout=subprocess.DEVNULL) as cut:
        size = "stat -c %s copies/data/big 2> /dev/null || echo 0"
        eventually(lambda: int(named("ssh", "qubix-shell", size).stdout) > SIZE // 10)
        cut.terminate()
        assert cut.wait(PATIENCE_SECONDS) != 0
    left = int(named("ssh", "qubix-shell", size).stdout)
    assert 0 < left < SIZE
    done = run([*rsync, "--append-verify", there, "qubix-shell:copies"], person)
    (literal,) = re.findall(r"Literal data: ([0-9,]+)", done)
    assert int(literal.replace(",", "")) <= SIZE - left, "what had come before did not come again"
    run([*rsync, "qubix-shell:copies/data/", back], person)
    assert digest(back / "big") == digest(there / "big")


def test_curl_with_ranges_through_a_forwarded_port(person: Person, tmp_path: Path) -> None:
    if not shutil.which("curl"):
        pytest.skip("curl is not on this machine")
    with person.beside("forward", person.running("notes"), "0:8000", "--json") as forward:
        assert forward.stdout is not None
        (port,) = json.loads(forward.stdout.readline())["event"]["ports"]
        url = f"http://127.0.0.1:{port['local']}/big"
        whole, part, rest = tmp_path / "whole", tmp_path / "part", tmp_path / "rest"
        run(["curl", "-sS", "-o", whole, url], person)
        run(["curl", "-sS", "-r", "1000-1999", "-o", part, url], person)
        rest.write_bytes(whole.read_bytes()[: SIZE // 2])
        run(["curl", "-sS", "-C", "-", "-o", rest, url], person)
    assert len(whole.read_bytes()) == SIZE and part.read_bytes() == whole.read_bytes()[1000:2000]
    assert digest(rest) == digest(whole)


def test_nobody_comes_in_without_the_key_and_the_host_is_the_one_that_was_made(
    named: Callable[..., subprocess.CompletedProcess[str]], person: Person, lease: str, tmp_path: Path
) -> None:
    access = person.told("ssh-config")["config"]
    other = tmp_path / "config"
    other.write_text(re.sub(r"IdentityFile .*", "IdentityFile /nowhere", Path(access).read_text()))
    words: list[str | Path] = ["ssh", "-F", other, "-o", "BatchMode=yes", "qubix-shell", "true"]
    assert "Permission denied (publickey)" in run(words, person, code=255)
    pinned = person.daemon.root / "ssh" / "pinned" / lease
    strange = tmp_path / "strange"
    strange.write_text(re.sub(r"AAAA\S+", ED25519, pinned.read_text()))
    other.write_text(Path(access).read_text().replace(str(pinned), str(strange)))
    assert "HOST IDENTIFICATION HAS CHANGED" in run(words, person, code=255)


# --- pages ------------------------------------------------------------------------------------


async def test_a_kernel_of_jupyter_answers_over_its_websocket(person: Person) -> None:
    with person.beside("open", person.running("notes"), "jupyter", "--json") as opened:
        assert opened.stdout is not None
        page, _, token = json.loads(opened.stdout.readline())["url"].partition("?token=")
        made = Request(f"{page}api/kernels", b"{}", {"Authorization": f"token {token}"})
        kernel = json.loads(urlopen(made, timeout=PATIENCE_SECONDS).read())["id"]
        with pytest.raises(HTTPError, match="403"):
            urlopen(f"{page}api/kernels?token=wrong", timeout=PATIENCE_SECONDS)
        address = f"{page.replace('http', 'ws')}api/kernels/{kernel}/channels?token={token}"
        async with open_websocket_url(address) as kernels:
            await kernels.send_message(json.dumps(EXECUTE))
            said = ""
            with trio.fail_after(PATIENCE_SECONDS):
                while "\n" not in said:
                    told = json.loads(await kernels.get_message())
                    said += told["content"].get("text", "") if told["msg_type"] == "stream" else ""
    assert said == "42 of the kernel in /workspace\n"


async def test_a_desktop_is_drawn_in_chromium_and_takes_what_is_typed(person: Person, tmp_path: Path) -> None:
    lease = person.running("desk")
    (port,) = [one for one in (await person.daemon.call("access", lease=lease))["ports"] if one["path"]]
    password = port["path"].partition("password=")[2]
    assert len(password) == 8
    with chromium(tmp_path) as browser, person.beside("open", lease[:8], BROWSER=browser):
        async with tab(tmp_path) as page:
            await page.until("document.documentElement.classList.contains('noVNC_connected')")
            x, y = await page.until(TERMINAL)
            before = await page.value(DARK)
            await page.click(x, y)
            await page.type("echo typed > seen; clear; seq 40\n")
            await page.until(f"Math.abs({DARK} - {before}) > 500")
            there = await page.value("location.href")
        assert all(password.encode() not in words for words in arguments_of_all())
    assert there.startswith("http://127.0.0.1:") and there.endswith(f"password={password}")
    assert person.run("exec", lease, "--", "cat", "seen").stdout == "typed\n"


EXECUTE: Final = {
    "channel": "shell",
    "header": {
        "msg_id": "1",
        "msg_type": "execute_request",
        "session": "s",
        "username": "",
        "version": "5.3",
    },
    "parent_header": {},
    "metadata": {},
    "content": {
        "code": "import os; print(6 * 7, 'of the kernel in', os.getcwd())",
        "silent": False,
        "store_history": False,
        "user_expressions": {},
        "allow_stdin": False,
    },
}
CANVAS: Final = "document.querySelector('#noVNC_container canvas')"
PIXELS: Final = f"new Uint32Array({CANVAS}.getContext('2d').getImageData(0, 0, 1280, 800).data.buffer)"
DARK: Final = f"{PIXELS}.filter(one => (one & 0xffffff) == 0).length"
"""How many black pixels the desktop shows: letters in a terminal are."""
TERMINAL: Final = f"""(() => {{
    const white = [], around = {CANVAS}.getBoundingClientRect()
    {PIXELS}.forEach((one, at) => (one & 0xffffff) == 0xffffff && white.push(at))
    const middle = (all) => all.reduce((sum, one) => sum + one, 0) / all.length
    const x = middle(white.map((at) => at % 1280)), y = middle(white.map((at) => Math.floor(at / 1280)))
    const scale = around.width / 1280
    return white.length > 50000 && [around.x + x * scale, around.y + y * scale]
}})()"""
"""The middle of all that is white, which is the terminal, once it is drawn; on the page."""


def arguments_of_all() -> Iterator[bytes]:
    """Of every process of this machine."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            yield (folder / "cmdline").read_bytes()


ED25519: Final = "AAAAC3NzaC1lZDI1NTE5AAAAIPmjzcoBjyGQJCFj7DMSNEmRYZZQEzVVSLNVcAhBVkKX"


def run(words: Sequence[str | Path], person: Person, code: int = 0) -> str:
    """All that a program says which ends so."""
    done = subprocess.run(
        words,
        env=person.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == code, done.stdout
    return done.stdout


def first_line(port: int) -> bytes:
    """What somebody says there; nothing while nobody does."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 10) as door:
        return door.makefile("rb").readline()
    return b""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(look: Callable[[], T]) -> T:
    """What it returns as soon as that is something."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not (found := look()):
        assert time.monotonic() < until
        time.sleep(0.1)
    return found
