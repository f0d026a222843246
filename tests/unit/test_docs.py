"""What the pages in docs/ say is what the code does: job files, error codes, messages, the lease."""

from __future__ import annotations

import inspect
import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import pytest

from protocol import errors, jobspec, lease_caller, lease_job, lease_provider, messages, yaml_fields
from protocol import lease_model as m
from protocol.control_watch import NOTICES
from protocol.errors import JobFileInvalid, QubixError
from protocol.lease import max_loss, max_loss_if_gone, step
from protocol.lease_model import EVENTS
from protocol.lease_state import TERMINAL, Lease, Phase, Role
from protocol.units import MAX_QU, Qu, Seconds, UnixMs
from qubixd import directory, discovery, liveness, offers, quotes, sync, talk
from qubixd.config import Config
from qubixd.desk import ANSWERS
from qubixd.meters_door import METERS_PROTOCOL
from qubixd.observing import OBSERVE_PROTOCOL
from qubixd.paths.dialler import LINK_PROTOCOL
from qubixd.paths.offers import PATHS_PROTOCOL
from qubixd.proof.run import PROOF_PROTOCOL
from qubixd.relay import RELAY_PROTOCOL, RELAYED_PROTOCOL
from qubixd.wire_libp2p import exchange
from qubixd.words import RECEIPTS_PROTOCOL
from tests.support.lease_plan import ESCROW, LEASE, START_MS, make_terms
from tests.support.lease_play import TERMS, at, funded, new_caller, new_provider, opened, voucher

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "contracts/README.md"])


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def rows(text: str, columns: int) -> Iterator[list[str]]:
    """The cells of every row, heads included, of tables with that many columns."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) == columns:
            yield cells


def code_of(cell: str) -> str:
    return cell.strip("`")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), f"{target} is not there"


# --- job files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", [*blocks(page("job-file.md"), "yaml"), *blocks((ROOT / "README.md").read_text(), "yaml")]
)
def test_examples_are_job_files(text: str) -> None:
    jobspec.parse(text)


def known_fields(text: str) -> set[str]:
    with pytest.raises(JobFileInvalid, match="known here") as caught:
        jobspec.parse(text)
    return set(str(caught.value).rpartition("known here: ")[2].split(", "))


def test_every_field_of_a_job_file_is_described() -> None:
    top, _, rest = page("job-file.md").partition("| Field of `resources`")
    assert {code_of(row[0]) for row in rows(top, 4)} - {"Field"} == known_fields("nonsense: 1\nrun: x")
    described = {code_of(row[0]) for row in rows(rest, 4)}
    assert described == known_fields("resources: {nonsense: 1}\nrun: x")


def test_the_sizes_of_job_files() -> None:
    said = page("job-file.md")
    for number in (
        jobspec.MAX_FILE_BYTES,
        yaml_fields.MAX_SCRIPT_CHARS,
        jobspec.MAX_ENVS,
        jobspec.MAX_OUTPUTS,
    ):
        assert f"{number:,} " in said
    assert f"more than {yaml_fields.MAX_DEPTH} levels" in said


# --- errors -----------------------------------------------------------------------------------


def tree(kind: type[QubixError] = QubixError) -> Iterator[type[QubixError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree(child)


def test_every_error_code_is_described() -> None:
    described = {code_of(row[0]): row[1] for row in rows(page("errors.md"), 3) if row[0] != "Code"}
    assert described == {kind.code: str(kind.exit_code) for kind in tree()}


def test_every_reason_and_counter_is_described() -> None:
    """Codes that are no errors are found where they are written: as literals in the code."""
    described = {code_of(row[0]) for row in rows(page("errors.md"), 2) if row[0].startswith("`")}
    sources = [path for room in ("protocol", "qubixd") for path in (ROOT / room).rglob("*.py")]
    literal = re.compile(
        r'"((?:lease|job|offer|peer|proof|disk|book|directory|heartbeat|liveness)\.[a-z_]+)"'
    )
    found = {code for path in sources for code in literal.findall(path.read_text())}
    not_codes = {"job.log", "job.yaml"} | {kind.code for kind in tree()} | set(NOTICES)
    assert described == found - not_codes


# --- the wire ---------------------------------------------------------------------------------


def test_every_message_is_described() -> None:
    described = {int(row[0]): row[1] for row in rows(page("wire.md"), 5) if row[0].isdigit()}
    assert described == {number: kind.__name__ for number, kind in messages.MESSAGES.kinds.items()}


def test_exactly_the_questions_have_an_answer() -> None:
    answered = {row[1] for row in rows(page("wire.md"), 5) if row[0].isdigit() and row[3]}
    assert answered - {"Ack"} == {kind.__name__ for kind in ANSWERS}


def test_every_protocol_is_described() -> None:
    described = {name for row in rows(page("wire.md"), 3) for name in re.findall(r"`(/qubix/\S+)`", row[0])}
    names = {talk.LEASE_PROTOCOL, talk.FILES_PROTOCOL, talk.LOGS_PROTOCOL, METERS_PROTOCOL, exchange.PROTOCOL}
    names |= {
        LINK_PROTOCOL,
        OBSERVE_PROTOCOL,
        PATHS_PROTOCOL,
        PROOF_PROTOCOL,
        RECEIPTS_PROTOCOL,
        RELAY_PROTOCOL,
        RELAYED_PROTOCOL,
        sync.PROTOCOL,
        directory.PROTOCOL,
        discovery.RECORDS_PROTOCOL,
    }
    assert described == names | {offers.TOPIC + "MARKET", directory.RECORDS_TOPIC, liveness.LIVENESS_TOPIC}


# --- the lease --------------------------------------------------------------------------------

ENDED: Final = "ended"
MOMENTS: Final = (0, 1_000, 20_000, 200_000, 4_000_000)
VALUES: Final[dict[str, tuple[Any, ...]]] = {
    "escrow_id": (ESCROW,),
    "open_tick": (1_000,),
    "deadline_tick": (100_000,),
    "tick": (1_001, 99_999),
    "age_ms": (0,),
    "seconds": (1, 5, TERMS.max_seconds),
    "there": (False, True),
    "sequence": (1, 2),
    "nonce": (bytes(8), b"another1"),
    "restart": ("never", "always"),
    "restarts": (0, 3),
    "awaits_ready": (False, True),
    "cumulative": (1, TERMS.deposit),
    "signature": (bytes(64),),
    "code": ("", "some.code"),
    "sentence": ("it says so",),
    "reason": ("exited", "job.completed", "job.failed"),
    "exit_code": (-1, 0, 1),
    "outputs_sha256": (bytes(32),),
    "outputs_bytes": (0, 5),
    "extension": (messages.Extension(LEASE, 1, Seconds(90), Qu(90_000), 3_100, UnixMs(0)),),
    "signed": (b"signed",),
    "order": ("one", "two"),
    "number": (1,),
    "deposit": (TERMS.deposit, 90_000),
    "paid": (1,),
    "refunded": (1,),
}
CALLERS_DAY: Final = (
    m.ReceiveAccepted(at(1)),
    opened(5),
    m.ReceiveRunning(0, at(10)),
    m.ReceiveExited(0, "job.completed", "done", TERMS.interval_seconds, bytes(32), 5, at(20)),
    m.RunFetched("", "", at(21)),
)
PROVIDERS_DAY: Final = (
    m.RunPulled(at(1)),
    m.ReceiveInputs(at(2)),
    funded(5),
    opened(6),
    m.RunStarted(at(8), at(8)),
    m.RunReady(at(10), at(10)),
    m.ClockPassed(at(40)),
    voucher(TERMS.deposit, 41),
    m.RunExited(0, "exited", at(10), at(50), at(50)),
    m.RunCollected(bytes(32), 5, at(51)),
)


def drawn(text: str) -> set[tuple[str, str]]:
    arrows = re.findall(r"^ *(\w+) --> (\w+):", text, re.MULTILINE)
    return {(before, after) for before, after in arrows}


def name_of(phase: Phase) -> str:
    return ENDED if phase in TERMINAL else str(phase)


def some_event(chance: random.Random, now: int) -> Any:
    kind = chance.choice(list(EVENTS.kinds.values()))
    values: dict[str, Any] = {}
    for field in fields(kind):
        if field.name == "now":
            values["now"] = now
        elif field.name.endswith("_at"):
            values[field.name] = now - chance.choice(MOMENTS[:3])
        else:
            values[field.name] = chance.choice(VALUES[field.name])
    return kind(**values)


def stories(make: Callable[[], Lease], day: Iterable[Any]) -> Iterator[tuple[Lease, Lease]]:
    """Every step of many lives: a usual day up to some moment, then anything."""
    chance, usual = random.Random(1), list(day)
    for number in range(600 * (len(usual) + 1)):
        lease, now = make(), START_MS + 60_000
        for event in usual[: number % (len(usual) + 1)]:
            before, (lease, _) = lease, step(lease, event)
            yield before, lease
        for _ in range(8):
            now += chance.choice(MOMENTS)
            before, (lease, _) = lease, step(lease, some_event(chance, now))
            yield before, lease


@pytest.mark.parametrize(
    ("make", "day", "picture"), [(new_caller, CALLERS_DAY, 0), (new_provider, PROVIDERS_DAY, 1)]
)
def test_the_pictures_show_every_way_and_no_other(
    make: Callable[[], Lease], day: Iterable[Any], picture: int
) -> None:
    walked = {
        (name_of(before.phase), name_of(after.phase))
        for before, after in stories(make, day)
        if before.phase is not after.phase
    }
    assert walked == drawn(blocks(page("lease.md"), "mermaid")[picture])


def test_every_phase_is_in_a_picture() -> None:
    seen = {
        name for picture in blocks(page("lease.md"), "mermaid") for arrow in drawn(picture) for name in arrow
    }
    assert seen == {name_of(phase) for phase in Phase}


def test_the_most_one_side_can_lose() -> None:
    usual = Config()
    changes = {"interval_seconds": usual.interval, "unpaid_intervals": usual.unpaid_intervals}
    terms = make_terms(**changes, price_qu_per_hour=Qu(3_600), deposit=MAX_QU)  # 1 QU a second
    described = re.findall(r"^\| (\w+) \| `price .*\| (\d+) s of the price", page("lease.md"), re.MULTILINE)
    assert described == [(str(role), str(max_loss(role, terms))) for role in Role]
    long = make_terms(**changes, price_qu_per_hour=Qu(3_600), deposit=MAX_QU, max_seconds=Seconds(9_999))
    assert f"/ 3600` | {max_loss_if_gone(long)} s of the price" in page("lease.md")


def test_the_times_in_the_terms() -> None:
    said = page("lease.md").replace("\n", " ")
    assert f"most {quotes.MAX_INTERVAL_SECONDS} s; the quote is good for {quotes.VALID_MS // 1_000} s" in said
    assert f"may take {quotes.PULL_SECONDS} s and the start {quotes.START_SECONDS} s" in said
    assert f"at least {quotes.CHALLENGE_SECONDS} s to cash" in said


def test_every_patience_is_described() -> None:
    described = {code_of(row[2]): row[3] for row in rows(page("lease.md"), 4) if row[2].startswith("`")}
    assert described == {
        f"{half.__name__.rpartition('.')[2]}.{name}": f"{value // 1_000} s"
        for half in (lease_caller, lease_job, lease_provider)
        for name, value in inspect.getmembers(half)
        if name.endswith("_MS")
    }
