"""The proof on this machine's own cards: the kernels are right, and the cards reach their band.

`python -m pytest tests/gpu/test_proof_here.py -s` prints what each card reached: figures for
qubixd/proof/band.py, whose shares are computed from datasheets.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace

import pytest

from protocol.messages import Gpu
from qubixd.hardware import Session, detect
from qubixd.proof import band
from qubixd.proof.plan import Plan, gpu_plan
from qubixd.proof.verify import Proof
from tests.support import proof_programs as programs
from tests.support.proof_programs import play, small

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]

MIB = 1 << 20


@dataclass
class Wall:
    """The real clock: here it is the cards that are tested."""

    def asked(self, out: bytes) -> None:
        """Nothing to script."""

    def now(self) -> float:
        return time.monotonic()


@pytest.fixture
def cards(session: Session) -> list[Gpu]:
    """This machine's NVIDIA cards, as an offer would have them."""
    found = [one for one in detect(programs.cache().parent).gpus if one.vendor.casefold() == "nvidia"]
    if not found:
        pytest.skip("no NVIDIA card is detected on this machine")
    return [
        Gpu(one.model, one.vram_bytes // MIB, hashlib.sha256(one.uuid.encode()).digest()) for one in found
    ]


def answered(plan: Plan) -> Proof:
    return play(programs.honest(cuda=True), plan, clock=Wall())


def test_the_kernels_are_right(cards: list[Gpu]) -> None:
    """Small sizes, every card at once, no limits of time."""
    digests = frozenset(card.digest for card in cards)
    for n, stripe_rows in ((256, 128), (512, 256), (2_048, 1_024)):
        plan = small(len(cards), n=n, stripe_rows=stripe_rows, stripes=4)
        proof = answered(replace(plan, digests=digests, work_s=1e9, passes_s=1e9))
        assert proof.ok, proof.sentence


def test_the_cards_reach_their_band(cards: list[Gpu]) -> None:
    """The proof that a lease of all of them gets. What is measured is printed, whatever it is."""
    plan = gpu_plan(cards)
    proof = answered(replace(plan, work_s=1e9, passes_s=1e9))
    read = plan.shape.passes * plan.kept_bytes / max(1e-3, proof.memory_ms / 1_000)
    each = proof.rate / len(cards)
    for card in cards:
        least = band.band_of(card.model, card.vram_mib)
        print(f"{card.model}: {each / 1e12:.1f} TOPS, at least {least.operations / 1e12:.1f}")  # noqa: T201 its purpose
        print(f"{card.model}: {read / 1e9:.0f} GB/s, at least {least.bandwidth / 1e9:.0f}")  # noqa: T201 its purpose
    assert proof.ok, proof.sentence
    assert proof.compute_ms <= plan.work_s * 1_000 and proof.memory_ms <= plan.passes_s * 1_000
