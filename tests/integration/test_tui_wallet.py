"""The wallet's screens against canned answers: what is shown, sent, refused and survived."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from protocol.control_wallet import HistoryView, SendArgs, WaitingEvent
from protocol.errors import BalanceTooLow, DaemonUnreachable, MessageInvalid, QubixError, UsageError
from tests.support import tui_wallet
from tests.support.tui_pilot import running_app, settled, text_of, until
from tests.support.tui_wallet import EMPTY, OTHER
from tui import wallet_keys
from tui.screens.passphrase import PassphraseScreen
from tui.screens.seed_steps import CheckSeedStep
from tui.screens.wallet_backup import BackupScreen
from tui.screens.wallet_move import SendScreen

SIZES = [(80, 24), (200, 60)]
Flow = Callable[[Pilot[int]], Coroutine[Any, Any, None]]


def drive(flow: Flow, size: tuple[int, int] = (80, 24), **settings: Any) -> None:
    async def go() -> None:
        async with running_app(size, area="wallet", **settings) as pilot:
            await flow(pilot)

    asyncio.run(go())


def says(pilot: Pilot[int], *words: str) -> bool:
    text = " ".join(text_of(pilot.app.screen).split())
    return all(word in text for word in words)


async def shows(pilot: Pilot[int], *words: str) -> None:
    await until(pilot, lambda: says(pilot, *words))


async def fill(pilot: Pilot[int], to: str, amount: str) -> None:
    """Open the form and leave the amount with Enter."""
    await pilot.press("s")
    await until(pilot, lambda: isinstance(pilot.app.screen, SendScreen) and says(pilot, "Look it over"))
    pilot.app.screen.query_one("#to", Input).value = to
    pilot.app.screen.query_one("#amount", Input).value = amount
    pilot.app.screen.query_one("#amount", Input).focus()
    await pilot.press("enter")


@pytest.mark.parametrize("size", SIZES)
def test_money_and_history_are_shown_and_nothing_of_a_stranger_is_raw(size: tuple[int, int]) -> None:
    async def flow(pilot: Pilot[int]) -> None:
        await shows(pilot, "998,765,432 QU", "30,000,000 QU", "stable-diffusion", "-1,234,568", "(-250,000)")
        await shows(pilot, "running", "pending", "failed")
        assert not {"\x1b", "\x07", "\u202e", "\x9b"} & set(text_of(pilot.app.screen))
        await pilot.press("ctrl+end", "enter")
        await shows(pilot, "\\x1b]0;owned", "No transaction was signed")
        assert not {"\x1b", "\x07", "\u202e", "\x9b"} & set(text_of(pilot.app.screen))
        await pilot.press("escape")
        await shows(pilot, "998,765,432 QU")

    drive(flow, size)


def test_an_empty_wallet_says_what_to_do() -> None:
    async def flow(pilot: Pilot[int]) -> None:
        await shows(pilot, "The wallet is empty. Press d", "Nothing was rented")

    drive(flow, answers={"wallet": EMPTY, "history": HistoryView([])})


def test_a_deposit_shows_the_identity_in_letters_and_as_a_picture() -> None:
    async def flow(pilot: Pilot[int]) -> None:
        await shows(pilot, "998,765,432 QU")
        await pilot.press("d")
        await shows(pilot, "Send QU to this identity", "HQDWF MZKCP", "████")
        await pilot.press("escape")

    drive(flow)


def test_a_payment_is_looked_over_and_sent_once() -> None:
    asked: list[Any] = []

    async def flow(pilot: Pilot[int]) -> None:
        await shows(pilot, "998,765,432 QU")
        await fill(pilot, f"{OTHER[:30]} {OTHER[30:]}", "12_000")
        await shows(pilot, "12,000 QU", "998,753,432 QU stay", "cannot be taken back")
        await pilot.press("enter")
        await shows(pilot, "Look it over")  # `no` is what Enter does at first
        await pilot.press("enter")
        await shows(pilot, "cannot be taken back")
        await pilot.press("tab", "enter")
        await shows(pilot, "Sent.", "Carried out in tick")
        await pilot.press("enter")
        await shows(pilot, "998,765,432 QU")

    drive(flow, asked=asked)
    sent = [one for one in asked if isinstance(one, SendArgs)]
    assert [one.check for one in sent] == [True, True, False]
    assert {(one.identity, one.amount) for one in sent} == {(OTHER, 12_000)}


def test_what_is_wrong_is_said_in_the_form_and_nothing_is_sent() -> None:
    asked: list[Any] = []
    refusals: list[QubixError] = []
    typed = [
        ("", "5", None, "Say who gets it"),
        (OTHER[:9] + "q" + OTHER[10:], "5", None, "At letter 10 of the identity there is a small letter"),
        (OTHER, "-5", None, "is not a whole number of QU"),
        (OTHER, "\u202e5", None, "is not a whole number of QU"),
        (OTHER, "5", BalanceTooLow("this needs 5 QU and the wallet has 1 QU"), "this needs 5 QU"),
        (OTHER, "6", UsageError("the last letters do not fit"), "the last letters do not fit"),
    ]

    async def flow(pilot: Pilot[int]) -> None:
        await shows(pilot, "998,765,432 QU")
        await pilot.press("s")
        await shows(pilot, "Look it over")
        to, amount = (pilot.app.screen.query_one(name, Input) for name in ("#to", "#amount"))
        for identity, qu, refusal, words in typed:
            refusals[:] = [refusal] if refusal else []
            to.value, amount.value = identity, qu
            amount.focus()
            await pilot.press("enter")
            await shows(pilot, "! ", words)
            assert (to.value, amount.value) == (identity, qu), "nothing typed is lost"

    drive(flow, answers={"send": lambda _: refusals[0]}, asked=asked)
    sent = [one for one in asked if isinstance(one, SendArgs)]
    assert [(one.amount, one.check) for one in sent] == [(5, True), (6, True)]


@pytest.mark.parametrize("lost", [DaemonUnreachable("it ended"), MessageInvalid("this is no answer")])
def test_a_daemon_that_goes_away_while_it_pays_is_asked_again_with_the_same_number(lost: QubixError) -> None:
    """Or one that says what nobody understands: nothing is known of the payment either."""
    asked: list[Any] = []

    def pay(args: SendArgs) -> Any:
        tries = [one for one in asked if isinstance(one, SendArgs) and not one.check]
        return lost if len(tries) == 1 else tui_wallet.paid(args)

    async def flow(pilot: Pilot[int]) -> None:
        await shows(pilot, "998,765,432 QU")
        await fill(pilot, OTHER, "7")
        await shows(pilot, "cannot be taken back")
        await pilot.press("tab", "enter")
        await shows(pilot, "not known yet", "never paid twice", "no tick comes \\x1b")
        await pilot.press("enter")
        await shows(pilot, "Sent.")

    drive(flow, answers={"send": pay}, events={"send": [WaitingEvent("no tick comes \x1b")]}, asked=asked)
    first, second = (one for one in asked if isinstance(one, SendArgs) and not one.check)
    assert first == second


def test_a_terminal_of_nothing_and_back() -> None:
    async def flow(pilot: Pilot[int]) -> None:
        await shows(pilot, "998,765,432 QU")
        for size in ((1, 1), (20, 5), (80, 24)):
            await pilot.resize_terminal(*size)
            for key in ("d", "escape", "enter", "escape", "s", "escape"):
                await pilot.press(key)
        await shows(pilot, "998,765,432 QU", "stable-diffusion")

    drive(flow)


@pytest.mark.parametrize("passphrase", ["", "long enough a phrase"])
def test_the_keys_are_sealed_with_another_passphrase(passphrase: str) -> None:
    async def flow(pilot: Pilot[int]) -> None:
        directory = pilot.app.directory  # type: ignore[attr-defined]  # QubixApp's
        await wallet_keys.keep(directory, "q" * 55, passphrase)
        pilot.app.screen.reload()  # type: ignore[attr-defined]  # AreaScreen's
        await shows(pilot, "998,765,432 QU")
        await pilot.press("p")
        await until(pilot, lambda: isinstance(pilot.app.screen, PassphraseScreen))
        if passphrase:
            await shows(pilot, "Type the present one")
            await pilot.press(*"wrong", "enter")
            await shows(pilot, "does not open")
            pilot.app.screen.query_one("#passphrase", Input).value = passphrase
            await pilot.press("enter")
        await until(pilot, lambda: bool(pilot.app.screen.query("#second")))
        await shows(pilot, "The new passphrase")
        for name, typed in (("#first", "another phrase"), ("#second", "another phrasE")):
            pilot.app.screen.query_one(name, Input).value = typed
        pilot.app.screen.query_one("#second", Input).focus()
        await pilot.press("enter")
        await shows(pilot, "The two are not the same")
        pilot.app.screen.query_one("#second", Input).value = "another phrase"
        await pilot.press("enter")
        await shows(pilot, "998,765,432 QU")
        assert (await wallet_keys.export(directory, "another phrase")).letters == "q" * 55
        assert wallet_keys.wants_passphrase(directory)

    drive(flow)


@pytest.mark.parametrize("passphrase", ["", "long enough a phrase"])
def test_a_backup_is_shown_and_checked_and_the_reminder_goes(passphrase: str) -> None:
    async def flow(pilot: Pilot[int]) -> None:
        directory = pilot.app.directory  # type: ignore[attr-defined]  # QubixApp's
        await wallet_keys.keep(directory, "q" * 54 + "a", passphrase)
        wallet_keys.remember_backup(directory, done=False)
        pilot.app.screen.reload()  # type: ignore[attr-defined]  # AreaScreen's
        await shows(pilot, "not backed up")
        await pilot.press("b")
        await until(pilot, lambda: isinstance(pilot.app.screen, BackupScreen))
        screen = pilot.app.screen
        assert isinstance(screen, BackupScreen)
        if passphrase:
            await shows(pilot, "Go on")
            await pilot.press(*"wrong", "enter")
            await shows(pilot, "does not open")
            screen.query_one("#passphrase", Input).value = passphrase
        else:
            await shows(pilot, "Nobody else should see it")
        await pilot.press("enter")
        await shows(pilot, "11 qqqqa")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(screen.step, CheckSeedStep))
        assert isinstance(screen.step, CheckSeedStep)
        for number in screen.step.asked:
            screen.query_one(f"#group-{number}", Input).value = "qqqqa" if number == 11 else "qqqqq"
        await pilot.press("enter")
        await until(pilot, lambda: not wallet_keys.backup_open(directory))
        await settled(pilot)
        await until(pilot, lambda: says(pilot, "998,765,432 QU") and not says(pilot, "not backed up"))

    drive(flow)
