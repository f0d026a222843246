"""The shell words at the gate under this machine's /bin/sh: secrets arrive whole, broken words count not."""

from __future__ import annotations

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from qubixd.runner.gate import GATE, gate_command, gate_seen, gate_words

NAMES = st.from_regex(r"Q[A-Z0-9_]{0,8}|[sln]|x", fullmatch=True)
VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=80)
SECRETS = st.dictionaries(NAMES, VALUES, min_size=1, max_size=4)


def pass_gate(said: bytes, script: str, env: dict[str, str] | None = None) -> bytes:
    """What the job printed once all of `said` was in its pipe."""
    with TemporaryDirectory() as workspace:
        done = subprocess.run(
            gate_command(script),
            input=said,
            capture_output=True,
            check=True,
            timeout=60,
            cwd=workspace,
            env=env,
        )
        assert gate_seen(Path(workspace)) is None
    return done.stdout


def shown(names: object) -> str:
    assert isinstance(names, dict)
    return "; ".join(f'printf "%s\\0" "${name}"' for name in names)


def printed(secrets: dict[str, str]) -> bytes:
    return b"".join(value.encode() + b"\0" for value in secrets.values())


@settings(max_examples=25, deadline=None)
@given(SECRETS)
def test_the_job_has_exactly_what_was_said(secrets: dict[str, str]) -> None:
    assert pass_gate(gate_words(secrets) + b"left unread", shown(secrets)) == printed(secrets)


@settings(max_examples=25, deadline=None)
@given(SECRETS, SECRETS, st.data())
def test_words_that_broke_off_do_not_count(
    broken: dict[str, str], whole: dict[str, str], data: st.DataObject
) -> None:
    words = gate_words(broken)
    cut = data.draw(st.integers(0, len(words) - 3))  # with its last line only the line feed may be missing
    assert pass_gate(words[:cut] + gate_words(whole), shown(whole)) == printed(whole)


def test_words_whose_last_line_feed_is_missing_are_whole() -> None:
    words = gate_words({"TOKEN": "first"})[:-1] + gate_words({"TOKEN": "second"})
    assert pass_gate(words, 'printf %s "$TOKEN"') == b"first"


def test_the_job_s_own_variables_stay() -> None:
    env = {"s": "1", "l": "2", "n": "3", "PATH": "/usr/bin:/bin"}
    assert pass_gate(gate_words({}), 'printf %s "$s$l$n"', env) == b"123"


def test_a_gate_whose_pipe_ends_lets_nobody_through(tmp_path: Path) -> None:
    done = subprocess.run(
        gate_command("echo through"),
        input=b"\n<\n",
        capture_output=True,
        check=False,
        timeout=60,
        cwd=tmp_path,
    )
    assert done.returncode != 0 and done.stdout == b""
    assert gate_seen(tmp_path) is not None


def test_a_link_is_no_gate(tmp_path: Path) -> None:
    (tmp_path / GATE).symlink_to("/etc/passwd")
    assert gate_seen(tmp_path) is None
