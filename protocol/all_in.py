"""What renting from an offer costs, all in, and what would be rented there for a use. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from protocol.catalogue import UseCase
from protocol.fitness import Candidate
from protocol.messages import Offer, Wish
from protocol.units import PeerKey, Qu

SOLD_GIB: Final = (4, 6, 8, 10, 11, 12, 16, 20, 24, 32, 40, 48, 64, 80, 94, 96, 128, 141, 180, 192)
LEAST_LEFT: Final = 0.93
"""Of a card's memory, what a machine reports at least."""
MIB_PER_TIB: Final = 1 << 20


def sold_mib(vram_mib: int) -> int:
    """A card's memory as it is sold, in MiB. Drivers keep a little for themselves and error correction
    takes a sixteenth: cards of 24 GB report 24,564 or 23,034 MiB. Other sizes: the next whole GiB."""
    for gib in SOLD_GIB:
        if gib * 1_024 * LEAST_LEFT <= vram_mib <= gib * 1_024:
            return gib * 1_024
    return -(-vram_mib // 1_024) * 1_024


def all_in(offer: Offer, wish: Wish) -> Qu:
    """QU per hour for a wish, all in: cards or machine, and disk. Files' traffic and the fee are
    contained."""
    return Qu(offer.price_qu_per_hour * shares_of(wish) + storage_of(offer.storage_qu_per_tib_hour, wish))


def shares_of(wish: Wish) -> int:
    """How many times a wish pays the price: for each card, and once if it wants none."""
    return max(1, wish.gpu_count)


def storage_of(qu_per_tib_hour: Qu, wish: Wish) -> Qu:
    """QU per hour for a wish's disk, rounded up."""
    return Qu(-(-qu_per_tib_hour * wish.disk_mib // MIB_PER_TIB))


def wish_for(offer: Offer, wish: Wish, use: UseCase) -> Wish:
    """What one would rent there: all cards if the use can be spread over them, else one, if there is one."""
    cards = len(offer.capacity.gpus)
    return replace(wish, gpu_count=cards if use.splits else min(cards, 1))


def candidate(provider: PeerKey, offer: Offer, wish: Wish, use: UseCase) -> Candidate:
    """An offer as `fitness.rank` takes it, at its price for the cards a use takes and a wish's disk."""
    capacity = offer.capacity
    return Candidate(
        key=provider,
        gpu_class=offer.gpu_class,
        gpus=len(capacity.gpus),
        vram_mib=sold_mib(min((gpu.vram_mib for gpu in capacity.gpus), default=0)),
        cpu_millis=capacity.cpu_millis,
        memory_mib=capacity.memory_mib,
        qu_per_hour=all_in(offer, wish_for(offer, wish, use)),
    )
