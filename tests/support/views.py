"""Answers of a daemon for tests of front ends, every field overridable."""

from __future__ import annotations

from typing import Any

from protocol import control, control_wallet
from protocol.control import LeaseView, RunEvent
from protocol.control_market import (
    ChangeView,
    DeniedView,
    DenyView,
    DirectoryView,
    MarketView,
    OfferView,
    ReasonGroup,
    ReasonView,
    ScoreView,
    StakeView,
    UseCaseView,
    WhyView,
)

LEASE_ID = "3fa9c1" + "0" * 58
HOSTILE = "\x1b]0;owned\x07\x1b[2J[bold]\u202eevil\n\x9b31m"
"""Sets a title, clears the screen, is markup, turns the reading direction, breaks the line, C1."""


def lease(**changes: Any) -> LeaseView:
    """A caller's lease that has come to a good end."""
    body: dict[str, Any] = {
        "lease_id": LEASE_ID,
        "role": "caller",
        "phase": "done",
        "reason": "job.completed",
        "sentence": "the job ended by itself with exit code 0",
        "name": "wordcount",
        "peer_id": "12D3KooWAbcdEfgh",
        "runner": "docker",
        "image": "python:3.12",
        "gpu": "CPU",
        "price_qu_per_hour": 360_000,
        "interval_seconds": 5,
        "max_loss_qu": 1_500,
        "deposit": 30_000,
        "promised": 900,
        "paid": 900,
        "provider_received": 855,
        "fee": 45,
        "refunded": 29_100,
        "vouchers": 9,
        "seconds": 9,
        "exit_code": 0,
        "outputs_sha256": "ab" * 32,
        "output_dir": "/home/someone/out",
        "escrow_id": "cd" * 32,
        "opened_at_ms": 1,
        "ended_at_ms": 2,
        "settled": True,
    }
    return LeaseView(**(body | changes))


def offer(**changes: Any) -> OfferView:
    body: dict[str, Any] = {
        "peer_id": "12D3KooWAbcdEfgh",
        "name": "alice",
        "region": "eu",
        "gpu_class": "rtx4090",
        "gpus": 1,
        "vram_mib": 24_576,
        "cpu_millis": 8_000,
        "memory_mib": 32_768,
        "disk_mib": 100_000,
        "runner": "docker",
        "price_qu_per_hour": 360_000,
        "sequence": 1,
        "expires_in_s": 100,
        "own": False,
        "withdrawn": False,
        "all_in_qu_per_hour": 361_000,
        "suggested_low_qu_per_hour": 300_000,
        "suggested_high_qu_per_hour": 400_000,
        "score": 0.61,
    }
    return OfferView(**(body | changes))


def event(lease_view: LeaseView | None, phase: str = "", detail: str = "") -> dict[str, Any]:
    """A RunEvent as the body of a frame."""
    phase = phase or (lease_view.phase if lease_view else "packing")
    return control.to_body(RunEvent(phase, detail, lease_view))


def quoted() -> dict[str, Any]:
    """The event with the quote, before anything is signed."""
    quote = control.QuoteView("t0", "alice", 360_000, 3_600, 5, 360_000, 700, 1.4, 350_000, 10_000, 18_000)
    return control.to_body(RunEvent("quoted", "you can lose at most 700 QU", None, quote))


WALLET = control_wallet.WalletView("A" * 60, 1_000_000, 29_100, 900, 0, 12_345)
_SIGNED = control_wallet.TransactionView("a" * 60, "transfer", 12_340, 1_000)
PAYMENT = control_wallet.PaymentView("x", "A" * 60, 1_000, "sent", "carried out in tick 12,340", 1, [_SIGNED])
HISTORY = control_wallet.HistoryEntry("send", HOSTILE, "sent", -1_000, 1, [_SIGNED, _SIGNED])
STATUS = control.StatusView(
    api_version=control.API_VERSION,
    peer_id="12D3KooWAbcdEfgh",
    addresses=["/ip4/127.0.0.1/tcp/4001"],
    peers=2,
    provider=True,
    runner="docker",
    network="devnet",
    contract_index=28,
    tick=12_345,
    identity="A" * 60,
    offers=3,
    data_dir="/home/someone/.local/share/qubix",
    counters={"offer.forged": 2, "bytes_in": 5},
)

MARKED = offer(
    name=HOSTILE,
    region=HOSTILE,
    gpu_class=HOSTILE,
    runner=HOSTILE,
    arch=HOSTILE,
    cuda=HOSTILE,
    internet=True,
    rtt_ms=31.4,
    start_s=312,
    newcomer=True,
    shared_gpu_with=[HOSTILE, "bob", "carol", "dave"],
    missing_at=[HOSTILE],
    not_hired=HOSTILE,
    reasons=[HOSTILE],
)
"""An offer with every mark."""
USE_CASE = UseCaseView("sd", "Stable Diffusion", 8, 12, "ssh", HOSTILE)
DIRECTORY = DirectoryView("12D3KooWDirectory", 1_000, 3)
MARKET = MarketView(
    [offer(), MARKED], 12, 40, 3, "speed for the price", USE_CASE, [DIRECTORY, DirectoryView(HOSTILE, 0, 0)]
)
REASON = ReasonView("12D3KooWAbcdEfgh", HOSTILE, HOSTILE)
WHY = WhyView(
    "wordcount",
    1,
    40,
    40,
    0,
    3,
    1,
    [
        ReasonGroup("price", "price above your limit", 33, [REASON, REASON, REASON]),
        ReasonGroup(HOSTILE, HOSTILE, 7, [REASON]),
    ],
    [
        ChangeView("raise max_price to 12,500", 3, 0.1, {"max_price": "12500"}),
        ChangeView("20 GB of GPU memory instead of 24 GB", 1, 0.26, {"gpu": "20480MB:1"}),
    ],
)
SCORE = ScoreView("12D3KooWAbcdEfgh", HOSTILE, 0.61, 0.9, 0.8, 0.85, 0.7, False, [HOSTILE], '{"a": 1}')
STAKE = StakeView(True, HOSTILE, 1_500_000, 10**15, 12, 3, 1, 4, 18, 21_000_000, 145)
DENIED = DenyView(
    [
        DeniedView("12D3KooWAbcdEfgh", HOSTILE, "denied", HOSTILE, 0),
        DeniedView("12D3KooWBbcdEfgh", "bob", "net.peer_unreachable", "it failed the last time", 60_000),
    ]
)
