"""What the market's table shows: offers page by page, and as many columns as a width has room for. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from rich.cells import cell_len, set_cell_size

from protocol.control_market import MarketArgs, MarketView, OfferView
from tui import show
from tui.market_screens import marks
from tui.safe import safe_line

PAGE: Final = 100
"""Offers asked for at once; some 80 kB."""
MAX_PAGES: Final = 24
"""Kept; the one that was asked for longest ago goes first."""
MAX_NAMES: Final = 2_000
MAX_FITTEST: Final = 2_000
"""Offers that are shown in the order of fitness for a use: each page is found anew from the first on."""
AHEAD: Final = 60
"""Rows before and after those seen that are asked for, too."""
GAP: Final = "  "
UNKNOWN: Final = "-"


@dataclass(frozen=True)
class Search:
    """What is asked for. `sort` is a field, with "-" before it for the most first."""

    filter: str = ""
    sort: str = "price"
    use_case: str = ""

    def args(self, page: int, *, brief: bool) -> MarketArgs:
        return MarketArgs(
            limit=PAGE,
            filter=self.filter,
            sort="" if self.use_case else self.sort,
            use_case=self.use_case,
            after=page * PAGE,
            brief=brief,
        )


@dataclass
class Offers:
    """What is known here of the answer to a search: some of its pages, of the present and of a moment ago."""

    search: Search
    view: MarketView = field(default_factory=lambda: MarketView([]))
    """The newest answer; its offers are those of one page."""
    _pages: dict[int, Sequence[OfferView]] = field(default_factory=dict)
    _old: set[int] = field(default_factory=set)

    @property
    def total(self) -> int:
        """How many there are to show."""
        return min(self.view.total, MAX_FITTEST) if self.search.use_case else self.view.total

    @property
    def heard(self) -> bool:
        """Whether there has been an answer."""
        return bool(self._pages)

    def put(self, page: int, view: MarketView) -> None:
        self.view = view
        self._pages.pop(page, None)
        self._pages[page] = view.offers
        if len(self._pages) > MAX_PAGES:
            self._pages.pop(next(iter(self._pages)))
        self._old.discard(page)

    def grow_old(self) -> None:
        """All pages are to be asked for again when somebody looks at them."""
        self._old = set(self._pages)

    def get(self, row: int) -> OfferView | None:
        """None if it is not known yet, or not there."""
        page, place = divmod(row, PAGE)
        offers = self._pages.get(page, ())
        return offers[place] if 0 <= place < len(offers) else None

    def wanted(self, first: int, last: int) -> int | None:
        """A page that must be asked for so that these rows can be shown, and soon those around them."""
        seen, around = self._covering(first, last), self._covering(first - AHEAD, last + AHEAD)
        missing = [page for page in (*seen, *around) if page not in self._pages]
        return next((page for page in (*missing, *seen) if page in missing or page in self._old), None)

    def _covering(self, first: int, last: int) -> range:
        """The pages with these rows."""
        last = min(last, self.total - 1)
        return range(max(0, first) // PAGE, max(0, last) // PAGE + 1)

    def row_of(self, peer_id: str) -> int | None:
        """Where an offer stands now, if it is on a page that is known."""
        for page, offers in self._pages.items():
            for place, one in enumerate(offers):
                if one.peer_id == peer_id:
                    return page * PAGE + place
        return None


class Names:
    """Names that offers were seen to have, for the filter line; of very many the first."""

    def __init__(self) -> None:
        self._known: dict[str, set[str]] = {kind: set() for kind in ("gpu", "region", "runner", "name")}
        self._sorted: dict[str, list[str]] = {}

    @property
    def words(self) -> dict[str, list[str]]:
        """By kind, in the order of the alphabet."""
        if not self._sorted:
            self._sorted = {kind: sorted(names) for kind, names in self._known.items()}
        return self._sorted

    def learn(self, offers: Iterable[OfferView]) -> None:
        for one in offers:
            runner = one.runner.partition("+")[0]
            said = {"gpu": one.gpu_class, "region": one.region, "runner": runner, "name": one.name}
            for kind, name in said.items():
                if name and len(self._known[kind]) < MAX_NAMES:
                    self._known[kind].add(name)
        self._sorted = {}


# --- columns ----------------------------------------------------------------------------------

Tone = Literal["", "name", "price", "good", "bad", "quiet"]


@dataclass(frozen=True)
class Column:
    title: str
    width: int
    cell: Callable[[OfferView], str]
    right: bool = False
    sort: str = ""
    """What the column is sorted by; "-" before it if the most comes first."""
    tone: Tone = ""
    least_width: int = 0
    """Of the table, for the column to be shown."""
    share: int = 0
    """Of the room that is left over."""
    most: int = 0
    """Cells it grows to."""


def called(offer: OfferView) -> str:
    """A provider's name, or what tells it apart if it has none."""
    return offer.name or show.short_peer(offer.peer_id)


def _percent(part: float | None) -> str:
    return UNKNOWN if part is None else f"{part:.0%}"


