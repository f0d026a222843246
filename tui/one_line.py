"""A job said in one line: `qubix run --gpu RTX4090 --hours 2 -- python train.py`, without a job file."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from protocol.errors import UsageError
from protocol.job_draft import Draft, command_line, files_named, job_yaml
from tui.import_file import job_name

WORDS: Final = (
    ("--gpu", "GPU", "model[:memory][:count], e.g. RTX4090:24GB:2; without it there is none"),
    ("--hours", "N", "the longest it may run (1)"),
    ("--image", "IMAGE", "the container image"),
    ("--template", "TEMPLATE", "a ready-made environment, as `qubix images` lists them"),
    ("--cpus", "N", "processor cores (1)"),
    ("--memory", "SIZE", "main memory, e.g. 16GB (1GB)"),
    ("--disk", "SIZE", "disk, e.g. 50GB (1GB)"),
    ("--budget", "QU", "the most it may cost in all"),
    ("--idle-stop", "TIME", "end it when it has done nothing for so long, e.g. 30m"),
    ("--setup", "LINE", "what the shell runs first, e.g. 'pip install -r requirements.txt'"),
    ("--name", "NAME", "what the job is called"),
)
LISTS: Final = (
    ("--env", "envs", "NAME=VALUE", "a variable of the job; may be given again"),
    ("--secret", "secrets", "NAME", "one whose value comes from your environment and stays sealed"),
    ("--file", "files", "HERE[:THERE]", "a file or folder to bring; those named in the command come along"),
    ("--port", "ports", "PORT", "what it listens on, e.g. 8888 or 47998/udp"),
    ("--outputs", "outputs", "PATTERN", "what to bring back (everything that is new)"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    job = parser.add_argument_group("a job without a file: these, then -- and the command")
    for flag, metavar, text in WORDS:
        job.add_argument(flag, default="", metavar=metavar, help=text)
    for flag, name, metavar, text in LISTS:
        job.add_argument(flag, dest=name, action="append", default=[], metavar=metavar, help=text)
    job.add_argument("--internet", action="store_true", help="let it reach the Internet")
    job.add_argument("--dry-run", action="store_true", help="show the job file and hire nobody")


def given(options: argparse.Namespace) -> list[str]:
    """The flags of a one-line job that were given, and `--` for a command."""
    flags = [flag for flag, _, _ in WORDS if getattr(options, _name(flag))]
    flags += [flag for flag, name, _, _ in LISTS if getattr(options, name)]
    flags += [flag for flag in ("--internet", "--dry-run") if getattr(options, _name(flag))]
    return [*flags, *(["--"] if options.command_words else [])]


def draft_of(options: argparse.Namespace, folder: Path) -> Draft:
    """The job that these words say, run in `folder`. UsageError if they say none."""
    command = list(options.command_words)
    if not command and not options.template:
        raise UsageError("say what to run: `qubix run job.yaml`, or `qubix run --gpu RTX4090 -- COMMAND`")
    words = [word.rstrip("/") for word in _words(command)]
    brought = files_named(words, lambda word: (folder / word).exists())
    known = {entry.partition(":")[0].rstrip("/").removeprefix("./") for entry in options.files}
    return Draft(
        name=options.name or _usual_name(command) or options.template,
        gpu=options.gpu,
        cpus=options.cpus,
        memory=options.memory,
        disk=options.disk,
        image=options.image,
        template=options.template,
        setup=options.setup,
        command=command_line(command) if command else "",
        hours=options.hours,
        budget=options.budget,
        idle_stop=options.idle_stop,
        internet=options.internet,
        ports=tuple(options.ports),
        envs=tuple(options.envs),
        secrets=tuple(options.secrets),
        files=(*options.files, *(one for one in brought if one not in known)),
        outputs=tuple(options.outputs),
    )


def job_file(options: argparse.Namespace, folder: Path) -> str:
    """The job file of these words. JobFileInvalid names the flag's field, UsageError what is missing."""
    return job_yaml(draft_of(options, folder))


def _words(command: Sequence[str]) -> list[str]:
    """A single word is a line for a shell, with words of its own."""
    if len(command) == 1:
        with suppress(ValueError):
            return shlex.split(command[0])
    return list(command)


def _usual_name(command: Sequence[str]) -> str:
    """After the script it runs, else after the program: "train" for `python src/train.py --fast`."""
    words = _words(command)
    scripts = [word for word in words if word.endswith((".py", ".sh", ".ipynb", ".js", ".jl", ".R"))]
    return job_name(Path((scripts or words or [""])[0]).stem)


def _name(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")
