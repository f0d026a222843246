"""Why nobody takes a job: every provider's reasons in groups, and the least change that would help.

Pure: computed from a demand and all that is known of all providers. What was learnt by asking some of
them for quotes comes in as `answers`.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Final

from protocol.all_in import all_in, sold_mib
from protocol.control_market import MAX_REASONS, ChangeView, ReasonGroup, ReasonView, WhyView
from protocol.errors import PeerRefused, QubixError
from protocol.image_needs import cuda_words
from protocol.messages import Wish
from protocol.query import FIELDS
from protocol.units import PeerKey, UnixMs
from qubixd.demand import FILTER, Demand, Seen, cost, fits, least_change, objections, pairs
from qubixd.quotes import plain
from qubixd.wire_libp2p import peer_id_of

MAX_CHANGES: Final = 6
ENOUGH: Final = 3
"""Beside the least change of a kind, one that this many providers could take up is shown."""
TITLES: Final = {
    "price": "price above your limit",
    "gpu_none": "no GPU",
    "gpu_busy": "no GPU free at the moment",
    "gpu_model": "another GPU model",
    "gpu_vram": "too little GPU memory",
    "gpu_count": "too few GPUs",
    "arch": "another processor than the image is for",
    "cuda": "a driver too old for the image's CUDA",
    "internet": "no way to the Internet for jobs",
    "cpus": "too few CPUs",
    "memory": "too little memory",
    "disk": "too little disk",
    "provider": "not the provider you named",
    "denied": "on your deny list",
    "fits": "its offer fits",
}
Answers = Mapping[PeerKey, QubixError | None]
"""What providers said when they were asked for a quote; None = they quoted."""


def explain(
    job: str, demand: Demand, seen: Sequence[Seen], answers: Answers, now: UnixMs, known: int | None = None
) -> WhyView:
    """The whole answer for one job. `seen`: the live offers but one's own; `known`: how many there are, if
    these are not all."""
    against = [tuple(dict.fromkeys(objections(one, demand))) for one in seen]
    least = {
        one.entry.provider: least_change(one, demand)
        for one, codes in zip(seen, against, strict=True)
        if codes
    }
    return WhyView(
        job=job,
        at_ms=now,
        known=len(seen) if known is None else known,
        looked_at=len(seen),
        fitting=against.count(()),
        asked=len(answers),
        agreed=sum(error is None for error in answers.values()),
        groups=_groups(demand, seen, against, least, answers),
        changes=[_view(demand, new, seen) for new in best_changes(demand, filter(None, least.values()))],
    )


def _groups(
    demand: Demand,
    seen: Sequence[Seen],
    against: Sequence[tuple[str, ...]],
    least: Mapping[PeerKey, Demand | None],
    answers: Answers,
) -> list[ReasonGroup]:
    members: dict[str, list[Seen]] = defaultdict(list)
    for one, codes in zip(seen, against, strict=True):
        answer = answers.get(one.entry.provider)
        said = (*codes, code_of(answer)) if answer else codes or ("fits",)
        for code in dict.fromkeys(said):
            members[code].append(one)
    distance = {provider: cost(demand, new) if new else float("inf") for provider, new in least.items()}
    return [
        ReasonGroup(
            code,
            title_of(code),
            len(them),
            [
                ReasonView(
                    peer_id_of(one.entry.provider),
                    one.entry.offer.name,
                    sentence_of(code, one, demand, answers),
                )
                for one in heapq.nsmallest(
                    MAX_REASONS, them, key=lambda one: distance.get(one.entry.provider, 0.0)
                )
            ],
        )
        for code, them in sorted(members.items(), key=lambda item: -len(item[1]))
    ]


def code_of(error: QubixError) -> str:
    """The peer's own code if it is one's refusal."""
    return error.refusal_code if isinstance(error, PeerRefused) else error.code


def title_of(code: str) -> str:
    """What a group is called."""
    if code in TITLES:
        return TITLES[code]
    if code.startswith(FILTER):
        return f"{code.removeprefix(FILTER)} is not what you asked for"
    return REFUSALS.get(code, f"did not agree ({code})")


REFUSALS: Final = {
    "backed_off": "failed lately, so it is left alone for a while",
    "net.peer_unreachable": "could not be reached",
    "net.stream_broken": "the connection broke while it was asked",
    "quote.price_above_limit": "asked for a quote, wanted more than your limit",
    "quote.capacity_taken": "asked for a quote, had nothing free any more",
    "quote.shop_closes": "asked for a quote, closes before the job's longest time is over",
    "image.wrong_architecture": "asked for a quote, has another processor than the image is for",
    "image.cuda_too_new": "asked for a quote, has a driver too old for the image's CUDA",
    "runner.no_internet": "asked for a quote, has no way to the Internet for jobs",
    "image.gpu_missing": "asked for a quote, has no NVIDIA driver",
    "image.not_here": "asked for a quote, has not built the image",
    "quote.changed": "quoted something other than it offers",
}


def sentence_of(code: str, one: Seen, demand: Demand, answers: Answers) -> str:
    """What speaks against one provider, with its numbers and ours."""
    offer, wish = one.entry.offer, demand.wish
    error = answers.get(one.entry.provider)
    if error is not None and code == code_of(error):
        return str(error)
    if one.barred and code == one.barred.code:
        return one.barred.sentence
    if code.startswith(FILTER):
        field = code.removeprefix(FILTER)
        asked = " and ".join(str(c) for c in demand.conditions if c.field == field)
        return f"{field} is {_value(field, one)}, asked for {asked}"
    capacity = offer.capacity
    models = ", ".join(sorted({gpu.model for gpu in capacity.gpus})) or "no card"
    largest = max((sold_mib(gpu.vram_mib) for gpu in capacity.gpus), default=0)
    return {
        "price": f"{all_in(offer, wish):,} QU per hour all in",
        "gpu_none": "a machine without GPU",
        "gpu_busy": f"all its {offer.gpu_class} cards are rented",
        "gpu_model": models,
        "gpu_vram": f"{size(largest)}",
        "gpu_count": f"{len(capacity.gpus)} free",
        "arch": f"its processor is {offer.arch}, the image is for {wish.arch}",
        "cuda": f"its driver supports {_cuda(offer.cuda)}, the image needs CUDA {cuda_words(wish.cuda)}",
        "internet": "its jobs have no network",
        "cpus": f"{capacity.cpu_millis / 1_000:g} CPUs free",
        "memory": f"{size(capacity.memory_mib)} of memory free",
        "disk": f"{size(capacity.disk_mib)} of disk free",
        "provider": offer.name,
        "fits": f"{all_in(offer, wish):,} QU per hour all in",
    }[code]


def _cuda(newest: int) -> str:
    return f"CUDA {cuda_words(newest)}" if newest else "no CUDA"


# --- changes ------------------------------------------------------------------------------------


def best_changes(demand: Demand, least: Iterable[Demand]) -> list[Demand]:
    """Of the demands that somebody would meet the cheapest few, cheapest first: of each kind the least one,
    and the least that gives a choice between some."""
    kinds: dict[tuple[bool, ...], list[tuple[float, Demand]]] = defaultdict(list)
    for new in least:
        kinds[_kind(demand, new)].append((cost(demand, new), new))
    shown: dict[Demand, float] = {}
    for some in kinds.values():
        nearest = heapq.nsmallest(ENOUGH, some, key=itemgetter(0))
        shown |= {new: price for price, new in (nearest[0], nearest[-1])}
    return heapq.nsmallest(MAX_CHANGES, shown, key=lambda new: (shown[new], repr(new)))


def _kind(old: Demand, new: Demand) -> tuple[bool, ...]:
    """What is different."""
    was, now = old.wish, new.wish
    return (
        was.gpu_model != now.gpu_model,
        was.gpu_vram_mib != now.gpu_vram_mib,
        was.gpu_count != now.gpu_count,
        was.cpu_millis != now.cpu_millis,
        was.memory_mib != now.memory_mib,
        was.disk_mib != now.disk_mib,
        old.max_price != new.max_price,
        *(one not in new.conditions for one in old.conditions),
        old.provider != new.provider,
        old.pardoned != new.pardoned,
        old.wait_seconds != new.wait_seconds,
    )


def _view(demand: Demand, new: Demand, seen: Sequence[Seen]) -> ChangeView:
    said = parts_of(demand, new)
    fields = {name: text for name, (text, _) in said.items()}
    return ChangeView(
        sentence=", and ".join(sentence for _, sentence in said.values()),
        providers=sum(fits(one, new) for one in seen),
        cost=round(cost(demand, new), 3),
        fields=fields,
    )


def parts_of(old: Demand, new: Demand) -> dict[str, tuple[str, str]]:
    """What is different: field of the job file (or a condition as it was) -> (its new text, a sentence)."""
    parts = _wish_parts(old.wish, new.wish)
    if new.max_price != old.max_price:
        parts["max_price"] = (str(new.max_price), f"raise max_price to {new.max_price:,}")
    for before, after in pairs(old, new):
        was, now = str(before), str(after) if after else ""
        parts[was] = (now, f"{now} instead of {was}" if now else f"leave out {was}")
    if new.provider != old.provider:
        parts["provider"] = ("", f"any provider instead of {old.provider!r}")
    if new.pardoned != old.pardoned:
        parts["deny"] = ("", "take the provider off your deny list (`qubix deny --help`)")
    if new.wait_seconds != old.wait_seconds:
        parts["wait"] = (str(new.wait_seconds), f"wait {new.wait_seconds:,} s")
    return parts


def _wish_parts(old: Wish, new: Wish) -> dict[str, tuple[str, str]]:
    parts = {}
    if gpu := _gpu_words(old, new):
        parts["gpu"] = (_gpu_text(new), gpu)
    if new.cpu_millis != old.cpu_millis:
        now, was = (f"{one.cpu_millis / 1_000:.3f}".rstrip("0").rstrip(".") for one in (new, old))
        parts["cpus"] = (now, f"{now} CPUs instead of {was}")
    for name, was_mib, now_mib in (
        ("memory", old.memory_mib, new.memory_mib),
        ("disk", old.disk_mib, new.disk_mib),
    ):
        if was_mib != now_mib:
            parts[name] = (_written(now_mib), f"{size(now_mib)} of {name} instead of {size(was_mib)}")
    return parts


def _gpu_words(old: Wish, new: Wish) -> str:
    said = []
    if plain(new.gpu_model) != plain(old.gpu_model):
        said.append(f"any GPU instead of {old.gpu_model}")
    if new.gpu_vram_mib != old.gpu_vram_mib:
        said.append(f"{size(new.gpu_vram_mib)} of GPU memory instead of {size(old.gpu_vram_mib)}")
    if new.gpu_count != old.gpu_count:
        said.append(f"{new.gpu_count} GPU{'s' if new.gpu_count > 1 else ''} instead of {old.gpu_count}")
    return ", and ".join(said)


def _gpu_text(wish: Wish) -> str:
    """As a job file says it."""
    memory = f":{_written(wish.gpu_vram_mib)}" if wish.gpu_vram_mib else ""
    return f"{wish.gpu_model}{memory}:{wish.gpu_count}" if wish.gpu_model else f"{wish.gpu_count}{memory}"


def size(mib: int) -> str:
    """Exact, because a job file is to be written by it."""
    return f"{mib // 1_024:,} GB" if mib % 1_024 == 0 else f"{mib:,} MB"


def _written(mib: int) -> str:
    """A size as a job file says it."""
    return size(mib).replace(" ", "").replace(",", "")


def _value(field: str, one: Seen) -> str:
    """As its provider writes it, or with the unit in which a condition without one counts."""
    value = one.values.get(field)
    if value is None:
        return "not known"
    if not isinstance(value, int | float):
        return one.entry.offer.region if field == "region" else str(value)
    figures = f"{value:,}" if isinstance(value, int) else f"{round(value, 2):,}"
    unit = FIELDS[field].unit
    return figures if unit in ("", "%") else f"{figures} {unit}"
