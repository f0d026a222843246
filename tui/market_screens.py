"""What the market looks like in a terminal: offers in as many columns as fit, reasons, scores."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from protocol.control_market import (
    DenyView,
    DirectoriesView,
    MarketArgs,
    MarketView,
    OfferView,
    ReasonGroup,
    ReasonView,
    ScoreView,
    WhyView,
)
from tui import show
from tui.safe import safe_line

MAX_NAMES: Final = 3
"""Providers named in a line before it says how many more there are."""
_PEER_ID: Final = re.compile(r"12D3KooW\w{20,}")
TOLD: Final = 3
"""Offers whose reasons are told for a use case."""


@dataclass(frozen=True)
class Column:
    name: str
    cell: Callable[[OfferView], Text]
    right: bool = False
    flexible: bool = False
    keeps: int = 0
    """Characters that a flexible column does not give away."""
    least_width: int = 0
    """Of the terminal, for the column to be shown."""


COLUMNS: Final = (
    Column("provider", lambda one: show.cell(one.name, "bold" if one.own else "", 20), flexible=True),
    Column("", lambda one: Text(marks(one), show.BAD)),
    Column("gpu", lambda one: show.cell(_gpu(one), max_chars=28), flexible=True, keeps=13),
    Column("VRAM", lambda one: show.cell(_vram(one)), right=True),
    Column("cpus", lambda one: show.cell(f"{one.cpu_millis / 1_000:g}"), right=True, least_width=100),
    Column("memory", lambda one: show.cell(show.size(one.memory_mib)), right=True, least_width=100),
    Column("disk", lambda one: show.cell(show.size(one.disk_mib)), right=True, least_width=110),
    Column("CUDA", lambda one: show.cell(one.cuda, max_chars=6), right=True, least_width=140),
    Column("runs with", lambda one: show.cell(one.runner, max_chars=16), flexible=True, least_width=130),
    Column("net", lambda one: show.cell("yes" if one.internet else "no"), least_width=110),
    Column("region", lambda one: show.cell(one.region, max_chars=16), flexible=True),
    Column("ms", lambda one: show.cell("" if one.rtt_ms is None else f"{one.rtt_ms:.0f}"), right=True),
    Column("±", lambda one: show.cell("" if one.jitter_ms is None else f"{one.jitter_ms:.0f}"), right=True),
    Column("QU/h", lambda one: show.cell(show.qu(one.all_in_qu_per_hour), "bold"), right=True),
    Column("score", lambda one: show.cell(_score(one)), right=True),
    Column("start", lambda one: show.cell(_start(one)), right=True),
    Column("peer", lambda one: show.cell(show.short_peer(one.peer_id), "dim"), least_width=120),
)


def market(view: MarketView, args: MarketArgs, width: int) -> RenderableType:
    """Offers, what is special about some, how many more there are; or what to do when there is none."""
    if not view.offers:
        return Text(nothing(view, args))
    parts: list[RenderableType] = [*_use_case(view), offers(view.offers, width)]
    parts += [_indented(Text(line)) for line in notes(view.offers)]
    parts.append(_indented(Text(_summary(view, args), "dim")))
    return Group(*parts)


def offers(some: Sequence[OfferView], width: int) -> RenderableType:
    """The table, with as many columns as a terminal of that width has room for."""
    shown = [
        column
        for column in COLUMNS
        if column.least_width <= width
        and (column.name not in _ONLY_IF_KNOWN or any(_ONLY_IF_KNOWN[column.name](one) for one in some))
    ]
    return show.table(
        [column.name for column in shown],
        [[column.cell(one) for column in shown] for one in some],
        right=[column.name for column in shown if column.right],
        flexible={column.name: column.keeps for column in shown if column.flexible},
    )


def own_offer(offer: OfferView, width: int) -> RenderableType:
    """This machine's offer, and whether its price is usual."""
    low, high = offer.suggested_low_qu_per_hour, offer.suggested_high_qu_per_hour
    price = offer.price_qu_per_hour
    place = "below" if price < low else "above" if price > high else "within" if low < high else "just"
    what = "Each GPU" if offer.gpus else "The machine"
    return Group(
        offers([offer], width),
        _indented(
            Text(
                f"{what} costs {show.qu(price)} QU an hour, 1 TB of disk "
                f"{show.qu(offer.storage_qu_per_tib_hour)}.\n"
                f"Jobs run with {safe_line(offer.runner, 40) or 'nothing'} and "
                f"{'may have Internet' if offer.internet else 'have no Internet'}.\n"
                f"Suggested for {safe_line(offer.gpu_class, 40)} by --qu-per-credit: "
                f"{show.qu_range(low, high)}; yours is {place} that."
            )
        ),
    )


def marks(offer: OfferView) -> str:
    """G: somebody else offers the same card; D: not every directory shows it; X: not hired at present."""
    said = (("G", offer.shared_gpu_with), ("D", offer.missing_at), ("X", offer.not_hired))
    return "".join(mark for mark, why in said if why)


