"""`qubix ssh` and `qubix ssh-config`: what OpenSSH makes of what it is told, and a person's own settings."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol.control import to_body
from protocol.control_access import AccessView, PortView
from protocol.errors import FilesInvalid
from tests.support import views
from tests.support.control_server import Reply, control_server
from tui import cli
from tui.ssh_config import Places, include, include_line
from tui.ssh_keys import Keys

needs_openssh = pytest.mark.skipif(not shutil.which("ssh"), reason="OpenSSH's ssh is not here")
IDS = [digit * 64 for digit in "abc"]
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPmjzcoBjyGQJCFj7DMSNEmRYZZQEzVVSLNVcAhBVkKX"
SHELL = PortView("ssh", 2222, "tcp", "ssh")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory; the node's is `per%cent node` in it, so that quoting matters."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("QUBIX_DATA_DIR", str(tmp_path / "per%cent node"))
    (tmp_path / "per%cent node").mkdir()
    return tmp_path


@pytest.fixture
def places(home: Path) -> Places:
    return Places(home / "per%cent node")


def daemon(places: Places, *, phase: str = "running", keys: str = "", port: PortView | None = SHELL) -> Any:
    """Three leases of ours, two of the same name, the last without a host key; and one that we serve."""
    (places.root / "control.sock").unlink(missing_ok=True)
    names = dict(zip(IDS, ("train", "train", "other"), strict=True))

    def replies(verb: str, args: Any) -> Iterator[Reply]:
        if verb == "ps":
            shown = [
                views.lease(
                    lease_id=one, name=name, phase=phase, role="caller", opened_at_ms=at, settled=False
                )
                for at, (one, name) in enumerate(names.items())
            ]
            served = views.lease(lease_id="d" * 64, role="provider", phase=phase)
            yield {"ok": {"leases": [to_body(one) for one in (*shown, served)]}}
        elif verb == "run":
            yield {"event": views.event(views.lease(phase="quoted", settled=False, exit_code=None))}
            yield {"ok": views.event(views.lease())}
        else:
            lease = next(one for one in IDS if one.startswith(args.lease))
            host_key = "" if lease == IDS[2] else HOST_KEY
            ports = [port] if port else []
            yield {"ok": to_body(AccessView(lease, names[lease], phase, ports, keys, host_key))}

    return control_server(places.root / "control.sock", replies)


def effective(*words: str) -> dict[str, str]:
    """What `ssh -G` says that it would do."""
    command = ["ssh", *words, "-G"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return dict(line.split(" ", 1) for line in said.splitlines() if " " in line)


def qubix(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tui.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@needs_openssh
def test_ssh_is_led_into_the_job_with_its_key_and_nobody_else_s(home: Path, places: Places) -> None:
    used = Keys(places.folder / "keys").make("laptop")
    Keys(places.folder / "keys").make("unused")
    (home / ".ssh").mkdir()
    with daemon(places, keys=f"{used.public}\n"):
        said = qubix("ssh", "aaaa", "--", "-L", "1234:localhost:80", "-G")
    assert said.returncode == 0, said.stderr
    told = dict(line.split(" ", 1) for line in said.stdout.splitlines() if " " in line)
    assert told["user"] == "qubix" and told["hostkeyalias"] == f"qubix-{IDS[0]}"
    assert told["stricthostkeychecking"] == "true" and told["proxyusefdpass"] == "yes"
    pinned = places.folder / "pinned" / IDS[0]
    assert told["userknownhostsfile"].replace("%%", "%").strip('"') == str(pinned)
    assert pinned.read_text() == f"qubix-{IDS[0]} {HOST_KEY}\n"
    assert told["identitiesonly"] == "yes" and said.stdout.count("identityfile") == 1
    assert told["identityfile"].replace("%%", "%").strip('"') == str(used.identity)
    assert told["localforward"] == "1234 [localhost]:80"
    command = shlex.split(told["proxycommand"].replace("%%", "%"))
    assert command[-6:] == ["--data-dir", str(places.root), "connect", "--fdpass", IDS[0], "2222"]


@needs_openssh
def test_where_no_key_is_ours_ssh_tries_its_own_and_takes_the_host_s_at_first(
    home: Path, places: Places
) -> None:
    with daemon(places, keys="ssh-ed25519 AAAA elsewhere"):
        said = qubix("ssh", "cccc", "-G")
    assert "identitiesonly no" in said.stdout and "/id_ed25519" in said.stdout
    assert "stricthostkeychecking accept-new" in said.stdout and "ssh/known_hosts" in said.stdout


@needs_openssh
def test_a_person_s_own_settings_hold_but_for_the_way(home: Path, places: Places) -> None:
    (home / ".ssh").mkdir()
    own = home / ".ssh" / "config"
    own.write_text("Host *\n  ProxyJump elsewhere\n  ServerAliveInterval 77\n  User me\n")
    with daemon(places):
        said = qubix("ssh", "--user", "root", "--port", "22", "aaaa", "-G").stdout
    assert "user root" in said and "proxyjump" not in said and "serveraliveinterval 77" in said


@needs_openssh
def test_a_stranger_s_machine_gets_the_agent_only_if_asked(home: Path, places: Places) -> None:
    (home / ".ssh").mkdir()
    (home / ".ssh" / "config").write_text("Host *\n  ForwardAgent yes\n  ForwardX11 yes\n")
    with daemon(places):
        said = qubix("ssh", "aaaa", "-G").stdout
        asked = qubix("ssh", "aaaa", "-A", "-G").stdout
    assert "forwardagent no" in said and "forwardx11 no" in said
    assert "forwardagent yes" in asked


@pytest.mark.parametrize(
    ("words", "how", "sentence"),
    [
        (["aaaa"], {"port": None}, "this job says of no SSH server; `qubix attach aaaaaaaa`"),
        (["aaaa"], {"port": PortView("web", 80, "tcp", "http")}, "says of no SSH server"),
        (["aaaa"], {"phase": "provisioning"}, "the job does not run yet; `qubix logs -f aaaaaaaa`"),
        (["--port", "70000", "aaaa"], {}, "70000 is no port"),
    ],
)
def test_where_there_is_no_way_in(
    places: Places, capsys: pytest.CaptureFixture[str], words: list[str], how: dict[str, Any], sentence: str
) -> None:
    with daemon(places, **how):
        assert cli.main(["ssh", *words]) == 2
    assert sentence in capsys.readouterr().err


def test_a_machine_without_openssh(
    places: Places, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(places.root))
    assert cli.main(["ssh", "aaaa"]) == 2
    assert "OpenSSH's `ssh` is not on this machine" in capsys.readouterr().err


# --- by name ----------------------------------------------------------------------------------


@needs_openssh
def test_jobs_have_names_and_the_same_name_an_id_behind_it(
    places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = places.folder / "pinned" / ("e" * 64)
    stale.parent.mkdir(parents=True)
    stale.touch()
    with daemon(places):
        assert cli.main(["ssh-config", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    hosts = {one["host"]: one["lease_id"] for one in told["hosts"]}
    assert hosts == {"qubix-train": IDS[0], "qubix-train-bbbbbbbb": IDS[1], "qubix-other": IDS[2]}
    assert not told["included"] and not stale.exists()
    for host, lease_id in hosts.items():
        found = effective("-F", told["config"], host)
        assert found["hostkeyalias"] == f"qubix-{lease_id}" and lease_id in found["proxycommand"]
    assert "proxycommand" not in effective("-F", told["config"], "example.org")
    assert Path(told["config"]).stat().st_mode & 0o777 == 0o600


def test_what_to_add_is_said_and_done_only_when_asked(
    home: Path, places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    line = include_line(places)
    with daemon(places):
        assert cli.main(["ssh-config"]) == 0
        assert line in capsys.readouterr().out and not (home / ".ssh").exists()
        for _ in range(2):
            assert cli.main(["ssh-config", "--write"]) == 0
            assert line not in capsys.readouterr().out
    assert (home / ".ssh" / "config").read_text() == f"{line}\n"
    assert (home / ".ssh").stat().st_mode & 0o777 == 0o700


def test_of_a_person_s_file_nothing_is_lost(home: Path, places: Places) -> None:
    real, link, line = home / "dotfiles", home / "config", include_line(places)
    before = b"Host caf\xe9\n\tUser me\r\n# no end of line"
    real.write_bytes(before)
    real.chmod(0o640)
    link.symlink_to(real)
    for _ in range(2):
        include(link, line)
    assert link.is_symlink() and real.read_bytes() == f"{line}\n".encode() + before
    assert real.stat().st_mode & 0o777 == 0o640 and {path.name for path in home.iterdir()} == {
        "dotfiles",
        "config",
        "per%cent node",
    }


@pytest.mark.parametrize("obstacle", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_left_alone(home: Path, places: Places, obstacle: Callable[[Path], None]) -> None:
    file = home / "config"
    obstacle(file)
    with pytest.raises(FilesInvalid, match="add the line yourself: Include"):
        include(file, include_line(places))
    assert not file.is_file() and not list(home.glob(".config*"))


def test_whoever_has_the_entries_gets_the_next_job_s_with_it(home: Path, places: Places) -> None:
    (home / "job.yaml").write_text("resources: {image: a}\nrun: b\n")
    config = places.file("config")
    with daemon(places):
        assert cli.main(["run", str(home / "job.yaml"), "--output", str(home / "one")]) == 0
        assert not config.exists()
        assert cli.main(["ssh-config", "--write"]) == 0
        entries = config.read_text()
        config.write_text("")
        assert cli.main(["run", str(home / "job.yaml"), "--output", str(home / "two")]) == 0
    assert config.read_text() == entries
