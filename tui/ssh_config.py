"""What OpenSSH is told of jobs: its entries, host keys and identities; and `qubix ssh-config`.

<data dir>/ssh/config        entries `qubix-NAME` of all jobs that run an SSH server, for ~/.ssh/config
<data dir>/ssh/pinned/ID     the host key that this node has made for a job
<data dir>/ssh/known_hosts   host keys of other SSH servers in jobs, taken at the first connection
<data dir>/ssh/to/ID         all that `qubix ssh ID` reads

Everything here is written anew from what the daemon says; only ~/.ssh/config is somebody else's.
"""

from __future__ import annotations

import argparse
import os
import shlex
import stat
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from protocol.control import LeaseView, PsArgs, PsView
from protocol.control_access import AccessArgs, AccessView
from protocol.errors import FilesInvalid, LeaseUnknown, UsageError
from tui import show
from tui.client import Client, connect
from tui.keys import keys_of
from tui.places import control_socket, data_dir
from tui.processes import module_command
from tui.ssh_keys import Keys, write_private

HOST: Final = "qubix-"
USER: Final = "qubix"
"""Everybody is called so inside the ready-made images (images/base/qubix-base)."""
ENDING: Final = ("stopping", "settling", "done", "failed", "cancelled")
"""Phases in which there is no job to come."""


@dataclass(frozen=True)
class Entry:
    """One job's SSH server."""

    host: str
    access: AccessView
    port: int
    user: str = USER

    @property
    def alias(self) -> str:
        """For the host key: a name may come again with another job."""
        return f"{HOST}{self.access.lease_id}"


@dataclass(frozen=True)
class Places:
    """Files for OpenSSH below the node's directory."""

    root: Path
    """The node's directory."""

    @property
    def folder(self) -> Path:
        return self.root / "ssh"

    def file(self, name: str) -> Path:
        return self.folder / name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--write", action="store_true", help="let ~/.ssh/config include the entries")


async def ssh_config(options: argparse.Namespace) -> int:
    """Write the entries; say, or with --write do, what ~/.ssh/config needs so as to have them."""
    places = Places(data_dir(options.data_dir))
    async with connect(control_socket(places.root)) as client:
        found = await write_entries(client, places, keys_of(options))
    theirs, line = Path.home() / ".ssh" / "config", include_line(places)
    if options.write:
        included = True
        include(theirs, line)
    else:
        included = line in _lines(theirs)
    if options.json:
        hosts = [{"host": one.host, "lease_id": one.access.lease_id} for one in found]
        show.print_json({"hosts": hosts, "config": str(places.file("config")), "included": included})
        return 0
    said = [f"{one.host:30} {one.access.lease_id[:8]}" for one in found] or [
        "No job here runs an SSH server."
    ]
    if not included:
        said += [f"To reach them by name, add this as the first line of {theirs}:", "", f"    {line}", ""]
        said += ["or let `qubix ssh-config --write` do it."]
    sys.stdout.write("\n".join(said) + "\n")
    return 0


async def refresh(client: Client, options: argparse.Namespace) -> None:
    """Write the entries again for a person who has them included; a disk that is full is no hindrance."""
    places = Places(data_dir(options.data_dir))
    if places.file("config").exists():
        with suppress(OSError):
            await write_entries(client, places, keys_of(options))


async def write_entries(client: Client, places: Places, keys: Keys) -> list[Entry]:
    """Those of all jobs that go on, and nothing of others."""
    view: PsView = await client.call("ps", PsArgs())
    found = await _entries(client, view.leases)
    for folder in ("to", "pinned"):
        _forget_others(places.file(folder), {one.lease_id for one in view.leases})
    said = [entry_text(one, places, keys) for one in found]
    places.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(places.file("config"), "# Written by qubix; changes are lost.\n" + "\n".join(said))
    return found


async def _entries(client: Client, leases: Sequence[LeaseView]) -> list[Entry]:
    """Of jobs with an SSH server, the oldest first."""
    ours = [one for one in leases if one.role == "caller" and one.phase not in ENDING]
    found: list[Entry] = []
    for lease in sorted(ours, key=lambda one: one.opened_at_ms):
        try:
            access: AccessView = await client.call("access", AccessArgs(lease.lease_id))
        except (LeaseUnknown, UsageError):  # it has ended meanwhile
            continue
        if port := ssh_port(access):
            found.append(Entry(host_of(lease, found), access, port))
    return found


