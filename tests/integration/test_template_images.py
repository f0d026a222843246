"""The CPU variants of the ready-made images, built for real and used under every limit of a job: no network
but loopback, a root that cannot be written, a user without a name or a privilege."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import docker
import pytest

from protocol.errors import ImageUnavailable
from protocol.templates import TEMPLATES
from qubixd.runner.docker import DockerRunner
from tests.support.runners import MIB, Bench
from tests.support.template_images import Build
from tui import images

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(600)]

TOKEN: Final = "0123456789abcdef"
ROOM: Final[dict[str, Any]] = {
    "memory_bytes": 1024 * MIB,
    "pids_max": 256,
    "disk_bytes": 64 * MIB,
    "cpu_millis": 2_000,
}

UNTIL: Final = """
until_listens() {
  n=0; until qubix-listens "$1"; do n=$((n+1)); [ $n -lt 600 ] || exit 9; sleep 0.1; done
}
"""


@pytest.fixture
async def bench(tmp_path: Path, python_image: str) -> AsyncIterator[Bench]:
    made = Bench.make(lambda: DockerRunner(tmp_path / "state"), python_image, tmp_path / "workspace")
    yield made
    await made.remove_all()


async def used(bench: Bench, image: str, script: str, **secrets: str) -> str:
    """What a job says that must succeed."""
    ended, said = await bench.run(UNTIL + script, secrets, image=image, **ROOM)
    assert ended.code == 0, said
    return said


async def test_base_gives_the_user_a_name(bench: Bench, template_image: Build) -> None:
    script = "qubix-base whoami; getent passwd $(id -u) | cut -d: -f1,6; qubix-listens 80 || echo none"
    name = (await used(bench, template_image("base"), script)).split()
    assert name[0] == name[1].partition(":")[0] and name[2] == "none"
    assert name[1].endswith(":/workspace") or name[0] != "qubix"


SSH: Final = """
qubix-base ssh-keygen -q -t ed25519 -N '' -C me -f key
qubix-base ssh-keygen -q -t ed25519 -N '' -C other -f other
SSH_PUBLIC_KEY=$(cat key.pub) "$1" &
until_listens 2222
go() { ssh -i "$1" -p 2222 -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile=/tmp/known \\
           -o IdentitiesOnly=yes -o BatchMode=yes 127.0.0.1 "$2"; }
