"""`qubix import`: a docker-compose file or an Akash SDL file as a job file, and what had no place in it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from rich.padding import Padding
from rich.text import Text

from protocol.errors import FilesInvalid, JobFileInvalid, UsageError
from protocol.job_draft import Draft, job_yaml
from protocol.jobspec import MAX_FILE_BYTES
from tui import show
from tui.import_compose import from_compose
from tui.import_file import Imported, Note, read
from tui.import_sdl import from_sdl, is_sdl
from tui.safe import safe_line, safe_text

USUAL_HOURS: Final = "1"
KINDS: Final = ("left out", "changed", "assumed")
HEADS: Final = {"left out": "Left out:", "changed": "Changed:", "assumed": "Assumed:"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a docker-compose file or an Akash SDL file")
    parser.add_argument("--output", metavar="job.yaml", help="write it there (standard output); a new file")
    parser.add_argument("--service", default="", metavar="NAME", help="which of several services")
    parser.add_argument("--image", default="", help="instead of its image, or of one it builds")
    parser.add_argument("--command", default="", metavar="LINE", help="instead of its command")
    parser.add_argument("--gpu", default="", metavar="GPU", help="instead of its GPUs, e.g. RTX4090:24GB:2")
    parser.add_argument("--hours", default="", metavar="N", help="how long it may run (1)")
    parser.add_argument("--budget", default="", metavar="QU", help="what it may cost in all")
    text = "a value for ${NAME} in the file; may be given again"
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help=text)


async def import_(options: argparse.Namespace) -> int:
    source = Path(options.file)
    target = Path(options.output) if options.output else None
    try:
        found = imported(source, options)
        draft = rebased(found.draft, source.parent, target.parent if target else Path())
        body = job_yaml(draft)
    except JobFileInvalid as error:
        raise JobFileInvalid(f"{source}: {error}") from error
    text = "\n".join([*_comments(found, source.name), "", body])
    if target:
        _write_new(target, text)
    if options.json:
        show.print_json(
            {"job_yaml": text, "file": str(target or ""), "source": found.source, "notes": found.notes}
        )
        return 0
    if not target:
        sys.stdout.write(safe_text(text) if sys.stdout.isatty() else text)
        sys.stdout.flush()
    _tell(found, target)
    return 0


def imported(source: Path, options: argparse.Namespace) -> Imported:
    """What the file says, with what the command line says otherwise. JobFileInvalid."""
    text, given = _read(source), dict(_given(one) for one in options.set)
    asked = {"service": options.service, "image": options.image, "command": options.command}
    found = read(text)
    if is_sdl(found):
        result = from_sdl(text, **asked)
    elif "services" in found:
        result = from_compose(text, given, **asked)
    else:
        raise JobFileInvalid(
            "this is neither a docker-compose file nor an Akash SDL file: it has no `services`"
        )
    changes = {name: value for name in ("gpu", "budget") if (value := getattr(options, name))}
    notes = result.notes
    if not options.hours:
        why = f"it runs {USUAL_HOURS} hour at most; `--hours` or `max_hours` says otherwise"
        notes = (*notes, Note("assumed", "max_hours", why))
    if options.gpu:
        notes = tuple(note for note in notes if "of any model" not in note.why)
    draft = replace(result.draft, hours=options.hours or USUAL_HOURS, **changes)
    return replace(result, draft=draft, notes=notes)


def rebased(draft: Draft, before: Path, after: Path) -> Draft:
    """Its files as they are called from another folder."""

    def place(entry: str) -> str:
        here, _, inside = entry.partition(":")
        if here.startswith(("/", "~")):
            return entry
        return f"{os.path.relpath(before / here, after)}:{inside}"

    return replace(draft, files=tuple(map(place, draft.files)))


def _given(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found:
        raise UsageError(f"--set {text[:64]!r}: write NAME=VALUE")
    return name, value


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1).decode()
    except UnicodeDecodeError as error:
        raise JobFileInvalid("is not UTF-8 text") from error
    except OSError as error:
        raise FilesInvalid(f"cannot read {path}: {error.strerror}") from error


def _write_new(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise FilesInvalid(f"{path} is there already; name another file with --output") from error
    except OSError as error:
        raise FilesInvalid(f"{path} cannot be written: {error.strerror}") from error


def _comments(found: Imported, name: str) -> Iterator[str]:
    """What is not as it was, kept with the job."""
    yield f"# Made from the {found.source} {safe_line(name, 100)}."
    for kind in KINDS:
        for note in (one for one in found.notes if one.kind == kind):
            yield f"# {kind}: {safe_line(note.where, 160)}: {safe_line(note.why, 300)}"


def _tell(found: Imported, target: Path | None) -> None:
    screen = show.console(sys.stderr)
    for kind in KINDS:
        lines = [one for one in found.notes if one.kind == kind]
        if lines:
            screen.print(Text(HEADS[kind], "bold"))
        for note in lines:
            screen.print(Padding(Text(safe_line(note.where, 160), "cyan"), (0, 0, 0, 2)))
            screen.print(Padding(Text(safe_line(note.why, 300)), (0, 0, 0, 4)))
    if target:
        words = f"{target} is a job file; `qubix why {target}` says who would take it, "
        screen.print(Text(f"{words}`qubix run {target}` runs it."), soft_wrap=True)
