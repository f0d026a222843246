"""`python -m web` as a process of its own, on a port that the system chose."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Web:
    url: str
    """With a slash at the end."""
    process: subprocess.Popen[str]


@contextmanager
def web_process(mirror: str, *flags: str) -> Iterator[Web]:
    """Answers when the block begins, and has ended after it."""
    command = [sys.executable, "-m", "web", "--mirror", mirror, "--port", "0", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            said = process.stdout.readline()
            assert "http://" in said, "the web did not start"
            yield Web(said.rpartition(" ")[2].strip(), process)
        finally:
            process.terminate()
