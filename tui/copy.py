"""`qubix cp`: files between this machine and a job's workspace, in either direction."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from protocol.errors import FileMissing, MessageInvalid, NotAFile, UsageError
from protocol.file_frames import Done, Entries, Entry, List, Look, MakeDirectory, shown
from tui.copy_down import Download, local_error
from tui.copy_plan import MAX_ENTRIES, MAX_NAMES_BYTES, Place, Tree, join, read_place, tree_here, tree_there
from tui.copy_report import Report
from tui.copy_talk import Talk, talk
from tui.copy_up import Upload
from tui.places import control_socket, data_dir


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-r", "--recursive", action="store_true", help="directories with all that is in them")
    text = "a path here, or LEASE:PATH in the job's workspace"
    parser.add_argument("sources", metavar="SOURCE", nargs="+", help=text)
    parser.add_argument("target", metavar="TARGET", help="where to; one of both is LEASE:PATH")


async def copy(options: argparse.Namespace) -> int:
    sources, target = [read_place(text) for text in options.sources], read_place(options.target)
    leases = {place.lease for place in sources}
    if len(leases) > 1 or bool(leases.pop()) == bool(target.lease):
        raise UsageError(
            "either all sources or the target must be LEASE:PATH, and one lease only; "
            "a file whose name looks like that is ./NAME"
        )
    place = control_socket(data_dir(options.data_dir))
    act = _up if target.lease else _down
    with Report(as_json=options.json) as report:
        try:
            async with talk(place, target.lease or sources[0].lease) as one:
                await act(one, report, sources, target, recursive=options.recursive)
        except asyncio.CancelledError:
            report.interrupted()
            raise
    return report.finish()


async def _up(
    talk: Talk, report: Report, sources: Sequence[Place], target: Place, *, recursive: bool
) -> None:
    base = target.name
    trees = [(os.fsencode(source.path), tree_here(source.path, recursive=recursive)) for source in sources]
    within = await _goes_within(talk, target, len(sources))
    for path, tree in trees:
        _announce(report, tree)
        name = os.path.basename(os.path.abspath(path))
        if not base and not within:
            raise NotAFile("the job's workspace is a directory")
        there = join(base, name) if within else base
        folder = base if within else there.rpartition(b"/")[0]
        if folder:
            await talk.ask(MakeDirectory(folder), Done)
        await Upload(talk, report, tree, path, there).run()


async def _goes_within(talk: Talk, target: Place, sources: int) -> bool:
    """Into the target, as a directory, or under its very name?"""
    if not target.name or target.path.endswith("/"):
        return True
    try:
        entry: Entry = await talk.ask(Look(target.name), Entry)
    except FileMissing:
        return sources > 1
    if entry.kind != "directory" and sources > 1:
        raise NotAFile(f"{shown(target.name)} is no directory, so several things cannot be copied into it")
    return entry.kind == "directory"


async def _down(
    talk: Talk, report: Report, sources: Sequence[Place], target: Place, *, recursive: bool
) -> None:
    folder = Path(target.path)
    within = folder.is_dir() or target.path.endswith("/") or len(sources) > 1
    if within and folder.exists() and not folder.is_dir():
        raise NotAFile(f"{target.path!r} is no directory here, so nothing can be copied into it")
    for source in sources:
        tree = await _tree_of(talk, source, recursive=recursive)
        _announce(report, tree)
        name = source.name.rpartition(b"/")[2] or b"workspace"
        try:
            (folder if within else folder.parent).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise local_error(error) from error
        here = os.fsencode(target.path)
        await Download(
            talk, report, tree, source.name, join(here.rstrip(b"/") or b"/", name) if within else here
        ).run()


async def _tree_of(talk: Talk, source: Place, *, recursive: bool) -> Tree:
    name = source.name
    root: Entry = await talk.ask(Look(name), Entry)
    if root.kind == "file":
        return tree_there(root, ())
    if root.kind != "directory":
        raise NotAFile(f"{shown(name)} is neither a file nor a directory, so it is not copied")
    if not recursive:
        raise NotAFile(f"{shown(name)} is a directory; `qubix cp -r` copies it with all that is in it")
    await talk.send(List(name, deep=True))
    entries: list[Entry] = []
    named = 0
    while isinstance(answer := await talk.answer(Entries, Done), Entries):
        entries += answer.entries
        named += sum(len(entry.name) for entry in answer.entries)
        if len(entries) > MAX_ENTRIES or named > MAX_NAMES_BYTES:
            raise MessageInvalid(f"the provider names more than {MAX_ENTRIES:,} files, or endless names")
    return tree_there(root, entries)


def _announce(report: Report, tree: Tree) -> None:
    report.expects(tree.bytes)
    for name, why in tree.left_out:
        report.leaves_out(name, why)
