"""What `qubix cp` tells while it copies, and at its end."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from protocol.errors import QubixError
from protocol.file_frames import shown
from tui import show
from tui.safe import safe_line

NAME_CHARS = 40


class Report:
    """As a context manager: a bar on standard error within the block, if that is a terminal."""

    def __init__(self, *, as_json: bool) -> None:
        self._json = as_json
        self.copied = self.unchanged = self.moved_bytes = 0
        self.failed: list[tuple[bytes, QubixError]] = []
        self.left_out: list[tuple[bytes, str]] = []
        self._began = time.monotonic()
        self._console = show.console(sys.stderr)
        self._bar = self._task = None
        if sys.stderr.isatty() and not as_json:
            self._bar = _bar(self._console)
            self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> Report:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def expects(self, count: int) -> None:
        """So many bytes more."""
        if self._bar and self._task is not None:
            self._bar.update(self._task, total=(self._bar.tasks[0].total or 0) + count)

    def begins(self, name: bytes) -> None:
        if self._bar and self._task is not None:
            self._bar.update(self._task, description=safe_line(name.decode("utf-8", "replace"), NAME_CHARS))

    def moved(self, count: int, *, here_already: bool = False) -> None:
        """Bytes of the file under way; those that need not travel again count for the bar alone."""
        if not here_already:
            self.moved_bytes += count
        if self._bar and self._task is not None:
            self._bar.advance(self._task, count)

    def done(self, name: bytes, size: int) -> None:
        self.copied += 1
        self._say_json({"file": _text(name), "bytes": size})

    def same(self, name: bytes, size: int) -> None:
        """It is there already."""
        self.unchanged += 1
        self.moved(size, here_already=True)
        self._say_json({"unchanged": _text(name), "bytes": size})

    def leaves_out(self, name: bytes, why: str) -> None:
        self.left_out.append((name, why))
        self._say_json({"left_out": _text(name), "why": why})
        self._say(Text(f"{shown(name)} is left out: {why}", "yellow"))

    def fails(self, name: bytes, error: QubixError) -> None:
        self.failed.append((name, error))
        if self._json:
            self._say_json({"failed": _text(name), "code": error.code, "message": str(error)})
        else:
            self._say(Text(f"{shown(name)}: {safe_line(str(error))} [{safe_line(error.code)}]", show.BAD))

    def interrupted(self) -> None:
        self._say(Text("Interrupted. The same command again goes on from here."))

    def finish(self) -> int:
        """The last word, and the exit code: that of the first failure."""
        seconds = time.monotonic() - self._began
        if self._json:
            show.print_json(
                {
                    "copied": self.copied,
                    "unchanged": self.unchanged,
                    "left_out": len(self.left_out),
                    "failed": len(self.failed),
                    "bytes": self.moved_bytes,
                    "seconds": round(seconds, 3),
                }
            )
        else:
            show.console(sys.stdout).print(Text(self._words(seconds)), soft_wrap=True)
        return self.failed[0][1].exit_code if self.failed else 0

    def _words(self, seconds: float) -> str:
        rate = (
            f", {show.bytes_words(self.moved_bytes / seconds)}/s" if self.moved_bytes and seconds > 0 else ""
        )
        words = f"Copied {_files(self.copied)}, {show.bytes_words(self.moved_bytes)} in {seconds:.1f} s{rate}"
        words += f"; {_files(self.unchanged)} unchanged" if self.unchanged else ""
        return words + (f"; {_files(len(self.failed))} failed" if self.failed else "") + "."

    def _say(self, line: Text) -> None:
        if not self._json:
            (self._bar.console if self._bar else self._console).print(line, soft_wrap=True)

    def _say_json(self, value: dict[str, object]) -> None:
        if self._json:
            show.print_json(value)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


def _files(count: int) -> str:
    return f"{count:,} file{'s' * (count != 1)}"


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")
