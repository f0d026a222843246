"""What of images is on this machine, for its offer: asked of the runner now and then and after each fetch."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import trio

from protocol.errors import QubixError
from protocol.images import LocalImage
from protocol.lease_state import TERMINAL, Lease
from protocol.units import LeaseId
from qubixd.runner import Runner, Stock

log = logging.getLogger("qubix.stock")

LOOK_SECONDS: Final = 60.0
"""People fetch and delete images past us."""
ANSWER_SECONDS: Final = 5.0
"""How long somebody who hires waits to hear of an image: it only makes an estimate better."""


class StockWatch:
    """The last known stock; `on_change` is called when it has become another."""

    def __init__(self, runner: Runner) -> None:
        self.stock = Stock()
        self.on_change: list[Callable[[], None]] = []
        self._runner = runner
        self._due = trio.Event()
        self._fetched: set[LeaseId] = set()

    def lease_changed(self, lease: Lease) -> None:
        """Ask again soon when a lease's image has come."""
        if lease.phase in TERMINAL:
            self._fetched.discard(lease.lease_id)
        elif lease.has_image and lease.lease_id not in self._fetched:
            self._fetched.add(lease.lease_id)
            self._due.set()

    async def run(self) -> None:
        while True:
            self._due = trio.Event()
            await self._ask()
            with trio.move_on_after(LOOK_SECONDS):
                await self._due.wait()

    async def _ask(self) -> None:
        try:
            stock = await self._runner.stock()
        except QubixError as error:
            log.debug("the stock of images stays as it was known: %s", error)
            return
        if stock != self.stock:
            self.stock = stock
            for changed in self.on_change:
                changed()


async def image_of(runner: Runner, name: str) -> LocalImage | None:
    """An image as this machine's own engine has it; None if it has not, or does not answer soon."""
    with trio.move_on_after(ANSWER_SECONDS):
        try:
            return await runner.image(name)
        except QubixError as error:
            log.debug("what %s is made of is not known here: %s", name, error)
    return None
