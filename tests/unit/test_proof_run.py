"""The caller's side over a stream: silence, cuts and early ends; and the program's making."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from protocol.errors import MachineError, StreamBroken
from protocol.lease_state import Lease
from protocol.messages import Gpu, Wish
from protocol.signing import NodeKey
from qubixd.proof import build, frames, make_kernels
from qubixd.proof.build import Programs
from qubixd.proof.frames import Identity
from qubixd.proof.run import Prover, prove, told
from qubixd.proof.verify import MALFORMED, NO_ANSWER, Proof
from qubixd.wire import StreamCut
from tests.support.lease_plan import make_terms
from tests.support.lease_play import running_caller
from tests.support.memory_wire import MemoryNet
from tests.support.proof_programs import small

Clock = trio.testing.MockClock
KEY = NodeKey(bytes(32))


async def test_silence_ends_at_the_deadline(autojump_clock: Clock) -> None:
    ours, _theirs = trio.testing.memory_stream_pair()
    begun = trio.current_time()
    proof = await prove(ours, small())
    assert proof.code == NO_ANSWER and trio.current_time() - begun == small().prepare_s


async def test_a_dribble_does_not_stretch_the_deadline(autojump_clock: Clock) -> None:
    """A byte of an endless frame now and then: the step's time is the step's time."""
    ours, theirs = trio.testing.memory_stream_pair()
    answer = frames.frame(frames.READY, bytes(88))
    async with trio.open_nursery() as nursery:

        async def dribble() -> None:
            for at in range(len(answer) - 1):
                await theirs.send_all(answer[at : at + 1])
                await trio.sleep(5)

        nursery.start_soon(dribble)
        begun = trio.current_time()
        proof = await prove(ours, small())
        assert proof.code == NO_ANSWER and trio.current_time() - begun <= small().prepare_s
        nursery.cancel_scope.cancel()


async def test_an_early_end_is_no_answer() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_eof()
    assert (await prove(ours, small())).code == NO_ANSWER


@pytest.mark.parametrize("error", [StreamBroken, trio.BrokenResourceError, StreamCut])
async def test_a_cut_is_no_answer(error: type[Exception]) -> None:
    ours, theirs = trio.testing.memory_stream_pair()

    async def broken(data: bytes) -> None:
        raise error("cut")

    ours.send_all = broken  # type: ignore[method-assign,assignment]  # the stream breaks at its first use
    assert (await prove(ours, small())).code == NO_ANSWER
    await theirs.aclose()


async def test_garbage_is_malformed() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert (await prove(ours, small())).code == MALFORMED


def leased(wish: Wish, digests: tuple[bytes, ...] = ()) -> Lease:
    return replace(running_caller(), terms=make_terms(wish=wish, gpu_digests=digests, proof=True))


async def inline(call):  # type: ignore[no-untyped-def]  # stands for RunSync, of any result
    return call()


async def asked(lease: Lease, folder: Path) -> Proof:
    net = MemoryNet(seed=1)
    async with net.wire(KEY.public) as wire:
        prover = Prover(wire, KEY, Programs(folder), lambda lease: (), inline)
        return await prover(lease)


async def test_what_cannot_be_proved_says_so_and_asks_nobody(tmp_path: Path) -> None:
    digest = bytes([1]) * 32
    hired = leased(Wish("", 1, 0, 1_000, 1_024, 1_024), (digest,))
    amd = replace(hired, cards=(Gpu("MI300X", 196_608, digest),), arch="amd64")
    proof = await asked(amd, tmp_path)
    assert proof.code == "proof.not_possible"
    odd = await asked(replace(leased(Wish("", 0, 0, 1_000, 1_024, 1_024)), arch="riscv64"), tmp_path)
    assert odd.code == MachineError.code and "riscv64" in odd.sentence


def test_a_program_is_made_once(tmp_path: Path) -> None:
    made = Programs(tmp_path).path("amd64", cuda=False)
    assert made.read_bytes()[:4] == b"\x7fELF"
    before = made.stat().st_mtime_ns
    assert Programs(tmp_path).path("", cuda=False) == made and made.stat().st_mtime_ns == before
    assert len(Programs(tmp_path).program("amd64", cuda=False)) == made.stat().st_size
    assert [path for path in tmp_path.iterdir() if path != made] == []


def test_a_program_that_cannot_be_kept_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(MachineError, match="cannot be kept"):
        Programs(tmp_path / "file" / "folder").path("amd64", cuda=False)


def test_a_program_that_does_not_compile_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_files", lambda cuda: {"prover.c": b"int main(void) { return nothing; }"})
    with pytest.raises(MachineError, match="nothing"):
        Programs(tmp_path).path("amd64", cuda=False)


@pytest.mark.parametrize("form", make_kernels.FORMS, ids=lambda form: form[0])
def test_the_kernels_were_made_anew_after_their_last_change(
    form: tuple[str, int, str, object, object],
) -> None:
    """`make kernels` if not: it needs two packages, and no GPU."""
    name, capability, version, _, _ = form
    first, *lines = (build.SOURCES / name).read_text("ascii").splitlines()
    assert first == make_kernels.source_line()
    assert f".version {version}" in lines and f".target sm_{capability}" in lines


def test_a_proof_in_a_line_of_the_log() -> None:
    card = Identity(bytes(16), 1, "odd\n\x1b[1m")
    line = told(Proof(True, compute_ms=1_000, memory_ms=20, rate=2e12, devices=(card, card)))
    assert "2000 thousand million" in line and line.isprintable()
    assert told(Proof(False, "proof.wrong", "it lied")) == "proof.wrong: it lied"
