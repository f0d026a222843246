"""The real terminal while a program far away has it: raw, and afterwards as it was, whatever happens."""

from __future__ import annotations

import os
import signal
import sys
import termios
import tty
from types import TracebackType
from typing import Any, Final

from protocol.errors import QubixError
from tui.safe import safe_line
from tui.terminal_modes import Modes

INPUT, OUTPUT, ERRORS = 0, 1, 2
_SAVE, _RESTORE, _TOP, _CLEAR, _INVERSE = b"\x1b7", b"\x1b8", b"\x1b[1;1H", b"\x1b[K", b"\x1b[7m"
MAX_NOTE: Final = 200


class Screen:
    """As a context manager: raw within the block if `active`."""

    def __init__(self, *, active: bool) -> None:
        self.active = active
        self.modes = Modes()
        self._at_start = True
        self._before: list[Any] | None = None

    def __enter__(self) -> Screen:
        if self.active:
            self._before = termios.tcgetattr(INPUT)
            tty.setraw(INPUT, termios.TCSADRAIN)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.active and isinstance(error, QubixError) and not self._at_start:
            os.write(ERRORS, b"\r\n")  # the error gets a line of its own
        self._give_back()

    def passes(self, output: bytes) -> None:
        """Take note of what the program says to the terminal."""
        self.modes.feed(output)
        self._at_start = output.endswith(b"\n")

    def _give_back(self) -> None:
        if self._before is None:
            return
        rest = self.modes.rest()
        if rest:
            os.write(OUTPUT, rest)
        termios.tcsetattr(INPUT, termios.TCSADRAIN, self._before)

    def suspend(self) -> None:
        """Stop this process as ctrl-Z does; returns when it is let go on."""
        self._give_back()
        os.kill(0, signal.SIGTSTP)  # the whole group, as the terminal itself would
        if self._before is not None:
            tty.setraw(INPUT, termios.TCSADRAIN)

    def note(self, words: str) -> None:
        """A line of qubix's own among what the program says: at the top of what fills the screen."""
        text = safe_line(words, MAX_NOTE)
        if not self.active:
            sys.stderr.write(f"qubix: {text}\n")
            sys.stderr.flush()
        elif self.modes.full_screen:
            line = _INVERSE + f" qubix: {text} ".encode() + b"\x1b[0m" + _CLEAR
            os.write(ERRORS, _SAVE + _TOP + line + _RESTORE)
        else:
            os.write(ERRORS, f"\r\nqubix: {text}\r\n".encode())
            self._at_start = True
