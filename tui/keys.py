"""`qubix keys`: the SSH keys that let you into jobs."""

from __future__ import annotations

import argparse
import base64
import hashlib
import sys
from pathlib import Path
from typing import Final

from rich.text import Text

from protocol.errors import UsageError
from tui import show
from tui.places import data_dir
from tui.safe import safe_line
from tui.ssh_keys import USUAL, Key, Keys

ACTIONS: Final = ("list", "show", "make", "add", "use", "remove")
NEEDS_WORD: Final = {"add": "FILE", "use": "NAME", "remove": "NAME"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", nargs="?", choices=ACTIONS, default="list", help="what to do")
    parser.add_argument("word", nargs="?", default="", metavar="NAME|FILE", help="which key")
    parser.add_argument("--name", default="", help="what an added key is called here")


def keys_of(options: argparse.Namespace) -> Keys:
    return Keys(data_dir(options.data_dir) / "ssh" / "keys")


async def keys(options: argparse.Namespace) -> int:
    here, word = keys_of(options), options.word
    if options.what in NEEDS_WORD and not word:
        raise UsageError(f"`qubix keys {options.what} {NEEDS_WORD[options.what]}`")
    match options.what:
        case "list":
            return _list(options, here.all())
        case "show":
            return _show(options, here.get(word))
        case "make":
            key, done = here.make(word or options.name or USUAL), "made"
        case "add":
            key, done = here.add(Path(word).expanduser(), options.name), "added"
        case "use":
            key, done = here.use(word), "used from now on"
        case _:
            key, done = here.remove(word), "removed"
    if options.json:
        show.print_json(_as_json(key))
    else:
        more = "" if key.made else f"; {key.identity.resolve()} stays as it is"
        _say(f"{key.name}: {done}{more if options.what in ('add', 'remove') else ''}")
    return 0


def _list(options: argparse.Namespace, found: list[Key]) -> int:
    if options.json:
        show.print_json({"keys": [_as_json(key) for key in found]})
    elif not found:
        _say("No keys yet; `qubix keys make` makes one, and the first job that needs one does, too.")
    else:
        screen = show.console(sys.stdout)
        rows = [
            (
                show.cell("*" if key.used else " "),
                show.cell(key.name),
                show.cell(key.public.split()[0]),
                show.cell(fingerprint(key)),
            )
            for key in found
        ]
        screen.print(show.table(("", "name", "kind", "fingerprint"), rows))
        for key in found:
            if not key.made:
                line = f"{key.name} lies at {safe_line(str(key.identity.resolve()), 300)}"
                screen.print(Text(line, "dim"), soft_wrap=True)
        screen.print(Text("* new jobs let it in; `qubix keys use NAME` chooses another", "dim"))
    return 0


def _show(options: argparse.Namespace, key: Key) -> int:
    if options.json:
        show.print_json(_as_json(key))
    else:
        _say(key.public)
    return 0


def _say(line: str) -> None:
    sys.stdout.write(safe_line(line, 1_000) + "\n")


def fingerprint(key: Key) -> str:
    """As OpenSSH shows it."""
    digest = hashlib.sha256(base64.b64decode(key.public.split()[1])).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def _as_json(key: Key) -> dict[str, object]:
    """Never of the private half more than where it lies."""
    return {
        "name": key.name,
        "public": key.public,
        "fingerprint": fingerprint(key),
        "identity": str(key.identity),
        "made": key.made,
        "used": key.used,
    }
