"""The devnet process as people start it: several nodes, the RPC, the seed file, epochs."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from escrow_bridge.devnet.__main__ import SEED_QU
from escrow_bridge.node import open_node_chain
from escrow_bridge.qubic import Wallet
from escrow_bridge.rpc import open_rpc_chain
from protocol.errors import UsageError
from tests.support.devnet_process import devnet_process
from tests.support.nodes import FAST


async def test_three_nodes_and_the_rpc_show_one_chain_with_a_funded_seed() -> None:
    async with devnet_process([], options=["--nodes", "3"]) as devnet:
        ready = devnet.ready
        assert set(ready) == {"nodes", "rpc", "contract_index", "seed_file"}
        assert len(set(ready["nodes"])) == 3
        path = Path(ready["seed_file"])
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        wallet = Wallet(path.read_text().strip())
        with trio.fail_after(30):
            async with (
                open_node_chain(ready["nodes"]) as nodes,
                open_rpc_chain(f"rpc+{ready['rpc']}") as rpc,
            ):
                for chain in (nodes, rpc):
                    assert (await chain.balance(wallet.public_key)).amount == SEED_QU
                    info = await chain.tick_info()
                    assert (info.epoch, info.tick_duration_ms) == (100, 50)
    assert not path.parent.exists()


async def test_a_seed_file_is_made_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "seed"
    seeds = []
    for _ in range(2):
        async with devnet_process([], options=["--seed-file", str(path)]) as devnet:
            assert devnet.ready["seed_file"] == str(path)
            seeds.append(path.read_text())
    assert seeds[0] == seeds[1] and stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_epochs_change_by_themselves_with_a_silence_that_clients_survive() -> None:
    ticks = 60
    # Nobody answers for 0.2 s, then everybody for 3 s: who asks twice for 2 s each is answered.
    patient = replace(FAST, answer_seconds=2.0)
    async with devnet_process([], options=["--nodes", "3", "--epoch-ticks", str(ticks)]) as devnet:
        with trio.fail_after(60):
            async with open_node_chain(devnet.ready["nodes"], patient) as chain:
                first = await chain.tick_info()
                while (info := await chain.tick_info()).epoch < first.epoch + 2:
                    await trio.sleep(0.02)
    epochs = info.epoch - first.epoch
    assert info.initial_tick - first.initial_tick == ticks * epochs


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--nodes", "0"], "1 to 16 nodes"),
        (["--nodes", "17"], "1 to 16 nodes"),
        (["--port", "65535", "--nodes", "2"], "a port is 0 to 65535"),
        (["--rpc-port", "65536"], "a port is 0 to 65535"),
        (["--epoch-ticks", "-1"], "below zero"),
        (["--seed-file", "/nonexistent/seed"], "cannot be made"),
    ],
)
def test_wrong_arguments_end_in_one_sentence(arguments: list[str], sentence: str) -> None:
    result = _devnet(*arguments)
    assert result.returncode == UsageError.exit_code
    assert sentence in result.stderr and result.stderr.count("\n") == 1


def test_a_seed_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "seed"
    path.write_text("a" * 55)
    path.chmod(0o644)
    result = _devnet("--seed-file", str(path))
    assert result.returncode == UsageError.exit_code
    assert "can be read by others" in result.stderr and "a" * 55 not in result.stderr


async def test_people_are_told_how_to_use_it() -> None:
    command = [sys.executable, "-m", "escrow_bridge.devnet", "--nodes", "2"]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with trio.fail_after(90):
        text = b""
        while text.count(b"\n") < 2:
            text += await process.stdout.receive_some()
        process.terminate()
        await process.wait()
    assert b"--chain node://127.0.0.1:" in text and b"--contract-index 28" in text
    with pytest.raises(ValueError):
        json.loads(text)


def _devnet(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "escrow_bridge.devnet", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
