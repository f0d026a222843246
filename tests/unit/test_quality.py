"""How good a way is for playing: the middle and the spread of pings, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio.testing

from protocol.paths import PathKind
from qubixd.quality import FEEL, PICTURE_MS, PINGS, Quality, measure, quality_of, words
from tests.support.crowd import peer
from tests.support.memory_wire import MemoryNet


def test_one_slow_ping_in_ten_says_nothing_and_two_do() -> None:
    assert quality_of([10.0] * 14 + [200.0], PathKind.WIRE) == Quality(PathKind.WIRE, 10, 0)
    assert quality_of([10.0] * 13 + [200.0, 201.0], PathKind.WIRE).jitter_ms == 190
    assert quality_of([5.0], PathKind.WIRE) == Quality(PathKind.WIRE, 5, 0)


@pytest.mark.parametrize(
    ("rtt", "jitter", "kind", "said"),
    [
        (
            0.4,
            0.1,
            PathKind.WIRE,
            "less than 1 ms there and back, varying by less than 1 ms: as if",
        ),
        (
            35.0,
            3.0,
            PathKind.WIRE,
            "35 ms there and back, varying by 3 ms: good for all but",
        ),
        (70.0, 3.0, PathKind.WIRE, "fine for slow games"),
        (180.0, 3.0, PathKind.WIRE, "only for games that wait for you"),
        (15.0, 30.0, PathKind.WIRE, "so that pictures will stutter"),
        (15.0, 3.0, PathKind.RELAYED, "a relay carries it"),
    ],
)
def test_what_it_means_for_playing(rtt: float, jitter: float, kind: PathKind, said: str) -> None:
    assert said in words(Quality(kind, rtt, jitter))
    assert ("relay" in words(Quality(kind, rtt, jitter))) == (kind is PathKind.RELAYED)


async def test_several_pings_over_the_way_there_is(autojump_clock: trio.testing.MockClock) -> None:
    net = MemoryNet(delay_seconds=0.01)
    ours, theirs = peer("a"), peer("b")
    async with net.wire(ours) as wire, net.wire(theirs):
        began = trio.current_time()
        assert await measure(wire, theirs) == Quality(PathKind.WIRE, 20, 0)
        assert trio.current_time() - began >= PINGS * 0.02


def test_the_page_has_the_same_numbers() -> None:
    page = " ".join((Path(__file__).parents[2] / "docs" / "connect.md").read_text().split())
    assert PINGS == 15 and "pings the provider fifteen times" in page
    assert all(f"up to {most:.0f} ms" in page for most, _ in FEEL)
    assert f"the {PICTURE_MS:.0f} ms that a picture lasts" in page
