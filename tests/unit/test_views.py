"""What front ends and offers are told of a lease."""

from __future__ import annotations

from protocol import lease_model as m
from protocol.lease_state import Phase
from qubixd.views import holds_capacity
from tests.support.lease_play import (
    at,
    collected,
    job_exited,
    new_caller,
    new_provider,
    play,
    running_provider,
)


def test_a_card_is_free_only_when_its_job_is_gone() -> None:
    """The money may be settled before the engine has let go of the job."""
    lease, _ = play(running_provider(), m.ChainClosing(at(20)))
    assert lease.phase is Phase.SETTLING and holds_capacity(lease)
    lease, _ = play(lease, job_exited(25))
    assert holds_capacity(lease)
    lease, _ = play(lease, collected(30))
    assert not holds_capacity(lease)


def test_a_lease_takes_room_from_its_acceptance_on_and_only_here() -> None:
    assert holds_capacity(new_provider()) and not holds_capacity(new_caller())
