"""What several nodes or RPCs, none of them trusted, say together: an answer counts when two of them give it.

Up to three are asked at once and the first two that agree decide; whoever fails or differs is replaced
by the next one. Honest nodes are a little apart in time, so answers carry the tick they were given in:
two are the same when they claim the same within MAX_LAG_TICKS, and the earlier tick is taken. What differs
is asked again for a while before it is called a disagreement. A single node is believed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Final, Generic, Protocol, TypeVar

import trio

from escrow_bridge.node_peer import NoAnswer, Timing
from escrow_bridge.qubic import k12
from protocol.errors import ChainDisagrees, ChainUnreachable, MessageInvalid
from protocol.units import Tick

NEEDED: Final = 2
PANEL: Final = 3
MAX_LAG_TICKS: Final = 2
ROUNDS: Final = 2
"""How often the nodes are asked when too few of them answer."""
FIRST_PAUSE_SECONDS: Final = 0.05
SUSPECT_SECONDS: Final = 30.0
"""How long a node that failed or differed is asked only after all others."""
TICK_BYTES: Final = 4
SHOWN_DIGEST_BYTES: Final = 4
T = TypeVar("T")


class Source(Protocol):
    """A node or an RPC that can be asked."""

    name: str
    trouble: str
    """Why it is not connected."""

    @property
    def connected(self) -> bool: ...


S = TypeVar("S", bound=Source)


@dataclass(frozen=True)
class Answer(Generic[T]):
    result: T
    claim: object
    """What two nodes must say alike."""
    says: str
    """The claim for people: "... says `says`"."""
    tick: Tick | None = None
    """When it was given; None if it does not depend on that."""


Attempt = Callable[[S], Awaitable[Answer[T]]]
"""Puts a question to one of them; may raise NoAnswer and MessageInvalid."""


def contract_answer(output: bytes, tick_at: int | None) -> Answer[bytes]:
    """A contract function's output; `tick_at` as in Chain.query."""
    if tick_at is None or len(output) < tick_at + TICK_BYTES:
        return Answer(output, output, shown(output))
    tick = Tick(int.from_bytes(output[tick_at : tick_at + TICK_BYTES], "little"))
    claim = output[:tick_at] + output[tick_at + TICK_BYTES :]
    return Answer(output, claim, shown(claim), tick)


def shown(data: bytes) -> str:
    """Bytes for people."""
    return f"{len(data)} bytes ({k12(data, SHOWN_DIGEST_BYTES).hex()})"


@dataclass
class Round(Generic[S, T]):
    """What was heard so far of one question."""

    needed: int
    newest: Tick
    answers: list[tuple[S, Answer[T]]] = field(default_factory=list)
    troubles: dict[str, str] = field(default_factory=dict)

    def add(self, peer: S, heard: Answer[T] | str) -> None:
        if isinstance(heard, str):
            self.troubles[peer.name] = heard
        elif self.needed > 1 and heard.tick is not None and heard.tick + MAX_LAG_TICKS < self.newest:
            self.troubles[peer.name] = f"it is at tick {heard.tick}, behind tick {self.newest}"
        else:
            self.answers.append((peer, heard))

    def agreed(self) -> tuple[Answer[T], frozenset[S]] | None:
        """The answer that enough nodes gave, and those nodes."""
        for group in combinations(self.answers, self.needed):
            answers = [answer for _, answer in group]
            if all(_same(answers[0], other) for other in answers[1:]):
                return min(answers, key=lambda answer: answer.tick or 0), frozenset(p for p, _ in group)
        return None


def _same(one: Answer[T], other: Answer[T]) -> bool:
    return one.claim == other.claim and abs((one.tick or 0) - (other.tick or 0)) <= MAX_LAG_TICKS


