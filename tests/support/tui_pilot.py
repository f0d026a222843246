"""Drives the full-screen front end: against canned answers (fast), or against a real town of daemons.

    def test_something() -> None:
        async def go() -> None:
            async with running_app(answers={"wallet": WALLET}) as pilot:
                await until(pilot, lambda: "QU" in text_of(pilot.app.screen))
        asyncio.run(go())

    @pytest.fixture(scope="module")
    def town(tmp_path_factory):
        with real_town(tmp_path_factory.mktemp("t")) as town:
            yield town      # town.caller, town.provider: their data directories

Screens are looked at as a person does: by the text they show.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import trio
from textual.css.model import RuleSet
from textual.css.stylesheet import Stylesheet
from textual.pilot import Pilot
from textual.screen import Screen

from protocol import control
from protocol.errors import QubixError
from tests.support import tui_views
from tests.support.control_server import Reply, control_server
from tests.support.daemons import Daemon, Town, daemons
from tui.app import QubixApp

PATIENCE_SECONDS: Final = 30.0
Answers = dict[str, Any]
"""Verb -> its answer, a QubixError it answers with, or a function of the arguments that gives either."""


def _parsed_once(parse: Callable[..., list[RuleSet]]) -> Callable[..., list[RuleSet]]:
    """The same rules for the same text and colours: each app of a test would parse some forty sheets anew,
    and all of them once more with each change of its colours."""
    known: dict[tuple[Any, ...], list[RuleSet]] = {}

    def parsed(sheet: Stylesheet, *arguments: Any, **named: Any) -> list[RuleSet]:
        key = (arguments, tuple(sorted(named.items())), tuple(sorted(sheet._variables.items())))
        if key not in known:
            known[key] = parse(sheet, *arguments, **named)
        return known[key]

    return parsed


RuleSet.__hash__ = object.__hash__  # type: ignore[method-assign]  # the same, a million times without Python
Stylesheet._parse_rules = _parsed_once(Stylesheet._parse_rules)  # type: ignore[method-assign]  # Textual's own


@asynccontextmanager
async def running_app(
    size: tuple[int, int] = (80, 24),
    answers: Answers | None = None,
    events: dict[str, list[Any]] | None = None,
    *,
    theme: str = "dark",
    area: str = "",
    asked: list[Any] | None = None,
) -> AsyncIterator[Pilot[int]]:
    """The app against a server with tui_views.ANSWERS and EVENTS, and these instead of some of them.

    `area` is the mode to show; `asked` collects the typed arguments that the server receives.
    """
    replies = canned(tui_views.ANSWERS | (answers or {}), tui_views.EVENTS | (events or {}))
    with short_folder() as root, control_server(root / "control.sock", replies, asked):
        app = QubixApp(root, theme=theme)
        async with app.run_test(size=size, notifications=True) as pilot:
            await until(pilot, lambda: app.link.state == "up")
            if area:
                await app.switch_mode(area)
            await settled(pilot)
            yield pilot


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder with a path short enough for a socket."""
    root = Path(tempfile.mkdtemp(prefix="qx-"))
    try:
        yield root
    finally:
        shutil.rmtree(root)


def canned(answers: Answers, events: dict[str, list[Any]]) -> Callable[[str, Any], Iterable[Reply]]:
    """Replies of a control server that are made of typed views."""

    def replies(verb: str, args: Any) -> Iterable[Reply]:
        for one in events.get(verb, ()):
            yield {"event": control.to_body(one)}
        if verb in answers:
            answer = answers[verb]
            yield _frame(answer(args) if callable(answer) else answer)
        elif verb not in events:
            yield {"error": _error(f"the test has no answer to {verb}", "test.no_answer", 99)}

    return replies


def _frame(answer: Any) -> Reply:
    if isinstance(answer, QubixError):
        return {"error": _error(str(answer), answer.code, answer.exit_code)}
    return {"ok": control.to_body(answer)}


def _error(message: str, code: str, exit_code: int) -> dict[str, Any]:
    return {"code": code, "message": message, "exit_code": exit_code}


async def until(pilot: Pilot[Any], condition: Callable[[], Any]) -> None:
    """Wait until it holds. AssertionError with the screen's text if it never does.

    `pilot.pause` asks each widget whether it is done, and draws: too dear for looking again and again.
    """
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not condition():
                await asyncio.sleep(0.03)
            await pilot.pause(0)
    except TimeoutError:
        raise AssertionError(f"this never came; the screen says:\n{text_of(pilot.app.screen)}") from None


async def settled(pilot: Pilot[Any]) -> None:
    """Wait until nothing is being loaded any more."""
    await pilot.pause()
    await until(pilot, lambda: not any(w.group == "load" and w.is_running for w in pilot.app.workers))
    await pilot.pause()


def text_of(screen: Screen[Any]) -> str:
    """What the terminal shows, line by line."""
    lines = screen._compositor.render_strips()
    return "\n".join("".join(part.text for part in strip).rstrip() for strip in lines)


# --- a real town ------------------------------------------------------------------------------


class RealTown:
    """A devnet, a provider and a caller as processes, driven from any thread."""

    def __init__(self, town: Town, token: trio.lowlevel.TrioToken) -> None:
        self._town = town
        self._token = token
        self.people: dict[str, Daemon] = {}

    @property
    def caller(self) -> Path:
        """Data directory of bob, who rents."""
        return self.people["bob"].root

    @property
    def provider(self) -> Path:
        """Data directory of alice, who offers this machine (runner `process`)."""
        return self.people["alice"].root

    def do(self, action: Callable[..., Any], *arguments: Any) -> Any:
        """Run a coroutine function of the town's side: `town.do(town.people["alice"].kill)`."""
        return trio.from_thread.run(action, *arguments, trio_token=self._token)


@contextmanager
def real_town(root: Path, *provider_options: str) -> Iterator[RealTown]:
    """For a fixture of a module: about 15 seconds until alice's offer has reached bob."""
    ready, over = threading.Event(), trio.Event()
    holder: list[RealTown] = []
    failure: list[BaseException] = []

    async def live() -> None:
        async with daemons(root) as town:
            here = RealTown(town, trio.lowlevel.current_trio_token())
            options = provider_options or ("--price", "3600000", "--runner", "process")
            alice = here.people["alice"] = await town.start("alice", "--provider", *options)
            bob = here.people["bob"] = await town.start("bob", "--bootstrap", alice.address)
            await bob.until_offered()
            holder.append(here)
            ready.set()
            await over.wait()

    def run() -> None:
        try:
            trio.run(live)
        except BaseException as error:
            failure.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        ready.wait()
        if failure:
            raise failure[0]
        yield holder[0]
    finally:
        if holder and not failure:
            trio.from_thread.run_sync(over.set, trio_token=holder[0]._token)
        thread.join()


@asynccontextmanager
async def app_on(
    directory: Path, size: tuple[int, int] = (80, 24), *, area: str = ""
) -> AsyncIterator[Pilot[int]]:
    """The app against the daemon of a data directory."""
    app = QubixApp(directory)
    async with app.run_test(size=size, notifications=True) as pilot:
        await until(pilot, lambda: app.link.state == "up")
        if area:
            await app.switch_mode(area)
        await settled(pilot)
        yield pilot
