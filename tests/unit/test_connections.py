"""Connections outlive no lease: who was a guest once may not keep this daemon busy for ever."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from protocol.errors import StreamBroken
from protocol.units import PeerKey
from qubixd.connections import LET_GO_SECONDS, Connections
from tests.support.link_pairs import CALLER, link_pair


async def test_whose_lease_is_over_loses_its_carriers_after_a_while(autojump_clock: object) -> None:
    guests: set[PeerKey] = {CALLER}
    nothing: Any = None  # of the other parts none is asked
    async with link_pair() as pair, trio.open_nursery() as nursery:
        made = Connections(nothing, pair.provider, None, nothing, lambda lease: (), guests.__contains__)
        nursery.start_soon(made._let_go)
        ours, theirs = await pair.open()
        await trio.sleep(5 * LET_GO_SECONDS)
        assert pair.provider.peers() == (CALLER,)
        guests.clear()
        await trio.sleep(LET_GO_SECONDS * 0.9)
        assert theirs.failure is None, "its last words may be on their way"
        pair.there.open = False
        await trio.sleep(LET_GO_SECONDS * 1.2)
        assert pair.provider.peers() == ()
        with pytest.raises(StreamBroken, match="no lease any more"):
            await theirs.receive_some()
        ours.abort("a.code", "enough")
        nursery.cancel_scope.cancel()
