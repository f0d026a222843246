"""A provider that turns bad while the job runs: the caller's daemon lives, its money is right, and the
lease says what was missing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from protocol import messages, signing
from protocol.lease_state import Phase
from protocol.messages import Ack
from qubixd.talk import FILES_PROTOCOL, IDLE_TIMEOUT_S, LOGS_PROTOCOL, send_signed
from qubixd.wire import Stream, receive_frame, send_frame
from tests.support.rental import Rental, due, rental
from tests.support.world_jobs import job

Clock = trio.testing.MockClock
Cheat = Callable[[Rental, Stream], Awaitable[None]]


async def says_nothing(one: Rental, stream: Stream) -> None:
    await trio.sleep_forever()


async def talks_nonsense(one: Rental, stream: Stream) -> None:
    await send_frame(stream, b"\xc1" * 100)


async def announces_a_giant(one: Rental, stream: Stream) -> None:
    await stream.send_all(b"\xff\xff\xff\xff")


async def signs_as_another(one: Rental, stream: Stream) -> None:
    await send_signed(stream, signing.NodeKey(bytes(32)).sign(Ack()))


async def hangs_up(one: Rental, stream: Stream) -> None:
    await send_signed(stream, one.alice.up.parts.key.sign(Ack()))


async def sends_other_files(one: Rental, stream: Stream) -> None:
    await send_signed(stream, one.alice.up.parts.key.sign(Ack()))
    for _ in range(100):
        await stream.send_all(bytes(1_024))


async def stops_in_the_middle(one: Rental, stream: Stream) -> None:
    await send_signed(stream, one.alice.up.parts.key.sign(Ack()))
    await stream.send_all(bytes(100))
    await trio.sleep_forever()


async def refuses(one: Rental, stream: Stream) -> None:
    sentence = "no\x1b[2J outputs for you"
    await send_signed(stream, one.alice.up.parts.key.sign(messages.Refusal("shop.closed", sentence)))


CHEATS: list[Cheat] = [
    says_nothing,
    talks_nonsense,
    announces_a_giant,
    signs_as_another,
    hangs_up,
    sends_other_files,
    stops_in_the_middle,
    refuses,
]


@pytest.mark.parametrize("protocol", [FILES_PROTOCOL, LOGS_PROTOCOL])
@pytest.mark.parametrize("cheat", CHEATS, ids=lambda cheat: cheat.__name__)
async def test_outputs_that_cannot_be_had(
    tmp_path: Path, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch, cheat: Cheat, protocol: str
) -> None:
    monkeypatch.setattr("protocol.lease_caller.FETCH_PATIENCE_MS", 200_000)
    async with rental(tmp_path) as one:

        async def serve(stream: Stream, peer: object) -> None:
            await receive_frame(stream, messages.MAX_MESSAGE_BYTES)
            await cheat(one, stream)

        one.when(one.bob, Phase.RUNNING, lambda: one.alice.up.parts.wire.serve(protocol, serve))
        await one.rent(job(seconds=5))
        served, paid = await one.ended()
        assert served.phase is Phase.DONE
        assert due(5) <= paid.paid <= due(6)
        one.check_books(served, paid)
        if protocol == FILES_PROTOCOL:
            assert paid.phase is Phase.FAILED and paid.exit_code == 0
            assert paid.reason not in ("", "job.completed") and "fetched" in paid.sentence
            assert not (one.bob.root / "out").exists()
        await trio.sleep(IDLE_TIMEOUT_S + 1)  # the last try may still be waiting
        folder = one.bob.up.files.folder(one.lease_id)
        assert not list(folder.glob(".*.part"))
