"""Hypothesis plays the whole contract against the model of tests/support/contract_model.py.

QUBIX_CONTRACT_STEPS says how many steps to play (`make nightly`: a million) and QUBIX_CONTRACT_SEED with
which number Hypothesis begins; 10,000 from 0 otherwise, the same ones every time. An episode that fails is
shrunk and printed; what is printed belongs into tests/vectors/contract_cases.json, under a name that says
what was wrong: from then on it is played every time. (The first of them told the wrong contracts below.)

No longer episodes are played: those of 250 steps notice all the wrong contracts below, and what takes longer
to come about (full maps) has tests of its own.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

import pytest

from escrow_bridge.devnet.host import QUBIX_HEADER
from tests.support import contract_world
from tests.support.contract_actions import ACTIONS, rest
from tests.support.contract_play import STEPS as TAKEN
from tests.support.contract_play import Plan, drive, play

USUAL_STEPS: Final = 10_000
STEPS: Final = int(os.environ.get("QUBIX_CONTRACT_STEPS", USUAL_STEPS))
BATCH: Final = min(STEPS, USUAL_STEPS)
FIRST_SEED: Final = int(os.environ.get("QUBIX_CONTRACT_SEED", "0"))
CASES: Final[dict[str, Plan]] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "contract_cases.json").read_text(encoding="utf-8")
)

MUTATIONS: Final = {
    "a fee of 4 %": ("QUBIX_FEE_BASIS_POINTS = 500", "QUBIX_FEE_BASIS_POINTS = 400"),
    "a tick more to redeem": (
        "if (qpi.tick() >= (input.channel.closeTick",
        "if (qpi.tick() > (input.channel.closeTick",
    ),
    "a tick less to redeem": (
        "if (qpi.tick() >= (input.channel.closeTick",
        "if (qpi.tick() + 1 >= (input.channel.closeTick",
    ),
    "anybody's signature": (
        "!qpi.signatureValidity(input.channel.caller,",
        "!qpi.signatureValidity(qpi.invocator(),",
    ),
    "a total that counts a voucher twice": (
        "locals.gross = input.cumulative - input.channel.paid",
        "locals.gross = input.cumulative",
    ),
    "a burn share of the whole": (
        "div<sint64>(output.net, QUBIX_BASIS_POINTS) * input",
        "div<sint64>(input.paid, QUBIX_BASIS_POINTS) * input",
    ),
    "a refund less of one QU": (
        "locals.amount = input.channel.deposit - input.channel.paid",
        "locals.amount = input.channel.deposit - input.channel.paid - 1",
    ),
    "a refusal that keeps the money": (
        "if (qpi.invocationReward() > input.burned)",
        "if (qpi.invocationReward() > input.burned + 1000)",
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
        "|| state.get().tickets.contains(locals.ticketKey.key) ?",
        "?",
    ),
    "a top-up that is taken twice": (
        "input.deposit != locals.channel.deposit",
        "input.deposit > locals.channel.deposit",
    ),
    "a top-up that buys no time": ("locals.channel.deadlineTick = input.deadlineTick;", ""),
    "a deadline that comes nearer": (
        "input.deadlineTick < locals.channel.deadlineTick",
        "input.deadlineTick + 1 < locals.channel.deadlineTick",
    ),
    "a tick more than the longest time": (
        "|| input.deadlineTick > qpi.tick() + QUBIX_MAX_DEADLINE_TICKS",
        "|| input.deadlineTick > qpi.tick() + QUBIX_MAX_DEADLINE_TICKS + 1",
    ),
    "no royalty": ("QUBIX_ROYALTY_PERCENT = 2", "QUBIX_ROYALTY_PERCENT = 0"),
}


@pytest.mark.parametrize("name", CASES)
def test_cases_that_once_failed(name: str) -> None:
    play(CASES[name])


@pytest.mark.timeout(600)  # to shrink what fails; usually it takes seconds
@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED - (-STEPS // BATCH)))
def test_the_contract_does_what_the_model_says(seed: int) -> None:
    taken = drive(seed, BATCH)
    assert taken[TAKEN] >= BATCH, "Hypothesis stopped early"
    never = [action.__name__ for action in ACTIONS if not taken[action.__name__]]
    assert never == [rest.__name__] or BATCH < USUAL_STEPS, "never with success"


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_contract_that_is_wrong_is_noticed(
    mutation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, wrong = MUTATIONS[mutation]
    header = QUBIX_HEADER.read_text(encoding="utf-8")
    assert header.count(right) == 1
    (tmp_path / "Qubix.h").write_text(header.replace(right, wrong), encoding="utf-8")
    monkeypatch.setattr(contract_world, "QUBIX_HEADER", tmp_path / "Qubix.h")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(AssertionError):
        drive(0, USUAL_STEPS, shrink=False)
