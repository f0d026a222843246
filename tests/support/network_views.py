"""Answers of the verbs `network` and `preview` for tests of their screens, every field overridable."""

from __future__ import annotations

from typing import Any

from protocol.control_network import (
    ChainView,
    DirectoryUseView,
    GossipView,
    NetworkView,
    PeerView,
    RelayUseView,
)
from protocol.control_schedule import PreviewView, ScheduleView, SpanView
from tests.support.views import HOSTILE

NOW_MS = 1_788_000_000_000


def peer(place: int = 0, **changes: Any) -> PeerView:
    body: dict[str, Any] = {
        "peer_id": f"12D3KooWPeer{place:08}",
        "name": f"shop-{place}",
        "way": "wire",
        "address": f"198.51.100.{place % 250}:4001",
        "relay": "",
        "roles": ["provider"],
        "rtt_ms": 12.5 + place,
    }
    return PeerView(**(body | changes))


BUSY = peer(
    1,
    name="alice",
    way="direct",
    roles=["lease", "provider"],
    rtt_ms=8.4,
    sent_per_second=14_000,
    received_per_second=3_400_000,
    sent_bytes=1_000_000,
    received_bytes=900_000_000,
    streams=3,
)
RELAYED = peer(2, name="", way="relayed", address="", relay="12D3KooWRelay0001", roles=[], rtt_ms=None)
CHAIN = ChainView(
    name="the Qubic node 127.0.0.1:21841",
    network="devnet",
    contract_index=28,
    state="ok",
    sentence="",
    tick=12_345,
    epoch=180,
    ticks_of_epoch=2_345,
    tick_ms=500,
    age_ms=300,
    differences=0,
)
GOSSIP = GossipView(
    topics=["/qubix/offers/2/CPU", "/qubix/liveness/1"],
    received=4_321,
    ignored=321,
    rejected=7,
    peers_dropped=1,
    offers=127,
    settled=True,
    served=True,
    dropped={"offer.forged": 5, "offer.stale": 2, "offer.too_often": 0},
)


def network(**changes: Any) -> NetworkView:
    body: dict[str, Any] = {
        "at_ms": NOW_MS,
        "peer_id": "12D3KooWMyself0001",
        "addresses": ["/ip4/203.0.113.7/tcp/4001/p2p/12D3KooWMyself0001"],
        "outside_ips": ["203.0.113.7"],
        "reachable": True,
        "total": 3,
        "relayed": 1,
        "peers": [BUSY, peer(), RELAYED],
        "gossip": GOSSIP,
        "chain": CHAIN,
        "directories": [
            DirectoryUseView("12D3KooWDirect0001", True, True, True, 127, 0),
            DirectoryUseView("12D3KooWDirect0002", False, True, False, 90, 37),
        ],
        "serving": None,
        "relays": [RelayUseView("12D3KooWRelay0001", 1 << 30, 1 << 28, 0, 36_000)],
        "own_relay": None,
    }
    return NetworkView(**(body | changes))


HOSTILE_NETWORK = network(
    peers=[peer(name=HOSTILE, way=HOSTILE, address=HOSTILE, roles=[HOSTILE], peer_id=HOSTILE)],
    addresses=[HOSTILE],
    outside_ips=[HOSTILE],
    relays=[],
    directories=[],
)


# --- opening hours ------------------------------------------------------------------------------

DAY = 1_440
NIGHTS = ScheduleView(
    text="zone Europe/Berlin; mon-fri 18:00-08:00 price 400000; sat,sun price 300000; 12:00-13:00 closed",
    zone="Europe/Berlin",
    open=True,
    price_qu_per_hour=360_000,
    until_ms=NOW_MS + 3_600_000,
    until="Sat 12:00 (Europe/Berlin)",
    then="closed",
    closes_at_ms=NOW_MS + 3_600_000,
    spans=[
        SpanView(day * DAY + begin, day * DAY + end, open, price)
        for day in range(7)
        for begin, end, open, price in (
            (0, 480, True, 300_000 if day > 4 else 400_000),
            (480, 720, True, 300_000 if day > 4 else 360_000),
            (720, 780, False, 360_000),
            (780, 1_080, True, 300_000 if day > 4 else 360_000),
            (1_080, 1_440, True, 300_000 if day > 4 else 400_000),
        )
    ],
    usual_price_qu_per_hour=360_000,
)


def preview(**changes: Any) -> PreviewView:
    body: dict[str, Any] = {
        "usual_price_qu_per_hour": 360_000,
        "schedule": NIGHTS,
        "week_qu": 21_600_000,
        "week_now_qu": 20_000_000,
        "used_hours": 61.5,
        "lost_hours": 2.4,
        "open_hours": 161.0,
        "weeks": 3.5,
    }
    return PreviewView(**(body | changes))
