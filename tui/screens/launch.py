"""The wizard: what for, which GPU, how, at what price; ends in a lease, or with nothing signed."""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Final

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import ContentSwitcher, Static
from textual.worker import Worker

from protocol import jobspec
from protocol.control import ConfirmArgs, LeaseView, RunArgs
from protocol.control_again import JobFileView
from protocol.control_market import ChangeView, MarketArgs, MarketView, OfferView, WhyArgs, WhyView
from protocol.control_wallet import WalletArgs, WalletView
from protocol.errors import DaemonUnreachable, LeaseUnknown, NoOffer, QubixError, QuoteDeclined, Refused
from protocol.job_draft import job_yaml
from tui.client import Client, connect
from tui.messages import Ticked
from tui.places import control_socket
from tui.run import secrets_of
from tui.screens.area import AreaScreen
from tui.screens.launch_choose import GpuPage, UsePage
from tui.screens.launch_plan import Plan, of_offer, suggestions
from tui.screens.launch_price import PricePage
from tui.screens.launch_progress import ProgressScreen
from tui.screens.launch_settings import SettingsPage
from tui.ssh_keys import Keys

STEPS: Final = {"use": "What for", "gpu": "GPU", "settings": "Settings", "price": "Price and risk"}
MOST_OFFERS: Final = 500
LOOK_AGAIN_SECONDS: Final = 10.0
TRY_AGAIN_SECONDS: Final = 0.5
AWAKE_SECONDS: Final = 30.0
"""So long after its return a daemon may not have heard of any offer yet."""


