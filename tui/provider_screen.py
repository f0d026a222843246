"""What `qubix provider` shows: one screen that fits 80 x 24 and uses what a larger one has.

Names, images and peer ids are strangers' words: everything goes through show.cell or safe_line.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from protocol.control_provider import (
    EarningsView,
    GpuView,
    JobView,
    ProviderView,
    RunnerView,
    ShareView,
    ShopView,
)
from tui import show
from tui.safe import safe_line

BARS: Final = "·▁▂▃▄▅▆▇█"
_RUNNERS: Final = {
    "process": "process (no Docker: plain programs that nothing holds, a trial on this machine only)"
}
LEAST_CHARS: Final = 8
"""Of a column that gives way where the terminal is narrow."""
LEAST_ROWS: Final = 2
"""Of each list, however low the screen is."""
LABEL: Final = 9
SHARE: Final = 26
"""Characters of each half of a share."""


@dataclass(frozen=True)
class _Column:
    name: str
    cell: Callable[[Any], Text]
    right: bool = False
    flexible: bool = False
    least_width: int = 0
    """Of the terminal, for the column to be shown."""


_List = tuple[Sequence[_Column], Sequence[object]]


def screen(view: ProviderView, width: int, height: int | None = None) -> RenderableType:
    """Everything; with a `height` the lists are cut so that it fits."""
    head = [_title(view, width), *_hindrances(view.shop, width), *_figures(view, width)]
    room = None if height is None else height - 1 - sum(_lines(one, width) for one in head)
    lists: list[_List] = [(_GPUS, view.machine.gpus), (_JOBS, view.jobs), (_ENDED, view.ended)]
    shown: list[RenderableType] = []
    for rows, (columns, some) in zip(_shares(room, lists), lists, strict=True):
        if some:
            shown.append(Text(""))
            shown.append(_table(columns, some[:rows], width))
        elif columns is _JOBS:
            shown += [Text(""), Text("No jobs run here.", "dim")]
        if len(some) > rows:
            shown.append(Text(f"… and {len(some) - rows} more", "dim"))
    return Group(*head, *shown)


def state(shop: ShopView) -> str:
    """Whether jobs come, in a sentence."""
    if shop.open:
        return "The machine takes jobs."
    whys = "; ".join(safe_line(one.sentence, 300) for one in shop.hindrances if one.closes)
    return f"The machine takes no jobs: {whys}."


def first(view: ProviderView) -> Text:
    """What was found on this machine, for somebody who has just begun; what is missing comes last."""
    shop, machine, runner = view.shop, view.machine, view.runner
    cards = [f"{one.model} ({show.size(one.vram_mib)}), {one.health}" for one in machine.gpus]
    rest = f"{_cores(machine.cpu_millis.offered)} cores, {show.size(machine.memory_mib.offered)} of memory"
    internet = "may have" if runner.internet else "have no"
    pairs: list[tuple[str, str | Text]] = [
        *(("GPU", card) for card in cards),
        ("machine", f"{rest}, {show.size(machine.disk_mib.offered)} of disk ({machine.cpu_model})"),
        ("price", f"{show.qu(shop.price_qu_per_hour)} QU an hour{_price_words(shop)}"),
        ("jobs by", f"{_RUNNERS.get(runner.runner, runner.runner)}; they {internet} Internet"),
        ("wallet", f"{view.identity}, {_balance(view)}"),
        ("address", f"{_address(view)}"),
    ]
    if not shop.name:
        pairs.append(("name", "none; `qubix up --name NAME` shows one in the market"))
    pairs += [
        ("missing" if one.closes else "note", Text(safe_line(one.sentence, 300), show.BAD))
        for one in shop.hindrances
    ]
    pairs.append(("", Text(state(shop) if shop.open else "No jobs are taken before that.", "bold")))
    return show.sheet(pairs)


def _price_words(shop: ShopView) -> str:
    low, high = shop.suggested_low_qu_per_hour, shop.suggested_high_qu_per_hour
    return f" (suggested {show.qu_range(low, high)}); `qubix offer --price QU` changes it"


def _address(view: ProviderView) -> str:
    address = view.addresses[0] if view.addresses else "none"
    here = "/ip4/127." in address
    return f"{address}{', for this machine only; --listen HOST:PORT lets others in' if here else ''}"


# --- the upper part -----------------------------------------------------------------------------


def _title(view: ProviderView, width: int) -> Text:
    shop = view.shop
    words = [safe_line(word, 24) for word in (shop.name, shop.region, shop.gpu_class) if word]
    left = Text(" · ".join(words) or "this machine", "bold")
    right = Text("● takes jobs", show.GOOD) if shop.open else Text("● takes no jobs", show.BAD)
    clock = Text(time.strftime("  %H:%M:%S", time.localtime(view.at_ms / 1_000)), "dim")
    left.truncate(max(8, width - len(right) - len(clock) - 1), overflow="ellipsis")
    gap = max(1, width - len(left) - len(right) - len(clock))
    return Text.assemble(left, " " * gap, right, clock)


def _hindrances(shop: ShopView, width: int) -> list[Text]:
    """Each on as many lines as it needs: they say what to do."""
    style = {True: show.BAD, False: "yellow"}
    return [
        Text(f"{'!' if one.closes else '-'} {safe_line(one.sentence, 300)}", style[one.closes])
        for one in shop.hindrances
    ]


def _figures(view: ProviderView, width: int) -> list[Text]:
    earnings, machine = view.earnings, view.machine
    return [
        _line("QU made", _earned(earnings)),
        _line("14 days", _days(earnings)),
        _line("price", _price(view, width)),
        *_hours(view.shop),
        _line("jobs by", _runner(view.runner)),
        _share("cpu", machine.cpu_millis, _cores, machine.cpu_model, width),
        _share("memory", machine.memory_mib, show.size, "", width),
        _share("disk", machine.disk_mib, show.size, "", width),
    ]


def _line(label: str, text: Text) -> Text:
    return Text.assemble((f"{label:{LABEL}}", "dim"), text)


def _earned(earnings: EarningsView) -> Text:
    parts = [
        ("today", earnings.today_qu),
        ("7 days", earnings.week_qu),
        ("30 days", earnings.month_qu),
        ("in all", earnings.total_qu),
    ]
    said = [Text.assemble((f"{label} ", "dim"), (show.qu(amount), "bold")) for label, amount in parts]
    return Text("  ").join(said)


def _days(earnings: EarningsView) -> Text:
    """The oldest first, the best of them as high as a line is."""
    amounts = [one.qu for one in reversed(earnings.days)]
    best = max(amounts, default=0)
    bars = "".join(BARS[_height(amount, best)] for amount in amounts)
    text = Text(bars, show.GOOD)
    text.append("  promised, to be cashed ", "dim").append(show.qu(earnings.promised_qu), "bold")
    text.append("  owed ", "dim").append(show.qu(earnings.owed_qu))
    return text


def _height(amount: int, best: int) -> int:
    return 0 if not amount else max(1, round(amount * (len(BARS) - 1) / best))


def _price(view: ProviderView, width: int) -> Text:
    shop = view.shop
    text = Text(f"{show.qu(shop.price_qu_per_hour)} QU/h", "bold")
    if width >= 100:
        suggested = show.qu_range(shop.suggested_low_qu_per_hour, shop.suggested_high_qu_per_hour)
        text.append(f" (suggested {suggested})", "dim")
    text.append("  wallet ", "dim").append(_balance(view))
    known = view.score is not None and not view.newcomer
    text.append("  score ", "dim").append(f"{view.score:.2f}" if known else "new")
    return text


def _hours(shop: ShopView) -> list[Text]:
    """What the schedule does next; nothing without one."""
    plan = shop.schedule
    if plan is None:
        return []
    until = f" until {safe_line(plan.until, 60)}, then {safe_line(plan.then, 40)}" if plan.until else ""
    return [_line("hours", Text(f"{'open' if plan.open else 'closed'}{until}"))]


def _balance(view: ProviderView) -> str:
    return "unknown" if view.balance is None else f"{show.qu(view.balance)} QU"


def _runner(runner: RunnerView) -> Text:
    text = Text(safe_line(runner.runner, 16) or "nothing")
    text.append("" if runner.answers else " (does not answer)", show.BAD)
    text.append("  Internet ", "dim").append("yes" if runner.internet else "no")
    if runner.images:
        text.append("  images kept ", "dim").append(f"{runner.images}, {show.size(runner.images_mib)}")
    return text


def _share(label: str, share: ShareView, unit: Callable[[int], str], what: str, width: int) -> Text:
    """Rented of offered, and what the whole machine uses of all it has."""
    rented = f"{unit(share.taken)} of {unit(share.offered)} rented"
    used = f"{unit(share.used)} of {unit(share.total)} in use"
    text = Text(f"{rented:{SHARE}}").append(f"{used:{SHARE}}", "dim")
    if what and (room := width - LABEL - 2 * SHARE) > 0:
        text.append(safe_line(what, room), "dim")
    return _line(label, text)


def _cores(millis: int) -> str:
    return f"{millis / 1_000:.1f}".removesuffix(".0")


# --- lists --------------------------------------------------------------------------------------


def _health(gpu: GpuView) -> Text:
    if gpu.health == "ok":
        return Text("ok", show.GOOD)
    return show.cell(gpu.sentence or gpu.health, show.BAD, 200)


def _phase(phase: str) -> Text:
    return show.cell(phase, show.phase_style(phase), 12)


def _permille(value: int | None) -> Text:
    return Text("-" if value is None else f"{value / 10:.0f} %")


def _memory(gpu: GpuView) -> Text:
    total = show.size(gpu.vram_mib)
    return Text(total if gpu.memory_used_mib is None else f"{show.size(gpu.memory_used_mib)} of {total}")


_GPUS: Final = (
    _Column("gpu", lambda one: show.cell(one.model.removeprefix("NVIDIA "), max_chars=28), flexible=True),
    _Column("memory", _memory, right=True),
    _Column("use", lambda one: _permille(one.use_permille), right=True),
    _Column("°C", lambda one: Text("-" if one.temperature_c is None else str(one.temperature_c)), right=True),
    _Column("W", lambda one: Text("-" if one.power_mw is None else f"{one.power_mw / 1e3:.0f}"), right=True),
    _Column("pcie", lambda one: show.cell(one.pcie, "dim", 32), least_width=120),
    _Column("driver", lambda one: show.cell(one.driver, "dim", 16), least_width=120),
    _Column("cuda", lambda one: show.cell(one.cuda, "dim", 8), least_width=120),
    _Column("lease", lambda one: show.cell(show.short_id(one.lease_id))),
    _Column("health", _health, flexible=True),
)
_JOBS: Final = (
    _Column("lease", lambda one: show.cell(show.short_id(one.lease_id))),
    _Column("state", lambda one: _phase("frozen" if one.frozen else one.phase)),
    _Column("image", lambda one: show.cell(one.image, max_chars=60), flexible=True),
    _Column("since", lambda one: Text(_clock(one.opened_at_ms), "dim"), least_width=100),
    _Column("time", lambda one: Text(show.duration(one.seconds)), right=True),
    _Column("promised", lambda one: Text(show.qu(one.promised_qu), "bold"), right=True),
    _Column("owed", lambda one: Text(show.qu(one.owed_qu)), right=True),
    _Column("cpu", lambda one: Text(_of_cores(one)), right=True),
    _Column("memory", lambda one: Text(_of_memory(one)), right=True, least_width=100),
    _Column("GPU", lambda one: _permille(one.gpu_use_permille), right=True),
    _Column("caller", lambda one: show.cell(show.short_peer(one.caller), "dim")),
)
_ENDED: Final = (
    _Column("ended", lambda one: Text(_clock(one.ended_at_ms), "dim")),
    _Column("lease", lambda one: show.cell(show.short_id(one.lease_id))),
    _Column("state", lambda one: _phase(one.phase)),
    _Column("image", lambda one: show.cell(one.image, max_chars=40), flexible=True, least_width=100),
    _Column("time", lambda one: Text(show.duration(one.seconds)), right=True),
    _Column("earned QU", lambda one: Text(show.qu(one.received_qu), "bold"), right=True),
    _Column("why", lambda one: show.cell(one.detail, "dim", 200), flexible=True),
)


def _clock(at_ms: int) -> str:
    """Today the time, before that the day."""
    at, now = time.localtime(at_ms / 1_000), time.localtime()
    return time.strftime("%H:%M" if at[:3] == now[:3] else "%b %d", at)


def _of_cores(job: JobView) -> str:
    rented = _cores(job.cpu_millis)
    return rented if job.cpu_use_millis is None else f"{_cores(job.cpu_use_millis)} of {rented}"


def _of_memory(job: JobView) -> str:
    rented = show.size(job.memory_mib)
    return rented if job.memory_use_mib is None else f"{show.size(job.memory_use_mib)} of {rented}"


def _table(columns: Sequence[_Column], some: Sequence[object], width: int) -> Table:
    made = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    shown = [column for column in columns if column.least_width <= width]
    for one in shown:
        made.add_column(
            Text(one.name, no_wrap=True),
            justify="right" if one.right else "left",
            no_wrap=not one.flexible,  # so that these are the ones that give way
            min_width=LEAST_CHARS if one.flexible else None,
        )
    for row in some:
        made.add_row(*(one.cell(row) for one in shown))
    return made


_HEAD_LINES: Final = 3
"""Of a list: a blank line, names, and maybe how many more there are."""


def _shares(room: int | None, lists: Sequence[_List]) -> list[int]:
    """How many rows of each list are shown: all, or of every list some and then of the first ones more."""
    lengths = [len(some) for _, some in lists]
    if room is None:
        return lengths
    rows = [min(length, LEAST_ROWS) for length in lengths]
    left = room - sum(rows) - _HEAD_LINES * sum(length > 0 for length in lengths)
    for place, length in enumerate(lengths):
        more = max(0, min(length - rows[place], left))
        rows[place] += more
        left -= more
    return rows


def _lines(text: Text, width: int) -> int:
    return max(1, -(-len(text) // width))
