"""Batches of bulk get small beside other work, of which moving bytes is none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest
import trio
import trio.testing

from qubixd.link.bulk import clock, spent
from qubixd.link.mux import BATCH_BYTES, COMPANY_SECONDS, SMALL_BATCH_BYTES, Turns
from qubixd.link.stream import LinkStream
from tests.support.link_pairs import link_pair


@contextmanager
def moving() -> Iterator[None]:
    begun = clock()
    yield
    spent[0] += clock() - begun


@pytest.mark.parametrize(("kind", "batch"), [(moving, BATCH_BYTES), (nullcontext, SMALL_BATCH_BYTES)])
async def test_only_other_work_makes_batches_small(
    kind: Callable[[], AbstractContextManager[None]], batch: int
) -> None:
    async def work(task_status: trio.TaskStatus[None]) -> None:
        async with turns._lock:  # as long as somebody else has his turn
            task_status.started()
            await trio.testing.wait_all_tasks_blocked()
            spend()

    def spend() -> None:
        with kind():
            until = time.thread_time() + 20 * COMPANY_SECONDS
            while time.thread_time() < until:
                pass

    turns = Turns()
    assert turns.batch_bytes == BATCH_BYTES
    async with trio.open_nursery() as nursery:
        await nursery.start(work)
        await turns.rest()
    assert turns.batch_bytes == batch


async def test_an_odd_end_of_bulk_is_no_keystroke_but_the_next_is() -> None:
    async with link_pair() as pair:
        ours, theirs = await pair.open()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_take_all, theirs)
            turns = pair.caller._turns
            for size, batch in ((100_000, BATCH_BYTES), (100, BATCH_BYTES), (100, SMALL_BATCH_BYTES)):
                await ours.send_all(bytes(size))
                await trio.testing.wait_all_tasks_blocked()
                assert turns.batch_bytes == batch
            await ours.send_eof()


async def _take_all(stream: LinkStream) -> None:
    while await stream.receive_some():
        pass
