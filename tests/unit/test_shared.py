"""One question at a time for all who ask it."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from escrow_bridge.shared import Shared
from protocol.errors import ChainUnreachable


class Asked:
    def __init__(self) -> None:
        self.times = 0
        self.go = trio.Event()
        self.error: ChainUnreachable | None = None

    async def __call__(self) -> int:
        self.times += 1
        number = self.times
        await self.go.wait()
        if self.error:
            raise self.error
        return number


async def test_those_who_ask_meanwhile_get_the_same_answer_and_later_ones_a_new_one() -> None:
    asked = Asked()
    shared, answers = Shared(asked), list[int]()

    async def ask() -> None:
        answers.append(await shared())

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        asked.go.set()
    assert answers == [1] * 5
    assert await shared() == 2


async def test_an_error_is_everybodys() -> None:
    asked = Asked()
    asked.error = ChainUnreachable("gone")
    shared, errors = Shared(asked), list[str]()

    async def ask() -> None:
        with pytest.raises(ChainUnreachable) as raised:
            await shared()
        errors.append(str(raised.value))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        asked.go.set()
    assert errors == ["gone"] * 2 and asked.times == 1


async def test_the_next_one_asks_when_who_asked_is_cancelled() -> None:
    asked = Asked()
    shared, answers = Shared(asked), list[int]()

    async def ask(scope: trio.CancelScope) -> None:
        with scope:
            answers.append(await shared())

    first = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, first)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(ask, trio.CancelScope())
        await trio.testing.wait_all_tasks_blocked()
        first.cancel()
        await trio.testing.wait_all_tasks_blocked()
        asked.go.set()
    assert answers == [2]