_ONLY_IF_KNOWN: Final[dict[str, Callable[[OfferView], object]]] = {
    "ms": lambda one: one.rtt_ms is not None,
    "±": lambda one: one.jitter_ms is not None,
    "start": lambda one: one.start_s is not None,
    "region": lambda one: one.region,
    "": marks,
}
"""Columns that are left out if no offer has anything to say in them."""


def notes(some: Iterable[OfferView]) -> Iterable[str]:
    """What the marks mean, one line each."""
    for one in some:
        name = safe_line(_called(one), 28)
        if one.shared_gpu_with:
            yield f"G {name}: GPU also offered by {_some(one.shared_gpu_with)}; only one can have it"
        if one.missing_at:
            yield f"D {name}: not shown by directory {_some(one.missing_at)}"
        if one.not_hired:
            yield f"X {name}: not hired: {safe_line(one.not_hired, 120)}"


def nothing(view: MarketView, args: MarketArgs) -> str:
    """Why the list is empty and what to do."""
    if not view.known:
        if not view.peers:
            return (
                "No offers here, and no peers they could come from. Start the daemon with the address of a\n"
                "node you know: `qubix up --bootstrap ADDRESS`. `qubix status` shows peers."
            )
        return "No offers here yet. They arrive within seconds of a connection; `qubix status` shows peers."
    if (use := view.use_case) and not (args.gpu or args.filter):
        return (
            f"None of the offers known here ({view.known:,}) has room for {safe_line(use.title)}: it needs "
            f"{use.min_vram_gib:g} GB of GPU memory.\n`qubix market` shows what there is."
        )
    asked = [f"--gpu {safe_line(args.gpu, 40)}"] if args.gpu else []
    asked += [safe_line(args.filter, 80)] if args.filter else []
    asked += [f"--for '{safe_line(args.use_case, 40)}'"] if args.use_case else []
    return (
        f"None of the offers known here ({view.known:,}) fits {' and '.join(asked) or 'that'}.\n{unmet(view)}"
        "Ask for less: `qubix market` shows all, `qubix why job.yaml` the least change that would help."
    )


def unmet(view: MarketView) -> str:
    """A line about the conditions that are to blame; empty where only all of them together are too much."""
    if not view.unmet:
        return ""
    return f"By itself no offer meets {' or '.join(safe_line(one, 80) for one in view.unmet[:4])}.\n"


def _use_case(view: MarketView) -> Iterable[RenderableType]:
    use = view.use_case
    if use is None:
        return
    yield Text(
        f"For {safe_line(use.title)}: needs {use.min_vram_gib:g} GB of GPU memory, "
        f"better {use.recommended_vram_gib:g}; connect by {safe_line(use.connection)}.",
        "bold",
    )
    yield Text(safe_line(use.why, 400))
    for number, offer in enumerate(view.offers[:TOLD], 1):
        name = safe_line(_called(offer), 28)
        why = Table.grid(padding=(0, 1))
        why.add_row(
            f"{number}.", Text.assemble((f"{name}  ", "bold"), safe_line("; ".join(offer.reasons), 400))
        )
        yield why


def _summary(view: MarketView, args: MarketArgs) -> str:
    more = view.total - len(view.offers)
    order = f"Ordered by {safe_line(view.order, 200)}. " if view.order else ""
    rest = f"And {more:,} more: --limit {min(10_000, view.total)} shows them. " if more > 0 else ""
    gpus = "for as many GPUs as it takes" if view.use_case else "for one GPU, or a machine without"
    disk = show.size(args.disk_mib)
    return f"{order}{rest}QU/h is all in, {gpus}: {disk} of disk and the fee are contained."


def _indented(text: Text, by: int = 2) -> Padding:
    return Padding(text, (0, 0, 0, by))


def _called(one: OfferView | ReasonView) -> str:
    return one.name or show.short_peer(one.peer_id)


def _gpu(offer: OfferView) -> str:
    if not offer.gpus:
        return "none" if offer.gpu_class == "CPU" else f"{offer.gpu_class}, none free"
    return f"{offer.gpus} x {offer.gpu_class}" if offer.gpus > 1 else offer.gpu_class


def _vram(offer: OfferView) -> str:
    return show.size(offer.vram_mib) if offer.vram_mib else "-"


def _score(offer: OfferView) -> str:
    if offer.newcomer:
        return "new"
    return "-" if offer.score is None else f"{offer.score:.2f}"


def _start(offer: OfferView) -> str:
    return "" if offer.start_s is None else show.duration(offer.start_s)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(safe_line(_PEER_ID.sub(_short, name), 48) for name in names[:MAX_NAMES]) + more


def _short(match: re.Match[str]) -> str:
    return show.short_peer(match[0])


# --- why ----------------------------------------------------------------------------------------


