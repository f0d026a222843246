"""Who advertises which GPU, so that one card under two names is seen."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Final

TOLD: Final = 16
"""Of those who share a card, so many are told."""


class GpuHolders:
    """GPU -> providers, both by the first 8 bytes of their digest or key. Most cards have one holder, so
    that one is kept without a set around it."""

    def __init__(self) -> None:
        self._holders: dict[int, int | set[int]] = {}

    def add(self, gpus: Iterable[int], provider: int) -> None:
        for gpu in gpus:
            held = self._holders.setdefault(gpu, provider)
            if isinstance(held, set):
                held.add(provider)
            elif held != provider:
                self._holders[gpu] = {held, provider}

    def remove(self, gpus: Iterable[int], provider: int) -> None:
        for gpu in gpus:
            held = self._holders.get(gpu)
            if held == provider:
                del self._holders[gpu]
            elif isinstance(held, set):
                held.discard(provider)
                if len(held) == 1:
                    self._holders[gpu] = held.pop()

    def others(self, gpus: Iterable[int], provider: int) -> set[int]:
        """Some of those who advertise one of these cards as well."""
        found: set[int] = set()
        for gpu in gpus:
            held = self._holders.get(gpu)
            if isinstance(held, set):
                found.update(islice((other for other in held if other != provider), TOLD))
        return set(islice(sorted(found), TOLD))