go key 'echo "in as $(id -u) at $HOME: $(command -v qubix-ssh)"'
go other 'echo the other came in' || echo "kept out: $?"
scanned=$(ssh-keyscan -p 2222 -t ed25519 127.0.0.1 2> /dev/null | ssh-keygen -lf - | cut -d ' ' -f 2)
echo "scanned $scanned"
"""


@pytest.mark.parametrize("name", ["ssh", "vscode"])
async def test_ssh_lets_in_who_has_the_key(bench: Bench, template_image: Build, name: str) -> None:
    run = TEMPLATES[name].run
    said = await used(bench, template_image(name), f"set -- {run}\n{SSH}")
    assert "at /workspace: /usr/local/bin/qubix-ssh" in said
    assert "kept out: 255" in said and "the other came in" not in said
    # the server's own log goes on behind this line: it tells of the scan when it ends
    (fingerprint,) = re.findall(r"^scanned (SHA256:\S+)$", said, re.MULTILINE)
    assert f"key {fingerprint}" in said


async def test_what_remote_ssh_looks_for_is_there(bench: Bench, template_image: Build) -> None:
    script = """
    for tool in bash tar gzip git uname sed ps; do command -v $tool > /dev/null || echo "no $tool"; done
    ldd --version | head -n 1; ls /usr/lib/*/libstdc++.so.6; git init -q repository && ls -d repository/.git
    command -v code-server || echo "no code-server, as in Debian" """
    said = await used(bench, template_image("vscode"), script)
    assert "no code-server" in said and "no " not in said.replace("no code-server", "")
    assert "2.36" in said and "libstdc++" in said and "repository/.git" in said


JUPYTER: Final = f"""
"$1" & until_listens 8888
python3 - <<'PYTHON'
from urllib.error import HTTPError
from urllib.request import urlopen
print(urlopen("http://127.0.0.1:8888/api/status?token={TOKEN}").read().decode())
for wrong in ("", "?token=0123456789abcdeX"):
    try:
        urlopen("http://127.0.0.1:8888/api/contents" + wrong)
    except HTTPError as error:
        print("kept out:", error.code)
PYTHON
"""


async def test_jupyter_answers_who_has_the_token(bench: Bench, template_image: Build) -> None:
    said = await used(
        bench, template_image("jupyter"), f"set -- qubix-jupyter\n{JUPYTER}", JUPYTER_TOKEN=TOKEN
    )
    assert '"kernels": 0' in said and said.count("kept out: 403") == 2
    assert TOKEN not in said
    assert [path.name for path in bench.workspace.iterdir() if path.name.startswith(".j")] == []


async def test_pytorch_multiplies_and_answers(bench: Bench, template_image: Build) -> None:
    said = await used(
        bench, template_image("pytorch"), f"set -- qubix-pytorch\n{JUPYTER}", JUPYTER_TOKEN=TOKEN
    )
    assert "PyTorch 1.13" in said and "on cpu: no GPU" in said and '"kernels": 0' in said


async def test_a_desktop_is_shown_in_a_browser(bench: Bench, template_image: Build) -> None:
    script = """
    qubix-desktop & until_listens 6080
    python3 - <<'PYTHON'
import socket
from urllib.request import urlopen
print("page:", "noVNC" in urlopen("http://127.0.0.1:6080/vnc.html").read().decode())
door = socket.create_connection(("127.0.0.1", 6080), 30)
asked = ["GET /websockify HTTP/1.1", "Host: x", "Upgrade: websocket", "Connection: Upgrade",
         "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13",
         "Sec-WebSocket-Protocol: binary", "", ""]
door.sendall("\\r\\n".join(asked).encode())
heard = b""
while b"RFB 003.008\\n" not in heard:
    heard += door.recv(4096) or exit("the door closed: " + repr(heard))
print(heard.split(b"\\r\\n")[0].decode())
door.sendall(b"\\x82\\x8c\\0\\0\\0\\0RFB 003.008\\n")
while b"\\x82\\x02\\x01" not in heard:
    heard += door.recv(4096) or exit("the door closed: " + repr(heard))
print("asks for:", heard[heard.index(b"\\x82\\x02\\x01") + 3])
PYTHON
    DISPLAY=:1 XAUTHORITY=/tmp/qubix/xauthority xauth -n list | wc -l; ps -e | grep -c -E 'openbox|xterm' """
    said = await used(bench, template_image("desktop"), script, VNC_PASSWORD="secret12")
    assert "page: True" in said and "HTTP/1.1 101 Switching Protocols" in said
    assert "asks for: 2" in said  # a password, as in RFC 6143
    assert "secret12" not in said


@pytest.mark.parametrize(
    ("name", "secrets", "words"),
    [
        ("ssh", {}, "SSH_PUBLIC_KEY: give the public key"),
        ("jupyter", {}, "JUPYTER_TOKEN: give the token"),
        ("jupyter", {"JUPYTER_TOKEN": "short"}, "at least 16 characters"),
        ("desktop", {"VNC_PASSWORD": "much too long for VNC"}, "6 to 8 characters"),
    ],
)
async def test_without_its_secret_nothing_is_opened(
    bench: Bench, template_image: Build, name: str, secrets: dict[str, str], words: str
) -> None:
    ended, said = await bench.run(f"qubix-{name}", secrets, image=template_image(name), **ROOM)
    assert ended.code != 0 and words in said


def test_a_build_that_fails_says_why(docker_engine: docker.DockerClient, python_image: str) -> None:
    with pytest.raises(ImageUnavailable, match="localhost/qubix/base:1-cpu could not be built"):
        images.build(docker_engine.api, "base", cpu=True, debian="localhost/qubix-test/absent:1")


MOONLIGHT: Final = """
SUNSHINE_PASSWORD=secret qubix-moonlight & until_listens 47989
python3 - <<'PYTHON'
import socket, ssl
from urllib.request import urlopen
trusting = ssl._create_unverified_context()
print(urlopen("http://127.0.0.1:47989/serverinfo").read().decode().split("<hostname>")[1][:5])
paired = urlopen("https://127.0.0.1:47984/pair?phrase=getservercert", context=trusting)
print("paired" in paired.read().decode())
door = socket.create_connection(("127.0.0.1", 48010), 30)
door.sendall(b"OPTIONS rtsp://x RTSP/1.0\\r\\nCSeq: 7\\r\\n\\r\\n")
print(door.recv(100).decode().split())
for port in (47998, 47999, 48000, 48002, 48010):
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.settimeout(30)
    one.sendto(b"PING", ("127.0.0.1", port))
    print(port, len(one.recv(2000)))
PYTHON
"""


async def test_the_stand_in_of_moonlight_answers_on_all_ports(bench: Bench, template_image: Build) -> None:
    said = await used(bench, template_image("moonlight"), MOONLIGHT)
    assert "qubix\nTrue\n['RTSP/1.0', '200', 'OK', 'CSeq:', '7']" in said
    sizes = [line.split() for line in said.splitlines() if line[:2] in ("47", "48")]
    assert sizes == [["47998", "1200"], ["47999", "4"], ["48000", "160"], ["48002", "4"], ["48010", "4"]]
