"""Starts this machine's daemon without a word on the terminal, for front ends that draw it themselves.

What `qubix up --detach` does, step by step: the private network where nobody names a chain, the daemon in the
background, play money in its wallet, others' offers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from protocol.control_wallet import WalletArgs, WalletView
from protocol.errors import ChainUnreachable
from tui import up
from tui.client import connect
from tui.places import control_socket
from tui.private_net import PrivateNet
from tui.processes import Child

MONEY_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 0.2

Step = Literal["network", "daemon", "wallet"]
Report = Callable[[Step], None]
"""Hears each step as it begins."""


@dataclass(frozen=True)
class Started:
    identity: str
    child: Child
    net: PrivateNet | None
    """None where a chain is named."""
    wallet: WalletView | None
    """None if the chain did not tell of it in time; the daemon goes on asking."""


async def start_node(directory: Path, report: Report, passphrase: str = "") -> Started:
    """Whatever `up` raises: StartFailed, PassphraseWrong, ConfigInvalid, ... It can be tried again."""
    options = up.plain_options(str(directory), json=True)
    report("network")
    net = await up.join_private(options)
    report("daemon")
    child = await up.start_daemon(options, net, passphrase)
    report("wallet")
    identity = str(child.ready.get("identity", ""))
    return Started(identity, child, net, await _wallet(directory, with_money=net is not None))


async def _wallet(directory: Path, *, with_money: bool) -> WalletView | None:
    """What is in it as soon as the chain says so."""
    view: WalletView | None = None
    async with connect(control_socket(directory)) as client:
        for _ in range(round(MONEY_SECONDS / LOOK_SECONDS)):
            try:
                view = await client.call("wallet", WalletArgs())
            except ChainUnreachable:
                view = None
            if view and (view.balance or not with_money):
                break
            await asyncio.sleep(LOOK_SECONDS)
    return view
