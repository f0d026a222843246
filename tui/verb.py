"""What the command line knows of one word."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from importlib import import_module
from typing import Any

Handler = Callable[[argparse.Namespace], Coroutine[Any, Any, int]]
Arguments = Callable[[argparse.ArgumentParser], None]


@dataclass(frozen=True)
class Verb:
    """One word of the command line. `examples` go below its --help."""

    help: str
    examples: tuple[str, ...]
    arguments: str
    """Of what adds them to a parser: "module:function"; empty for a word that takes none of its own."""
    handler: str
    """Of what does it, likewise."""
    more: str | Callable[[], str] = ""
    """What else goes below the examples."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        if self.arguments:
            arguments: Arguments = _named(self.arguments)
            arguments(parser)

    def load(self) -> Handler:
        handler: Handler = _named(self.handler)
        return handler

    def below(self) -> str:
        """What stands below the arguments in its --help."""
        more = self.more if isinstance(self.more, str) else self.more()
        return "examples:\n" + "\n".join(f"  {line}" for line in self.examples) + more


def _named(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
