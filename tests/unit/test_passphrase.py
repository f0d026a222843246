"""Another passphrase for the same keys: whole or not at all, whatever happens meanwhile."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ledger import keystore
from ledger.keystore import Cost, Secrets
from protocol.errors import DiskFull, KeystoreBroken, PassphraseWrong, QubixError
from protocol.seeds import trouble_in_passphrase
from qubixd import wallet
from qubixd.config import Config
from qubixd.identity import (
    CHANGING_FILE,
    KEYSTORE,
    UNLOCK_FILE,
    change_passphrase,
    load_or_create,
    settle_passphrase,
)

CHEAP = Cost(passes=1, memory_kib=8, lanes=1)
SECRETS = Secrets(bytes(range(32)), "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabc")
OWN = b"the node's own"
Way = tuple[bytes | None, bytes | None]
WAYS: list[Way] = [(b"old", b"new"), (None, b"new"), (b"old", None), (None, None)]
"""Passphrases before and after; None: the node's own."""


def private(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    path.chmod(0o600)
    return str(path)


def node(root: Path, before: bytes | None) -> Config:
    """A data directory with keys; the config knows the passphrase before the change."""
    data = root / "data"
    data.mkdir(mode=0o700)
    keystore.create(data / KEYSTORE, before or OWN, SECRETS, CHEAP)
    if before is None:
        private(data / UNLOCK_FILE, OWN)
        return Config(data_dir=str(data))
    return Config(data_dir=str(data), passphrase_file=private(root / "before", before))


def opens(config: Config, passphrase: bytes | None) -> bool:
    """Whether a daemon that is given this passphrase (None: none) comes up with the same keys."""
    file = "" if passphrase is None else private(config.root.parent / "tried", passphrase)
    try:
        return load_or_create(Config(data_dir=config.data_dir, passphrase_file=file)) == SECRETS
    except PassphraseWrong:
        return False


@pytest.mark.parametrize(("before", "after"), WAYS)
def test_afterwards_only_the_new_one_opens_the_same_keys(
    tmp_path: Path, before: bytes | None, after: bytes | None
) -> None:
    config = node(tmp_path, before)
    assert change_passphrase(config, after, CHEAP) == SECRETS
    assert opens(config, after)
    if before != after:
        assert not opens(config, before)
    kept = {KEYSTORE} if after else {KEYSTORE, UNLOCK_FILE}
    assert {path.name for path in config.root.iterdir()} == kept
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in config.root.iterdir())


class PowerCut(BaseException):
    """Nothing that comes after it is done."""


def steps_of(monkeypatch: pytest.MonkeyPatch, before_step: Callable[[], None]) -> None:
    """Call it before each thing that is done to files."""
    for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "rename"), (Path, "unlink"), (os, "fdopen")):
        real: Any = getattr(owner, name)

        def stepped(*words: Any, _real: Any = real, **more: Any) -> Any:
            before_step()
            return _real(*words, **more)

        monkeypatch.setattr(owner, name, stepped)


def cut(root: Path, way: Way, at: int, what: BaseException, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Change it, with `what` before the step of that number; whether it came so far."""
    config, count = node(root, way[0]), 0

    def step() -> None:
        nonlocal count
        count += 1
        if count == at:
            raise what

    with monkeypatch.context() as patched:
        steps_of(patched, step)
        try:
            change_passphrase(config, way[1], CHEAP)
        except (PowerCut, QubixError, OSError):
            assert count >= at
    return count >= at


@pytest.mark.parametrize("way", WAYS)
def test_cut_short_anywhere_one_of_the_two_opens_the_keys(
    tmp_path: Path, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = 0
    while True:
        at += 1
        root = tmp_path / str(at)
        root.mkdir()
        if not cut(root, way, at, PowerCut(), monkeypatch):
            break
        config = Config(data_dir=str(root / "data"))
        found = [opens(config, one) for one in way]
        assert any(found) and (way[0] == way[1] or not all(found)), at
        assert not (config.root / CHANGING_FILE).exists(), "settled at the next start"
        now = way[found.index(True)]
        file = "" if now is None else private(root / "now", now)
        again = Config(data_dir=config.data_dir, passphrase_file=file)
        change_passphrase(again, b"another", CHEAP)
        assert opens(config, b"another")
        assert {path.name for path in config.root.iterdir()} == {KEYSTORE}, "nothing lies about"
    assert at > 5


def test_a_full_disk_leaves_everything_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = node(tmp_path, None)
    before = (config.root / KEYSTORE).read_bytes()

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keystore, "_write_whole", full)
    with pytest.raises(DiskFull):
        change_passphrase(config, b"new", CHEAP)
    assert (config.root / KEYSTORE).read_bytes() == before
    assert {path.name for path in config.root.iterdir()} == {KEYSTORE, UNLOCK_FILE}


@pytest.mark.parametrize("new", [b"new", None])
def test_a_wrong_passphrase_changes_nothing(tmp_path: Path, new: bytes | None) -> None:
    config = node(tmp_path, b"old")
    with pytest.raises(PassphraseWrong):
        change_passphrase(config, new, CHEAP, old=b"wrong")
    assert opens(config, b"old") and {path.name for path in config.root.iterdir()} == {KEYSTORE}


def test_a_damaged_keystore_is_not_replaced(tmp_path: Path) -> None:
    config = node(tmp_path, b"old")
    (config.root / KEYSTORE).write_bytes(b"x")
    with pytest.raises(KeystoreBroken):
        change_passphrase(config, b"new", CHEAP)
    assert (config.root / KEYSTORE).read_bytes() == b"x"
    settle_passphrase(config.root)


def test_what_is_no_passphrase_is_said_without_repeating_it() -> None:
    for bad in ("", " padded", "two\nlines", "x" * 1_025):
        said = trouble_in_passphrase(bad)
        assert said and (not bad or bad not in said)
    assert not trouble_in_passphrase("hällo wörld")


def test_only_private_files_and_one_answer_are_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = node(tmp_path, b"old")
    monkeypatch.setattr(sys, "stdin", io.StringIO("from a pipe"))
    (tmp_path / "open").write_text("everybody reads it")
    (tmp_path / "open").chmod(0o644)
    own = ["--passphrase-file", config.passphrase_file]
    for words, said in (
        (own, "--new-passphrase-file"),
        ([*own, "--new-passphrase-file", str(tmp_path / "open")], "read by others"),
        ([*own, "--new-passphrase-file", private(tmp_path / "space", b" x")], "nobody would see"),
        ([*own, "--new-passphrase-file", "x", "--no-passphrase"], "exclude"),
        (["--no-passphrase"], "--passphrase-file"),
    ):
        assert wallet.main(["passphrase", "--data-dir", config.data_dir, "--json", *words]) == 2
        assert said in capsys.readouterr().out
    assert opens(config, b"old")
    assert wallet.main(["passphrase", "--data-dir", str(tmp_path / "none"), "--no-passphrase"]) == 2


def test_from_the_command_line(tmp_path: Path) -> None:
    config = node(tmp_path, b"old")
    new = private(tmp_path / "new", b"newer one\n")
    words = ["--passphrase-file", config.passphrase_file, "--new-passphrase-file", new, "--json"]
    command = [sys.executable, "-m", "tui.cli", "wallet", "passphrase", "--data-dir", config.data_dir, *words]
    run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert run.returncode == 0 and json.loads(run.stdout)["sealed by"] == "the new passphrase"
    assert "newer one" not in run.stdout + run.stderr
    assert opens(config, b"newer one") and not opens(config, b"old")
