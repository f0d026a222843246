"""Offers, requests, terms and houses for tests, each a good one that a test changes in one place."""

from __future__ import annotations

import hashlib
from typing import Final

from protocol.messages import Capacity, Gpu, Offer, QuoteRequest, Wish
from protocol.signing import NodeKey
from protocol.units import Qu, QubicId, Seconds, UnixMs
from qubixd.quotes import House

NOW: Final = UnixMs(1_800_000_000_000)
LIFE_MS: Final = 600_000
NETWORK: Final = "devnet"
CONTRACT: Final = 28
PROVIDER: Final = NodeKey(hashlib.sha256(b"provider").digest())
CALLER: Final = NodeKey(hashlib.sha256(b"caller").digest())
PROVIDER_ID: Final = QubicId(hashlib.sha256(b"provider's account").digest())
CALLER_ID: Final = QubicId(hashlib.sha256(b"caller's account").digest())


def gpu(number: int, model: str = "NVIDIA GeForce RTX 4090", vram_mib: int = 24_564) -> Gpu:
    return Gpu(model, vram_mib, hashlib.sha256(b"gpu %d" % number).digest())


CAPACITY: Final = Capacity(gpus=(gpu(0), gpu(1)), cpu_millis=16_000, memory_mib=65_536, disk_mib=500_000)
WISH: Final = Wish(
    gpu_model="rtx4090", gpu_count=1, gpu_vram_mib=20_000, cpu_millis=4_000, memory_mib=8_192, disk_mib=10_240
)


def offer(sequence: int = 1, issued_at: int = NOW) -> Offer:
    return Offer(
        sequence=sequence,
        issued_at=UnixMs(issued_at),
        expires_at=UnixMs(issued_at + LIFE_MS),
        withdrawn=False,
        network=NETWORK,
        contract_index=CONTRACT,
        qubic_id=PROVIDER_ID,
        name="alice",
        region="eu",
        gpu_class="RTX4090",
        runner="docker",
        price_qu_per_hour=Qu(3_600),
        storage_qu_per_tib_hour=Qu(0),
        capacity=CAPACITY,
        addresses=(),
        layers=(),
        pull_mib_per_s=0,
    )


REQUEST: Final = QuoteRequest(
    nonce=bytes(range(32)),
    network=NETWORK,
    contract_index=CONTRACT,
    caller_id=CALLER_ID,
    wish=WISH,
    image="python:3.12",
    order_sha256=hashlib.sha256(b"order").digest(),
    max_price_qu_per_hour=Qu(20_000),
    max_seconds=Seconds(7_200),
    interval_seconds=Seconds(5),
)
HOUSE: Final = House(
    network=NETWORK,
    contract_index=CONTRACT,
    provider=PROVIDER.public,
    provider_id=PROVIDER_ID,
    runner="docker",
    price_qu_per_hour=Qu(3_600),
    storage_qu_per_tib_hour=Qu(0),
    unpaid_intervals=3,
    tick_duration_ms=1_000,
    free=CAPACITY,
    open_for_business=True,
)