def gpu_words(offer: OfferView) -> str:
    if not offer.gpus:
        return "no GPU" if offer.gpu_class == "CPU" else f"{offer.gpu_class}, all rented"
    return f"{offer.gpus} x {offer.gpu_class}" if offer.gpus > 1 else offer.gpu_class


def score_words(offer: OfferView) -> str:
    return "new" if offer.newcomer else UNKNOWN if offer.score is None else f"{offer.score:.2f}"


def _milliseconds(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.0f} ms"


COLUMNS: Final = (
    Column("PROVIDER", 12, called, tone="name", share=1, most=24),
    Column("", 3, marks, tone="bad"),
    Column("GPU", 13, gpu_words, sort="-gpus", share=2, most=26),
    Column("VRAM", 6, lambda one: show.size(one.vram_mib) if one.vram_mib else UNKNOWN, True, "-vram"),
    Column("QU/HOUR", 10, lambda one: show.qu(one.price_qu_per_hour), True, "price", "price"),
    Column("SCORE", 6, score_words, True, "-score"),
    Column("RTT", 7, lambda one: _milliseconds(one.rtt_ms), True, "rtt"),
    Column("REGION", 8, lambda one: one.region or UNKNOWN),
    Column("ENDED WELL", 10, lambda one: _percent(one.reliability), True, "-reliability", least_width=120),
    Column("CPUS", 5, lambda one: f"{one.cpu_millis / 1_000:g}", True, "-cpus", least_width=100),
    Column("MEMORY", 7, lambda one: show.size(one.memory_mib), True, "-ram", least_width=100),
    Column("DISK", 8, lambda one: show.size(one.disk_mib), True, "-disk", least_width=130),
    Column("CUDA", 5, lambda one: one.cuda or UNKNOWN, True, "-cuda", least_width=140),
    Column("RUNS WITH", 12, lambda one: one.runner or UNKNOWN, least_width=150),
    Column("INTERNET", 8, lambda one: "yes" if one.internet else "no", least_width=150),
    Column("PEER", 13, lambda one: show.short_peer(one.peer_id), tone="quiet", least_width=180),
)
SORTS: Final = ("price", "-score", "-reliability", "rtt", "-vram", "-gpus", "-cpus", "-ram", "-disk", "-cuda")
"""What `s` goes through."""


@dataclass(frozen=True)
class Placed:
    """A column of so many cells."""

    column: Column
    width: int


def layout(width: int) -> tuple[Placed, ...]:
    """The columns that a table of this width has room for; what is left over goes to those that can grow."""
    shown: list[Column] = []
    room = width
    for column in COLUMNS:
        need = column.width + len(GAP)
        if column.least_width <= width and need <= room:
            shown.append(column)
            room -= need
    shares = sum(column.share for column in shown) or 1
    return tuple(
        Placed(column, min(max(column.width, column.most), column.width + room * column.share // shares))
        for column in shown
    )


def cell(placed: Placed, offer: OfferView) -> str:
    """An offer's cell, harmless and exactly as wide as its column, with the gap behind it."""
    text, width = placed.column.cell(offer), placed.width
    if len(text) <= width and text.isascii() and text.isprintable():  # harmless, and a cell each: most are
        return (text.rjust(width) if placed.column.right else text.ljust(width)) + GAP
    text = safe_line(text, width)
    return aligned(text, width, right=placed.column.right) + GAP


def aligned(text: str, width: int, *, right: bool) -> str:
    """`text` in that many cells."""
    missing = width - cell_len(text)
    return " " * missing + text if right and missing > 0 else set_cell_size(text, width)


def title(placed: Placed, sort: str) -> str:
    """A column's head; an arrow says that the table is sorted by it, and which way."""
    column = placed.column
    name = column.title
    if column.sort and column.sort.removeprefix("-") == sort.removeprefix("-"):
        arrow = "↓" if sort.startswith("-") else "↑"
        name = f"{arrow}{name}"
    return aligned(name, placed.width, right=column.right) + GAP


def column_at(columns: Sequence[Placed], x: int) -> Column | None:
    """The column that covers a cell of a line."""
    end = 0
    for placed in columns:
        end += placed.width + len(GAP)
        if x < end:
            return placed.column
    return None


def turned(sort: str, wanted: str) -> str:
    """What a second click on the same column sorts by: the other way round."""
    if sort != wanted:
        return wanted
    return sort.removeprefix("-") if sort.startswith("-") else f"-{sort}"


def next_sort(sort: str) -> str:
    return SORTS[(SORTS.index(sort) + 1) % len(SORTS)] if sort in SORTS else SORTS[0]


def reversed_sort(sort: str) -> str:
    return sort.removeprefix("-") if sort.startswith("-") else f"-{sort}"


SORT_WORDS: Final = {
    "price": ("cheapest first", "dearest first"),
    "rtt": ("nearest first", "farthest first"),
    "score": ("lowest score first", "best score first"),
    "reliability": ("least reliable first", "most reliable first"),
    "vram": ("least GPU memory first", "most GPU memory first"),
}


def sort_words(sort: str) -> str:
    """ "cheapest first"."""
    name = sort.removeprefix("-")
    up, down = SORT_WORDS.get(name, (f"fewest {name} first", f"most {name} first"))
    return down if sort.startswith("-") else up
