"""`qubix wallet new|import|export`: real processes; seeds come and go only by private ways."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from escrow_bridge.qubic import Wallet
from protocol.errors import ConfigInvalid, PassphraseWrong, SeedInvalid
from qubixd.config import Config
from qubixd.identity import load_or_create
from tui import wallet_keys

SEED = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabc"
IDENTITY = Wallet(SEED).identity
PASSPHRASE = "hällo wörld"


def command(root: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "tui.cli", "wallet", *words, "--data-dir", str(root / "data")]


def wallet(root: Path, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    run = subprocess.run(
        command(root, *words), input=stdin, capture_output=True, text=True, timeout=60, check=False
    )
    assert SEED not in run.stdout + run.stderr
    return run


def answer(run: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(run.stdout)


def stored(root: Path) -> str:
    return load_or_create(Config(data_dir=str(root / "data"))).wallet_seed


def seed_file(root: Path, mode: int = 0o600) -> str:
    path = root / "seed"
    path.write_text(SEED + "\n")
    path.chmod(mode)
    return str(path)


def test_new_keys_are_private_and_made_once(tmp_path: Path) -> None:
    made = wallet(tmp_path, "new", "--json")
    assert made.returncode == 0
    assert answer(made)["identity"] == Wallet(stored(tmp_path)).identity
    assert stored(tmp_path) not in made.stdout
    assert stat.S_IMODE((tmp_path / "data" / "keystore").stat().st_mode) == 0o600
    before = stored(tmp_path)
    for words in (["new"], ["import"]):
        again = wallet(tmp_path, *words, stdin=SEED)
        assert again.returncode == 2 and "holds a wallet already" in again.stderr
    assert stored(tmp_path) == before


@pytest.mark.parametrize("way", ["file", "pipe"])
def test_a_seed_comes_in_and_goes_out_by_private_files(tmp_path: Path, way: str) -> None:
    words = ["--seed-file", seed_file(tmp_path)] if way == "file" else []
    made = wallet(tmp_path, "import", "--json", *words, stdin="" if words else SEED + "\n")
    assert answer(made)["identity"] == IDENTITY
    assert stored(tmp_path) == SEED
    out = wallet(tmp_path, "export", "--to", str(tmp_path / "backup"), "--json")
    assert answer(out) == {"identity": IDENTITY, "file": str(tmp_path / "backup")}
    assert (tmp_path / "backup").read_text().strip() == SEED
    assert stat.S_IMODE((tmp_path / "backup").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("words", "stdin", "code"),
    [
        (["import"], "", "wallet.seed_invalid"),
        (["import"], SEED[:-1], "wallet.seed_invalid"),
        (["import"], SEED.upper(), "wallet.seed_invalid"),
        (["import", "--seed-file", "OPEN"], "", "wallet.seed_invalid"),
        (["import", "--seed-file", "/nowhere"], "", "wallet.seed_invalid"),
        (["export", "--to", "new"], "", "config.invalid"),
    ],
)
def test_what_is_refused_leaves_nothing_behind(
    tmp_path: Path, words: list[str], stdin: str, code: str
) -> None:
    words = [seed_file(tmp_path, 0o644) if word == "OPEN" else word for word in words]
    refused = wallet(tmp_path, *words, "--json", stdin=stdin)
    assert refused.returncode == 2 and answer(refused)["error"]["code"] == code
    assert not (tmp_path / "data" / "keystore").exists()


def test_an_export_never_overwrites_and_never_goes_into_a_pipe(tmp_path: Path) -> None:
    wallet(tmp_path, "import", stdin=SEED)
    kept = tmp_path / "kept"
    kept.write_text("mine")
    for words in (["--to", str(kept)], [], ["--show"], ["--show", "--json"], ["--show", "--to", "x"]):
        refused = wallet(tmp_path, "export", *words)
        assert refused.returncode == 2, words
    assert kept.read_text() == "mine"


def test_a_front_end_has_a_seed_made_kept_and_given_back_through_pipes(tmp_path: Path) -> None:
    root = tmp_path / "data"

    async def go() -> None:
        seed = await wallet_keys.draft(root)
        assert Wallet(seed.letters).identity == seed.identity
        assert seed.letters not in repr(seed) and not root.exists(), "nothing is kept yet"
        assert await wallet_keys.identity_of(root, SEED) == IDENTITY
        assert await wallet_keys.keep(root, SEED, PASSPHRASE) == IDENTITY
        assert wallet_keys.wants_passphrase(root)
        assert (await wallet_keys.export(root, PASSPHRASE)).letters == SEED
        for wrong in ("another", ""):
            with pytest.raises(PassphraseWrong):
                await wallet_keys.export(root, wrong)
        with pytest.raises(ConfigInvalid, match="holds a wallet already"):
            await wallet_keys.keep(root, SEED)
        with pytest.raises(SeedInvalid, match="position 3"):
            await wallet_keys.identity_of(root, "ab!")

    asyncio.run(go())
    sealed = b"".join(path.read_bytes() for path in root.iterdir())
    assert SEED.encode() not in sealed and PASSPHRASE.encode() not in sealed


def test_keys_without_a_passphrase_open_by_themselves(tmp_path: Path) -> None:
    assert asyncio.run(wallet_keys.keep(tmp_path, SEED)) == IDENTITY
    assert wallet_keys.has_keys(tmp_path) and not wallet_keys.wants_passphrase(tmp_path)
    assert asyncio.run(wallet_keys.export(tmp_path)).letters == SEED


def test_a_seed_goes_into_a_pipe_and_nothing_else(tmp_path: Path) -> None:
    wallet(tmp_path, "import", stdin=SEED)
    words = ["-m", "qubixd.wallet", "export", "--data-dir", str(tmp_path / "data"), "--to-fd"]
    for descriptor in ("1", "77", "-1"):
        with (tmp_path / "out").open("w") as out:
            run = subprocess.run([sys.executable, *words, descriptor], stdout=out, stderr=out, check=False)
        assert run.returncode == 2 and SEED not in (tmp_path / "out").read_text()


def typed_at_a_terminal(root: Path, *words: str, typed: str = "", after: bytes = b"") -> str:
    """What a person sees."""
    ours, theirs = os.openpty()
    seen = b""
    with subprocess.Popen(
        command(root, *words), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        try:
            while chunk := os.read(ours, 4_096):
                seen += chunk
                if after and after in seen:
                    os.write(ours, typed.encode() + b"\n")
                    after = b""
        except OSError:  # the other end is closed: the program has ended
            pass
        assert process.wait(60) == 0, seen
    os.close(ours)
    return seen.decode()


def test_a_typed_seed_is_not_shown_and_an_asked_for_one_is(tmp_path: Path) -> None:
    seen = typed_at_a_terminal(tmp_path, "import", typed=SEED, after=b"not shown")
    assert SEED not in seen and IDENTITY in seen
    assert stored(tmp_path) == SEED
    assert SEED in typed_at_a_terminal(tmp_path, "export", "--show")
