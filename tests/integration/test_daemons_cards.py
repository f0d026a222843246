"""A provider's daemon on a machine with two GPUs, played by a stub of NVML: what others see when one
fails."""

from __future__ import annotations

import pytest
import trio

from tests.support.daemons import PATIENCE_SECONDS, Daemon, daemons
from tests.support.nvml import DATA_CENTER_CARD, Machine, build_stub

PROVIDER = ("--provider", "--price", "3600000", "--runner", "process")


async def until_offered(seen_by: Daemon, gpus: int) -> None:
    """Wait until there is one offer, with so many GPUs."""
    told: list[int] = []
    with trio.move_on_after(PATIENCE_SECONDS):
        while told != [gpus]:
            told = [offer["gpus"] for offer in (await seen_by.call("market"))["offers"]]
            await trio.sleep(0.1)
        return
    raise AssertionError(f"{told} GPUs are offered\n{seen_by.log()}")


async def test_a_card_that_fails_leaves_the_offer_and_its_owner_hears_why(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("d")
    build_stub(folder)
    machine = Machine(folder / "state", DATA_CENTER_CARD, DATA_CENTER_CARD)
    stub = {"LD_LIBRARY_PATH": str(folder), "QUBIX_NVML_STATE": str(machine.path)}
    async with daemons(folder, people=2) as town:
        alice = await town.start("alice", *PROVIDER, environment=stub)
        bob = await town.start("bob", "--bootstrap", alice.address)
        await until_offered(bob, 2)
        (offer,) = (await bob.call("market"))["offers"]
        assert (offer["gpu_class"], offer["vram_mib"]) == ("A100_40GB", 40 * 1_024)
        machine.card(0, milliwatts=61_000)
        machine.card(1, lost=1)
        machine.xid(0, 31)  # a job's bug
        await until_offered(bob, 1)
        told = await alice.call("provider")
        (hindrance,) = told["shop"]["hindrances"]
        assert (hindrance["code"], hindrance["closes"]) == ("gpu.lost", False)
        assert "(GPU-1) is not offered: the card does not answer" in hindrance["sentence"]
        assert told["shop"]["open"]
        well, lost = told["machine"]["gpus"]
        assert (well["uuid"], well["health"], well["power_mw"]) == ("GPU-0", "ok", 61_000)
        assert (lost["uuid"], lost["health"], lost["power_mw"]) == ("GPU-1", "gpu.lost", None)
        assert "GPU GPU-1 is not offered" in alice.log()
        assert await alice.stop() == 0
