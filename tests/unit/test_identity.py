"""A node's keys: made once, found again, and every way in which a secret file can be wrong."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from protocol.errors import ConfigInvalid, KeystoreBroken, PassphraseWrong, QubixError, SeedInvalid
from qubixd.config import Config
from qubixd.identity import KEYSTORE, UNLOCK_FILE, load_or_create

SEED = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabc"


def secret_file(path: Path, content: str | bytes, mode: int = 0o600) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)
    return str(path)


def config(root: Path, **settings: str) -> Config:
    (root / "data").mkdir(exist_ok=True)
    return Config(data_dir=str(root / "data"), **settings)  # type: ignore[arg-type]  # all are texts


def test_keys_are_made_once_and_private(tmp_path: Path) -> None:
    made = load_or_create(config(tmp_path))
    assert load_or_create(config(tmp_path)) == made
    assert len(made.node_seed) == 32 and len(made.wallet_seed) == 55
    for name in (KEYSTORE, UNLOCK_FILE):
        assert stat.S_IMODE((tmp_path / "data" / name).stat().st_mode) == 0o600
    (tmp_path / "other").mkdir()
    assert load_or_create(config(tmp_path / "other")).wallet_seed != made.wallet_seed


def test_a_seed_is_imported_and_need_not_be_named_again(tmp_path: Path) -> None:
    named = config(tmp_path, wallet_seed_file=secret_file(tmp_path / "seed", SEED + "\n"))
    made = load_or_create(named)
    assert made.wallet_seed == SEED
    assert load_or_create(named) == load_or_create(config(tmp_path)) == made


def test_another_seed_than_the_keystores_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    made = load_or_create(config(tmp_path))
    with pytest.raises(ConfigInvalid, match=r"already has another wallet.*--data-dir") as refused:
        load_or_create(config(tmp_path, wallet_seed_file=secret_file(tmp_path / "seed", SEED)))
    assert SEED not in str(refused.value)
    assert load_or_create(config(tmp_path)) == made


WRONG_SEEDS: dict[str, tuple[str | bytes, int, str]] = {
    "an upper-case letter": (
        SEED[:10] + "K" + SEED[11:],
        0o600,
        "something other than a letter a-z at position 11",
    ),
    "a digit": (SEED[:-1] + "1", 0o600, "at position 55"),
    "a trailing space": (SEED + " ", 0o600, "at position 56"),
    "too short": (SEED[:-1], 0o600, "has 54 letters; it must have 55"),
    "too long": (SEED + "a", 0o600, "has 56 letters"),
    "empty": ("", 0o600, "has 0 letters"),
    "two lines": (SEED + "\n" + SEED, 0o600, "at position 56"),
    "not text": (b"\xff" * 55, 0o600, "is not text"),
    "huge": ("a" * 5_000, 0o600, "is too large"),
    "readable by the group": (SEED, 0o640, "can be read by others; run: chmod 600"),
    "readable by all": (SEED, 0o604, "can be read by others; run: chmod 600"),
}


@pytest.mark.parametrize("content,mode,sentence", WRONG_SEEDS.values(), ids=WRONG_SEEDS)
def test_a_wrong_seed_file_is_one_sentence_without_the_seed(
    tmp_path: Path, content: str | bytes, mode: int, sentence: str
) -> None:
    path = secret_file(tmp_path / "seed", content, mode)
    with pytest.raises(SeedInvalid, match=sentence) as wrong:
        load_or_create(config(tmp_path, wallet_seed_file=path))
    assert SEED[:20] not in str(wrong.value)
    assert not (tmp_path / "data" / KEYSTORE).exists(), "nothing was made"


@pytest.mark.parametrize(
    "kind,setting", [(SeedInvalid, "wallet_seed_file"), (PassphraseWrong, "passphrase_file")]
)
def test_a_missing_file_is_named(tmp_path: Path, kind: type[QubixError], setting: str) -> None:
    with pytest.raises(kind, match="/nowhere cannot be read: No such file"):
        load_or_create(config(tmp_path, **{setting: "/nowhere"}))
    with pytest.raises(kind, match="cannot be read: Is a directory"):
        load_or_create(config(tmp_path, **{setting: str(_folder(tmp_path))}))


def _folder(root: Path) -> Path:
    (root / "folder").mkdir(mode=0o700)
    return root / "folder"


def test_a_passphrase_of_ones_own(tmp_path: Path) -> None:
    right = config(tmp_path, passphrase_file=secret_file(tmp_path / "pass", "correct horse\n"))
    made = load_or_create(right)
    assert load_or_create(right) == made
    assert not (tmp_path / "data" / UNLOCK_FILE).exists()
    wrong = config(tmp_path, passphrase_file=secret_file(tmp_path / "wrong", "incorrect horse"))
    with pytest.raises(PassphraseWrong, match="does not open"):
        load_or_create(wrong)
    with pytest.raises(PassphraseWrong, match="--passphrase-file"):
        load_or_create(config(tmp_path))


def test_an_empty_or_open_passphrase_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PassphraseWrong, match="is empty"):
        load_or_create(config(tmp_path, passphrase_file=secret_file(tmp_path / "empty", "\n")))
    with pytest.raises(PassphraseWrong, match="can be read by others"):
        load_or_create(config(tmp_path, passphrase_file=secret_file(tmp_path / "open", "x", 0o644)))


def test_a_start_cut_short_after_the_passphrase_was_written_goes_on(tmp_path: Path) -> None:
    load_or_create(config(tmp_path))
    (tmp_path / "data" / KEYSTORE).unlink()
    kept = (tmp_path / "data" / UNLOCK_FILE).read_bytes()
    made = load_or_create(config(tmp_path))
    assert (tmp_path / "data" / UNLOCK_FILE).read_bytes() == kept
    assert load_or_create(config(tmp_path)) == made


def test_a_damaged_keystore_is_never_replaced(tmp_path: Path) -> None:
    load_or_create(config(tmp_path))
    path = tmp_path / "data" / KEYSTORE
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(KeystoreBroken):
        load_or_create(config(tmp_path))
    assert path.read_bytes() == bytes(content)
    assert os.listdir(tmp_path / "data").count(KEYSTORE) == 1
