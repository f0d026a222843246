"""Sentences about offers for the market's screens. Pure; all of it is harmless text."""

from __future__ import annotations

from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from protocol.catalogue import USE_CASES
from protocol.control_market import STANDARD_DISK_MIB, OfferView, ScoreView
from tui import show
from tui.areas import AREAS
from tui.market_screens import notes, unmet
from tui.safe import safe_line
from tui.screens.market_model import MAX_FITTEST, Offers, called, sort_words

PRACTISING: Final = "Starting a practice provider: a second daemon that offers this machine."


def empty_hint(peers: int, *, alone: bool) -> str:
    """What to do where nobody offers anything; `alone`: on the private network of this machine."""
    network = next(area for area in AREAS if area.mode == "network")
    if alone:
        return (
            "On this private network there is only what runs on this machine. Press p to start a practice"
            " provider: a second daemon that offers this machine to you."
        )
    if peers:
        return "They arrive within seconds of a connection; this page fills by itself."
    return (
        "This node has no peers yet: start the daemon with the address of a node you know,"
        f" `qubix up --bootstrap ADDRESS`. {network.title} (key {network.key}) shows who is there."
    )


def summary(offers: Offers) -> str:
    """How many there are, of how many, and in which order."""
    view, search = offers.view, offers.search
    many = f"{view.total:,} offer{'s' if view.total != 1 else ''}"
    of = f" of {view.known:,}" if view.total != view.known else ""
    if view.use_case:
        use = view.use_case
        return (
            f"For {use.title} ({use.min_vram_gib:g} GB of GPU memory or more): {many}{of} fit,"
            " most speed for the price first"
            + (f"; the first {MAX_FITTEST:,} are listed" if view.total > MAX_FITTEST else "")
        )
    return f"{many}{of}, {sort_words(search.sort)}"


def no_match(offers: Offers) -> str:
    """What to read where nothing fits."""
    search, many = offers.search, offers.view.known
    known = f"{many:,} {'are' if many != 1 else 'is'} known here"
    if offers.view.total:
        return ""
    use = USE_CASES.get(search.use_case)
    if use and not search.filter:
        return (
            f"No offer has the {use.min_vram_gib:g} GB of GPU memory that {use.title} needs; {known}.\n\n"
            "Press u for another use, or wait for offers."
        )
    return (
        f"No offer meets all of this filter; {known}.\n{unmet(offers.view)}\n"
        "Press / and take a condition away or ask for less; Escape brings you back here."
    )


def offer_line(offer: OfferView) -> Text:
    """The offer under the cursor: its price all in, why it stands there, what to beware of."""
    disk = show.size(STANDARD_DISK_MIB)
    words = Text.assemble(
        (safe_line(called(offer), 40), "bold"),
        f": {show.qu(offer.all_in_qu_per_hour)} QU an hour all in, with {disk} of disk",
    )
    if offer.own:
        words.append("; this is your own")
    for warning in notes([offer]):
        words.append(f"\n{warning}")
    if offer.reasons:
        words.append(f"\n{safe_line('; '.join(offer.reasons), 400)}")
    return words


def price_words(offer: OfferView) -> str:
    """Whether a price is usual."""
    low, high = offer.suggested_low_qu_per_hour, offer.suggested_high_qu_per_hour
    price = offer.price_qu_per_hour
    place = "below" if price < low else "above" if price > high else "within"
    what = "a machine without GPU" if offer.gpu_class == "CPU" else "this GPU"
    return f"{place} what is suggested for {what}: {show.qu_range(low, high)}"


def facts(offer: OfferView) -> list[tuple[str, str]]:
    """(name, value) of everything an offer says, in the order in which it matters."""
    way = "not measured; m measures it" if offer.rtt_ms is None else f"{offer.rtt_ms:.0f} ms round trip"
    if offer.jitter_ms is not None:
        way += f", differs by {offer.jitter_ms:.0f} ms"
    gpus = f"{offer.gpus} x {offer.gpu_class}" if offer.gpus else offer.gpu_class
    if offer.gpu_class == "CPU":
        gpus = "none: the machine is rented by its processor"
    memory = f", {show.size(offer.vram_mib)} each" if offer.gpus > 1 else f", {show.size(offer.vram_mib)}"
    each = "for each GPU" if offer.gpus else "for the machine"
    disk = show.size(STANDARD_DISK_MIB)
    return [
        ("Price", f"{show.qu(offer.price_qu_per_hour)} QU an hour {each}"),
        (
            "All in",
            f"{show.qu(offer.all_in_qu_per_hour)} QU an hour for one, with {disk} of disk and the fee",
        ),
        ("Usual", price_words(offer)),
        ("Disk", f"{show.qu(offer.storage_qu_per_tib_hour)} QU an hour for 1 TB"),
        ("GPU", gpus + (memory if offer.vram_mib else "")),
        ("Processor", f"{offer.cpu_millis / 1_000:g} cores {offer.arch}"),
        ("Memory", show.size(offer.memory_mib)),
        ("Free disk", show.size(offer.disk_mib)),
        ("CUDA", offer.cuda or "no NVIDIA driver"),
        ("Runs with", offer.runner or "nothing"),
        ("Internet", "jobs may have it" if offer.internet else "jobs have none"),
        ("Region", f"{offer.region} (as it says itself)" if offer.region else "not told"),
        ("Way", way),
        ("Peer", offer.peer_id),
    ]


PARTS = (("Performance", "performance"), ("Reliability", "reliability"), ("Efficiency", "efficiency"))


def score_text(score: ScoreView) -> RenderableType:
    """The G-Score, the three parts it is the product of, and what each rests on."""
    said = Text.assemble(("G-Score ", "bold"), (f"{score.score:.2f}", "bold"))
    said.append(" of 1, a newcomer's" if score.newcomer else f" of 1, {score.confidence:.0%} sure")
    for title, name in PARTS:
        value: float = getattr(score, name)
        said.append(f"\n  {title:12} {bar(value, 20)} {value:.2f}")
    said.append("\nIt is their product, and rests on this:")
    reasons = Table.grid(padding=(0, 1))
    for reason in score.reasons:
        reasons.add_row(" -", Text(safe_line(reason, 300)))
    return Group(said, reasons)


def bar(share: float, cells: int) -> str:
    """A share of 1 as a bar."""
    full = round(min(1.0, max(0.0, share)) * cells)
    return "█" * full + "░" * (cells - full)
