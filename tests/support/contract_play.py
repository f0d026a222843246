"""Episodes of the escrow contract: Hypothesis chooses who does what, both sides do it, invariants are asked.

A step is the name of an action and a number from which the details of that one step follow. So steps can be
left out without changing what the others mean to do, and an episode that fails is a short list of words and
small numbers, which can be kept.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from typing import Final

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.support import contract_invariants as invariants
from tests.support.contract_actions import ACTIONS, rest
from tests.support.contract_world import World
from tests.support.escrow import Code

EPISODE: Final = 250
RECORDS_EVERY: Final = 20
STEPS: Final = "steps"
"""In what `play` counts: steps in which somebody did something."""

Step = tuple[str, int]
Plan = Sequence[Step]
_BY_NAME: Final = {action.__name__: action for action in ACTIONS}
_WEIGHTED: Final = [action.__name__ for action, weight in ACTIONS.items() for _ in range(weight)]
PLANS: Final = st.lists(
    st.tuples(st.sampled_from(_WEIGHTED), st.integers(0, 0xFFFF)), min_size=EPISODE, max_size=EPISODE
)


def play(plan: Plan) -> Counter[str]:
    """One episode on a chain of its own. Gives how often each action succeeded, and STEPS. Raises
    AssertionError, with the plan to keep, where an invariant does not hold or contract and model differ."""
    acted = [step for step in plan if step[0] != rest.__name__]
    try:
        return _played(acted)
    except AssertionError as error:
        raise AssertionError(f"{error}\nto keep in contract_cases.json: {json.dumps(acted)}") from error


def _played(plan: Plan) -> Counter[str]:
    world, taken = World(), Counter({STEPS: len(plan)})
    for number, (name, details) in enumerate(plan):
        world.random = random.Random(details)
        got, expected = _BY_NAME[name](world)
        assert got == expected, f"step {number}, {name}: {got!r}, and the model says {expected!r}"
        taken[name] += got == Code.OK
        check(world)
        if number % RECORDS_EVERY == 0:
            invariants.records_are_the_models(world)
    invariants.records_are_the_models(world)
    invariants.refunds_are_reachable(world)
    check(world)
    return taken


def check(world: World) -> None:
    """After every step."""
    invariants.every_qu_is_conserved(world)
    invariants.nobody_is_paid_more_than_vouchers_allow(world)
    invariants.totals_are_the_models(world)


def drive(number: int, steps: int, *, shrink: bool = True) -> Counter[str]:
    """Has Hypothesis play at least so many steps, always the same for one number; counts like `play`."""
    taken: Counter[str] = Counter()

    @seed(number)
    @settings(
        max_examples=steps * 11 // 10 // EPISODE + 2,  # some rest, and the first episode is nothing else
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        database=None,
        deadline=None,
    )
    @given(PLANS)
    def episode(plan: Plan) -> None:
        taken.update(play(plan))

    episode()
    return taken