def why(view: WhyView) -> RenderableType:
    """Reasons in groups, then what would help."""
    parts: list[RenderableType] = [Text(_head(view), "bold")]
    for one in view.groups:
        parts.append(Text.assemble((f"{one.count:>8,}  ", "bold"), safe_line(one.title, 100)))
        parts.append(_indented(Text(_examples(one), "dim"), 10))
    if view.changes:
        more = "More would fit" if view.fitting else "What would help"
        parts.append(Text(f"{more}, the least change first:", "bold"))
        for change in view.changes:
            count = f"{change.providers:,} provider{'s' if change.providers != 1 else ''}"
            parts.append(_indented(Text(f"{safe_line(change.sentence, 300)}: {count}")))
    elif not view.fitting:
        parts.append(Text(_no_change(view)))
    return Group(*parts)


def _head(view: WhyView) -> str:
    job = safe_line(view.job, 64)
    if not view.known:
        return f"Nobody could take {job!r}: no offers are known here."
    asked = f", {view.asked:,} asked for a quote, {view.agreed:,} agreed" if view.asked else ""
    some = f" (of {view.known:,}, the nearest)" if view.looked_at < view.known else ""
    return f"{view.fitting:,} of {view.looked_at:,} offers{some} fit the job {job!r}{asked}."


def _no_change(view: WhyView) -> str:
    if not view.known:
        return "`qubix status` shows whether this node has peers; `qubix market` what they offer."
    return "No change of the job alone would help: wait, or look at `qubix market`."


def _examples(group: ReasonGroup) -> str:
    first = group.providers[:MAX_NAMES]
    said = (f"{safe_line(_called(one), 28)}: {safe_line(one.sentence, 160)}" for one in first)
    return "; ".join(said) + (" ..." if group.count > MAX_NAMES else "")


# --- scores, deny list, directories -------------------------------------------------------------


def score(view: ScoreView) -> RenderableType:
    return Group(
        show.sheet(
            [
                ("provider", f"{view.name or '-'}  {view.peer_id}"),
                ("score", Text(f"{view.score:.2f}{' (new)' if view.newcomer else ''}", "bold")),
                ("performance", f"{view.performance:.2f}"),
                ("reliability", f"{view.reliability:.2f}"),
                ("efficiency", f"{view.efficiency:.2f}"),
                ("confidence", f"{view.confidence:.2f}"),
            ]
        ),
        Text("because", "dim"),
        *(Text(f"  {safe_line(reason, 300)}") for reason in view.reasons),
    )


def recomputed(answer: dict[str, Any]) -> RenderableType:
    """Answer of the evidence check: what the file states and what it comes to."""
    names = list(answer.get("recomputed", {}))
    rows = [
        [
            show.cell("score" if name == "g" else name),
            *(show.cell(_figure(answer.get(side, {}).get(name))) for side in SIDES),
        ]
        for name in names
        if name != "reasons"
    ]
    same = bool(answer.get("same"))
    verdict = "The evidence gives the score it states." if same else "The evidence does NOT give that score."
    return Group(
        Text(f"provider {safe_line(str(answer.get('provider', '')))}"),
        show.table(("", *SIDES), rows, SIDES),
        Text(verdict, show.GOOD if same else show.BAD),
    )


SIDES: Final = ("stated", "recomputed")


def _figure(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def deny(view: DenyView) -> RenderableType:
    if not view.denied:
        return Text("Nobody is left out. `qubix deny add PROVIDER` never hires a provider again.")
    rows = [
        (
            show.cell(one.name, max_chars=28),
            show.cell(one.reason),
            show.cell(one.sentence, max_chars=80),
            show.cell(show.short_peer(one.peer_id), "dim"),
        )
        for one in view.denied
    ]
    return show.table(("provider", "why", "in words", "peer"), rows, flexible={"provider": 0, "in words": 0})


def directories(view: DirectoriesView) -> RenderableType:
    """Those that are read; else why none is. Then those told that this provider lives, and what we do."""
    parts: list[RenderableType] = [_read(view)]
    if view.heartbeats:
        told = ", ".join(safe_line(peer_id) for peer_id in view.heartbeats)
        parts.append(Text(f"This provider's heartbeats go to {told}."))
    if view.serving is not None:
        parts.append(Text(f"This node is a directory; providers that send it heartbeats: {view.serving:,}."))
    return Group(*parts)


def _read(view: DirectoriesView) -> RenderableType:
    if view.directories:
        rows = [
            (show.cell(one.peer_id), show.cell(f"{one.offers:,}"), show.cell(f"{one.missing:,}"))
            for one in view.directories
        ]
        return show.table(("directory", "offers", "lacks"), rows, ("offers", "lacks"))
    if view.serving is not None or view.heartbeats:
        return Text("No directory is read here at the moment.")
    return Text(
        "No directory is in use: offers come by gossip from the peers themselves. That suits a small\n"
        "network; in a large one two or three directories are found by themselves."
    )
