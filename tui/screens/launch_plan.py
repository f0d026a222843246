"""What a person puts together in the wizard, and what follows from it: GPUs to choose from, the ways in,
what it may cost. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from protocol import jobspec
from protocol.catalogue import CPU_CLASS, USE_CASES, UseCase, gpu_of
from protocol.control_market import MarketView, OfferView
from protocol.errors import QubixError
from protocol.job_draft import Draft, job_yaml, with_usual
from protocol.templates import TEMPLATES, templates_for
from tui.ways import Way, ways_of

OWN: Final = ""
"""The use case of a job of one's own, and the template of an image of one's own."""
UNKNOWN_CLASS: Final = "GPU"
"""Of a card whose name says nothing."""
_CLASS: Final = re.compile(r"[A-Za-z0-9_]{1,48}")
_SIZE: Final = re.compile(r"(.+)_(\d+)GB")


@dataclass(frozen=True)
class Suggestion:
    """One class of GPU, as somebody could rent it now."""

    gpu_class: str
    cards: int
    vram_mib: int
    """Of each card."""
    qu_per_hour: int
    """All in, of all the cards, at the cheapest."""
    offers: int
    best: OfferView
    """The first of them in the order asked for."""
    reasons: tuple[str, ...]

    @property
    def title(self) -> str:
        model = gpu_of(self.gpu_class)
        if not self.cards:
            return "no GPU"
        name = model.title if model else self.gpu_class.replace("_", " ")
        return name if self.cards == 1 else f"{self.cards} x {name}"


def suggestions(view: MarketView, use: UseCase | None) -> list[Suggestion]:
    """By class and number of cards, in the market's order, without those that nobody could hire."""
    groups: dict[tuple[str, int], list[OfferView]] = {}
    for offer in view.offers:
        if not (offer.own or offer.withdrawn or offer.not_hired):
            cards = offer.gpus if use and use.splits else min(offer.gpus, 1)
            groups.setdefault((offer.gpu_class if cards else CPU_CLASS, cards), []).append(offer)
    return [_suggestion(gpu_class, cards, group) for (gpu_class, cards), group in groups.items()]


def _suggestion(gpu_class: str, cards: int, offers: Sequence[OfferView]) -> Suggestion:
    return Suggestion(
        gpu_class=gpu_class,
        cards=cards,
        vram_mib=offers[0].vram_mib if cards else 0,
        qu_per_hour=min(offer.all_in_qu_per_hour for offer in offers),
        offers=len(offers),
        best=offers[0],
        reasons=tuple(offers[0].reasons),
    )


def gpu_words(gpu_class: str, cards: int) -> str:
    """What a job file says for it. A size in the name tells products of one model apart, and no card has it
    in its own name like that."""
    if not cards or gpu_class == CPU_CLASS:
        return ""
    if gpu_class == UNKNOWN_CLASS or not _CLASS.fullmatch(gpu_class):
        return str(cards)
    match = _SIZE.fullmatch(gpu_class)
    return f"{match[1]}:{match[2]}GB:{cards}" if match else f"{gpu_class}:{cards}"


@dataclass(frozen=True)
class Plan:
    """All choices so far. `draft` is what becomes the job file."""

    use: str = OWN
    draft: Draft = field(default_factory=lambda: Draft(name="job", hours="1"))
    way: str = ""
    """A Way's key; empty for the best."""
    provider: str = ""
    """A peer id; empty for whoever is best."""
    qu_per_hour: int = 0
    """What it would cost about, as far as that is known."""

    @property
    def use_case(self) -> UseCase | None:
        return USE_CASES.get(self.use)

    def for_use(self, use: str) -> Plan:
        """With what suits a use case best; a job of one's own begins with an image of one's own."""
        if use == self.use and (self.draft.template or self.draft.image):
            return self
        fitting = templates_for(use) if use else ()
        image = "" if fitting else (self.draft.image or with_usual(Draft()).image)
        template = fitting[0].name if fitting else OWN
        draft = replace(self.draft, name=use or "job", template=template, image=image)
        return replace(self, use=use, draft=draft, way="", provider="", qu_per_hour=0)

    def with_gpu(self, chosen: Suggestion, provider: str = "") -> Plan:
        draft = replace(self.draft, gpu=gpu_words(chosen.gpu_class, chosen.cards))
        if self.use_case:
            draft = _sized(draft, self.use_case, chosen.best)
        return replace(self, draft=draft, provider=provider, qu_per_hour=chosen.qu_per_hour)

    def ways(self) -> list[Way]:
        """In the order in which they are suggested."""
        runs = replace(self.draft, command=self.draft.command or "true")
        try:
            return ways_of(jobspec.parse(job_yaml(runs)).ports)
        except QubixError:  # something else is wrong as well; that is told beside its field
            one = TEMPLATES.get(self.draft.template)
            return ways_of(one.ports_for(1 if self.draft.gpu else 0) if one else ())

    def most(self) -> int:
        """About what all the hours may cost, in QU; 0 if that cannot be told."""
        try:
            hours = float(self.draft.hours or "1")
        except ValueError:
            return 0
        if not (math.isfinite(hours) and 0 < hours <= 24 * 365):
            return 0
        return math.ceil(self.qu_per_hour * hours)


def _sized(draft: Draft, use: UseCase, machine: OfferView) -> Draft:
    """What nobody has said: four cores, memory as the cards have it, 20 GB of disk; at most half of the
    machine, so that others of its kind fit too."""
    memory = min(max(4_096, int(use.recommended_vram_gib * 1_024)), machine.memory_mib // 2, 65_536)
    return replace(
        draft,
        cpus=draft.cpus or str(max(1, min(4, machine.cpu_millis // 2_000))),
        memory=draft.memory or f"{max(1, memory // 1_024)}GB",
        disk=draft.disk or f"{max(1, min(20, machine.disk_mib // 2_048))}GB",
    )


def of_offer(offer: OfferView) -> Plan:
    """Of somebody's own pick in the market: there, with one card if it has any."""
    cards = min(offer.gpus, 1)
    chosen = _suggestion(offer.gpu_class if cards else CPU_CLASS, cards, [offer])
    return Plan().for_use(OWN).with_gpu(chosen, offer.peer_id)


def environments(use: str) -> list[tuple[str, str]]:
    """(what is shown, the template's name) with those for a use case first, and one's own image."""
    suited = [one.name for one in templates_for(use)] if use else []
    names = [*suited, *(name for name in TEMPLATES if name not in suited)]
    own = ("an image of your own", OWN)
    ready = [(f"{TEMPLATES[name].title} ({name})", name) for name in names]
    return [*ready, own] if use else [own, *ready]
