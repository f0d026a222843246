"""`qubix keys` and the files behind it; OpenSSH itself says whether they are keys."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tui import cli
from tui.ssh_keys import Keys, public_blobs

needs_openssh = pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="OpenSSH's ssh-keygen is not here")


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keys:
    monkeypatch.setenv("QUBIX_DATA_DIR", str(tmp_path / "node"))
    return Keys(tmp_path / "node" / "ssh" / "keys")


def keygen(*words: str | Path) -> str:
    return subprocess.run(["ssh-keygen", *words], capture_output=True, text=True, check=True).stdout


def said(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert cli.main(["keys", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main(["keys", *words]) in (2, 3)
    return capsys.readouterr().err


@needs_openssh
def test_a_made_key_is_openssh_s_and_its_owner_s_alone(
    keys: Keys, capsys: pytest.CaptureFixture[str]
) -> None:
    made = said(capsys, "make", "laptop")
    private = Path(made["identity"])
    assert private == keys.folder / "laptop" and stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(keys.folder.stat().st_mode) == 0o700
    assert keygen("-yf", private).split()[:2] == made["public"].split()[:2]
    assert made["public"].startswith("ssh-ed25519 ") and made["public"].endswith(" qubix-laptop")
    assert keygen("-lf", private).split()[1] == made["fingerprint"]
    assert "PRIVATE" not in json.dumps(made) and made["used"]


def test_the_first_is_used_until_another_is_chosen(keys: Keys, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys) == {"keys": []}
    assert keys.used().name == "qubix", "made as soon as one is needed"
    said(capsys, "make", "zebra")
    assert [(one["name"], one["used"]) for one in said(capsys)["keys"]] == [("qubix", True), ("zebra", False)]
    assert said(capsys, "use", "zebra")["used"] and said(capsys, "show")["name"] == "zebra"
    assert said(capsys, "remove", "zebra")["name"] == "zebra"
    assert keys.used().name == "qubix" and not (keys.folder / "zebra").exists()
    assert cli.main(["keys", "show", "qubix"]) == 0
    assert capsys.readouterr().out == keys.used().public + "\n"
    assert cli.main(["keys"]) == 0
    assert re.search(r"\* +qubix +ssh-ed25519 +SHA256:", capsys.readouterr().out)


@needs_openssh
@pytest.mark.parametrize("passphrase", ["", "open sesame"])
@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_a_key_of_ones_own_stays_where_it_is(
    keys: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, passphrase: str
) -> None:
    mine = tmp_path / f"id_{kind}"
    keygen("-q", "-t", kind, "-N", passphrase, "-a", "1", "-f", mine)
    before = mine.read_bytes()
    public = (tmp_path / f"id_{kind}.pub").read_text().split()
    (tmp_path / f"id_{kind}.pub").unlink()
    added = said(capsys, "add", str(mine))
    assert added["name"] == f"id_{kind}" and added["public"].split()[:2] == public[:2] and not added["made"]
    assert os.readlink(added["identity"]) == str(mine)
    assert said(capsys, "remove", added["name"])["identity"] == str(mine)
    assert mine.read_bytes() == before and not list(keys.folder.glob("id_*"))


@needs_openssh
def test_a_key_of_an_agent_has_its_public_half_alone(
    keys: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keygen("-q", "-t", "ed25519", "-N", "", "-C", "card", "-f", tmp_path / "card")
    (tmp_path / "card").unlink()
    added = said(capsys, "add", str(tmp_path / "card.pub"), "--name", "agents")
    assert added["identity"].endswith("agents.pub") and added["public"].endswith(" card")
    assert [key.name for key in keys.among(f"# mine\n{added['public']}\nssh-ed25519 AAAA other")] == [
        "agents"
    ]


@needs_openssh
def test_what_is_no_key_is_said(keys: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = tmp_path / "old"
    keygen("-q", "-t", "rsa", "-m", "PEM", "-N", "", "-f", old)
    assert "not in OpenSSH's own format" in refused(capsys, "add", str(old))
    for name, text in {
        "text": "hello",
        "cut": "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjE=\n-----END",
        "not64": "-----BEGIN OPENSSH PRIVATE KEY-----\n!!!\n-----END",
        "other.pub": "ssh-ed25519 AAAA me",
    }.items():
        (tmp_path / name).write_text(text)
        assert "key" in refused(capsys, "add", str(tmp_path / name), "--name", "x")
    assert "there is no file" in refused(capsys, "add", str(tmp_path / "absent"))
    assert "cannot be read" in refused(capsys, "add", str(tmp_path))
    assert keys.all() == []


def test_names_and_what_is_not_there(keys: Keys, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no SSH keys yet" in refused(capsys, "show")
    for name in ("../x", ".x", "a/b", "x.pub", "x" * 64, "a b"):
        assert "cannot be a key's name" in refused(capsys, "make", name)
    keys.make("one")
    assert "is there already" in refused(capsys, "make", "one")
    assert "there are one" in refused(capsys, "remove", "two")
    assert "qubix keys use NAME" in refused(capsys, "use")


def test_only_whole_public_keys_count() -> None:
    good = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPmjzcoBjyGQJCFj7DMSNEmRYZZQEzVVSLNVcAhBVkKX"
    lines = f"# {good}\n  {good} me\nssh-rsa {good.split()[1]}\nssh-ed25519 ====\n\n"
    assert list(public_blobs(lines)) == [good]
