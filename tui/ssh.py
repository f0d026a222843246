"""`qubix ssh`: the real ssh, led into a job. It becomes that program and takes all its flags."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import Final

from protocol.control_access import AccessArgs, AccessView
from protocol.errors import UsageError
from tui.client import connect
from tui.keys import keys_of
from tui.places import control_socket, data_dir
from tui.show import short_id
from tui.ssh_config import HOST, USER, Entry, Places, entry_text, quoted, refresh, ssh_port
from tui.ssh_keys import write_private

RUNS: Final = ("running", "paused")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, default=0, help="where its SSH server listens inside the job")
    parser.add_argument("--user", default=USER, help="whom to be inside the job")
    parser.add_argument("lease", metavar="LEASE", help="a lease, or the start of its id")
    parser.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="...", help="flags of ssh, and a command to run there"
    )


async def ssh(options: argparse.Namespace) -> int:
    program = shutil.which("ssh")
    if program is None:
        raise UsageError("OpenSSH's `ssh` is not on this machine; install it, or use `qubix attach`")
    places = Places(data_dir(options.data_dir))
    async with connect(control_socket(places.root)) as client:
        access: AccessView = await client.call("access", AccessArgs(options.lease))
        entry = entry_for(access, options)
        await refresh(client, options)
    config = write_config(places, entry, entry_text(entry, places, keys_of(options)))
    words = options.words[1:] if options.words[:1] == ["--"] else options.words
    sys.stdout.flush()
    os.execv(program, ["ssh", "-F", str(config), entry.host, *words])


def entry_for(access: AccessView, options: argparse.Namespace) -> Entry:
    """UsageError where the job has no SSH server, or does not run."""
    short = short_id(access.lease_id)
    port = options.port or ssh_port(access)
    if not port:
        raise UsageError(
            f"this job says of no SSH server; `qubix attach {short}` opens a shell in it without one, "
            "and --port says where one listens"
        )
    if not 1 <= port <= 65_535:
        raise UsageError(f"{port} is no port; ports are 1 to 65535")
    if access.phase not in RUNS:
        raise UsageError(f"the job does not run yet; `qubix logs -f {short}` shows when it does")
    return Entry(f"{HOST}{access.name}", access, port, options.user)


def write_config(places: Places, entry: Entry, text: str) -> Path:
    folder = places.file("to")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = folder / entry.access.lease_id
    # What was said first holds: after a job's own entry come the person's own settings.
    own = quoted(Path.home() / ".ssh" / "config")
    write_private(file, f"{text}Match all\n    Include {own}\n    Include /etc/ssh/ssh_config\n")
    return file
