"""Whole daemons: a relay is rented by the control socket, dies, lives again, and is paid for its time."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.daemons import PATIENCE_SECONDS, Daemon, Refused, daemons

PRICE = 3_600_000
pytestmark = pytest.mark.timeout(300)


async def until_used(bob: Daemon) -> dict[str, Any]:
    """What `relay` says once a place is kept there."""
    with trio.fail_after(PATIENCE_SECONDS):
        while True:
            (relay,) = (await bob.call("relay"))["relays"] or [{"used": False}]
            if relay["used"]:
                return dict(relay)
            await trio.sleep(0.2)


async def rent(bob: Daemon) -> tuple[dict[str, Any], dict[str, Any]]:
    """The quote that was shown, and the lease that runs."""
    quote: dict[str, Any] = {}
    async with aclosing(bob.stream("rent_relay", relay="", seconds=3_600)) as events:
        async for event in events:
            quote = event["quote"] or quote
    return quote, event["lease"]


async def until_settled(bob: Daemon, lease_id: str) -> dict[str, Any]:
    await bob.call("stop", lease=lease_id)
    with trio.fail_after(PATIENCE_SECONDS):
        return dict((await bob.call("wait", lease=lease_id))["lease"])


async def test_a_relay_is_rented_dies_lives_again_and_is_paid(tmp_path: Path) -> None:
    async with daemons(tmp_path) as town:
        rita = await town.start("rita", "--relay", "--relay-price", str(PRICE))
        bob = await town.start("bob", "--use-relay", rita.address, "--interval", "1")
        relay = await until_used(bob)
        assert relay["price_qu_per_hour"] == PRICE and relay["gone_bytes"] == 0
        assert relay["free_bytes"] > 0 and relay["bytes_per_second"] > 0 and not relay["rented"]
        quote, lease = await rent(bob)
        assert (quote["price_qu_per_hour"], quote["deposit"]) == (PRICE, PRICE)
        assert quote["max_loss_qu"] == lease["max_loss_qu"] and lease["phase"] == "running"
        relay = await until_used(bob)
        assert relay["rented"] == lease["lease_id"] and relay["bytes_per_second"] == 0
        assert (await rita.call("relay"))["own"]["renters"] == 1
        with pytest.raises(Refused, match="rented already"):
            await rent(bob)
        await trio.sleep(2)
        await rita.kill()
        await rita.start()
        with trio.fail_after(PATIENCE_SECONDS):
            while (await rita.call("relay"))["own"]["renters"] != 1:
                await trio.sleep(0.1)
        ended = await until_settled(bob, lease["lease_id"])
        assert (ended["phase"], ended["reason"]) == ("cancelled", "lease.stopped_by_caller")
        assert ended["paid"] + ended["refunded"] == PRICE and ended["paid"] > 0
        assert not (await until_used(bob))["rented"]
        for who, code in ((bob.address, "relay.not_for_rent"), ("", "usage.error")):
            with pytest.raises(Refused) as refused:
                await rita.call("rent_relay", relay=who, seconds=60)
            assert refused.value.code == code
