"""How many may follow the same lease at one time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from protocol.errors import Refused
from protocol.units import LeaseId


class Seats:
    """So many for each lease; `taken` says how many of them are."""

    def __init__(self, most: int, what: str) -> None:
        """`what` they are for: "readers follow the log"."""
        self.most, self._what = most, what
        self.taken: Counter[LeaseId] = Counter()

    @contextmanager
    def one(self, lease_id: LeaseId) -> Iterator[None]:
        """Hold one for the block. Refused if none is free."""
        if self.taken[lease_id] >= self.most:
            raise Refused(f"{self.most} {self._what} of this lease already")
        self.taken[lease_id] += 1
        try:
            yield
        finally:
            self.taken[lease_id] -= 1
            if not self.taken[lease_id]:
                del self.taken[lease_id]
