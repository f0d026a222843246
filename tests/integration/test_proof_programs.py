"""The program that is sent, run for real: honest ones pass, every sort of cheater is told what it did."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from qubixd.proof import frames
from qubixd.proof.build import Programs
from qubixd.proof.plan import Plan, Solo, cpu_plan
from qubixd.proof.verify import NO_ANSWER, TOO_FEW, TOO_SLOW, WRONG, WRONG_GPU, Proof, Verifier
from tests.support import proof_programs as programs
from tests.support.proof_programs import Script, StubClock, play, small


def seeded(seed: int) -> programs.Random:
    return random.Random(seed).randbytes


# --- a processor ---------------------------------------------------------------------------------


def test_an_honest_processor_passes() -> None:
    proof = play(programs.honest(), cpu_plan(cpu_millis=2_000, memory_mib=256))
    assert proof.ok, proof.sentence


@pytest.mark.parametrize(
    "plan",
    [
        small(n=512, stripe_rows=256, stripes=3, passes=3),
        small(n=768, stripes=1, passes=1),
        small(stripes=1, openings=1),
    ],
)
def test_any_shape_is_computed_rightly(plan: Plan) -> None:
    assert play(programs.honest(), plan).ok


@pytest.mark.parametrize("cheat", ["skip 4", "own_seed", "sums 4", "inner", "row"])
def test_a_cheating_processor_is_wrong(cheat: str) -> None:
    proof = play(programs.cheater(), small(), {"QUBIX_CHEAT": cheat}, random_bytes=seeded(1))
    assert proof.code == WRONG, proof.sentence


def test_the_cheater_is_honest_without_orders() -> None:
    assert play(programs.cheater(), small()).ok


def test_answers_of_an_earlier_proof_are_wrong() -> None:
    tape = bytearray()
    plan = small()
    assert play(programs.honest(), plan, tape=tape, random_bytes=seeded(1)).ok
    again = programs.answered(Verifier(plan, seeded(1)), programs.replaying(bytes(tape)))
    assert again.ok  # the very same question: the tape itself is whole
    proof = programs.answered(Verifier(plan, seeded(2)), programs.replaying(bytes(tape)))
    assert proof.code == WRONG


def test_a_processor_below_the_floor_is_too_slow() -> None:
    plan = small()
    assert play(programs.honest(), plan, clock=Script({frames.BEGIN: 9.9})).ok
    assert play(programs.honest(), plan, clock=Script({frames.BEGIN: 10.1})).code == TOO_SLOW


def test_sums_that_take_too_long_were_not_held() -> None:
    plan = small()
    assert play(programs.honest(), plan, clock=Script({frames.PASSES: 0.9})).ok
    assert play(programs.honest(), plan, clock=Script({frames.PASSES: 1.1})).code == TOO_SLOW


def test_a_slow_line_is_forgiven_only_so_far() -> None:
    slow = {kind: 0.3 for kind in (frames.PING, frames.BEGIN)}
    plan = small()
    assert play(programs.honest(), plan, clock=Script({**slow, frames.PASSES: 1.2})).ok
    very = {kind: 30.0 for kind in (frames.PING,)}
    assert play(programs.honest(), plan, clock=Script({**very, frames.PASSES: 1.6})).code == TOO_SLOW


def test_cores_that_others_use_are_found() -> None:
    """One thread needs 1 s for a stripe; four rented cores then need 1 s for four, one core needs 4 s."""
    plan = small(stripes=8)
    plan = Plan(**{**plan.__dict__, "solo": Solo(stripes=1, cores=4.0), "work_s": 100.0})
    assert _with_cores(plan, all_s=2.5).ok
    proof = _with_cores(plan, all_s=8.0)
    assert proof.code == TOO_SLOW and "4 cores" in proof.sentence


def _with_cores(plan: Plan, all_s: float) -> Proof:
    class Clock(Script):
        begun = 0

        def asked(self, out: bytes) -> None:
            for kind, _ in programs.split(out):
                if kind == frames.BEGIN:
                    self.at += (1.0, all_s)[self.begun]
                    self.begun += 1

    return play(programs.honest(), plan, clock=Clock())


# --- GPUs of the stub ------------------------------------------------------------------------------


@pytest.fixture
def stub(tmp_path: Path) -> StubClock:
    return StubClock(tmp_path / "clock")


def on_stub(
    clock: StubClock, plan: Plan, *, tensor_cores: bool = True, devices: int = 0, **settings: object
) -> Proof:
    clock.path.write_bytes(bytes(8))
    environment = {f"QUBIX_STUB_{name.upper()}": str(value) for name, value in settings.items()}
    environment["QUBIX_STUB_DEVICES"] = str(devices or plan.devices)
    environment["QUBIX_STUB_CLOCK"] = str(clock.path)
    environment["LD_LIBRARY_PATH"] = str(programs.driver(tensor_cores))
    return play(programs.honest(cuda=True), plan, environment, clock)


def cards(number: int, work_s: float = 1e9, passes_s: float = 1e9, **sizes: int) -> Plan:
    plan = small(number, openings=sizes.pop("openings", 4), **sizes)
    return Plan(**{**plan.__dict__, "work_s": work_s, "passes_s": passes_s})


@pytest.mark.parametrize("tensor_cores", [True, False])
@pytest.mark.parametrize("number", [1, 2, 4])
def test_honest_cards_pass(stub: StubClock, number: int, tensor_cores: bool) -> None:
    """Both forms of the kernels, on real operands, against the verifier's own arithmetic."""
    proof = on_stub(stub, cards(number, stripes=2), tensor_cores=tensor_cores)
    assert proof.ok, proof.sentence
    assert len(proof.devices) == number and proof.devices[0].name == "NVIDIA Stub"


