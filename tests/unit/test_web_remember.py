"""Dear answers are computed once for all who ask at the same time, and again when they are old."""

from __future__ import annotations

import asyncio

import pytest

from web.remember import MOST, Remembered


class Oracle:
    def __init__(self) -> None:
        self.asked = 0
        self.now = 0.0
        self.go = asyncio.Event()
        self.remembered = Remembered[int](5.0, lambda: self.now, at_once=1)

    async def answer(self) -> int:
        self.asked += 1
        await self.go.wait()
        if self.asked == 1:
            raise LookupError("not yet")
        return self.asked

    def get(self, question: str = "") -> asyncio.Task[int]:
        return asyncio.ensure_future(self.remembered.get(question, self.answer))


def test_many_ask_at_once_and_one_computes() -> None:
    async def play() -> None:
        oracle = Oracle()
        oracle.asked = 1
        askers = [oracle.get() for _ in range(5)]
        await asyncio.sleep(0)
        askers[0].cancel()  # who goes away takes nobody's answer along
        oracle.go.set()
        assert await asyncio.gather(*askers[1:]) == [2] * 4
        oracle.now = 4.9
        assert await oracle.get() == 2
        oracle.now = 5.0
        assert await oracle.get() == 3

    asyncio.run(play())


def test_trouble_is_not_remembered() -> None:
    async def play() -> None:
        oracle = Oracle()
        oracle.go.set()
        with pytest.raises(LookupError):
            await oracle.get()
        assert await oracle.get() == 2

    asyncio.run(play())


def test_it_holds_a_bounded_number_of_answers() -> None:
    async def play() -> None:
        oracle = Oracle()
        oracle.asked = 1
        oracle.go.set()
        for number in range(MOST + 1):
            assert await oracle.get(str(number)) == number + 2
        assert await oracle.get(str(MOST)) == MOST + 2
        assert await oracle.get("0") == MOST + 3

    asyncio.run(play())


def test_dear_questions_wait_for_each_other_and_are_as_old_as_their_answer() -> None:
    async def play() -> None:
        oracle = Oracle()
        oracle.asked = 1
        first, second = oracle.get("a"), oracle.get("b")
        await asyncio.sleep(0.01)
        assert oracle.asked == 2  # one of them
        oracle.now = 60.0
        again = oracle.get("b")  # is waited for, however long it takes
        oracle.go.set()
        assert [await one for one in (first, second, again)] == [2, 3, 3]
        assert await oracle.get("b") == 3 and oracle.remembered.have("b") == 3
        assert oracle.remembered.have("a") is None

    asyncio.run(play())
