"""What the command line knows of one word."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

Handler = Callable[[argparse.Namespace], Coroutine[Any, Any, int]]
Arguments = Callable[[argparse.ArgumentParser], None]


@dataclass(frozen=True)
class Verb:
    """One word of the command line. `examples` go below its --help."""

    help: str
    examples: tuple[str, ...]
    arguments: Arguments
    handler: Handler
    more: str = ""
    """What else goes there."""
