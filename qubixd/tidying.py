"""Clears away images that jobs brought to this machine, from time to time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio

from protocol.errors import EngineUnreachable
from protocol.units import UnixMs
from qubixd.runner.docker import DockerRunner
from qubixd.runner.image_tidy import Policy

log = logging.getLogger("qubix.tidying")

EVERY_SECONDS: Final = 600


@dataclass(frozen=True)
class Tidying:
    """A service of a provider with a Docker engine."""

    runner: DockerRunner
    policy: Policy
    now_ms: Callable[[], UnixMs]

    async def run(self) -> None:
        while True:
            try:
                await self.runner.tidy_images(self.policy, self.now_ms())
            except EngineUnreachable as error:  # the provider's own watch tells of it
                log.debug("images are not tidied: %s", error)
            await trio.sleep(EVERY_SECONDS)
