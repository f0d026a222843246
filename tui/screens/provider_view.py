"""What the provider area shows, made from the daemon's answers: sentences, rows, bars of days. Pure.

Everything that a stranger may have written goes through show.cell or safe_line.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from rich.text import Text

from protocol.control_provider import DayView, GpuView, JobView, ProviderView, ShareView, ShopView
from tui import show
from tui.safe import safe_line
from tui.screens.filling import Column, Row

BLOCKS: Final = " ▁▂▃▄▅▆▇█"
EIGHTHS: Final = 8
Colours = Mapping[str, str]
"""The theme's: success, warning, error, primary."""

GPU_COLUMNS: Final = (
    Column("gpu", least=16),
    Column("health", 0, least=12),
    Column("use", 5, right=True),
    Column("memory", 14, right=True),
    Column("°C", 3, right=True),
    Column("W", 4, right=True),
    Column("lease", 8),
    Column("pcie", 24, from_width=130),
    Column("driver", 11, from_width=110),
    Column("cuda", 5, from_width=110),
)
JOB_COLUMNS: Final = (
    Column("state", 12),
    Column("lease", 8),
    Column("image", least=12),
    Column("since", 6),
    Column("time", 8, right=True),
    Column("earned QU", 11, right=True),
    Column("why", 0, from_width=100, least=12),
    Column("cpu", 9, right=True, from_width=130),
    Column("memory", 14, right=True, from_width=130),
    Column("GPU", 5, right=True),
    Column("caller", 10, from_width=100),
)


# --- the head -----------------------------------------------------------------------------------


def title(view: ProviderView, width: int, colours: Colours) -> Text:
    """Who this is, and in words whether jobs come."""
    shop = view.shop
    words = [safe_line(word, 24) for word in (shop.name, shop.region, shop.gpu_class) if word]
    left = Text(" · ".join(words) or "this machine", "bold")
    state = "● takes jobs" if shop.open else "○ paused" if shop.paused else "○ takes no jobs"
    right = Text(state, f"bold {colours['success' if shop.open else 'error']}")
    left.truncate(max(8, width - len(right) - 2), overflow="ellipsis")
    return Text.assemble(left, " " * max(1, width - len(left) - len(right)), right)


def hindrances(shop: ShopView, colours: Colours) -> Text:
    """Each on a line; those that close the shop first."""
    lines = [
        Text(
            f"{'!' if one.closes else '-'} {safe_line(one.sentence, 300)}",
            colours["error" if one.closes else "warning"],
        )
        for one in sorted(shop.hindrances, key=lambda one: not one.closes)
    ]
    return Text("\n").join(lines)


def figures(view: ProviderView) -> Text:
    """What was made, what is under way, what is asked."""
    made = view.earnings
    lines = [
        _pairs(
            ("QU made: today", show.qu(made.today_qu)),
            ("7 days", show.qu(made.week_qu)),
            ("30 days", show.qu(made.month_qu)),
            ("in all", show.qu(made.total_qu)),
        ),
        _pairs(
            ("to be cashed", show.qu(made.promised_qu)),
            ("not promised yet", show.qu(made.owed_qu)),
            ("wallet", "unknown" if view.balance is None else show.qu(view.balance)),
            ("score", "new" if view.score is None or view.newcomer else f"{view.score:.2f}"),
        ),
        asks(view.shop),
    ]
    return Text("\n").join(lines)


def asks(shop: ShopView) -> Text:
    """The price now, and what the schedule does next."""
    text = _pairs(("price", f"{show.qu(shop.price_qu_per_hour)} QU an hour"))
    if shop.schedule is None:
        return text.append("  always open; press e for hours and prices", "dim")
    plan = shop.schedule
    now = "open" if plan.open else "closed"
    if not plan.until:
        return text.append(f"  by the schedule {now}, and so for weeks", "dim")
    until = safe_line(plan.until.partition(" (")[0], 24)
    return text.append(f"  by the schedule {now} until {until}, then {safe_line(plan.then, 40)}", "dim")


def _pairs(*pairs: tuple[str, str]) -> Text:
    return Text("  ").join(Text.assemble((f"{label} ", "dim"), (value, "bold")) for label, value in pairs)


# --- days ---------------------------------------------------------------------------------------


