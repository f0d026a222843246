"""A market under attack (tests/support/market_sim.py): what must hold whatever the attackers do.

Times are virtual, so they depend on nothing but the seed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

SEED: Final = 1
pytestmark = [pytest.mark.attack, pytest.mark.slow, pytest.mark.timeout(300)]


def play(scenario: str, seed: int = SEED) -> Any:
    """What the scenario reports. Sets are iterated over in the order of hashes, so those are fixed too."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.market_sim", scenario, str(seed)],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONHASHSEED": "0"},
        stdout=subprocess.PIPE,
        text=True,
        timeout=280,
        check=True,
    )
    return json.loads(done.stdout)


def worst(times: list[float]) -> float:
    return max(times)


def test_one_seed_is_one_history() -> None:
    first, again, other = play("quiet"), play("quiet"), play("quiet", SEED + 1)
    assert first == again
    assert other["heard"] != first["heard"]


@pytest.mark.parametrize("scenario", ["flood", "sybil"])
def test_honest_offers_arrive_through_a_flood(scenario: str) -> None:
    """Within twice the quiet time, all of them, and the book keeps to its room."""
    report = play(scenario)
    assert worst(report["hard_s"]) <= 2 * worst(report["calm_s"])
    assert report["least_visible"] == 1.0
    assert report["dropped"] > 1_000
    if scenario == "sybil":
        assert report["largest_book"] <= report["places"]
        assert report["newcomer_s"] <= 90


def test_directories_that_fall_silent_are_replaced_and_nobody_is_lost() -> None:
    report = play("silent")
    assert report["least_visible"] == 1.0
    assert report["dead_gone_s"] <= 90
    assert max(report["false_in_use"]) <= 1  # one is tried again now and then, never instead of all others


def test_one_network_of_false_directories_eclipses_nobody() -> None:
    report = play("eclipse")
    assert report["least_visible"] == 1.0


def test_an_attacker_with_many_networks_hides_nothing_for_long() -> None:
    report = play("wide_eclipse")
    assert report["least_visible"] == 1.0


def test_forged_receipts_raise_no_score() -> None:
    report = play("forged_score")
    scores = report["scores"]
    assert scores["forger"] <= scores["fresh"] < scores["honest"]
    assert scores["faker"] < scores["honest"]
    assert report["fees_faker_qu"] > 0
