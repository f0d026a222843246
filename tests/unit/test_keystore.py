"""The keystore: opens with its passphrase only, notices every change, shows nothing."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import keystore
from ledger.keystore import Cost, Secrets
from protocol.errors import DiskFull, KeystoreBroken, PassphraseWrong, SeedInvalid
from protocol.seeds import check_wallet_seed

CHEAP = Cost(passes=1, memory_kib=16, lanes=1)
WALLET_SEED = "q" * 54 + "b"
SECRETS = Secrets(node_seed=bytes(range(32)), wallet_seed=WALLET_SEED)
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no POSIX modes")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "node" / "keys"


def test_what_was_sealed_comes_back_at_full_cost(path: Path) -> None:
    keystore.create(path, b"correct horse", SECRETS)
    assert keystore.open_(path, b"correct horse") == SECRETS
    header = msgpack.unpackb(msgpack.unpackb(path.read_bytes())[0])
    assert (header["passes"], header["memory_kib"]) == (3, 65_536)


def test_a_wrong_passphrase_is_told_from_damage(path: Path) -> None:
    keystore.create(path, b"right", SECRETS, CHEAP)
    with pytest.raises(PassphraseWrong):
        keystore.open_(path, b"wrong")


def test_every_changed_or_missing_byte_is_damage(path: Path) -> None:
    keystore.create(path, b"p", SECRETS, CHEAP)
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(KeystoreBroken):
            keystore.open_(path, b"p")
        path.write_bytes(whole[:at])
        with pytest.raises(KeystoreBroken):
            keystore.open_(path, b"p")
    path.write_bytes(whole)
    assert keystore.open_(path, b"p") == SECRETS


def rewritten(whole: bytes, **changes: object) -> bytes:
    """The file with other header fields and a right checksum, as an attacker would write it."""
    header, sealed, _ = msgpack.unpackb(whole)
    forged = msgpack.packb({**msgpack.unpackb(header), **changes})
    packed: bytes = msgpack.packb([forged, sealed, hashlib.sha256(forged + sealed).digest()])
    return packed


def test_the_header_is_sealed_too(path: Path) -> None:
    keystore.create(path, b"p", SECRETS, CHEAP)
    path.write_bytes(rewritten(path.read_bytes(), comment="same key, other header"))
    with pytest.raises(PassphraseWrong):
        keystore.open_(path, b"p")


@pytest.mark.parametrize(
    "changes",
    [
        {"memory_kib": 1 << 40},
        {"memory_kib": 1},
        {"passes": 10_000},
        {"passes": 0},
        {"lanes": 0},
        {"salt": b""},
        {"salt": "text"},
        {"kdf": "none"},
        {"format": "other"},
        {"version": 2},
    ],
)
def test_a_header_that_asks_for_the_impossible_is_refused_unopened(
    path: Path, changes: dict[str, object]
) -> None:
    keystore.create(path, b"p", SECRETS, CHEAP)
    path.write_bytes(rewritten(path.read_bytes(), **changes))
    with pytest.raises(KeystoreBroken):
        keystore.open_(path, b"p")


@given(st.binary(max_size=5_000))
def test_garbage_is_damage(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("garbage") / "keys"
    path.touch(mode=0o600)
    path.write_bytes(content)
    with pytest.raises(KeystoreBroken):
        keystore.open_(path, b"p")


def test_an_existing_keystore_is_never_overwritten(path: Path) -> None:
    keystore.create(path, b"p", SECRETS, CHEAP)
    before = path.read_bytes()
    with pytest.raises(KeystoreBroken, match="exists already"):
        keystore.create(path, b"q", SECRETS, CHEAP)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_a_missing_keystore_is_named(path: Path) -> None:
    with pytest.raises(KeystoreBroken, match=str(path)):
        keystore.open_(path, b"p")


def test_a_full_disk_leaves_nothing_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull):
        keystore.create(path, b"p", SECRETS, CHEAP)
    assert os.listdir(path.parent) == []


@posix
def test_it_is_the_owners_alone(path: Path) -> None:
    keystore.create(path, b"p", SECRETS, CHEAP)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    with pytest.raises(KeystoreBroken, match=f"chmod 600 {path}"):
        keystore.open_(path, b"p")


def test_the_file_and_the_repr_show_no_secret(path: Path) -> None:
    keystore.create(path, b"p", SECRETS, CHEAP)
    content = path.read_bytes()
    assert SECRETS.node_seed not in content
    assert WALLET_SEED.encode() not in content
    assert repr(SECRETS) == str(SECRETS) == "Secrets(hidden)"


@pytest.mark.parametrize(
    ("seed", "wrong"),
    [
        ("", "0 letters"),
        ("q" * 54, "54 letters"),
        ("q" * 56, "56 letters"),
        ("q" * 10 + "Q" + "q" * 44, "position 11"),
        ("q" * 54 + "\n", "position 55"),
        ("q" * 54 + "ä", "position 55"),
        (" " + "q" * 54, "position 1"),
    ],
)
def test_a_wrong_wallet_seed_is_explained_without_showing_it(path: Path, seed: str, wrong: str) -> None:
    with pytest.raises(SeedInvalid, match=wrong) as caught:
        keystore.create(path, b"p", Secrets(bytes(32), seed), CHEAP)
    assert "qqq" not in str(caught.value)
    assert not path.exists()


def test_a_right_wallet_seed_passes() -> None:
    assert check_wallet_seed(WALLET_SEED) == WALLET_SEED
