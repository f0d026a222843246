"""The market: every offer known here, searched, sorted and looked at; from here one rents."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Final

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.timer import Timer
from textual.widgets import Static

from protocol.catalogue import USE_CASES
from protocol.control_market import MarketArgs, MarketView
from protocol.errors import QubixError
from tui import practice, searches
from tui.messages import LinkChanged
from tui.private_net import no_chain_named
from tui.safe import safe_line
from tui.screens.area import AreaScreen
from tui.screens.choice import Choice
from tui.screens.market_filter import FilterInput, FilterLine
from tui.screens.market_model import Names, Offers, Search, next_sort, reversed_sort, turned
from tui.screens.market_offer import OfferScreen
from tui.screens.market_saved import NameSearch, SavedSearches
from tui.screens.market_table import OfferTable
from tui.screens.market_words import PRACTISING, empty_hint, no_match, offer_line, summary

REFRESH_SECONDS: Final = 5.0
TYPING_SECONDS: Final = 0.25
"""So long a line must have rested before it is asked for."""
ANYTHING: Final = "anything"


class MarketScreen(AreaScreen):
    AREA = "market"
    HELP = (
        "All machines that are for rent now. Type / and a filter to narrow the list, u to say what you want"
        " one for, Enter to see everything about an offer with its price history and score, and r to rent it."
        " Prices are in QU for each GPU and hour; details show the price all in."
        " A letter before the GPU is a warning, explained below the list."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("s", "sort", "Sort"),
        Binding("S", "reverse", "Other way", show=False),
        Binding("u", "use_case", "Use"),
        Binding("f", "saved", "Saved"),
        Binding("ctrl+s", "save", "Save search", show=False),
        Binding("m", "measure", "Measure", show=False),
        Binding("r", "rent", "Rent"),
        Binding("p", "practice", "Practice provider"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._offers = Offers(Search())
        self._names = Names()
        self._typing: Timer | None = None
        self._practising = False

    def compose_body(self) -> ComposeResult:
        yield FilterLine(self._words)
        yield Static("", id="market-summary", markup=False)
        yield OfferTable()
        yield Static("", id="market-offer", markup=False)

    def on_mount(self) -> None:
        self.refresh_every(REFRESH_SECONDS)
        self._table.focus()

    # --- asking -------------------------------------------------------------------------------

    async def load(self) -> None:
        """What is seen of the list: at once what is known, then with scores."""
        offers = self._offers
        if not offers.heard:
            await self._fill(offers, brief=True)
        offers.grow_old()
        await self._fill(offers, brief=False)

    async def _fill(self, offers: Offers, *, brief: bool) -> None:
        """Ask for the pages that are seen, until all are there; nothing once another search is wanted."""
        while offers is self._offers and (page := offers.wanted(*self._seen(offers))) is not None:
            view: MarketView = await self.link.call("market", offers.search.args(page, brief=brief))
            if offers is self._offers:
                offers.put(page, view)
                self._names.learn(view.offers)
                self._show()

    def _seen(self, offers: Offers) -> tuple[int, int]:
        first, last = self._table.seen
        return (first, last) if self._table.offers is offers else (0, last - first)

    @work(group="pages", exclusive=True)
    async def _fill_seen(self) -> None:
        try:
            await self._fill(self._offers, brief=True)
        except QubixError:
            return  # the next load asks again, and says what is wrong

    def search(self, search: Search) -> None:
        """Look for something else. What is shown stays until the answer is there."""
        if search != self._offers.search:
            self._offers = Offers(search)
            self.reload()

    # --- showing ------------------------------------------------------------------------------

    def _show(self) -> None:
        offers, view = self._offers, self._offers.view
        if not view.known:
            self._show_nothing(view)
            return
        if self.has_class("-stated"):
            self.show_body()
            self.refresh_bindings()
        line, words = self.query_one("#market-summary", Static), safe_line(summary(offers), 400)
        if words != line.content:
            line.update(words, layout=False)
        self._table.say(no_match(offers))
        if self._table.offers is offers:
            self._table.refresh_rows()
        else:
            self._table.show(offers)

    def _show_nothing(self, view: MarketView) -> None:
        if self._practising:
            self.show_state("loading", PRACTISING)
        else:
            hint = empty_hint(view.peers, alone=no_chain_named(None))
            self.show_state("empty", "No machine is for rent here yet.", hint)
        self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """A practice provider is for a private network where nobody offers."""
        if action in {"rent", "sort", "use_case", "measure"}:
            return not self._is_empty
        return action != "practice" or (self._is_empty and not self._practising and no_chain_named(None))

    @work(group="practice")
    async def action_practice(self) -> None:
        self._practising = True
        self._show()
        try:
            await practice.start_provider(self.qubix.directory)
        except QubixError as error:
            self.say_error(error)
        finally:
            self._practising = False
        self.reload()

    @property
    def _is_empty(self) -> bool:
        """Whether nobody offers anything, as far as was heard."""
        return self._offers.heard and not self._offers.view.known

    @on(OfferTable.Moved)
    def _moved(self) -> None:
        line = self.query_one("#market-offer", Static)
        offer = self._table.offer
        line.update(offer_line(offer) if offer else "", layout=False)

    @on(OfferTable.Looked)
    def _looked(self) -> None:
        if self._offers.heard and self._offers.wanted(*self._seen(self._offers)) is not None:
            self._fill_seen()

    # --- the filter ---------------------------------------------------------------------------

    def _words(self) -> dict[str, list[str]]:
        return self._names.words

    @on(FilterLine.Asked)
    def _asked(self, event: FilterLine.Asked) -> None:
        if self._typing:
            self._typing.stop()
        wanted = replace(self._offers.search, filter=event.filter.strip())
        if event.now:
            self.search(wanted)
        else:
            self._typing = self.set_timer(TYPING_SECONDS, lambda: self.search(wanted))

    @on(FilterLine.Left)
    def _left(self) -> None:
        self._table.focus()

    def action_filter(self) -> None:
        self.query_one(FilterInput).focus()

    # --- order and use ------------------------------------------------------------------------

    @on(OfferTable.SortAsked)
    def _sort_asked(self, event: OfferTable.SortAsked) -> None:
        self._sort(turned(self._offers.search.sort, event.sort))

    def action_sort(self) -> None:
        self._sort(next_sort(self._offers.search.sort))

    def action_reverse(self) -> None:
        self._sort(reversed_sort(self._offers.search.sort))

    def _sort(self, sort: str) -> None:
        self.search(replace(self._offers.search, sort=sort, use_case=""))

    @work(group="choice", exclusive=True)
    async def action_use_case(self) -> None:
        lines = [(ANYTHING, "Anything", "all offers in the order of your choice")]
        lines += [(one.name, one.title, one.group_title) for one in USE_CASES.values()]
        marked = self._offers.search.use_case or ANYTHING
        hint = "Offers with room for it then come fittest first: speed for the price."
        chosen = await self.app.push_screen_wait(
            Choice("What do you need a machine for?", lines, marked, hint)
        )
        if chosen is not None:
            self.search(replace(self._offers.search, use_case="" if chosen == ANYTHING else chosen))

    # --- saved searches -----------------------------------------------------------------------

    @work(group="choice", exclusive=True)
    async def action_saved(self) -> None:
        try:
            known = searches.load(self.qubix.directory)
        except QubixError as error:
            self.say_error(error)
            return
        chosen = await self.app.push_screen_wait(SavedSearches(self.qubix.directory, known))
        if chosen is not None:
            self.query_one(FilterLine).put(chosen.filter)
            self.search(Search(chosen.filter, chosen.sort, chosen.use_case))

    @work(group="choice", exclusive=True)
    async def action_save(self) -> None:
        now = self._offers.search
        name = await self.app.push_screen_wait(NameSearch(now.filter or now.use_case or "all offers"))
        if name is None:
            return
        try:
            searches.save(self.qubix.directory, searches.Saved(name, now.filter, now.sort, now.use_case))
        except QubixError as error:
            self.say_error(error)
        else:
            self.app.notify(f"Saved as {safe_line(name)}; f shows all saved searches.", markup=False)

    # --- one offer ----------------------------------------------------------------------------

    @on(OfferTable.Chosen)
    def _chosen(self, event: OfferTable.Chosen) -> None:
        self.app.push_screen(OfferScreen(event.offer))

    def action_rent(self) -> None:
        self.qubix.open_page("launch", offer=self._table.offer)

    @work(group="measure", exclusive=True)
    async def action_measure(self) -> None:
        """Round trips to the first of the list; the list then shows them."""
        self.app.notify("Measuring the way to the first of the list.", markup=False)
        wanted = self._offers.search.args(0, brief=True)
        args = MarketArgs(**{**vars(wanted), "measure": True})
        try:
            await self.link.call("market", args)
        except QubixError as error:
            self.say_error(error)
        else:
            self.reload()

    @on(LinkChanged)
    def _gone(self) -> None:
        self._offers.grow_old()

    @property
    def _table(self) -> OfferTable:
        return self.query_one(OfferTable)
