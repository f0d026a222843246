"""A terminal that a program far away has used: what must be put right, and which keys are not for it."""

from __future__ import annotations

import os
import pty
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import StreamBroken
from tui.screen import Screen
from tui.terminal_modes import Escapes, Modes
from tui.words import with_dashes

REST = b"\x1b[?25h\x1b[0m\x1b>"


def rest(*pieces: bytes) -> bytes:
    modes = Modes()
    for piece in pieces:
        modes.feed(piece)
    return modes.rest()


def test_a_program_that_cleans_up_leaves_nothing_to_do() -> None:
    assert rest(b"plain text", b"\x1b[31mred\x1b[0m") == b""
    assert rest(b"\x1b[?1049h\x1b[?25l\x1b[?1000;1006h", b"bye\x1b[?1006;1000l\x1b[?25h\x1b[?1049l") == b""


def test_what_a_program_leaves_behind_is_put_right() -> None:
    assert rest(b"\x1b[?25l") == REST
    assert rest(b"\x1b[?1000;1006h\x1b[?2004h") == b"\x1b[?1000l\x1b[?1006l\x1b[?2004l" + REST
    assert rest(b"\x1b[?1h\x1b[?1049h") == b"\x1b[?1l\x1b[?1049l" + REST, "the screen last"
    assert rest(b"\x1b[?12345h\x1b[?7h") == b"", "modes that do no harm"


@given(st.lists(st.integers(1, 12)))
def test_orders_are_found_however_they_are_cut(cuts: list[int]) -> None:
    data, pieces = b"a\x1b[?1049hb\x1b[?25l\x1b[?2004hc\x1b[?2004l", []
    for cut in cuts:
        pieces.append(data[:cut])
        data = data[cut:]
    assert rest(*pieces, data) == b"\x1b[?1049l" + REST


def keys(*typed: bytes) -> list[tuple[bytes, bytes]]:
    escapes = Escapes()
    return [pair for data in typed for pair in escapes.feed(data)]


def test_escapes_are_keys_at_the_beginning_of_a_line() -> None:
    assert keys(b"~.") == [(b"", b"."), (b"", b"")]
    assert keys(b"ls\r~?x") == [(b"ls\r", b"?"), (b"x", b"")]
    assert keys(b"\r~", b"\x1a") == [(b"\r", b""), (b"", b"\x1a"), (b"", b"")]


def test_other_tildes_go_to_the_program() -> None:
    assert keys(b"a~.") == [(b"a~.", b"")]
    assert keys(b"~~.") == [(b"~.", b"")]
    assert keys(b"~/bin\r") == [(b"~/bin\r", b"")]
    assert keys(b"~", b"x~.") == [(b"", b""), (b"~x~.", b"")]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("exec 3fa9 ls -l", "exec 3fa9 -- ls -l"),
        ("exec 3fa9 -t python -i", "exec 3fa9 -t -- python -i"),
        ("--data-dir exec exec -T 3fa9 ls --json", "--data-dir exec exec -T 3fa9 -- ls --json"),
        ("exec 3fa9 -- ls -l", "exec 3fa9 -- ls -l"),
        ("exec 3fa9", "exec 3fa9"),
        ("exec --data-dir", "exec --data-dir"),
        ("logs 3fa9 exec -f", "logs 3fa9 exec -f"),
    ],
)
def test_options_behind_the_program_are_its_own(words: str, told: str) -> None:
    assert with_dashes(words.split()) == told.split()


def ended(before: Callable[[Screen], None]) -> bytes:
    """What stands on a terminal when a stream breaks there, in a process of its own."""
    child, far = pty.fork()
    if child == 0:
        try:
            with Screen(active=True) as screen:
                before(screen)
                raise StreamBroken("gone")
        except StreamBroken:
            os.write(2, b"error")
        finally:
            os._exit(0)
    said = b""
    try:
        while piece := os.read(far, 1024):
            said += piece
    except OSError:  # what Linux says where the other end is closed
        pass
    finally:
        os.close(far)
        os.waitpid(child, 0)
    return said


def test_an_error_stands_on_a_line_of_its_own() -> None:
    def prompt(screen: Screen) -> None:
        os.write(1, b"$ ")
        screen.passes(b"$ ")

    assert ended(prompt) == b"$ \r\nerror"
    assert ended(lambda screen: screen.note("lost")) == b"\r\nqubix: lost\r\nerror"