@pytest.mark.parametrize("tensor_cores", [True, False])
def test_larger_tiles_than_one(stub: StubClock, tensor_cores: bool) -> None:
    assert on_stub(stub, cards(1, n=512, stripe_rows=256, stripes=2), tensor_cores=tensor_cores).ok


def test_a_missing_card_is_missed(stub: StubClock) -> None:
    assert on_stub(stub, cards(2), devices=1).code == TOO_FEW


def test_no_driver_is_no_card(tmp_path: Path) -> None:
    proof = play(programs.honest(cuda=True), cards(1), {"LD_LIBRARY_PATH": str(tmp_path)})
    assert proof.code == TOO_FEW


def test_a_card_under_two_numbers_is_one(stub: StubClock) -> None:
    assert on_stub(stub, cards(2), same=1).code == TOO_FEW


def test_another_card_than_the_rented_one(stub: StubClock) -> None:
    plan = cards(1)
    other = Plan(**{**plan.__dict__, "digests": frozenset({bytes(32)})})
    assert on_stub(stub, other).code == WRONG_GPU


def test_a_card_with_less_memory(stub: StubClock) -> None:
    plan = Plan(**{**cards(1).__dict__, "least_memory": 20 << 30})
    assert on_stub(stub, plan, memory=24 << 30).ok
    assert on_stub(stub, plan, memory=16 << 30).code == WRONG_GPU


def test_memory_that_cannot_be_had(stub: StubClock) -> None:
    proof = on_stub(stub, cards(1), memory=200_000)
    assert proof.code == NO_ANSWER and "memory" in proof.sentence


def test_a_slower_model_is_too_slow(stub: StubClock) -> None:
    """The band of a card is that it does this in 1 s; this one needs 4."""
    plan = cards(1, work_s=1.0, stripes=2)
    fast = plan.operations / 0.9
    assert on_stub(stub, plan, operations=fast).ok
    assert on_stub(stub, plan, operations=fast / 4).code == TOO_SLOW


def test_one_card_that_answers_for_two_is_too_slow(stub: StubClock) -> None:
    """With forged UUIDs and a forged count: each half of the work waits for the other."""
    plan = cards(2, work_s=1.0, stripes=2)
    fast = plan.operations / 0.7
    assert on_stub(stub, plan, operations=fast).ok
    assert on_stub(stub, plan, operations=fast, cards=1).code == TOO_SLOW


def test_too_little_memory_is_too_slow_in_the_passes(stub: StubClock) -> None:
    """It keeps half of what it computed and computes the rest again for every pass: right, but late."""
    plan = cards(1, passes_s=0.5, stripes=4)
    fast = plan.operations / 0.5
    kept = plan.kept_bytes // 2
    assert on_stub(stub, plan, operations=fast).ok
    proof = on_stub(stub, plan, operations=fast, kept=kept)
    assert proof.code == TOO_SLOW and proof.compute_ms > 0


def test_too_little_memory_is_right_if_there_is_time(stub: StubClock) -> None:
    """The cheat above is no accident of the stub: without the limit its answers pass."""
    plan = cards(1, stripes=4)
    assert on_stub(stub, plan, kept=plan.kept_bytes // 2).ok


def test_a_card_that_leaves_out_rows_is_wrong(stub: StubClock) -> None:
    """Half of them, looked at by 32 openings."""
    proof = on_stub(stub, cards(1, stripes=2, openings=32), skip=2)
    assert proof.code == WRONG


def test_the_programs_for_arm_compile() -> None:
    made = Programs(programs.cache())
    for cuda in (False, True):
        data = made.program("arm64", cuda)
        assert data[:4] == b"\x7fELF" and data[18] == 0xB7, "AArch64"
    assert os.access(programs.honest(), os.X_OK)
