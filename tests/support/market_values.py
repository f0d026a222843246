"""Offers and entries for tests of the market: a usual one, every part overridable."""

from __future__ import annotations

import hashlib
from typing import Any

from hypothesis import strategies as st

from protocol.catalogue import GPUS
from protocol.messages import Capacity, Gpu, Offer
from protocol.signing import NodeKey
from protocol.units import Qu, QubicId, UnixMs
from qubixd.book import Entry


def card(model: str = "NVIDIA GeForce RTX 4090", vram_mib: int = 24_564, number: int = 0) -> Gpu:
    return Gpu(model, vram_mib, hashlib.sha256(f"{model} {number}".encode()).digest())


def entry(
    key: NodeKey,
    *,
    name: str = "alice",
    region: str = "eu",
    price: int = 12_000,
    storage: int = 0,
    gpus: tuple[Gpu, ...] = (),
    gpu_class: str = "",
    sizes: tuple[int, int, int] = (8_000, 32_768, 102_400),
    layers: tuple[bytes, ...] = (),
    pull_mib_per_s: int = 0,
    at: int = 0,
    arch: str = "",
    cuda: int = 0,
) -> Entry:
    """Issued `at`, in Unix milliseconds, for ten minutes.

    `sizes`: thousandths of a core, MiB of memory, MiB of disk.
    """
    offer = Offer(
        sequence=1,
        issued_at=UnixMs(at),
        expires_at=UnixMs(at + 600_000),
        withdrawn=False,
        network="devnet",
        contract_index=28,
        qubic_id=QubicId(key.public),
        name=name,
        region=region,
        gpu_class=gpu_class or ("RTX_4090" if gpus else "CPU"),
        runner="docker",
        price_qu_per_hour=Qu(price),
        storage_qu_per_tib_hour=Qu(storage),
        capacity=Capacity(gpus, *sizes),
        addresses=(),
        layers=layers,
        pull_mib_per_s=pull_mib_per_s,
        arch=arch,
        cuda=cuda,
    )
    return Entry(key.public, key.sign(offer))


@st.composite
def machines(draw: st.DrawFn, storage: st.SearchStrategy[int] | None = None) -> dict[str, Any]:
    """What `entry` takes, of a machine with up to four cards of one model; `storage`: QU for a TiB and hour,
    nothing if it is not drawn."""
    name = draw(st.sampled_from([*GPUS, "RTX_9999"]))
    sizes_gib = st.sampled_from((8, 16, 24, 48, 80))
    cards = [draw(sizes_gib) for _ in range(draw(st.integers(0, 4)))]
    return {
        "gpu_class": name,
        "gpus": tuple(card(name, gib * 1_024, number) for number, gib in enumerate(cards)),
        "price": draw(st.integers(0, 40)),
        "storage": 0 if storage is None else draw(storage),
        "sizes": (draw(st.integers(1, 24)) * 1_000, draw(st.integers(1, 96)) * 1_024, 100_000),
    }
