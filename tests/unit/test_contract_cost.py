"""What each call of the escrow contract makes a node do, counted; what its refusal gives back; and that
contracts/README.md says so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from escrow_bridge.devnet.host import Cost
from escrow_bridge.layout import Procedure
from tests.support.contract_costs import CASES, Case, a_guild
from tests.support.escrow import BOND, Code, Desk
from tests.support.probes import QUBIX

README: Final = Path(__file__).parents[2] / "contracts" / "README.md"
ROW: Final = re.compile(
    r"^\| (\d+) \| `(\w+)` \| ([\d.]+ µs.*?) \| [\d.]+ \| (.*?) \| (.*?) \| [\d.]+ \| (.*?) \|$", re.M
)
BY_NAME: Final = {case.name: case for case in CASES}


def counted(cell: str) -> tuple[int, int, int]:
    """(hashes, bytes in them, signatures) as a cell of the table says."""
    found = re.fullmatch(r"[\d.]+ µs(?:, (\d+) K12 \(([\d,]+) B\))?(?:, (\d+) signatures?)?", cell)
    assert found, cell
    hashes, size, signatures = (int((number or "0").replace(",", "")) for number in found.groups())
    return hashes, size, signatures


def used(case: Case) -> tuple[int, int, int]:
    cost: Cost = case.run(a_guild(), 0)
    return cost.hashes, cost.hashed_bytes, cost.signatures


def dearest_refusal(procedure: Procedure) -> Case:
    """With wrong signatures, where the procedure checks any."""
    refused = [case for case in CASES if case.procedure == procedure]
    return max(refused[1:], key=lambda case: case.signatures_wrong)


def test_every_procedure_has_its_row() -> None:
    rows = ROW.findall(README.read_text(encoding="utf-8"))
    assert [(int(number), name.upper()) for number, name, *_ in rows] == [
        (procedure.value, procedure.name.replace("_", "")) for procedure in Procedure
    ]


@pytest.mark.parametrize("procedure", Procedure)
def test_a_row_says_what_is_counted(procedure: Procedure) -> None:
    _, _, accepted, code, refused, money = ROW.findall(README.read_text(encoding="utf-8"))[procedure - 1]
    assert counted(accepted) == used(BY_NAME[f"{procedure.name.lower()} ok"])
    case = dearest_refusal(procedure)
    assert counted(refused) == used(case)
    assert code.split()[-1] == (Code.BAD_SIGNATURE if case.signatures_wrong else case.code).name
    burned = BOND * counted(refused)[2]
    assert money == (f"all but {burned}, which are burned" if burned else "all")


@pytest.mark.parametrize("name", [name for name, case in BY_NAME.items() if not name.endswith(" ok")])
def test_a_refusal_gives_back_and_writes_nothing(name: str) -> None:
    """Also one that comes after all other checks; wrong signatures burn their bonds into the reserve."""
    case, guild = BY_NAME[name], a_guild()
    by, payload, attached = case.prepare(guild, 0)
    before, state = guild.host.balance(by.public_key), guild.host.state(QUBIX)
    reserve = guild.host.reserve(QUBIX)
    guild.call(by, case.procedure, payload, attached)
    burned = BOND * guild.host.cost().signatures
    assert guild.host.balance(by.public_key) == before - burned
    assert (guild.host.reserve(QUBIX), guild.host.state(QUBIX)) == (reserve + burned, state)
    guild.check()


def test_nothing_is_counted_twice_and_a_tick_starts_anew() -> None:
    desk = Desk()
    escrow = desk.opened()
    assert desk.redeem(escrow, 5) == Code.OK
    assert desk.host.cost().signatures == 1
    assert desk.host.cost().nanoseconds > 0
    desk.host.end_tick()
    assert (desk.host.cost().signatures, desk.host.cost().hashes) == (0, 0)
