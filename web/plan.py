"""What somebody has chosen in the wizard, as its address says it, and the job that this is. Pure.

Nothing of an address is believed: what cannot be is left out, or said as a fault of its field.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from protocol import job_draft
from protocol.all_in import shares_of, storage_of
from protocol.catalogue import USE_CASES, UseCase
from protocol.errors import JobFileInvalid
from protocol.fitness import MIB_PER_GIB
from protocol.job_draft import Draft
from protocol.messages import Wish
from protocol.query import Filter, gpu_key, name_key
from protocol.templates import TEMPLATES, Template
from protocol.units import Qu
from web.commands import command, quoted
from web.suit import CARD_MODELS, Machine, Suited, needs, room, suited
from web.views import OfferView

NO_GPU: Final = "none"
OWN: Final = "command"
"""Instead of a template: a command of one's own."""
USUAL_HOURS: Final = "2"
USUAL_COMMAND: Final = {False: "python --version", True: "nvidia-smi"}
FIRST: Final = {"gaming": "moonlight", "development": "vscode"}
"""Group of use cases -> the template that is suggested, where it is not the first that fits."""
MAX_TEXT: Final = 500
MAX_NUMBER: Final = 10**9


@dataclass(frozen=True)
class Plan:
    use: UseCase
    chosen: Suited | None = None
    """None: not yet, or no GPU is wanted."""
    gpu: str = ""
    """As the address says it: a key, NO_GPU, or nothing yet."""
    hours: str = USUAL_HOURS
    budget: str = ""
    connect: str = ""
    run: str = ""
    region: str = ""
    internet: bool = False
    machine: Machine = field(default_factory=lambda: Machine(1, 1, 1))
    faults: Mapping[str, str] = field(default_factory=dict)
    """Field -> what is wrong with it, in English."""

    @property
    def step(self) -> int:
        """2: which GPU; 3: how long and how; 4: the command."""
        if not self.gpu:
            return 2
        return 4 if self.connect and not self.faults else 3

    @property
    def cards(self) -> int:
        return self.chosen.cards if self.chosen else 0

    @property
    def template(self) -> Template | None:
        return TEMPLATES.get(self.connect)

    @property
    def where(self) -> Filter:
        """Which offers have room."""
        key = self.chosen.key if self.chosen else ""
        return room(self.machine, self.cards, key, self.region, self.internet)

    @property
    def draft(self) -> Draft:
        gpu = ""
        if self.chosen:
            gpu = self.chosen.model.name + (f":{self.cards}" if self.cards > 1 else "")
        return Draft(
            gpu=gpu,
            cpus=str(self.machine.cpus),
            memory=f"{self.machine.memory_gib}GB",
            disk=f"{self.machine.disk_gib}GB",
            template=self.template.name if self.template else "",
            command=(self.run or USUAL_COMMAND[bool(gpu)]) if self.connect == OWN else "",
            hours=self.hours,
            budget=self.budget,
            internet=self.internet,
        )

    def command(self) -> str:
        return command(self.draft, region=self.region)

    def job_file(self) -> str:
        """JobFileInvalid cannot be: `plan_of` has found no fault."""
        draft = self.draft
        said = f"region={quoted(self.region)}" if self.region else ""
        return job_draft.job_yaml(
            Draft(**{name: getattr(draft, name) for name in job_draft.FIELDS} | {"filter": said})
        )

    def qu_per_hour(self, offer: OfferView) -> int:
        """What it costs there, all in."""
        wish = Wish("", self.cards, 0, 0, 0, self.machine.disk_gib * MIB_PER_GIB)
        return offer.price * shares_of(wish) + storage_of(Qu(offer.storage), wish)

    def qu(self, offer: OfferView) -> int:
        """The most it can cost there: for all of its hours, or its budget."""
        whole = math.ceil(self.qu_per_hour(offer) * float(self.hours))
        return min(whole, int(self.budget)) if self.budget else whole

    def address(self) -> dict[str, str]:
        """The parameters that say this plan."""
        said = {
            "use": self.use.name, "gpu": self.gpu, "hours": self.hours, "budget": self.budget,
            "connect": self.connect, "run": self.run, "region": self.region,
            "internet": "yes" if self.internet else "", "cpus": str(self.machine.cpus),
            "memory": str(self.machine.memory_gib), "disk": str(self.machine.disk_gib),
        }  # fmt: skip
        return {name: value for name, value in said.items() if value}


def plan_of(said: Mapping[str, str]) -> Plan | None:
    """None without a use case that is known."""
    use = USE_CASES.get(said.get("use", ""))
    if use is None:
        return None
    gpu, chosen = _gpu(said.get("gpu", ""), use)
    faults: dict[str, str] = {}
    usual = needs(use)
    machine = Machine(
        _whole("cpus", said, usual.cpus, 1_000, faults),
        _whole("memory", said, usual.memory_gib, 100_000, faults),
        _whole("disk", said, usual.disk_gib, 1_000_000, faults),
    )
    plan = Plan(
        use=use,
        chosen=chosen,
        gpu=gpu,
        hours=_hours(said.get("hours", ""), faults),
        budget=_budget(said.get("budget", ""), faults),
        connect=said.get("connect", "") if said.get("connect", "") in (OWN, *connections(use)) else "",
        run=" ".join(said.get("run", "")[:MAX_TEXT].split()),
        region=_region(said.get("region", "")),
        internet=said.get("internet", "") == "yes",
        machine=machine,
        faults=faults,
    )
    if plan.connect and not faults:
        try:
            job_draft.job_yaml(plan.draft)
        except JobFileInvalid as error:
            faults[error.field] = error.problem
    return plan


def connections(use: UseCase) -> list[str]:
    """Templates for a use, the suggested one first."""
    names = [name for name, template in TEMPLATES.items() if use.name in template.uses]
    return sorted(names, key=lambda name: name != FIRST.get(use.group))


def _gpu(text: str, use: UseCase) -> tuple[str, Suited | None]:
    if text == NO_GPU and not use.min_vram_gib:
        return NO_GPU, None
    try:
        model = CARD_MODELS.get(gpu_key(text[:MAX_TEXT]))
    except ValueError:
        return "", None
    one = suited(model, use) if model else None
    return (one.key, one) if one and one.cards else ("", None)


def _hours(text: str, faults: dict[str, str]) -> str:
    text = text.strip().replace(",", ".")[:MAX_TEXT] or USUAL_HOURS
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 1 / 60 <= number <= 24 * 365:
        faults["hours"] = "a number of hours, from a minute (0.02) to a year (8760)"
        return USUAL_HOURS
    return f"{number:.4f}".rstrip("0").rstrip(".")


def _budget(text: str, faults: dict[str, str]) -> str:
    digits = "".join(char for char in text[:MAX_TEXT] if char not in " .,_'\u00a0\u202f")
    if not digits:
        return ""
    if not (digits.isascii() and digits.isdigit() and 1 <= int(digits) <= 10**15):
        faults["budget"] = "a whole number of QU, or nothing"
        return ""
    return str(int(digits))


def _whole(name: str, said: Mapping[str, str], usual: int, most: int, faults: dict[str, str]) -> int:
    text = said.get(name, "").strip()[:MAX_TEXT]
    if not text:
        return usual
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= most):
        faults[name] = f"a whole number from 1 to {most:,}"
        return usual
    return int(text)


def _region(text: str) -> str:
    try:
        return name_key(text[:64])
    except ValueError:
        return ""
