"""Using directories: a provider's heartbeats to a few of them, and reading the books of a few of them.

Which ones is this node's own choice (register.py). A stream that is lost is replaced at once, a directory
that says nothing or breaks the rules is left alone for a while, one that lacks what is known from elsewhere
is replaced, and now and then one is exchanged for another, so that nobody who once got hold of all of them
keeps them. Only directories of different networks count as more than one.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import trio

from protocol import messages
from protocol.errors import MessageInvalid, MessageTooLarge, PeerRefused, QubixError, StreamBroken
from protocol.messages import Heartbeat, Refusal
from protocol.units import PeerKey, UnixMs
from qubixd.audit import UNSEEN_SECONDS
from qubixd.book import OfferBook
from qubixd.directory import PROTOCOL
from qubixd.offers import OfferService
from qubixd.places import Bucket
from qubixd.register import Known, Register
from qubixd.sync import Place, Reader
from qubixd.talk import ANSWER_TIMEOUT_S, patience
from qubixd.wire import Stream, Wire, receive_frame, send_frame

log = logging.getLogger("qubix.directories")

HEARTBEATS: Final = 3
READ: Final = 2
ENOUGH: Final = 2
"""So many directories do the work; with fewer, gossip does it."""
BEAT_SECONDS: Final = (28.0, 30.0)
LOOK_SECONDS: Final = 5.0
COMPARE_SECONDS: Final = 30.0
EXCHANGE_SECONDS: Final = 600.0
SWAP_SECONDS: Final = 20.0
"""So long a newcomer may take before the one it is to replace stays after all."""
HIDER_SECONDS: Final = 300.0
"""Between two directories that are given up because they lack offers: whoever shows inventions of its own
could else drive out all others at once."""
HIDDEN_SHARE: Final = 0.1
HIDDEN_LEAST: Final = 5
"""A directory hides something when it lacks more than this of all live offers known here, twice running."""
TRIES: Final = (0.5, 12)
"""Directories turned to a second, and at once: a register full of inventions costs no more than that."""
MAX_PLACES: Final = 256
"""Of so many books it is known how far they were read."""
BAD: Final = 4
"""Breaking the rules counts as so many failures."""
_MAX_ANSWER: Final = 1_024


@dataclass
class Held:
    """One directory in use."""

    known: Known
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    live: bool = False
    """It does its work: it took the offer, or its book was read to the end."""
    stream: Stream | None = None
    sending: trio.Lock = field(default_factory=trio.Lock)
    sent: int = -1
    """Sequence of the last offer it was given."""
    suspicions: int = 0


Session = Callable[[Held], Awaitable[None]]


@dataclass
class Circle:
    """The directories used for one purpose."""

    wanted: Callable[[], int]
    session: Session
    held: dict[PeerKey, Held]
    extra: int = 0
    """One more than usual, while one is exchanged for another."""
    exchanged_at: float = field(default_factory=trio.current_time)

    def live(self) -> list[Held]:
        return [held for held in self.held.values() if held.live]

    def networks(self) -> int:
        """How many of them count: whose owners are likely to be different people, and who lack nothing."""
        return len(
            {
                held.known.peer if held.known.configured else held.known.network
                for held in self.live()
                if not held.suspicions
            }
        )


class Directories:
    def __init__(
        self,
        wire: Wire,
        book: OfferBook,
        register: Register,
        offers: OfferService,
        now_ms: Callable[[], UnixMs],
        markets: tuple[str, ...] = (),
    ) -> None:
        self.counters: Counter[str] = Counter()
        self.heartbeats: dict[PeerKey, Held] = {}
        self.reading: dict[PeerKey, Held] = {}
        self._wire, self._book, self._register, self._offers = wire, book, register, offers
        self._now_ms, self._markets = now_ms, markets
        self._places: dict[PeerKey, Place] = {}
        self._news, self._beat_now, self._told = trio.Event(), trio.Event(), trio.Event()
        self._judge = False
        self._unseen_until = -1.0
        self._gave_up_at = -HIDER_SECONDS
        self._circles = (
            Circle(self._heartbeats_wanted, self._heartbeat, self.heartbeats),
            Circle(self._readings_wanted, self._read, self.reading),
        )
        self._tries = Bucket(*TRIES)
        register.on_news.append(self._look)
        offers.on_own.append(self._beat_soon)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep)
            nursery.start_soon(self._beat)
            nursery.start_soon(self._compare)
            for circle in self._circles:
                nursery.start_soon(self._exchange, circle)
            task_status.started()

    def in_use(self) -> tuple[tuple[PeerKey, tuple[str, ...]], ...]:
        """Directories that do something for this node now, with their addresses."""
        live = [held.known for held in [*self.reading.values(), *self.heartbeats.values()] if held.live]
        return tuple({known.peer: (known.peer, known.addresses) for known in live}.values())

    # Keeping enough of them

    def _beat_soon(self) -> None:
        self._beat_now.set()

    def _look(self) -> None:
        self._news.set()

    async def _keep(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                self._news = trio.Event()
                for circle in self._circles:
                    self._fill(nursery, circle)
                with trio.move_on_after(random.uniform(0.8, 1.2) * LOOK_SECONDS):
                    await self._news.wait()

    def _heartbeats_wanted(self) -> int:
        return HEARTBEATS if self._offers.own is not None else 0

    def _readings_wanted(self) -> int:
        reads = self._offers.reads and not self._offers.everything
        # Two directories that followed each other's books could keep a dead provider alive by turns.
        return READ + self._judge if reads else 0

    def _fill(self, nursery: trio.Nursery, circle: Circle) -> None:
        wanted = circle.wanted()
        wanted += circle.extra if wanted else 0
        for extra in list(circle.held.values())[wanted:]:
            extra.scope.cancel()
        missing = wanted - len(circle.held)
        for known in self._register.choose(missing, circle.held, self._now_ms()) if missing > 0 else ():
            if not self._tries.take():
                return
            slot = circle.held[known.peer] = Held(known)
            nursery.start_soon(self._hold, circle.held, slot, circle.session)

    async def _hold(self, held: dict[PeerKey, Held], slot: Held, session: Session) -> None:
        peer = slot.known.peer
        try:
            with slot.scope:
                await session(slot)
        except (MessageInvalid, MessageTooLarge) as error:
            self._blame(peer, "directory.broke_the_rules", error, BAD)
        except (QubixError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._blame(peer, "directory.lost" if slot.live else "directory.not_to_be_had", error, 1)
        finally:
            del held[peer]
        self._tell()
        self._look()

    def _blame(self, peer: PeerKey, reason: str, error: object, times: int) -> None:
        log.debug("directory %s: %s: %s", peer.hex()[:16], reason, error)
        self.counters[reason] += 1
        self._register.failed(peer, self._now_ms(), times)

    def _tell(self) -> None:
        """How well this node is served has changed."""
        told, self._told = self._told, trio.Event()
        told.set()
        beating, reading = self._circles
        self._book.choose(self.reading)
        unseen = trio.current_time() < self._unseen_until
        self._offers.settle(
            settled=beating.networks() >= ENOUGH and not unseen, served=reading.networks() >= ENOUGH
        )

    def unseen(self) -> None:
        """Nobody has this machine in its book, whatever the directories do with its heartbeats."""
        self._unseen_until = trio.current_time() + UNSEEN_SECONDS
        for slot in self._live_heartbeats():
            if not slot.known.configured:
                self._blame(slot.known.peer, "directory.tells_nobody", "nobody sees this provider", 1)
                slot.scope.cancel()
        self._tell()

    async def _exchange(self, circle: Circle) -> None:
        """Now and then, and whenever two of one network could be two of two."""
        while True:
            await trio.sleep(random.uniform(0.8, 1.2) * COMPARE_SECONDS)
            live = [held for held in circle.live() if not held.known.configured and not self._is_judged(held)]
            crowded = circle.networks() < len(circle.live())
            other = self._register.has_another_network(circle.held, self._now_ms())
            due = trio.current_time() - circle.exchanged_at > random.uniform(0.8, 1.2) * EXCHANGE_SECONDS
            if live and len(circle.live()) >= circle.wanted() and (due or (crowded and other)):
                circle.exchanged_at = trio.current_time()
                await self._swap(circle, _one_of_a_crowd(live) or random.choice(live))

    def _is_judged(self, held: Held) -> bool:
        """It is about to be found out: chance would take it away before, unblamed, to come back."""
        return held.suspicions > 0 and self._may_give_up()

    def _may_give_up(self) -> bool:
        return trio.current_time() - self._gave_up_at >= HIDER_SECONDS

    async def _swap(self, circle: Circle, victim: Held) -> None:
        """One more directory, and when it does its work the victim goes."""
        before = set(circle.held)
        circle.extra = 1
        self._look()
        with trio.move_on_after(SWAP_SECONDS):
            while not any(held.known.peer not in before for held in circle.live()):
                await self._told.wait()
            victim.scope.cancel()
        circle.extra = 0
        self._look()

    # Heartbeats

    async def _heartbeat(self, slot: Held) -> None:
        own = self._offers.own
        assert own is not None, "only who offers something has heartbeats"
        with patience(ANSWER_TIMEOUT_S):
            stream = await self._wire.open(slot.known.peer, PROTOCOL, slot.known.addresses)
        async with stream:
            with patience(ANSWER_TIMEOUT_S):
                await send_frame(stream, own.raw)
                answer = messages.decode(await receive_frame(stream, _MAX_ANSWER) or b"", _MAX_ANSWER)
            if isinstance(answer, Refusal):
                raise PeerRefused(answer.code, answer.sentence)
            slot.stream, slot.sent, slot.live = stream, own.offer.sequence, True
            slot.known.meet(self._wire.remote_ip(slot.known.peer))
            self._tell()
            if own is not self._offers.own:
                self._beat_soon()
            await receive_frame(stream, _MAX_ANSWER)
            raise StreamBroken("a directory ended the stream of heartbeats")

    async def _beat(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                self._beat_now = trio.Event()
                for slot in self._live_heartbeats():
                    nursery.start_soon(self._send, slot)
                with trio.move_on_after(random.uniform(*BEAT_SECONDS)):
                    await self._beat_now.wait()

    def _live_heartbeats(self) -> list[Held]:
        return [slot for slot in self.heartbeats.values() if slot.live]

    async def _send(self, slot: Held) -> None:
        """The newest offer if the directory lacks it, a heartbeat otherwise."""
        assert slot.stream is not None
        try:
            with patience(ANSWER_TIMEOUT_S):
                async with slot.sending:
                    own = self._offers.own
                    assert own is not None
                    sequence = own.offer.sequence
                    beat = messages.encode(Heartbeat(sequence))
                    await send_frame(slot.stream, beat if slot.sent == sequence else own.raw)
                    slot.sent = sequence
        except (QubixError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._blame(slot.known.peer, "directory.lost", error, 1)
            slot.scope.cancel()

    async def goodbye(self) -> None:
        """Give every directory this machine's last offer, which is withdrawn."""
        async with trio.open_nursery() as nursery:
            for slot in self._live_heartbeats():
                nursery.start_soon(self._send, slot)

    # Books

    async def _read(self, slot: Held) -> None:
        peer = slot.known.peer
        self._tell()  # what it shows counts from its first batch on
        place = self._places[peer] = self._places.pop(peer, Place())
        if len(self._places) > MAX_PLACES:
            del self._places[next(iter(self._places))]

        def complete() -> None:
            slot.live = True
            slot.known.meet(self._wire.remote_ip(peer))
            self._tell()

        reader = Reader(self._wire, self._book, self._now_ms, peer, place, self._markets, complete)
        await reader.read(slot.known.addresses, follow=True)

    async def _compare(self) -> None:
        """What does each directory show that others do not? And who has done good work?"""
        while True:
            await trio.sleep(COMPARE_SECONDS)
            for slot in [*self.heartbeats.values(), *self.reading.values()]:
                if slot.live:
                    self._register.served(slot.known.peer, round(COMPARE_SECONDS * 1_000))
            self._register.sweep(self._now_ms())
            self._judge_readings()
            self._look()

    def _judge_readings(self) -> None:
        """Who lacks much of what is known from elsewhere gets a judge beside it, and then has to go."""
        told = {peer: counts for peer, counts in self._book.sources().items() if peer in self.reading}
        lacking = {peer for peer, counts in told.items() if self.reading[peer].live and _lacks(*counts)}
        self._judge = bool(lacking)
        for peer, slot in self.reading.items():
            slot.suspicions = slot.suspicions + 1 if peer in lacking else 0
        self._tell()
        worst = [slot for slot in self.reading.values() if slot.suspicions > 1 and not slot.known.configured]
        if worst and self._may_give_up():
            self._gave_up_at = trio.current_time()
            slot = max(worst, key=lambda slot: told[slot.known.peer][1])
            self._blame(slot.known.peer, "directory.hides_offers", "it lacks what is known from elsewhere", 2)
            slot.scope.cancel()


def _lacks(shown: int, missing: int) -> bool:
    return missing > HIDDEN_LEAST + HIDDEN_SHARE * (shown + missing)


def _one_of_a_crowd(live: list[Held]) -> Held | None:
    """One that shares its network with another."""
    counts = Counter(held.known.network for held in live)
    crowd = [held for held in live if counts[held.known.network] > 1]
    return random.choice(crowd) if crowd else None
