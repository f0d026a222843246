"""What is on a provider's machine is known to those who look for one, also after a job has fetched more."""

from __future__ import annotations

from pathlib import Path

import trio
import trio.testing

from protocol.images import image_tag
from protocol.lease_state import Phase
from protocol.messages import Offer
from qubixd.runner import Stock
from tests.support.rental import Rental, rental


async def test_an_offer_tells_of_images_and_of_those_a_job_brought(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with rental(tmp_path) as one:
        assert (offered(one).layers, offered(one).pull_mib_per_s) == ((), 0)
        fetched = Stock((image_tag("fetched"), b"a layer."), 12)
        one.alice.engine.stock_now = fetched
        await one.rent()
        await one.until(one.alice, Phase.RUNNING)
        with trio.fail_after(5):  # so soon nobody looks without a reason
            while (offered(one).layers, offered(one).pull_mib_per_s) != (fetched.tags, 12):
                await trio.sleep(0.1)
        await one.ended()


def offered(one: Rental) -> Offer:
    """Alice's offer as Bob knows it."""
    entry = one.bob.up.offers.book.get(one.alice.peer, one.bob.up.parts.now_ms())
    assert entry is not None
    return entry.offer
