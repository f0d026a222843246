"""A provider to practise with: a second daemon on this machine that offers it on the private network.

A newcomer alone on that network would look at an empty market.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from protocol.control import ShutdownArgs
from protocol.control_market import MarketArgs, MarketView
from protocol.errors import ConfigInvalid, DaemonUnreachable
from tui import private_net, up
from tui.client import connect
from tui.places import control_socket

FOLDER: Final = "practice"
NAME: Final = "practice"
OFFERED_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 0.25


def place() -> Path:
    """Its data directory."""
    return private_net.net_home() / FOLDER


async def start_provider(directory: Path) -> None:
    """Start it, if it does not run, and wait until the daemon of `directory` has its offer.

    StartFailed, ConfigInvalid where a chain is named: there real people offer.
    """
    if not private_net.no_chain_named(None):
        raise ConfigInvalid("a practice provider is for the private network; your settings name a chain")
    if not await _runs():
        options = up.plain_options(str(place()), json=True)
        options.provider, options.name = True, NAME
        await up.start_daemon(options, await up.join_private(options))
    await _until_offered(directory)


async def end_provider() -> None:
    """End it, if it runs."""
    try:
        async with connect(control_socket(place())) as client:
            await client.call("shutdown", ShutdownArgs())
    except DaemonUnreachable:
        return


async def _runs() -> bool:
    try:
        async with connect(control_socket(place())):
            return True
    except DaemonUnreachable:
        return False


async def _until_offered(directory: Path) -> None:
    """Offers travel within moments; what takes longer comes while somebody looks at the market."""
    async with connect(control_socket(directory)) as client:
        for _ in range(round(OFFERED_SECONDS / LOOK_SECONDS)):
            view: MarketView = await client.call("market", MarketArgs(limit=1))
            if view.offers:
                return
            await asyncio.sleep(LOOK_SECONDS)
