"""What front ends and offers are told of a lease."""

from __future__ import annotations

from dataclasses import replace

from protocol import lease_model as m
from protocol.lease_state import Phase
from protocol.messages import Progress
from protocol.units import LeaseId
from qubixd.views import STARTING, holds_capacity, words_of
from tests.support.lease_play import (
    at,
    collected,
    job_exited,
    new_caller,
    new_provider,
    play,
    running_provider,
)

TERMS_ID = LeaseId(bytes(32))


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


def told(phase: str, permille: int = 0) -> Progress:
    return Progress(TERMS_ID, phase, permille, phase)


def test_words_of_a_job_that_is_being_made_ready() -> None:
    lease = replace(new_caller(), phase=Phase.PROVISIONING)
    assert words_of(lease) == "the provider prepares the job"
    assert words_of(lease, told("pulling the image", 437)) == "pulling the image 43 %"
    assert words_of(lease, told("image ready", 1_000)) == "image ready"
    prepared = replace(lease, prepared=True)
    assert words_of(prepared, told(STARTING)).startswith("proving the machine; the very first time")
    proved = replace(prepared, proved=True)
    assert words_of(proved, told(STARTING)) == "the machine is proved, the job begins"
    assert words_of(proved, told("waiting until the job is ready")) == "waiting until the job is ready"


def test_words_of_a_frozen_job_say_that_it_costs() -> None:
    running = replace(new_caller(), phase=Phase.RUNNING)
    assert words_of(running, told("image ready")) == "the job is running"
    assert "the meter runs on" in words_of(replace(running, frozen=True))
