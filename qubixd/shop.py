"""What a provider decides while its node runs, and what the ledger remembers of it: price and pause."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import ledger.settings
from ledger.store import Store
from protocol.units import Qu
from qubixd.config import Config

PRICE: Final = "provider price"
"""The price a person set, and behind a blank the configured one that it replaced ("-" for none)."""
PAUSED: Final = "provider paused"


@dataclass
class Shop:
    """Mutable, because a person may change it while the node runs."""

    price_qu_per_hour: Qu
    open_for_business: bool
    """A person wants jobs to come; whether they can is another matter."""


async def reopen(store: Store, config: Config, suggested: Qu) -> Shop:
    """The shop as it was left. A price that a person set while the node ran holds until the settings name
    another one than they did then."""
    configured = suggested if config.price is None else Qu(config.price)
    kept = await ledger.settings.get(store, PRICE)
    price, _, replaced = (kept or b"").decode().partition(" ")
    paused = bool(await ledger.settings.get(store, PAUSED))
    still = price and replaced == _setting(config)
    return Shop(Qu(int(price)) if still else configured, config.provider and not paused)


async def set_price(store: Store, config: Config, shop: Shop, price: Qu) -> None:
    await ledger.settings.put(store, PRICE, f"{price} {_setting(config)}".encode())
    shop.price_qu_per_hour = price


async def set_open(store: Store, shop: Shop, open_for_business: bool) -> None:
    await ledger.settings.put(store, PAUSED, b"" if open_for_business else b"yes")
    shop.open_for_business = open_for_business


def _setting(config: Config) -> str:
    return "-" if config.price is None else str(config.price)
