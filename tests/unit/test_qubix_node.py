"""The package as programs use it: the example of the docs on each event loop, and every method."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio

import qubix
from protocol import control
from protocol.control_market import MarketArgs, MarketView
from protocol.control_wallet import SendArgs
from protocol.control_watch import NOTICES, WatchEvent
from tests.support import views
from tests.support.control_server import Reply, control_server
from tests.support.values import sample

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
EXAMPLE = re.search(r"```python\n(.*?)\n```", PAGE, re.DOTALL)
RUNNERS: dict[str, Callable[[Any], Any]] = {
    "anyio": anyio.run,
    "asyncio": lambda main: asyncio.run(main()),
    "trio": trio.run,
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory and a working folder with a job file in it."""
    monkeypatch.setenv("QUBIX_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text("name: mine\n")
    return tmp_path


def a_job(verb: str, args: Any) -> Iterator[Reply]:
    yield {"event": views.event(None, "quoting", "asking alice")}
    yield {"ok": views.event(views.lease())}


@pytest.mark.parametrize("runner", RUNNERS)
def test_the_example_of_the_docs_runs(home: Path, capsys: pytest.CaptureFixture[str], runner: str) -> None:
    assert EXAMPLE, "docs/api.md has no example"
    code = EXAMPLE[1].replace("anyio.run(main)", "go(main)")
    assert code != EXAMPLE[1] and len(code.split("\n\n\n")[1].splitlines()) <= 5
    with control_server(home / "control.sock", a_job) as received:
        exec(compile(code, "docs/api.md", "exec"), {"go": RUNNERS[runner]})
    assert capsys.readouterr().out.splitlines()[0] == "quoting asking alice"
    (asked,) = received
    assert (asked.job_yaml, asked.max_price_qu_per_hour) == ("name: mine\n", 500_000)
    assert (asked.base_dir, asked.ask) == (str(home), False)


def answered(verb: str, args: Any) -> Iterator[Reply]:
    """Every verb, with made-up values of the right shape."""
    if verb in control.EVENTS:
        yield {"event": control.to_body(sample(control.EVENTS[verb]))}
    yield {"ok": control.to_body(sample(control.ANSWERS[verb]))}


CALLS: dict[str, tuple[Callable[[qubix.Node], Awaitable[Any]], object, type]] = {
    "status": (lambda node: node.status(), control.StatusArgs(), control.StatusView),
    "market": (
        lambda node: node.market("vram>=24", sort="price", limit=3),
        MarketArgs(filter="vram>=24", sort="price", limit=3),
        MarketView,
    ),
    "leases": (lambda node: node.leases(ended=True), control.PsArgs(all=True), list),
    "stop": (lambda node: node.stop("abcd"), control.StopArgs("abcd"), control.RunEvent),
    "pause": (lambda node: node.pause("abcd"), control.PauseArgs("abcd"), control.RunEvent),
    "resume": (lambda node: node.resume("abcd"), control.ResumeArgs("abcd"), control.RunEvent),
    "restart": (lambda node: node.restart("abcd"), control.RestartArgs("abcd"), control.RunEvent),
    "send": (lambda node: node.send("p1", "A" * 60, 5), SendArgs("p1", "A" * 60, 5), object),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_method_asks_its_verb(home: Path, name: str) -> None:
    call, args, kind = CALLS[name]

    async def main() -> Any:
        async with qubix.connect(home) as node:
            return await call(node)

    with control_server(home / "control.sock", answered) as received:
        assert isinstance(anyio.run(main), kind)
    assert received == [args]


def test_streams(home: Path) -> None:
    async def main() -> tuple[list[Any], list[Any], list[Any]]:
        async with qubix.connect() as node:
            return (
                [piece async for piece in node.logs("abcd")],
                [event async for event in node.wait("abcd")],
                [event async for event in node.watch(market=True)],
            )

    with control_server(home / "control.sock", answered) as received:
        pieces, waited, watched = anyio.run(main)
    assert pieces and all(isinstance(piece, bytes) for piece in pieces)
    assert len(waited) == 2 and isinstance(watched[0], WatchEvent)
    assert received[-1].market


def test_an_error_of_the_daemon_is_the_class_of_its_code(home: Path) -> None:
    def refuse(verb: str, args: Any) -> Iterator[Reply]:
        yield {"error": {"code": "lease.unknown", "message": "no lease here begins so", "exit_code": 2}}

    async def main() -> None:
        async with qubix.connect() as node:
            await node.stop("abcd")

    with (
        control_server(home / "control.sock", refuse),
        pytest.raises(qubix.QubixError, match="no lease") as got,
    ):
        anyio.run(main)
    assert got.value.code == "lease.unknown"


def test_no_daemon(home: Path) -> None:
    async def main() -> None:
        async with qubix.connect():
            raise AssertionError("nobody is there")

    with pytest.raises(qubix.DaemonUnreachable, match="start one with `qubix up`"):
        anyio.run(main)


def test_every_name_is_there() -> None:
    for name in qubix.__all__:
        assert getattr(qubix, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'rent'"):
        getattr(qubix, "rent")  # noqa: B009  # spelt as an attribute, a type checker refuses it


def test_the_page_has_every_notice_and_method() -> None:
    assert {code: words for code, words in NOTICES.items() if f"| `{code}` | {words} |" in PAGE} == NOTICES
    methods = {name for name in vars(qubix.Node) if not name.startswith("_")} - {"client"}
    assert {name for name in methods if re.search(rf"`{name}[(`]", PAGE)} == methods