def _forget_others(folder: Path, leases: set[str]) -> None:
    """What was written for leases that are over."""
    for file in folder.glob("[0-9a-f]*") if folder.is_dir() else ():
        if file.name not in leases:
            file.unlink(missing_ok=True)


def ssh_port(access: AccessView) -> int:
    """Where a job's SSH server listens; 0 if it says nothing of one."""
    return next((one.port for one in access.ports if one.kind == "ssh"), 0)


def host_of(lease: LeaseView, before: Sequence[Entry]) -> str:
    """`qubix-NAME`; whose name is taken has the beginning of its id behind it."""
    plain = f"{HOST}{lease.name}"
    taken = any(one.host == plain for one in before)
    return f"{plain}-{lease.lease_id[:8]}" if taken else plain


def entry_text(entry: Entry, places: Places, keys: Keys) -> str:
    """A `Host` block, whose host key is written down. Of the identities those that the job was begun with; if
    none of them is here, OpenSSH tries its own."""
    access, known, strict = entry.access, places.file("known_hosts"), "accept-new"
    if access.host_key:
        known, strict = places.file("pinned") / access.lease_id, "yes"
        known.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(known, f"{entry.alias} {access.host_key}\n")
    command = module_command("tui.cli", "--data-dir", str(places.root), "connect", "--fdpass")
    words = [*command, access.lease_id, str(entry.port)]
    lines = [
        f"HostName {entry.alias}",
        f"HostKeyAlias {entry.alias}",
        f"User {entry.user}",
        f"ProxyCommand {shlex.join(words).replace('%', '%%')}",
        "ProxyUseFdpass yes",
        "UpdateHostKeys no",
        f"UserKnownHostsFile {quoted(known)}",
        f"StrictHostKeyChecking {strict}",
        # A stranger's machine: with the agent it could be you elsewhere. -A and -X ask for it all the same.
        "ForwardAgent no",
        "ForwardX11 no",
    ]
    ours = keys.among(access.public_keys)
    lines += [f"IdentityFile {quoted(key.identity)}" for key in ours]
    lines += ["IdentitiesOnly yes"] if ours else []
    return "\n    ".join([f"Host {entry.host}", *lines]) + "\n"


def quoted(path: Path) -> str:
    """A path as ssh_config(5) has it. UsageError if it cannot."""
    text = str(path)
    if '"' in text or "\n" in text:
        raise UsageError(f"OpenSSH cannot be told of the path {text!r}; choose another --data-dir")
    return '"' + text.replace("%", "%%") + '"'


# --- ~/.ssh/config ----------------------------------------------------------------------------


def include_line(places: Places) -> str:
    return f"Include {quoted(places.file('config'))}"


def include(theirs: Path, line: str) -> None:
    """Put the line before all others of the file, whatever these are; once. FilesInvalid where it cannot.

    The file is replaced as a whole, or not at all, and keeps its rights. Where it is a link its target is.
    """
    real = theirs.resolve()
    if line in _lines(real):
        return
    try:
        real.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        before, mode = _content(real)
        _replace(real, f"{line}\n".encode() + before, mode)
    except OSError as error:
        raise FilesInvalid(
            f"{theirs} cannot be changed ({error.strerror}); add the line yourself: {line}"
        ) from error


def _replace(file: Path, data: bytes, mode: int) -> None:
    temporary = file.with_name(f".{file.name}.{os.getpid()}.part")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as opened:
            os.fchmod(opened.fileno(), mode)
            opened.write(data)
            opened.flush()
            os.fsync(opened.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _content(file: Path) -> tuple[bytes, int]:
    """Its bytes and its rights; of one that is not there none, and the usual ones."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return b"", 0o600
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(1, "it is no file of yours")
    return file.read_bytes(), stat.S_IMODE(found.st_mode)


def _lines(file: Path) -> list[str]:
    if not file.is_file():  # what else there is may never come to an end
        return []
    with suppress(OSError):
        return [line.strip() for line in file.read_text(errors="surrogateescape").splitlines()]
    return []
