"""`python -m qubixd.wallet new|import|export|draft|identity|passphrase`: the keystore of a data directory,
without a running daemon.

A program of its own, because the front end never makes keys. Seeds come from a private file or from
standard input, and go to a new private file, to a pipe that was left open for them (`--to-fd`) or, when
asked for in so many words, to a terminal; never through arguments, logs, standard output or the
environment.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from escrow_bridge.qubic import Wallet, generate_seed
from protocol.errors import ConfigInvalid, QubixError, SeedInvalid, UsageError
from protocol.seeds import check_wallet_seed, trouble_in_passphrase
from qubixd.config import Config
from qubixd.identity import (
    KEYSTORE,
    UNLOCK_FILE,
    change_passphrase,
    load_or_create,
    make_with,
    passphrase_in,
    settle_passphrase,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Do one thing; the exit code. Trouble is one sentence with its code."""
    options = _arguments(argv)
    config = Config(data_dir=str(options.data_dir), passphrase_file=options.passphrase_file)
    try:
        told = ACTIONS[options.action](config, options)
    except QubixError as error:
        if options.json:
            _say(json.dumps({"error": {"code": error.code, "message": str(error)}}))
        else:
            sys.stderr.write(f"error: {error} [{error.code}]\n")
        return error.exit_code
    if options.json:
        _say(json.dumps(told))
    else:
        _say("\n".join(f"{name:10}{value}" for name, value in told.items()))
    return 0


def new(config: Config, options: argparse.Namespace) -> dict[str, str]:
    """Keys for a node that has none."""
    _must_be_new(config)
    return _made(config, "")


def import_(config: Config, options: argparse.Namespace) -> dict[str, str]:
    """A seed that exists already, for a node that has none."""
    _must_be_new(config)
    seed = "" if options.seed_file else _typed_seed()
    return _made(config, seed, options.seed_file)


def export(config: Config, options: argparse.Namespace) -> dict[str, str]:
    """The seed, into a new file of mode 0600 or onto the terminal."""
    if options.json and options.show:
        raise UsageError("--show is for a person's eyes; give --to FILE with --json")
    if [bool(options.to), options.show, options.to_fd is not None].count(True) != 1:
        raise UsageError("say where the seed goes: --to FILE for a new private file, or --show")
    if options.show and not sys.stdout.isatty():
        raise UsageError("--show writes to a terminal only; give --to FILE to keep the seed in a file")
    if not (config.root / KEYSTORE).exists():
        raise ConfigInvalid(f"there are no keys in {config.root}; `qubix wallet new` makes some")
    seed = load_or_create(config).wallet_seed
    told = {"identity": Wallet(seed).identity}
    if options.show:
        return told | {"seed": seed}
    if options.to_fd is not None:
        _into_pipe(options.to_fd, seed)
        return told
    _write_new(Path(options.to), seed)
    return told | {"file": str(options.to)}


def draft(config: Config, options: argparse.Namespace) -> dict[str, str]:
    """A fresh seed that is kept nowhere yet: its owner shall have a copy of it first, then `import` it."""
    if options.to_fd is None:
        raise UsageError("say where the seed goes: --to-fd N, a pipe of whoever starts this program")
    seed = generate_seed()
    _into_pipe(options.to_fd, seed)
    return {"identity": Wallet(seed).identity}


def passphrase(config: Config, options: argparse.Namespace) -> dict[str, str]:
    """The same keys, sealed with another passphrase. A daemon that runs goes on as it is."""
    if options.no_passphrase and options.new_passphrase_file:
        raise UsageError("--no-passphrase and --new-passphrase-file exclude each other")
    if not (config.root / KEYSTORE).exists():
        raise ConfigInvalid(f"there are no keys in {config.root}; `qubix wallet new` makes some")
    settle_passphrase(config.root)
    old = None
    if not (config.passphrase_file or (config.root / UNLOCK_FILE).exists()) and sys.stdin.isatty():
        old = getpass.getpass("The passphrase of these keys (not shown): ").encode()
    new = None if options.no_passphrase else _new_passphrase(options.new_passphrase_file)
    secrets = change_passphrase(config, new, old=old)
    told = {"identity": Wallet(secrets.wallet_seed).identity, "keystore": str(config.root / KEYSTORE)}
    return told | {"sealed by": "no passphrase of yours" if new is None else "the new passphrase"}


