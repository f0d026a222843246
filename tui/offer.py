"""`qubix offer`: what this machine offers, at which price and hours; changed, or only tried on a week."""

from __future__ import annotations

import argparse
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from protocol.control_market import OfferAnswer, OfferArgs
from protocol.control_schedule import PreviewArgs, PreviewView, ScheduleView
from protocol.errors import ConfigInvalid
from tui import argument, market_screens, show
from tui.safe import safe_line
from tui.screens import week_grid
from tui.verbs import ask, out, tell

NONE: Final = "none"
PLAIN: Final = {"success": "", "accent": "", "primary": ""}


def offer_arguments(parser: argparse.ArgumentParser) -> None:
    text = "what each GPU costs an hour, or a machine without, where the schedule says nothing else"
    parser.add_argument("--price", type=argument.amount, metavar="QU", help=text)
    text = "opening hours and prices by the hour, see docs/provider.md; `none` for always open"
    parser.add_argument("--schedule", metavar="RULES", help=text)
    text = "change nothing; say what a week with these would bring, at the use of the last weeks"
    parser.add_argument("--preview", action="store_true", help=text)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--withdraw", action="store_const", const=True, help="take no new jobs")
    choice.add_argument(
        "--restore", dest="withdraw", action="store_const", const=False, help="take jobs again"
    )


async def offer(options: argparse.Namespace) -> int:
    if options.price is not None and options.withdraw is True:
        raise ConfigInvalid("--price and --withdraw contradict each other; give one of them")
    schedule = "" if options.schedule == NONE else options.schedule
    if options.preview:
        if options.withdraw is not None:
            raise ConfigInvalid("--preview changes nothing; leave out --withdraw and --restore")
        view: PreviewView = await ask(options, "preview", PreviewArgs(options.price, schedule))
        return tell(options, view, preview_screen(view, out().width))
    answer: OfferAnswer = await ask(options, "offer", OfferArgs(options.price, options.withdraw, schedule))
    return tell(options, answer, _screen(answer, out().width))


def _screen(answer: OfferAnswer, width: int) -> RenderableType:
    one, plan = answer.offer, answer.schedule
    if one is None:
        return Text("This machine offers nothing; start it with `qubix up --provider`.")
    if one.withdrawn and plan is not None and not plan.open:
        return Group(Text("The offer is withdrawn: its schedule says closed."), _hours(plan, width))
    if one.withdrawn:
        return Text("The offer is withdrawn; `qubix offer --restore` puts it back.")
    shown = market_screens.own_offer(one, width)
    return shown if plan is None else Group(shown, Text(""), _hours(plan, width))


def _hours(plan: ScheduleView, width: int) -> RenderableType:
    """The schedule as it can be written again, what it does next, and the week."""
    until = f" until {safe_line(plan.until, 60)}, then {safe_line(plan.then, 40)}" if plan.until else ""
    usual = plan.usual_price_qu_per_hour
    return Group(
        Text.assemble(("schedule  ", "dim"), safe_line(plan.text, 1_000)),
        Text.assemble(("now       ", "dim"), f"{'open' if plan.open else 'closed'}{until}"),
        week_grid.grid(plan.spans, usual, width, PLAIN),
        Text(week_grid.legend(plan.spans, usual), "dim"),
    )


def preview_screen(view: PreviewView, width: int) -> RenderableType:
    """The week and what it would bring."""
    usual, plan = view.usual_price_qu_per_hour, view.schedule
    parts: list[RenderableType] = []
    if plan is None:
        parts.append(Text(f"Always open, at {show.qu(usual)} QU an hour."))
    else:
        parts.append(Text(safe_line(plan.text, 1_000)))
        parts.append(week_grid.grid(plan.spans, usual, width, PLAIN))
        parts.append(Text(week_grid.legend(plan.spans, usual), "dim"))
    return Group(*parts, *worth(view), Text("Nothing has been changed.", "dim"))


def worth(view: PreviewView) -> list[Text]:
    """What a week would bring, and how that is known."""
    opening = Text(f"Open {view.open_hours:,.1f} of 168 hours a week.", "dim")
    if not view.weeks:
        return [Text("No job has run here yet, so nothing is known of what a week would bring."), opening]
    amount = (f"{show.qu(view.week_qu)} QU", "bold")
    change = _change(view.week_qu, view.week_now_qu)
    lines = [Text.assemble("A week would bring ", amount, f", now {show.qu(view.week_now_qu)}{change}")]
    if view.lost_hours >= 0.1:
        lines.append(Text(f"{view.lost_hours:,.1f} of the hours that were used would be closed."))
    basis = (
        f"At the use of the last {view.weeks:.1f} weeks, {view.used_hours:,.1f} hours of cards a week, net "
        "of the fee. How demand follows the price is not known."
    )
    return [*lines, opening, Text(basis, "dim")]


def _change(new: int, old: int) -> str:
    if not old or new == old:
        return ""
    return f" ({(new - old) / old * 100:+.0f} %)"
