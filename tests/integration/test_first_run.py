"""The first start as a newcomer has it: real keys, a private network, a daemon, and something to rent."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from textual.pilot import Pilot
from textual.widgets import Button, Input

from escrow_bridge.qubic import Wallet
from protocol.control import ShutdownArgs
from protocol.errors import DaemonUnreachable, NotFound
from tests.support.tui_pilot import short_folder, text_of, until
from tui import practice, private_net, wallet_keys
from tui.app import QubixApp
from tui.client import connect
from tui.places import control_socket
from tui.screens.first_run import FirstRunScreen
from tui.screens.journey import Journey
from tui.screens.seed_steps import CheckSeedStep, SeedInput, groups_of

SEED = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabc"
PASSPHRASE = "a long enough phrase"


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A machine with nothing; what was started on it is ended."""
    with short_folder() as root, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("QUBIX_")]:
            patch.delenv(name)
        patch.setenv("XDG_DATA_HOME", str(root))
        patch.setenv("XDG_CONFIG_HOME", str(root / "config"))
        yield root
        asyncio.run(_end(root))


async def _end(root: Path) -> None:
    for place in root.iterdir():
        with suppress(DaemonUnreachable):
            async with connect(control_socket(place)) as client:
                await client.call("shutdown", ShutdownArgs())
    await practice.end_provider()
    with suppress(NotFound):
        os.waitpid(await private_net.end(), 0)


async def shows(pilot: Pilot[int], *words: str) -> None:
    await until(pilot, lambda: all(word in " ".join(text_of(pilot.app.screen).split()) for word in words))


def journey(pilot: Pilot[int]) -> Journey:
    assert isinstance(pilot.app.screen, Journey)
    return pilot.app.screen


async def press(pilot: Pilot[int], button: str) -> None:
    """Mark a button with the keyboard and press it. One that still shows its last press takes no other."""
    marked = journey(pilot).step.query_one(f"#{button}", Button)
    await until(pilot, lambda: not marked.has_class("-active"))
    marked.focus()
    await pilot.press("enter")


def shown_seed(pilot: Pilot[int]) -> str:
    """As a person reads it from the sheet."""
    sheet = str(journey(pilot).step.query_one("#seed-sheet").render())
    return "".join(sheet.split()[1::2])


async def type_groups(pilot: Pilot[int], seed: str) -> None:
    await until(pilot, lambda: isinstance(journey(pilot).step, CheckSeedStep))
    step = journey(pilot).step
    assert isinstance(step, CheckSeedStep)
    for number in step.asked:
        step.query_one(f"#group-{number}", Input).value = groups_of(seed)[number - 1]
    await pilot.press("enter")


def type_phrases(pilot: Pilot[int], first: str, second: str) -> None:
    journey(pilot).step.query_one("#first", Input).value = first
    journey(pilot).step.query_one("#second", Input).value = second


def test_from_nothing_to_the_market_and_back_to_a_daemon_that_was_ended(home: Path) -> None:
    directory = home / "qubix"

    async def set_up(pilot: Pilot[int]) -> str:
        await until(pilot, lambda: isinstance(pilot.app.screen, FirstRunScreen))
        await shows(pilot, "Make a new wallet", "play money")
        await pilot.press("enter")
        await shows(pilot, "group by group")
        before = shown_seed(pilot)
        await pilot.press("escape")
        await shows(pilot, "Make a new wallet")
        await pilot.press("enter")
        await shows(pilot, "group by group")
        seed = shown_seed(pilot)
        assert seed != before and not wallet_keys.has_keys(directory), "nothing is kept yet"
        await press(pilot, "written")
        await type_groups(pilot, seed[::-1])
        await shows(pilot, "is not what was shown")
        await pilot.press("escape")
        await shows(pilot, "group by group")
        await pilot.press("q")  # a letter of the seed typed beside the field; it ends nothing
        assert shown_seed(pilot) == seed
        await press(pilot, "written")
        await type_groups(pilot, seed.upper())
        await shows(pilot, "Without a passphrase")
        type_phrases(pilot, PASSPHRASE, PASSPHRASE[1:])
        await press(pilot, "use")
        await shows(pilot, "not the same")
        type_phrases(pilot, PASSPHRASE, PASSPHRASE)
        await press(pilot, "use")
        await shows(pilot, "All set", "1,000,000,000 QU of play money", Wallet(seed).identity[:40])
        return seed

    async def rent_out(pilot: Pilot[int]) -> None:
        await press(pilot, "practice")
        await shows(pilot, "A practice provider offers this machine now")
        await press(pilot, "market")
        await shows(pilot, "1 Market", "practice")

    async def start_again(pilot: Pilot[int]) -> None:
        async with connect(control_socket(directory)) as client:
            await client.call("shutdown", ShutdownArgs())
        await shows(pilot, "daemon away")
        await pilot.press("f2")
        await shows(pilot, "sealed with a passphrase")
        await pilot.press(*"wrong", "enter")
        await shows(pilot, "does not open", "Try again")
        await press(pilot, "back")
        await shows(pilot, "sealed with a passphrase")
        journey(pilot).step.query_one("#passphrase", Input).value = PASSPHRASE
        await pilot.press("enter")
        await shows(pilot, "1 Market", "connected")

    async def go() -> str:
        app = QubixApp(directory)
        async with app.run_test(size=(80, 24), notifications=True) as pilot:
            seed = await set_up(pilot)
            await rent_out(pilot)
            await start_again(pilot)
            return seed

    seed = asyncio.run(go())
    assert_secret(home, seed, PASSPHRASE)
    assert not wallet_keys.backup_open(directory)