def _new_passphrase(file: str) -> bytes:
    """From a private file or a pipe, or typed twice at a terminal without showing."""
    if file:
        return passphrase_in(file)
    if not sys.stdin.isatty():
        raise UsageError("name the new passphrase with --new-passphrase-file FILE, or say --no-passphrase")
    typed = getpass.getpass("The new passphrase (not shown): ")
    if trouble := trouble_in_passphrase(typed):
        raise UsageError(trouble)
    if getpass.getpass("The new passphrase again: ") != typed:
        raise UsageError("the two are not the same; nothing was changed")
    return typed.encode()


def identity(config: Config, options: argparse.Namespace) -> dict[str, str]:
    """Whose seed this is; kept nowhere."""
    return {"identity": Wallet(_typed_seed()).identity}


def _must_be_new(config: Config) -> None:
    path = config.root / KEYSTORE
    if path.exists():
        raise ConfigInvalid(f"{path} holds a wallet already; use another --data-dir for a second one")
    try:
        config.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigInvalid(f"the data directory {config.root} cannot be made: {error.strerror}") from error


def _made(config: Config, seed: str, seed_file: str = "") -> dict[str, str]:
    secrets = make_with(config, seed, seed_file)
    return {"identity": Wallet(secrets.wallet_seed).identity, "keystore": str(config.root / KEYSTORE)}


def _typed_seed() -> str:
    """From standard input: a line of a pipe, or typed at a terminal without showing."""
    if sys.stdin.isatty():
        text = getpass.getpass("Seed (55 letters, not shown): ")
    else:
        text = sys.stdin.readline(4_096)
    if not text.strip():
        raise SeedInvalid("no seed came in; type it, pipe it in, or name a file with --seed-file")
    return check_wallet_seed(text.strip())


def _write_new(path: Path, seed: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise UsageError(f"the seed was not written: {path}: {error.strerror}") from error
    with os.fdopen(descriptor, "w") as file:
        file.write(seed + "\n")
        file.flush()
        os.fsync(file.fileno())


def _into_pipe(descriptor: int, seed: str) -> None:
    try:
        if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            raise UsageError(f"--to-fd {descriptor} is no pipe; give --to FILE to keep the seed in a file")
        with os.fdopen(descriptor, "w") as pipe:
            pipe.write(seed)
    except OSError as error:
        raise UsageError(f"the seed was not written to --to-fd {descriptor}: {error.strerror}") from error


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m qubixd.wallet", description="The keys of a data directory.")
    parser.add_argument("action", choices=tuple(ACTIONS))
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--passphrase-file", default="", help="passphrase of the keystore, mode 0600")
    parser.add_argument("--seed-file", default="", help="import: the seed, mode 0600")
    parser.add_argument("--to", default="", help="export: a file that does not exist yet")
    parser.add_argument("--to-fd", type=int, metavar="N", help="export, draft: an inherited pipe")
    parser.add_argument("--show", action="store_true", help="export: show the seed on this terminal")
    parser.add_argument("--new-passphrase-file", default="", help="passphrase: the new one, mode 0600")
    parser.add_argument("--no-passphrase", action="store_true", help="passphrase: none any more")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(argv)


ACTIONS = {
    "new": new,
    "import": import_,
    "export": export,
    "draft": draft,
    "identity": identity,
    "passphrase": passphrase,
}

if __name__ == "__main__":
    sys.exit(main())