class LaunchScreen(AreaScreen):
    """Begins with a plan, with an offer that somebody has picked in the market, with the job file of a lease
    that was (`again`, then only the price is left to say yes to), or from nothing."""

    AREA = ""  # it is opened from all of them
    HELP = (
        "Rent a machine in four steps: what you want to do, the GPU for it, what shall run and for how long, "
        "and the price. Nothing is signed and nothing costs anything before you have said yes to an offer in "
        "the last step, which also says what you can lose at most. Escape goes a step back."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Back"),
        Binding("ctrl+n", "go_on", "Ask for a price"),
        Binding("y", "answer(True)", "Rent it"),
        Binding("n", "answer(False)", show=False),
    ]

    loaded = True  # nothing of the daemon's is needed to begin

    def __init__(
        self,
        plan: Plan | None = None,
        offer: OfferView | None = None,
        again: JobFileView | None = None,
    ) -> None:
        super().__init__()
        self._plan = of_offer(offer) if offer else plan or Plan()
        self._kept = again
        """A job that was rented before, to be asked for as it is; there is nothing to go back to then."""
        if again:
            self._plan = Plan(draft=replace(self._plan.draft, name=again.name))
        self._step = "price" if again else "settings" if plan or offer else "use"
        self._balance: int | None = None
        self._hiring: Worker[None] | None = None
        self._client: Client | None = None
        self._output_dir = ""
        """Names one wish: asked again with the same, nothing is rented twice."""
        self._said_yes = False

    def compose_body(self) -> ComposeResult:
        yield Static("", id="launch-steps", markup=False)
        with ContentSwitcher(id="launch-pages", initial=self._step):
            yield UsePage(id="use")
            yield GpuPage(id="gpu")
            yield SettingsPage(_is_missing, id="settings")
            yield PricePage(id="price")

    def on_mount(self) -> None:
        self.refresh_every(LOOK_AGAIN_SECONDS)
        self._go(self._step)

    async def load(self) -> None:
        wallet: WalletView = await self.link.call("wallet", WalletArgs())
        self._balance = wallet.balance
        self.query_one(SettingsPage).show_sum(self._balance)
        if self._step == "gpu":
            use = self._plan.use_case
            args = MarketArgs(use_case=self._plan.use, limit=MOST_OFFERS)
            view: MarketView = await self.link.call("market", args)
            self.query_one(GpuPage).show(suggestions(view, use), use, view.known)

    # --- from step to step --------------------------------------------------------------------

    def _go(self, step: str) -> None:
        self._step = step
        self.query_one(ContentSwitcher).current = step
        self.query_one("#launch-steps", Static).update(self._steps())
        self.refresh_bindings()
        match step:
            case "use":
                self.query_one(UsePage).start(self._plan.use)
            case "gpu":
                self.query_one(GpuPage).wait(self._plan.use_case)
                self.query_one(GpuPage).start()
                self.reload()
            case "settings":
                self.query_one(SettingsPage).start(self._plan)
                self.query_one(SettingsPage).show_sum(self._balance)
            case _:
                self._new_wish()

    def _steps(self) -> Text:
        line = Text(no_wrap=True, overflow="ellipsis")
        for place, (step, title) in enumerate(STEPS.items(), start=1):
            here = step == self._step
            words = f"[{place} {title}]" if here else f" {place} {title} "
            line.append(words, "bold reverse" if here else "dim")
            line.append("" if place == len(STEPS) else " > ", "dim")
        return line

    def action_back(self) -> None:
        """A step back; nothing is signed by that. Whoever has said yes already can only leave."""
        before = list(STEPS)[max(0, list(STEPS).index(self._step) - 1)]
        if self._step == "use" or self._said_yes or self._kept:
            self.app.pop_screen()
            return
        self._end_wish()
        self._go(before)

    def action_go_on(self) -> None:
        self.query_one(SettingsPage).go_on()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "answer" and parameters == (True,):
            return self._step == "price" and self.query_one(PricePage).stage == "quoted"
        return action != "go_on" or self._step == "settings"

    def action_answer(self, yes: bool) -> None:
        """`n` is no second wizard while this one is open."""
        page = self.query_one(PricePage)
        if self._step == "price" and page.stage == "quoted":
            page.post_message(PricePage.Answered()) if yes else self.action_back()

    @on(UsePage.Chosen)
    def _use_chosen(self, event: UsePage.Chosen) -> None:
        self._plan = self._plan.for_use(event.use)
        self._go("gpu")

    @on(GpuPage.Chosen)
    def _gpu_chosen(self, event: GpuPage.Chosen) -> None:
        self._plan = self._plan.with_gpu(event.suggestion, event.provider)
        self._go("settings")

    @on(SettingsPage.Changed)
    def _changed(self, event: SettingsPage.Changed) -> None:
        self._plan = event.plan
        self.query_one(SettingsPage).show_sum(self._balance)

    @on(SettingsPage.Done)
    def _settings_done(self) -> None:
        self._go("price")

    # --- asking and renting -------------------------------------------------------------------

    def _new_wish(self) -> None:
        self._said_yes = False
        self._output_dir = str(results_folder(self._plan.draft.name, time.strftime("%Y%m%d-%H%M%S")))
        self._ask()

    def _ask(self) -> None:
        self.query_one(PricePage).wish(self._output_dir)
        self._hiring = self.run_worker(self._hire(), group="hire", exclusive=True)

    def _end_wish(self) -> None:
        """Closing its connection ends what the daemon does for it."""
        if self._hiring:
            self._hiring.cancel()
            self._hiring = None

    async def _hire(self) -> None:
        """To a lease or a refusal, however often the daemon goes away meanwhile: it knows the wish again."""
        page, lease, away_at = self.query_one(PricePage), None, -math.inf
        while lease is None:
            try:
                lease = await self._rent(page)
            except DaemonUnreachable:
                away_at = time.monotonic()
                page.away(signed=self._said_yes)
                self.refresh_bindings()
            except QubixError as error:
                self._said_yes = False
                if not isinstance(error, NoOffer) or time.monotonic() - away_at > AWAKE_SECONDS:
                    page.failed(error, await self._help(error))
                    return
            if lease is None:
                await asyncio.sleep(TRY_AGAIN_SECONDS)
        self.app.switch_screen(ProgressScreen(lease, None if self._kept else self._plan))

    async def _rent(self, page: PricePage) -> LeaseView | None:
        """By a connection of its own: closing that ends just this. A new quote means that a yes came to
        nothing."""
        lease = None
        async with connect(control_socket(self.qubix.directory)) as client:
            self._client = client
            async with aclosing(client.stream("run", self._request())) as events:
                async for event in events:
                    lease = event.lease or lease
                    self._said_yes = self._said_yes and not event.quote
                    page.take(event)
                    self.refresh_bindings()
        return lease

    def _request(self) -> RunArgs:
        again = self._kept
        text = again.job_yaml if again else job_yaml(self._plan.draft)
        args = RunArgs(
            job_yaml=text,
            base_dir=again.base_dir if again else str(Path.cwd()),
            output_dir=self._output_dir,
            secrets=secrets_of(jobspec.parse(text), Keys(self.qubix.directory / "ssh" / "keys")),
            provider=self._plan.provider,
            detach=True,
            ask=True,
            once=True,
        )
        return as_before(args, again) if again else args

    async def _help(self, error: QubixError) -> list[ChangeView]:
        """Changes of the job that would bring it somebody."""
        if not isinstance(error, NoOffer | Refused) or isinstance(error, QuoteDeclined) or self._kept:
            return []
        try:
            args = WhyArgs(job_yaml(self._plan.draft), provider=self._plan.provider)
            view: WhyView = await self.link.call("why", args)
        except QubixError:
            return []
        return [one for one in view.changes if set(one.fields) <= CHANGEABLE]

    @on(PricePage.Answered)
    def _answered(self) -> None:
        page = self.query_one(PricePage)
        if page.stage != "quoted" or page.quote is None or self._client is None:
            return
        token, self._said_yes = page.quote.token, True
        page.renting()
        self.refresh_bindings()
        self.run_worker(self._confirm(self._client, token), group="confirm")

    async def _confirm(self, client: Client, token: str) -> None:
        try:
            await client.call("confirm", ConfirmArgs(token, accept=True))
        except DaemonUnreachable:
            pass  # the other request of this connection tells it
        except LeaseUnknown as error:
            self.say_error(error)

    @on(PricePage.Again)
    def _again(self) -> None:
        self._ask()

    @on(PricePage.Change)
    def _take_change(self, event: PricePage.Change) -> None:
        said: dict[str, Any] = {name: text for name, text in event.fields.items() if name != "provider"}
        provider = "" if "provider" in event.fields else self._plan.provider
        draft = replace(self._plan.draft, **said)
        self._plan = replace(self._plan, draft=draft, provider=provider)
        self._new_wish()

    @on(Ticked)
    def _tick(self) -> None:
        self.query_one(PricePage).tick()


CHANGEABLE: Final = frozenset({"gpu", "cpus", "memory", "disk", "max_price", "provider"})
"""Fields of a ChangeView that are in this form as well."""


def as_before(args: RunArgs, kept: JobFileView) -> RunArgs:
    """Asked of those of whom it was asked then."""
    return replace(
        args,
        where=kept.where,
        order_by=kept.order_by,
        provider=kept.provider,
        max_price_qu_per_hour=kept.max_price_qu_per_hour,
    )


def _is_missing(path: str) -> bool:
    return not (Path.cwd() / Path(path).expanduser()).exists()


def results_folder(name: str, stamp: str) -> Path:
    """For what comes back; new, or the wish would be another's."""
    stem = f"{name or 'job'}-{stamp}"
    names = (stem, *(f"{stem}-{number}" for number in range(2, 100)))
    return next(path for one in names if not (path := Path.cwd() / one).exists())