class Quorum(Generic[S]):
    def __init__(
        self,
        peers: Sequence[S],
        timing: Timing,
        changed: trio.lowlevel.ParkingLot,
        kind: str = "Qubic node",
    ) -> None:
        """`changed` is unparked whenever one has been connected. `kind`: what they are, for sentences."""
        self._kind = kind
        self._peers = tuple(peers)
        self._timing = timing
        self._changed = changed
        self._needed = min(NEEDED, len(peers))
        self._newest = Tick(0)
        self._suspect_until: dict[S, float] = {}

    async def ask(self, attempt: Attempt[S, T], what: str) -> T:
        """The result that enough nodes agree on; `what` is asked for, in words.

        Raises ChainUnreachable, ChainDisagrees.
        """
        pause = FIRST_PAUSE_SECONDS
        give_up = trio.current_time() + self._timing.agree_seconds
        rounds = ROUNDS
        while True:
            heard = await self._round(attempt)
            agreed = heard.agreed()
            if agreed is not None:
                return self._take(heard, *agreed)
            if len(heard.answers) < self._needed:
                rounds -= 1
                if not rounds:
                    raise self._unreachable(heard.troubles)
            elif trio.current_time() + pause > give_up:
                raise _disagreement(heard, what, self._kind)
            await trio.sleep(pause)
            pause *= 2

    def _take(self, heard: Round[S, T], answer: Answer[T], agreeing: frozenset[S]) -> T:
        self._newest = max(self._newest, answer.tick or self._newest)
        until = trio.current_time() + SUSPECT_SECONDS
        differing = {peer for peer, _ in heard.answers} - agreeing
        for peer in self._peers:
            if peer in agreeing:
                self._suspect_until.pop(peer, None)
            elif peer in differing or peer.name in heard.troubles:
                self._suspect_until[peer] = until
        return answer.result

    async def _round(self, attempt: Attempt[S, T]) -> Round[S, T]:
        """Ask the best nodes, and further ones where it takes them, until enough agree or none is left."""
        waiting = list(await self.connected(self._needed))
        heard = Round[S, T](self._needed, self._newest)
        into, out = trio.open_memory_channel[tuple[S, Answer[T] | str]](len(waiting))
        async with trio.open_nursery() as nursery:
            running, panel = 0, PANEL if self._needed > 1 else 1
            while True:
                while waiting and running + len(heard.answers) < panel:
                    nursery.start_soon(_ask_one, waiting.pop(0), attempt, into)
                    running += 1
                if not running:
                    break
                heard.add(*await out.receive())
                running -= 1
                if heard.agreed() is not None:
                    break
                # Answers that differ: the question goes to one more without waiting for the slow.
                panel += len(heard.answers) >= self._needed
            nursery.cancel_scope.cancel()
        return heard

    async def first(self, attempt: Callable[[S], Awaitable[T]]) -> T:
        """The result of the first node with which `attempt` works: for what proves itself."""
        troubles: dict[str, str] = {}
        for peer in await self.connected(1):
            try:
                return await attempt(peer)
            except (NoAnswer, MessageInvalid) as error:
                troubles[peer.name] = str(error)
        raise self._unreachable(troubles)

    async def connected(self, least: int) -> list[S]:
        """Connected nodes, the best first; waits a little until there are `least`.

        Raises ChainUnreachable.
        """
        with trio.move_on_after(self._timing.connect_seconds):
            while sum(peer.connected for peer in self._peers) < least:
                await self._changed.park()
        found = [peer for peer in self._peers if peer.connected]
        if len(found) < least:
            raise self._unreachable({})
        now = trio.current_time()
        return sorted(found, key=lambda peer: self._suspect_until.get(peer, 0.0) > now)

    def _unreachable(self, troubles: dict[str, str]) -> ChainUnreachable:
        failing = [peer for peer in self._peers if peer.name in troubles or not peer.connected]
        why = "; ".join(f"{peer.name}: {troubles.get(peer.name, peer.trouble)}" for peer in failing)
        if self._needed == 1 or len(failing) == len(self._peers):
            return ChainUnreachable(f"no {self._kind} answers ({why}); check that it runs")
        return ChainUnreachable(
            f"{len(self._peers) - len(failing)} of {len(self._peers)} {self._kind}s answer and {NEEDED} must "
            f"say the same ({why}); check that they run"
        )


async def _ask_one(
    peer: S, attempt: Attempt[S, T], into: trio.MemorySendChannel[tuple[S, Answer[T] | str]]
) -> None:
    heard: Answer[T] | str
    try:
        heard = await attempt(peer)
    except (NoAnswer, MessageInvalid) as error:
        heard = str(error)
    into.send_nowait((peer, heard))


def _disagreement(heard: Round[S, T], what: str, kind: str) -> ChainDisagrees:
    said = ", ".join(
        f"{peer.name} says {answer.says}" + (f" at tick {answer.tick}" if answer.tick is not None else "")
        for peer, answer in sorted(heard.answers, key=lambda pair: pair[0].name)
    )
    return ChainDisagrees(f"the {kind}s do not agree on {what}: {said}; leave out the wrong one or name more")
