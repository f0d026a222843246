"""Meters between two nodes: told to the caller alone, kept on both sides, never a burden; idle jobs end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import trio
import trio.testing

from ledger.meters import MINUTE_MS
from protocol import messages
from protocol.errors import MessageInvalid, PeerRefused
from protocol.lease_state import Phase
from protocol.messages import Ack, GetLogs, GetMeters, Sample
from protocol.units import LeaseId, UnixMs
from qubixd.idle import STRETCH_MS
from qubixd.meters import KEPT_FOR_LISTENERS, RING_SAMPLES
from qubixd.meters_door import MAX_READERS, METERS_PROTOCOL
from qubixd.meters_follow import MOST_A_SECOND, POLL_SECONDS
from qubixd.talk import receive_signed, send_signed
from qubixd.wire import Stream, receive_frame, send_frame
from tests.support.meter_values import sample
from tests.support.rental import Rental, rental
from tests.support.stranger import Stranger
from tests.support.world import Person
from tests.support.world_jobs import job, now_ms
from tests.unit.test_desk import Shop, shop

Clock = trio.testing.MockClock
ALL = 1_000_000


@asynccontextmanager
async def running(root: Path, seconds: float = 1_000, extra: str = "") -> AsyncIterator[Rental]:
    async with rental(root) as one:
        await one.rent(job(seconds=seconds, extra=extra))
        await one.until(one.bob, Phase.RUNNING)
        yield one


def known(person: Person, lease_id: LeaseId) -> tuple[Sample, ...]:
    return person.up.metering.meters.since(lease_id, UnixMs(0))


async def test_a_provider_samples_each_second_and_its_caller_knows_within_a_minute(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with running(tmp_path) as one:
        await trio.sleep(POLL_SECONDS + 20)
        provided, rented = known(one.alice, one.lease_id), known(one.bob, one.lease_id)
        assert len(provided) >= POLL_SECONDS
        assert rented == provided[: len(rented)] and len(rented) >= POLL_SECONDS / 2
        last = provided[-1]
        assert (last.cpu_millis, last.memory_mib, last.disk_mib, last.gpus) == (500, 8, 2, ())
        assert 900 <= last.received_bytes - provided[-2].received_bytes <= 1_100


async def test_while_somebody_looks_samples_come_as_they_are_taken(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with running(tmp_path) as one:
        metering = one.bob.up.metering
        with metering.meters.listen(one.lease_id) as later, metering.follower.looking(one.lease_id):
            with trio.fail_after(5):
                await later.receive()
            for _ in range(10):
                with trio.fail_after(2):
                    assert now_ms() - (await later.receive()).at < 2_000
        await trio.sleep(10)  # nobody looks any more
        assert now_ms() - known(one.bob, one.lease_id)[-1].at > 5_000
        assert not one.alice.up.metering.door.readers.taken


async def test_one_stream_serves_all_who_look(tmp_path: Path, autojump_clock: Clock) -> None:
    async with running(tmp_path) as one:
        follower = one.bob.up.metering.follower
        with follower.looking(one.lease_id):
            with follower.looking(one.lease_id):
                await trio.sleep(3)
                assert one.alice.up.metering.door.readers.taken[one.lease_id] == 1
            await trio.sleep(3)
            assert one.alice.up.metering.door.readers.taken[one.lease_id] == 1


async def test_both_sides_keep_the_same_history(tmp_path: Path, autojump_clock: Clock) -> None:
    async with running(tmp_path, seconds=200) as one:
        await one.ended()
        await trio.sleep(POLL_SECONDS + 10)
        histories = [
            await person.up.metering.meters.history(one.lease_id, UnixMs(0), ALL)
            for person in (one.alice, one.bob)
        ]
        assert histories[0] == histories[1]
        assert 190 <= sum(row.samples for row in histories[0]) <= 200
        assert {row.span_ms for row in histories[0]} == {MINUTE_MS}


async def test_a_caller_that_was_away_fetches_what_it_missed(tmp_path: Path, autojump_clock: Clock) -> None:
    async with running(tmp_path) as one:
        await trio.sleep(70)
        await one.world.kill(one.bob)
        await trio.sleep(20)
        await one.world.start("bob")
        await trio.sleep(POLL_SECONDS + 10)
        provided = await one.alice.up.metering.meters.history(one.lease_id, UnixMs(0), ALL)
        rented = await one.bob.up.metering.meters.history(one.lease_id, UnixMs(0), ALL)
        assert rented[:-1] == provided[: len(rented) - 1] and len(rented) >= 3


async def test_a_cut_between_them_is_no_hole_in_the_history(tmp_path: Path, autojump_clock: Clock) -> None:
    async with running(tmp_path, seconds=3_000) as one:
        with one.bob.up.metering.follower.looking(one.lease_id):
            await trio.sleep(30)
            one.world.net.cut(one.alice.peer, one.bob.peer)
            await trio.sleep(40)
            one.world.net.heal(one.alice.peer, one.bob.peer)
            await trio.sleep(100)
        rented = known(one.bob, one.lease_id)
        assert len(rented) >= 160
        assert max(after.at - before.at for before, after in pairwise(rented)) < 1_500


# --- idle -----------------------------------------------------------------------------------------

IDLE = "idle_stop: 1m\n"


async def test_an_idle_job_is_ended(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        one.alice.engine.load_millis = 0
        began = now_ms()
        await one.rent(job(seconds=1_000, extra=IDLE))
        served, paid = await one.ended()
        assert (served.reason, paid.phase) == ("lease.idle", Phase.DONE)
        assert 60_000 <= served.ended_at - began <= 60_000 + STRETCH_MS + 20_000
        one.check_books(served, paid)


@pytest.mark.parametrize("load_millis", [500, None])
async def test_a_job_that_works_or_of_which_nobody_can_tell_is_not(
    load_millis: int | None, tmp_path: Path, autojump_clock: Clock
) -> None:
    async with rental(tmp_path) as one:
        one.alice.engine.load_millis = load_millis
        await one.rent(job(seconds=400, extra=IDLE))
        served, _ = await one.ended()
        assert served.reason == "job.completed"


async def test_seconds_in_which_others_compute_in_the_job_do_not_count(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with rental(tmp_path) as one:
        one.alice.engine.load_millis = 0
        proofs = one.alice.up.proving.door
        assert proofs is not None
        await one.rent(job(seconds=400, extra=IDLE))
        proofs.busy[one.lease_id] = trio.Event()  # one that takes for ever
        served, _ = await one.ended()
        assert served.reason == "job.completed"


async def test_proofs_now_and_then_do_not_keep_an_idle_job_alive(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with rental(tmp_path) as one:
        one.alice.engine.load_millis = 0
        proofs = one.alice.up.proving.door
        assert proofs is not None
        await one.rent(job(seconds=400, extra=IDLE))
        for _ in range(6):
            await trio.sleep(13)
            proofs.ended[one.lease_id] = trio.current_time()
        served, _ = await one.ended()
        assert served.reason == "lease.idle"


# --- the door -------------------------------------------------------------------------------------


async def asked(who: Stranger, alice: Person, message: object) -> tuple[str, Stream]:
    """The code of the refusal, "" if it was not refused; and the stream."""
    stream = await who.wire.open(alice.peer, METERS_PROTOCOL)
    await send_signed(stream, who.key.sign(message))
    if not (isinstance(message, GetMeters) and message.follow):
        await stream.send_eof()
    try:
        assert isinstance((await receive_signed(stream, alice.peer)).message, Ack)
    except PeerRefused as error:
        return error.refusal_code, stream
    return "", stream


async def code(who: Stranger, alice: Person, message: object) -> str:
    found, stream = await asked(who, alice, message)
    await stream.aclose()
    return found


async def told(stream: Stream) -> list[Sample]:
    """To the end of the stream."""
    found = []
    while (raw := await receive_frame(stream, 4_096)) is not None:
        found.append(messages.decode(raw))
    return found


async def test_meters_are_the_callers_alone(tmp_path: Path, autojump_clock: Clock) -> None:
    async with shop(tmp_path) as one:
        await one.running()
        lease_id = one.mallory.lease_id
        nobody = LeaseId(bytes(32))
        assert await code(one.eve, one.alice, GetMeters(lease_id, UnixMs(0), False)) == "lease.unknown"
        assert await code(one.mallory, one.alice, GetMeters(nobody, UnixMs(0), False)) == "lease.unknown"
        assert await code(one.mallory, one.alice, GetLogs(lease_id, 0, False)) == "wire.message_invalid"
        assert await code(one.mallory, one.alice, GetMeters(lease_id, UnixMs(0), False)) == ""


async def test_only_what_is_newer_is_told_and_the_stream_ends(tmp_path: Path, autojump_clock: Clock) -> None:
    async with shop(tmp_path) as one:
        await one.running()
        await trio.sleep(10)
        everything = known(one.alice, one.mallory.lease_id)
        assert len(everything) >= 8
        wanted = GetMeters(one.mallory.lease_id, everything[3].at, False)
        refused, stream = await asked(one.mallory, one.alice, wanted)
        async with stream:
            assert (refused, tuple(await told(stream))) == ("", everything[4:])


async def test_only_so_many_may_follow_at_once(tmp_path: Path, autojump_clock: Clock) -> None:
    async with shop(tmp_path) as one:
        await one.running()
        wanted = GetMeters(one.mallory.lease_id, UnixMs(0), True)
        streams = []
        for _ in range(MAX_READERS):
            refused, stream = await asked(one.mallory, one.alice, wanted)
            assert refused == ""
            streams.append(stream)
        assert await code(one.mallory, one.alice, wanted) == "refused"
        await streams.pop().aclose()
        await trio.sleep(5)
        assert await code(one.mallory, one.alice, wanted) == ""
        for stream in streams:
            await stream.aclose()


async def test_a_follower_is_told_until_the_job_has_ended(tmp_path: Path, autojump_clock: Clock) -> None:
    async with shop(tmp_path) as one:
        await one.running()
        refused, stream = await asked(
            one.mallory, one.alice, GetMeters(one.mallory.lease_id, UnixMs(0), True)
        )
        async with stream, trio.open_nursery() as nursery:
            nursery.start_soon(_stop_soon, one)
            found = await told(stream)
        assert refused == "" and tuple(found) == known(one.alice, one.mallory.lease_id)
        late, stream = await asked(one.mallory, one.alice, GetMeters(one.mallory.lease_id, UnixMs(0), True))
        async with stream:
            assert late == "" and await told(stream) == found  # and does not wait for more


async def _stop_soon(one: Shop) -> None:
    await trio.sleep(8)
    await one.mallory.say(messages.Stop(one.mallory.lease_id, "enough"))


async def test_a_follower_that_takes_nothing_is_let_go_and_costs_no_memory(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with shop(tmp_path) as one:
        await one.running()
        _, stream = await asked(one.mallory, one.alice, GetMeters(one.mallory.lease_id, UnixMs(0), True))
        channels = one.alice.up.metering.meters._listeners[one.mallory.lease_id]
        await trio.sleep(300)
        assert all(each.statistics().current_buffer_used <= KEPT_FOR_LISTENERS for each in channels)
        await stream.aclose()


# --- a provider that lies -------------------------------------------------------------------------


async def flooding(one: Rental, frames: list[bytes]) -> None:
    """From now on alice answers with these, and then no more."""

    async def serve(stream: Stream, peer: object) -> None:
        await receive_signed(stream, one.bob.peer)
        await send_signed(stream, one.alice.up.parts.key.sign(Ack()))
        for frame in frames:
            await send_frame(stream, frame)
        await stream.send_eof()

    one.alice.up.parts.wire.serve(METERS_PROTOCOL, serve)


@pytest.mark.parametrize(
    "frames",
    [
        [messages.encode(sample(n)) for n in range(RING_SAMPLES + 10 * MOST_A_SECOND)],
        [messages.encode(Ack())],
        [b"nonsense"],
    ],
)
async def test_more_than_can_be_or_something_else_is_not_taken(
    frames: list[bytes], tmp_path: Path, autojump_clock: Clock
) -> None:
    async with running(tmp_path) as one:
        await flooding(one, frames)
        lease = await one.bob.up.leases.get(one.lease_id)
        with pytest.raises(MessageInvalid):
            await one.bob.up.metering.follower.fetch(lease)
        assert len(known(one.bob, one.lease_id)) <= RING_SAMPLES


async def test_what_was_told_before_stands(tmp_path: Path, autojump_clock: Clock) -> None:
    async with running(tmp_path) as one:
        await trio.sleep(POLL_SECONDS + 5)
        before = known(one.bob, one.lease_id)
        await flooding(one, [messages.encode(before[0]), messages.encode(before[-1])])
        await one.bob.up.metering.follower.fetch(await one.bob.up.leases.get(one.lease_id))
        assert known(one.bob, one.lease_id) == before
