"""`qubix tui`, and `qubix` alone on a terminal: the full screen, or line by line where that is better."""

from __future__ import annotations

import argparse
import gc
import os
import sys

from protocol.errors import UsageError
from tui.places import data_dir


def add_arguments(parser: argparse.ArgumentParser) -> None:
    text = "line by line, with numbers to choose from: for screen readers and simple terminals"
    parser.add_argument("--plain", action="store_true", help=text)
    choice = parser.add_mutually_exclusive_group()
    for name in ("light", "dark"):
        choice.add_argument(
            f"--{name}", dest="theme", action="store_const", const=name, default="", help=f"{name} colours"
        )


async def tui(options: argparse.Namespace) -> int:
    """UsageError where there is no terminal."""
    directory = data_dir(options.data_dir)
    if options.plain or os.environ.get("TERM", "dumb") == "dumb":
        from tui.plain import Plain

        os.environ["TERM"] = "dumb"  # the verbs it calls then draw and move nothing
        return await Plain(directory).run()
    if not (sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty()):  # it draws on the last
        raise UsageError("`qubix tui` needs a terminal; with --plain it reads and writes lines")
    from tui.app import QubixApp

    app = QubixApp(directory, theme=options.theme)
    spare_frames()
    await app.run_async()
    return app.return_code if app.return_code is not None else 0


def spare_frames() -> None:
    """Keep the collector from looking everything through in the middle of scrolling, which takes 0.1 s: what
    was imported stays anyway, and the rest is looked at seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 20, 50)
