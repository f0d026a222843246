"""The daemon's side of `forward`: what its front end is told of a job that is frozen, and of its end."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from protocol import control
from protocol.control_tunnels import ForwardArgs, ForwardEnd, ForwardEvent, ForwardPort
from protocol.errors import JobNotRunning
from protocol.lease_state import Phase
from qubixd import lease_desk, tunnel_desk
from tests.support.rental import Rental, rental
from tests.support.world_jobs import job

Clock = trio.testing.MockClock


async def nobody(event: object) -> None:
    """A front end that looks at no events."""


async def forwarded_until_stopped(one: Rental) -> tuple[list[ForwardEvent], ForwardEnd]:
    """What a front end is told that forwards a port, and then stops the job."""
    node, told = one.bob.up, list[ForwardEvent]()

    async def emit(event: object) -> None:
        assert isinstance(event, ForwardEvent)
        told.append(event)
        if event.what == "listening":
            await lease_desk.stop(node, control.StopArgs(one.lease_id.hex()), nobody)

    with trio.fail_after(600):
        args = ForwardArgs(one.lease_id.hex(), [ForwardPort(0, 80, "tcp")])
        return told, await tunnel_desk.forward(node, args, emit)


@pytest.mark.parametrize("frozen", [True, False])
async def test_who_forwards_a_port_is_told_that_the_job_is_frozen_and_how_it_ended(
    tmp_path: Path, autojump_clock: Clock, frozen: bool
) -> None:
    async with rental(tmp_path) as one:
        await one.rent(job(seconds=1_000))
        await one.until(one.bob, Phase.RUNNING)
        if frozen:
            await lease_desk.pause(one.bob.up, control.PauseArgs(one.lease_id.hex()), nobody)
            await one.world.until(one.lease_id, one.bob, lambda lease: lease.frozen)
        told, end = await forwarded_until_stopped(one)
        listening = next(event for event in told if event.what == "listening")
        assert listening.ports[0].local
        if frozen:
            assert listening.code == JobNotRunning.code
            assert listening.sentence.endswith(f"`qubix resume {one.lease_id.hex()[:8]}`.")
        else:
            assert (listening.code, listening.sentence) == ("", "")
        assert "ended" in end.sentence
        await one.ended()
