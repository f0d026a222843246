"""Long random episodes of the whole contract against the model of tests/support/contract_model.py.

QUBIX_CONTRACT_STEPS says how many steps to play (`make nightly`: a million) and QUBIX_CONTRACT_SEED where
to begin; 10,000 from seed 0 otherwise. A seed that fails belongs into tests/vectors/contract_seeds.json:
from then on it is played first, every time.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escrow_bridge.devnet.host import QUBIX_HEADER
from tests.support import contract_world
from tests.support.contract_actions import ACTIONS, play

EPISODE: Final = 500
STEPS: Final = int(os.environ.get("QUBIX_CONTRACT_STEPS", "10000"))
FIRST_SEED: Final = int(os.environ.get("QUBIX_CONTRACT_SEED", "0"))
SEEDS_FILE: Final = Path(__file__).parents[1] / "vectors" / "contract_seeds.json"
SECONDS_A_STEP: Final = 0.002
"""For the time limit only: a slow machine's."""

MUTATIONS: Final = {
    "a fee of 4 %": ("QUBIX_FEE_BASIS_POINTS = 500", "QUBIX_FEE_BASIS_POINTS = 400"),
    "a tick more to redeem": (
        "if (qpi.tick() >= (input.channel.closeTick",
        "if (qpi.tick() > (input.channel.closeTick",
    ),
    "anybody's signature": (
        "!qpi.signatureValidity(input.channel.caller,",
        "!qpi.signatureValidity(qpi.invocator(),",
    ),
    "a burn share of the whole": (
        "div<sint64>(output.net, QUBIX_BASIS_POINTS) * input",
        "div<sint64>(input.paid, QUBIX_BASIS_POINTS) * input",
    ),
    "a stake back at once": (
        "locals.provider.exitEpoch = qpi.epoch() + 1",
        "locals.provider.exitEpoch = qpi.epoch()",
    ),
    "receipts that only touch": (
        "input.secondFromTick >= input.firstUntilTick",
        "input.secondFromTick > input.firstUntilTick",
    ),
    "one arbiter decides": ("if (locals.votes < 2)", "if (locals.votes < 1)"),
    "two ratings": ("locals.ticket.rated = 1", "locals.ticket.rated = 0"),
    "an id opened again after its lease": (
        "|| state.get().tickets.contains(locals.ticketKey.key)",
        "",
    ),
    "no royalty": ("QUBIX_ROYALTY_PERCENT = 2", "QUBIX_ROYALTY_PERCENT = 0"),
}


def played(seed: int) -> Counter[str]:
    try:
        return Counter(play(random.Random(seed), EPISODE))
    except AssertionError as error:
        pytest.fail(f"seed {seed} (add it to {SEEDS_FILE.name}): {error}")


@pytest.mark.parametrize("seed", json.loads(SEEDS_FILE.read_text(encoding="utf-8")))
def test_seeds_that_once_failed(seed: int) -> None:
    played(seed)


@pytest.mark.timeout(60 + int(STEPS * SECONDS_A_STEP))
def test_the_contract_does_what_the_model_says() -> None:
    taken: Counter[str] = Counter()
    for seed in range(FIRST_SEED, FIRST_SEED + STEPS // EPISODE):
        taken += played(seed)
    assert [action.__name__ for action in ACTIONS if not taken[action.__name__]] == [], "never with success"


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False))
def test_short_episodes_that_shrink(source: random.Random) -> None:
    """The same with Hypothesis choosing, which makes a failure short enough to read."""
    play(source, 40)


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_the_model_notices_a_contract_that_is_wrong(
    mutation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, wrong = MUTATIONS[mutation]
    header = QUBIX_HEADER.read_text(encoding="utf-8")
    assert header.count(right) == 1
    (tmp_path / "Qubix.h").write_text(header.replace(right, wrong), encoding="utf-8")
    monkeypatch.setattr(contract_world, "QUBIX_HEADER", tmp_path / "Qubix.h")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(AssertionError):
        for seed in range(20):
            play(random.Random(seed), EPISODE)
