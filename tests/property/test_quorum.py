"""Two honest nodes and one that says anything: what counts as agreed is what an honest node said."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from escrow_bridge.node_peer import Peer, Timing
from escrow_bridge.node_quorum import MAX_LAG_TICKS, NEEDED, Answer, Round
from protocol.units import Tick

TRUTH = "truth"
NOW = 1_000
PEERS = [Peer(("127.0.0.1", port), Timing(), lambda: None) for port in (1, 2, 3)]
LIES = st.builds(
    lambda claim, tick: Answer(claim, claim, claim, tick),
    st.sampled_from([TRUTH, "lie", "other lie"]),
    st.none() | st.integers(0, (1 << 32) - 1).map(Tick),
)


@given(
    lags=st.tuples(st.integers(0, MAX_LAG_TICKS), st.integers(0, MAX_LAG_TICKS)),
    lie=LIES,
    order=st.permutations(range(3)),
    newest=st.integers(0, NOW),
)
def test_one_liar_changes_nothing(
    lags: tuple[int, int], lie: Answer[str], order: list[int], newest: int
) -> None:
    honest = [Answer(TRUTH, TRUTH, TRUTH, Tick(NOW - lag)) for lag in lags]
    answers = [*honest, lie]
    heard = Round[Peer, str](NEEDED, Tick(newest))
    for place in order:
        heard.add(PEERS[place], answers[place])
        agreed = heard.agreed()
        if agreed is not None:
            answer, who = agreed
            assert answer.claim == TRUTH and len(who) == NEEDED
            assert (answer.tick or 0) <= max(one.tick or 0 for one in honest)
    if newest <= NOW - MAX_LAG_TICKS:
        assert heard.agreed() is not None


@given(
    claims=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 20)), max_size=3),
    newest=st.integers(0, 20),
)
def test_nothing_counts_that_two_did_not_say_within_the_lag(
    claims: list[tuple[str, int]], newest: int
) -> None:
    heard = Round[Peer, str](NEEDED, Tick(newest))
    for peer, (claim, tick) in zip(PEERS, claims, strict=False):
        heard.add(peer, Answer(claim, claim, claim, Tick(tick)))
    fresh = [(claim, tick) for claim, tick in claims if tick + MAX_LAG_TICKS >= newest]
    pairs = [
        (one, other)
        for place, one in enumerate(fresh)
        for other in fresh[place + 1 :]
        if one[0] == other[0] and abs(one[1] - other[1]) <= MAX_LAG_TICKS
    ]
    agreed = heard.agreed()
    assert (agreed is not None) == bool(pairs)
    if agreed is not None:
        answer = agreed[0]
        assert any((answer.claim, answer.tick) == min(pair, key=lambda one: one[1]) for pair in pairs)
    assert len(heard.troubles) == len(claims) - len(fresh)
