"""The part of the simulated market that is about scores: who earns one, who forges one, who buys one.

Leases, escrows and settlements are real, on the real contract; what is forged is what is said of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from protocol.errors import QubixError
from protocol.score import HALF_PAID
from protocol.units import fee_of
from tests.support.offices import Office, Offices
from tests.support.receipt_deals import Deal, Party, Town

CALLERS: Final = 6
FORGERIES: Final = 18
LOOKS: Final = 8
"""A judge proves a few receipts at a look; after so many it has proved all."""


async def forged_score(seed: int) -> dict[str, object]:
    """What a stranger thinks of a newcomer, an honest provider, a forger, and one who pays itself."""
    chance, town = random.Random(seed), Town()
    fresh, honest, forger, faker = (town.party(name) for name in ("fresh", "honest", "forger", "faker"))
    for provider in (fresh, honest, forger, faker):
        town.register(provider)
    earned = [town.deal(honest, town.party(f"caller-{n}"), paid=2 * HALF_PAID) for n in range(CALLERS)]
    own = [town.party(f"puppet-{n}") for n in range(CALLERS)]
    bought = [town.deal(faker, puppet, paid=HALF_PAID // 20) for puppet in own]
    forged = [_forge(chance, town, forger, chance.choice(own), earned) for _ in range(FORGERIES)]
    async with Offices(town) as offices:
        for provider in (fresh, honest, forger, faker):
            offices.advertise(provider)
        library = await offices.open("library", keeps_for_others=True)
        judge = await offices.open("judge", directories=[library])
        refused = 0
        for deal in [*earned, *bought, *forged]:
            refused += not await _brought(library, deal)
        scores = {party.name: await _looked_at(judge, party) for party in (fresh, honest, forger, faker)}
    return {
        "scores": scores,
        "forged": len(forged),
        "refused_at_the_door": refused,
        "fees_faker_qu": sum(fee_of(deal.said.cumulative) for deal in bought),
    }


async def _brought(library: Office, deal: Deal) -> bool:
    try:
        await library.take(deal)
    except QubixError:
        return False
    return True


async def _looked_at(judge: Office, party: Party) -> float:
    score = await judge.score(party)
    for _ in range(LOOKS):
        score = await judge.score(party)
    return round(score.g, 4)


def _forge(chance: random.Random, town: Town, forger: Party, puppet: Party, earned: list[Deal]) -> Deal:
    """One lease that was not, or was not so."""
    much = 5 * HALF_PAID
    ways: tuple[Callable[[], Deal], ...] = (
        lambda: town.deal(forger, puppet, paid=much, opens=False, closes=False),
        lambda: town.deal(forger, puppet, paid=much, closes=False),
        lambda: town.deal(forger, puppet, paid=much, closes=False, network="elsewhere"),
        lambda: town.deal(forger, puppet, paid=much, redeems=1),
        lambda: replace(
            town.deal(forger, puppet, paid=much, opens=False, closes=False),
            settled=chance.choice(earned).settled,
        ),
        lambda: replace(chance.choice(earned), provider=forger),
        lambda: replace(chance.choice(earned), caller=puppet, provider=forger),
    )
    return chance.choice(ways)()