def day_chart(days: Sequence[DayView], width: int, height: int, colour: str) -> Text:
    """A bar a day, the oldest left, as high as there is room, with the days below; narrow: the last ones."""
    best = max((one.qu for one in days), default=0)
    axis = max(len(show.qu(best)), len("QU")) + 1
    fitting = max(1, min(len(days), (width - axis) // 5))
    shown, rows = list(reversed(days[:fitting])), max(1, height - 1)
    lines = [_bars(shown, best, rows, row, axis, colour) for row in range(rows, 0, -1)]
    names = "".join(f"{one.day[8:10]:>4} " for one in shown)
    return Text("\n").join([*lines, Text(f"{'day':>{axis - 1}} {names}", "dim")])


def _bars(days: Sequence[DayView], best: int, rows: int, row: int, axis: int, colour: str) -> Text:
    label = show.qu(best) if row == rows and best else "0 QU" if row == 1 and rows > 1 else ""
    line = Text(f"{label:>{axis - 1}} ", "dim")
    for one in days:
        eighths = _eighths(one.qu, best, rows) - (row - 1) * EIGHTHS
        line.append(f"{BLOCKS[max(0, min(EIGHTHS, eighths))] * 4} ", colour)
    return line


def _eighths(amount: int, best: int, rows: int) -> int:
    """A day with any money has a bar."""
    return max(1, round(amount * rows * EIGHTHS / best)) if amount else 0


def days_in_words(days: Sequence[DayView]) -> str:
    total, leases = sum(one.qu for one in days), sum(one.leases for one in days)
    if not leases:
        return f"No job has been settled in the last {len(days)} days."
    best = max(days, key=lambda one: one.qu)
    hours = sum(one.seconds for one in days) / 3_600
    return (
        f"{len(days)} days (UTC): {show.qu(total)} QU from {leases} job{'s' * (leases != 1)} and "
        f"{hours:,.1f} hours; the best was {safe_line(best.day, 12)} with {show.qu(best.qu)} QU."
    )


# --- rows ---------------------------------------------------------------------------------------


def gpu_rows(gpus: Sequence[GpuView], colours: Colours) -> list[Row]:
    return [
        (
            one.uuid or str(place),
            (
                show.cell(one.model.removeprefix("NVIDIA "), max_chars=40),
                _health(one, colours),
                _permille(one.use_permille),
                Text(_used(one.memory_used_mib, one.vram_mib)),
                Text("-" if one.temperature_c is None else str(one.temperature_c)),
                Text("-" if one.power_mw is None else f"{one.power_mw / 1e3:.0f}"),
                show.cell(show.short_id(one.lease_id) or "free"),
                show.cell(one.pcie, max_chars=32),
                show.cell(one.driver, max_chars=16),
                show.cell(one.cuda, max_chars=8),
            ),
        )
        for place, one in enumerate(gpus)
    ]


def _health(one: GpuView, colours: Colours) -> Text:
    if one.health == "ok":
        return Text("ok", colours["success"])
    return show.cell(one.sentence or one.health, colours["error"], 120)


def job_rows(view: ProviderView, colours: Colours) -> list[Row]:
    """Those that run, then the last ones."""
    return [(one.lease_id, _job_cells(one, view.at_ms, colours)) for one in [*view.jobs, *view.ended]]


def _job_cells(job: JobView, now_ms: int, colours: Colours) -> Sequence[Text]:
    state = "frozen" if job.frozen else job.phase
    style = {"running": "success", "done": "primary", "failed": "error"}.get(state, "warning")
    earned = job.received_qu if job.ended_at_ms else job.promised_qu
    return (
        show.cell(state, colours[style], 12),
        show.cell(show.short_id(job.lease_id)),
        show.cell(job.image, max_chars=60),
        Text(_clock(job.ended_at_ms or job.opened_at_ms, now_ms)),
        Text(show.duration(job.seconds)),
        Text(show.qu(earned)),
        show.cell(job.detail, max_chars=120),
        Text(_used_cores(job)),
        Text(_used(job.memory_use_mib, job.memory_mib)),
        _permille(job.gpu_use_permille),
        show.cell(show.short_peer(job.caller)),
    )


def _clock(at_ms: int, now_ms: int) -> str:
    """Today the time, before that the day."""
    at, now = time.localtime(at_ms / 1_000), time.localtime(now_ms / 1_000)
    return time.strftime("%H:%M" if at[:3] == now[:3] else "%b %d", at)


def _permille(value: int | None) -> Text:
    return Text("-" if value is None else f"{value / 10:.0f} %")


def _used(used: int | None, total: int) -> str:
    return show.size(total) if used is None else f"{show.size(used)} of {show.size(total)}"


def _used_cores(job: JobView) -> str:
    rented = cores(job.cpu_millis)
    return rented if job.cpu_use_millis is None else f"{cores(job.cpu_use_millis)} of {rented}"


def cores(millis: int) -> str:
    return f"{millis / 1_000:.1f}".removesuffix(".0")


# --- the machine --------------------------------------------------------------------------------


def machine(view: ProviderView) -> Text:
    """What is rented and used of all but the cards, what runs jobs, where the machine is reached."""
    here, runner = view.machine, view.runner
    images = f"{runner.images}, {show.size(runner.images_mib)}" if runner.images else "none"
    answers = "" if runner.answers else f" (does not answer: {safe_line(runner.sentence, 200)})"
    pairs = [
        ("processor", f"{safe_line(here.cpu_model, 60)} ({safe_line(here.arch, 12)})"),
        ("cores", _share(here.cpu_millis, cores)),
        ("memory", _share(here.memory_mib, show.size)),
        ("disk", _share(here.disk_mib, show.size)),
        ("jobs by", f"{safe_line(runner.runner, 24) or 'nothing'}{answers}"),
        ("Internet", "jobs may have it" if runner.internet else "jobs have none"),
        ("images kept", images),
        ("addresses", ", ".join(safe_line(one, 120) for one in view.addresses) or "none"),
        ("peer id", safe_line(view.peer_id, 80)),
        ("wallet", safe_line(view.identity, 80)),
    ]
    return Text("\n").join(Text.assemble((f"{name:12}", "dim"), value) for name, value in pairs)


def _share(share: ShareView, say: Callable[[int], str]) -> str:
    rented = f"{say(share.taken)} of {say(share.offered)} rented"
    return f"{rented}; the whole machine uses {say(share.used)} of {say(share.total)}"