def assert_secret(home: Path, *secrets: str) -> None:
    """Neither a file nor a command line of anybody's has them."""
    for path in home.rglob("*"):
        if path.is_file():
            assert not any(secret.encode() in path.read_bytes() for secret in secrets), path
    for process in psutil.process_iter(["cmdline"]):
        words = " ".join(process.info["cmdline"] or ())
        assert not any(secret in words for secret in secrets)


def test_a_seed_with_a_typo_is_refused_and_a_failed_start_is_tried_again(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = home / "second"
    pasted = "  ".join(groups_of(SEED[:11] + SEED[11].upper() + SEED[12:]))

    async def bring(pilot: Pilot[int]) -> None:
        await until(pilot, lambda: isinstance(pilot.app.screen, FirstRunScreen))
        await shows(pilot, "I have a seed")
        await press(pilot, "have")
        await shows(pilot, "Type or paste")
        field = journey(pilot).step.query_one("#seed", SeedInput)
        field.value = pasted
        await pilot.press("enter")
        await shows(pilot, "At letter 12 (group 3, place 2) there is a capital letter")
        assert not any(group in text_of(pilot.app.screen) for group in groups_of(SEED)), "it is not shown"
        field.value = pasted.lower()
        await pilot.press("enter")
        await shows(pilot, "This seed opens the wallet", Wallet(SEED).identity[:5])
        await pilot.press("escape")
        await shows(pilot, "Type or paste")
        await pilot.press("enter")
        await shows(pilot, "This seed opens the wallet")
        await pilot.press("enter")
        await shows(pilot, "Without a passphrase")

    async def fail_once(pilot: Pilot[int]) -> None:
        monkeypatch.setenv("QUBIX_LISTEN", "nowhere")
        await pilot.press("enter")
        await shows(pilot, "failed", "Try again")
        monkeypatch.delenv("QUBIX_LISTEN")
        await pilot.press("enter")
        await shows(pilot, "All set", "1,000,000,000 QU of play money")

    async def go() -> None:
        async with QubixApp(directory).run_test(size=(80, 24), notifications=True) as pilot:
            await bring(pilot)
            await fail_once(pilot)

    asyncio.run(go())
    assert asyncio.run(wallet_keys.export(directory)).letters == SEED


def test_out_by_escape_leaves_nothing(home: Path) -> None:
    directory = home / "third"

    async def go() -> int | None:
        app = QubixApp(directory)
        async with app.run_test(size=(80, 24), notifications=True) as pilot:
            await until(pilot, lambda: isinstance(app.screen, FirstRunScreen))
            await shows(pilot, "Make a new wallet")
            await pilot.resize_terminal(1, 1)
            await pilot.press("tab", "pagedown")
            await pilot.resize_terminal(80, 24)
            await shows(pilot, "Make a new wallet")
            await pilot.press("escape")
            await until(pilot, lambda: not app.is_running)
        return app.return_code

    assert asyncio.run(go()) == 0
    assert not wallet_keys.has_keys(directory)
