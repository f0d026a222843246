"""The host's Python side: what it refuses, snapshots, the compiler it finds and what it keeps."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from escrow_bridge.devnet import compiler
from escrow_bridge.devnet.compiler import QUBIX_HEADER, compile_contracts, source_of, zig_compiler
from escrow_bridge.devnet.host import Host, contract_id
from protocol.errors import CompilerMissing, MachineError
from tests.support.escrow import Code, Desk
from tests.support.probes import ALICE, BOB, EPOCH, FIRST_TICK, FOLDER, GENESIS, MONEY, QUBIX, new_chain, run

ROOT = Path(__file__).parents[2]


def test_a_snapshot_brings_everything_back() -> None:
    desk = Desk()
    escrow = desk.opened(10_000, deadline=100)
    desk.tick_to(FIRST_TICK + 7)
    desk.host.set_reserve(QUBIX, 4_321)
    before = desk.balances(), desk.info(), desk.channel(escrow), desk.host.entity(ALICE)
    saved = desk.host.snapshot()
    assert desk.close(escrow, 5_000) == Code.OK
    desk.tick_to(FIRST_TICK + 50)
    desk.host.change_epoch()
    desk.host.restore(saved)
    assert (desk.balances(), desk.info(), desk.channel(escrow), desk.host.entity(ALICE)) == before
    assert (desk.host.tick, desk.host.epoch, desk.host.destroyed) == (FIRST_TICK + 7, EPOCH, 0)
    assert desk.host.reserve(QUBIX) == 4_321
    assert desk.host.snapshot() == saved


def test_another_process_can_go_on_with_a_snapshot() -> None:
    first, second = Desk(), Desk()
    escrow = first.opened(10_000)
    first.tick_to(FIRST_TICK + 3)
    second.host.restore(first.host.snapshot())
    for desk in (first, second):
        assert desk.close(escrow, 5_000) == Code.OK
        desk.tick_to(FIRST_TICK + 20)
        desk.check()
    assert first.host.snapshot() == second.host.snapshot()


def damaged(blob: bytes, state_size: int) -> list[bytes]:
    raw = zlib.decompress(blob[8:])
    counted = bytearray(raw)
    counted[48] ^= 1  # the number of entities
    size = state_size.to_bytes(8, "little")
    foreign = raw.replace(QUBIX.to_bytes(8, "little") + size, b"\x63" + bytes(7) + size)
    assert foreign != raw
    pack = zlib.compress
    return [
        *(b"", blob[:8], blob[:-1], blob[:8] + b"nonsense", blob[:8] + pack(raw[:-1])),
        *(blob[:8] + pack(raw + b"\0"), blob[:8] + pack(b"\0" + raw[1:])),
        *(blob[:8] + pack(bytes(counted)), blob[:8] + pack(foreign), blob[:8] + pack(b"")),
        b"\xff" * 8 + blob[8:],
    ]


def test_a_damaged_snapshot_is_refused_and_changes_nothing() -> None:
    chain = new_chain()
    saved = chain.snapshot()
    for blob in damaged(saved, len(chain.state(QUBIX))):
        with pytest.raises(MachineError, match="does not fit these contracts"):
            chain.restore(blob)
    assert chain.snapshot() == saved


def test_a_snapshot_of_other_contracts_is_refused() -> None:
    other = Host.build({QUBIX: QUBIX_HEADER}, first_tick=1, epoch=1)
    with pytest.raises(MachineError, match="does not fit"):
        other.restore(new_chain().snapshot())


def test_two_chains_do_not_mix() -> None:
    first, second = new_chain(), new_chain()
    first.apply(ALICE, BOB, 5, 0, b"")
    assert (first.balance(BOB), second.balance(BOB)) == (5, 0)
    run(first, MONEY, 4, BOB + bytes(8))
    assert first.state(MONEY) != second.state(MONEY)
    assert first.state_changed(MONEY) and not second.state_changed(MONEY)


def test_many_entities_keep_their_money() -> None:
    chain = new_chain()
    owners = [number.to_bytes(32, "big") for number in range(1, 2_000)]
    for number, owner in enumerate(owners):
        chain.credit(owner, number)
    assert [chain.balance(owner) for owner in owners] == list(range(len(owners)))
    chain.restore(chain.snapshot())
    assert [chain.balance(owner) for owner in owners] == list(range(len(owners)))
    assert chain.balance(ALICE) == GENESIS


def test_what_is_no_id_or_amount_never_reaches_the_machine() -> None:
    chain = new_chain()
    with pytest.raises(ValueError, match="32 bytes"):
        chain.balance(b"short")
    with pytest.raises(ValueError, match="amount"):
        chain.apply(ALICE, BOB, -1, 0, b"")
    with pytest.raises(ValueError, match="amount"):
        chain.credit(ALICE, 10**15 + 1)
    with pytest.raises(ValueError, match="input type"):
        chain.apply(ALICE, BOB, 1, 65_536, b"")
    with pytest.raises(ValueError, match="index 99"):
        chain.reserve(99)
    with pytest.raises(ValueError, match="tick"):
        chain.begin_tick(10**9)


def test_a_contracts_id_is_its_index() -> None:
    assert contract_id(300) == b"\x2c\x01" + bytes(30)


@pytest.mark.parametrize(
    ("contracts", "complaint"),
    [
        ({1: FOLDER / "not-a-name.h"}, "named like"),
        ({0: QUBIX_HEADER}, "index"),
        ({1: QUBIX_HEADER, 2: QUBIX_HEADER}, "name of its own"),
        ({1: FOLDER / "Missing.h"}, "cannot be read"),
    ],
)
def test_contracts_that_cannot_be_deployed(contracts: dict[int, Path], complaint: str) -> None:
    with pytest.raises(MachineError, match=complaint):
        compile_contracts(contracts)


def test_contracts_come_by_rising_index() -> None:
    source = source_of({9: FOLDER / "Caller.h", 2: FOLDER / "Quiet.h"})
    assert source.index('"QUIET.h"') < source.index('"CALLER.h"')


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "qubix" / "contracts"


def test_a_library_is_kept_and_used_again(cache: Path) -> None:
    first = compile_contracts({1: FOLDER / "Quiet.h"})
    written = first.stat().st_mtime_ns
    assert compile_contracts({1: FOLDER / "Quiet.h"}) == first
    assert first.stat().st_mtime_ns == written
    assert list(cache.iterdir()) == [first], "nothing else is left behind"


def test_any_change_compiles_anew(cache: Path, tmp_path: Path) -> None:
    contract = tmp_path / "Quiet.h"
    contract.write_bytes((FOLDER / "Quiet.h").read_bytes())
    libraries = {compile_contracts({1: contract}), compile_contracts({2: contract})}
    contract.write_text(contract.read_text() + "// changed\n")
    libraries.add(compile_contracts({1: contract}))
    assert len(libraries) == 3


def test_a_contract_that_does_not_compile_says_where(cache: Path, tmp_path: Path) -> None:
    contract = tmp_path / "Quiet.h"
    contract.write_text("this is no contract")
    with pytest.raises(MachineError, match=r"QUIET\.h:1") as error:
        compile_contracts({1: contract})
    assert "does not compile" in str(error.value)
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_says_so(cache: Path) -> None:
    cache.parent.write_text("a file where a folder should be")
    with pytest.raises(MachineError, match="cannot be kept"):
        compile_contracts({1: FOLDER / "Quiet.h"})


def test_without_any_compiler_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(CompilerMissing, match="apt install g\\+\\+"):
        compiler.find_compiler.__wrapped__()


def test_without_a_system_compiler_the_wheel_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert compiler.find_compiler.__wrapped__() == zig_compiler()


@pytest.mark.slow
def test_the_wheels_compiler_makes_the_same_chain() -> None:
    """A process without a system compiler runs a channel; its chain is byte for byte the usual one."""
    program = (
        "import sys; from tests.support.escrow import Desk; desk = Desk(); escrow = desk.opened(); "
        "desk.redeem(escrow, 1_000); desk.tick_to(1_040); sys.stdout.buffer.write(desk.host.snapshot())"
    )
    environment = {**os.environ, "PATH": "", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr.decode()
    desk = Desk()
    desk.redeem(desk.opened(), 1_000)
    desk.tick_to(1_040)
    assert done.stdout == desk.host.snapshot()
