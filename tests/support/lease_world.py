"""Both lease machines in a small hostile world: messages, a contract, an engine, clocks, crashes.

Everything happens in `LeaseWorld.advance`, in steps of simulated time. Effects wait in an outbox as in
the journal; a crash forgets that the effect in hand was done, so that it is done again. Each event
handed to a machine is checked against what must always hold (`_feed`), and handed over twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from protocol import lease_caller, lease_provider
from protocol import lease_model as m
from protocol.lease import step
from protocol.lease_model import REPLACEABLE, Effect, Event, lane_of
from protocol.lease_state import TERMINAL, Lease, Phase, Role
from protocol.units import Qu, Tick, UnixMs
from tests.support.lease_checks import check, check_effect, check_step
from tests.support.lease_engine import engine_step, run, takes_ms
from tests.support.lease_plan import (
    ESCROW,
    LEASE,
    OPEN_TICKS,
    START_MS,
    STEP_MS,
    TICK_MS,
    Doing,
    Escrow,
    Job,
    Plan,
    Side,
    event_of,
)
from tests.support.lease_top_up import TopUps, agreed

FREE_TO_REPEAT: Final = (m.ChainVerify,)
"""Effects that an event may ask for again when it comes twice: reading does no harm."""


class LeaseWorld:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.now = START_MS
        self.link_down_until = 0
        self.lose_acks = 0
        self.echoes = 0
        self.echo_queue: list[tuple[int, Role, Event]] = []
        self.messages = 0
        self.escrow: Escrow | None = None
        self.open_at_tick = 0
        self.close_at: list[tuple[int, Qu | None]] = []
        """(tick, cumulative) of a provider's close, (tick, None) of a caller's request."""
        self.top_ups = TopUps()
        self.job: Job | None = None
        self.job_began_at = 0
        self.jobs_started = 0
        self.stored: bytes | None = None
        self.order_here = False
        self.fetched = False
        self.caller = Side(Role.CALLER, 0)
        self.provider = Side(Role.PROVIDER, plan.skew_ms)
        lease, effects = lease_caller.new(
            LEASE,
            plan.terms,
            signed_terms=b"terms",
            peer_addresses=(),
            name="job",
            output_dir="/out",
            now=self.clock(self.caller),
        )
        self._commit(self.caller, lease, effects)

    # --- faults and people --------------------------------------------------------------------

    def stop(self, role: Role) -> None:
        side = self._side(role)
        if side.up and side.lease:
            self._feed(side, m.ActionStop(self.clock(side)))

    def pause(self) -> None:
        self._person(m.ActionPause(self.clock(self.caller)))

    def resume(self) -> None:
        self._person(m.ActionResume(self.clock(self.caller)))

    def restart(self, number: int) -> None:
        self._person(m.ActionRestart(number.to_bytes(8, "big"), self.clock(self.caller)))

    def extend(self, seconds: int) -> None:
        if event := agreed(self, seconds):
            self._person(event)

    def lose_top_up(self) -> None:
        self.top_ups.lost += 1

    def prove_again(self, code: str) -> None:
        """The caller's daemon has challenged the machine again."""
        if self.caller.lease and self.caller.lease.phase is Phase.RUNNING:
            self._person(
                m.RunProved(code, "a challenge was not met" if code else "", self.clock(self.caller))
            )

    def _person(self, event: Event) -> None:
        if self.caller.up:
            self._feed(self.caller, event)

    def idle(self) -> None:
        """The meters say so."""
        if self.provider.up and self.provider.lease:
            self._feed(self.provider, m.RunIdle(self.clock(self.provider)))

    def restart_engine(self) -> None:
        """All containers end; they are there and do nothing."""
        if self.job and not self.job.ended_at:
            self.job.ended_at, self.job.lost, self.job.paused = self.now, True, False

    def take_down(self, role: Role, ms: int) -> None:
        side = self._side(role)
        side.up, side.was_down, side.down_until = False, True, max(side.down_until, self.now + ms)
        side.doing.clear()

    def cut_link(self, ms: int) -> None:
        self.link_down_until = max(self.link_down_until, self.now + ms)

    def hide_chain(self, role: Role, ms: int) -> None:
        side = self._side(role)
        side.was_down = True
        side.chain_down_until = max(side.chain_down_until, self.now + ms)

    def heal(self) -> None:
        """No more faults from here on; what is down comes back when its time is over."""
        self.lose_acks = self.echoes = 0
        for side in self.sides():
            side.crash_next = False

    # --- time ---------------------------------------------------------------------------------

    def advance(self, ms: int) -> None:
        for _ in range(max(1, ms // STEP_MS)):
            self.now += STEP_MS
            engine_step(self)
            if self.now % TICK_MS == 0:
                self._contract()
            for side in self.sides():
                self._live(side)
            self._deliver_echoes()
            check(self)

    def settle_down(self, limit_ms: int) -> None:
        """Let everything flow until both sides have ended and nothing is left to do."""
        end = self.now + limit_ms
        while self.now < end and not self.is_over():
            self.advance(STEP_MS)

    def is_over(self) -> bool:
        return all(
            side.up and not side.outbox and (side.lease is None or side.lease.phase in TERMINAL)
            for side in self.sides()
        )

    def _live(self, side: Side) -> None:
        if not side.up:
            if self.now < side.down_until:
                return
            side.up = True
            if side.lease:
                self._feed(side, m.ClockResumed(self.clock(side)))
        if side.lease and side.lease.phase not in TERMINAL:
            self._feed(side, m.ClockPassed(self.clock(side)))
            self._watch(side)
        for lane in ("upload", "send", "chain", "top-up", "run", "go", "prove"):
            if side.up:
                self._lane(side, lane)

    def _watch(self, side: Side) -> None:
        assert side.lease
        self._watch_job(side)
        if self.now < side.chain_down_until or self.now % TICK_MS or not side.lease.escrow_id:
            return
        now = self.clock(side)
        assert self.escrow
        if side.role is Role.PROVIDER:
            self._feed(side, m.TickPassed(Tick(self._tick()), now))
        if not self.escrow.gone:
            self._feed(side, m.ChainToppedUp(self.escrow.deposit, Tick(self.escrow.deadline), now))
        if self.escrow.gone:
            self._feed(side, m.ChainClosed(self.escrow.paid, self.escrow.refunded, now))
        elif self.escrow.close_tick:
            self._feed(side, m.ChainClosing(now))

    def _watch_job(self, side: Side) -> None:
        lease = side.lease
        if side.role is Role.CALLER or not lease or not lease.container_at or lease.exited:
            return
        if lease.unseen and self.job and not self.job.ended_at:
            self._feed(side, m.RunSeen(True, self.clock(side)))
        if self.job is None:
            ended = UnixMs(lease.started_at + lease.paused_ms + lease.seconds * 1_000)
            self._feed(side, m.RunExited(-1, "lost", lease.started_at, ended, self.clock(side)))
        elif self.job.ended_at:
            code, reason = (137, "stopped") if self.job.killed else (self.plan.exit_code, "exited")
            code = 137 if self.job.lost else code
            began, ended = (UnixMs(t + side.skew_ms) for t in (self.job.started_at, self.job.ended_at))
            self._feed(side, m.RunExited(code, reason, began, ended, self.clock(side)))

    # --- the journal --------------------------------------------------------------------------

    def _commit(self, side: Side, lease: Lease, effects: tuple[Effect, ...]) -> None:
        side.lease = lease
        for effect in effects:
            check_effect(self, side, effect)
            if type(effect) in REPLACEABLE:
                side.outbox = {s: e for s, e in side.outbox.items() if type(e) is not type(effect)}
            side.outbox[side.next_seq] = effect
            side.next_seq += 1

    def _feed(self, side: Side, event: Event) -> None:
        before = side.lease
        assert before is not None
        after, effects = step(before, event)
        check_step(self, side, before, after, effects)
        again, more = step(after, event)
        assert again == after, f"{event} twice is not once: {after} became {again}"
        assert all(isinstance(effect, FREE_TO_REPEAT) for effect in more), f"{event} twice asks for {more}"
        self._commit(side, after, effects)

    def _lane(self, side: Side, lane: str) -> None:
        """Do what is at the head of a lane; something that takes time blocks only its own lane."""
        head = next(((s, e) for s, e in side.outbox.items() if lane_of(e) == lane), None)
        doing = side.doing.get(lane)
        if doing is None:
            if head is None:
                return
            doing = side.doing[lane] = Doing(*head, self.now, self.now + self._takes_ms(head[1]))
        if self.now < doing.ready_at:
            return
        del side.doing[lane]
        finished, event = self._do(side, doing)
        if not finished:
            return
        if event is not None and side.lease:
            self._feed(side, event)
        if side.crash_next:
            side.crash_next = False
            self.take_down(side.role, 3_000)
            return
        side.outbox.pop(doing.seq, None)

    def _takes_ms(self, effect: Effect) -> int:
        if lane_of(effect) != "send":
            return takes_ms(self.plan, effect)
        self.messages += 1
        return self.plan.delays_ms[self.messages % len(self.plan.delays_ms)]

    def _do(self, side: Side, doing: Doing) -> tuple[bool, Event | None]:
        effect = doing.effect
        match lane_of(effect):
            case "send" | "upload":
                return self._send(side, effect, doing.began_at)
            case "chain" | "top-up":
                return self._chain(side, effect)
            case _:
                return run(self, side, effect)

    # --- messages -----------------------------------------------------------------------------

    def _send(self, side: Side, effect: Effect, sent_at: int) -> tuple[bool, Event | None]:
        other = self.provider if side is self.caller else self.caller
        if self.now < self.link_down_until or not other.up:
            return False, None
        answer = self._arrive(other, effect, sent_at)
        if self.lose_acks:
            self.lose_acks -= 1
            return False, None
        return True, answer

    def _arrive(self, other: Side, effect: Effect, sent_at: int) -> Event | None:
        """A message reaches the other daemon; what the sender learns from the answer."""
        here = self.clock(self.caller if other is self.provider else self.provider)
        if isinstance(effect, m.SendAccept):
            if self.plan.refuses and other.lease is None:
                return m.ReceiveRefused("quote.capacity_taken", "somebody else was faster", here)
            if other.lease is None:
                made = lease_provider.new(LEASE, self.plan.terms, peer_addresses=(), now=self.clock(other))
                self._commit(other, *made)
            return m.ReceiveAccepted(here)
        if other.lease is None:
            return None  # "I know no such lease": nothing is left to say
        if isinstance(effect, m.SendInputs):
            if other.lease.phase in TERMINAL:
                return m.ReceiveRefused("lease.unknown", "this lease has ended here", here)
            self.order_here = True
        event = event_of(effect, self.clock(other), sent_at + self.plan.skew_ms)
        if isinstance(event, m.ReceiveInputs):
            plan = self.plan
            event = replace(
                event, restart=plan.restart, restarts=plan.restarts, awaits_ready=plan.ready_ms > 0
            )
        self._feed(other, event)
        if self.echoes:
            self.echoes -= 1
            self.echo_queue.append((self.now + 7_000 * (1 + self.messages % 4), other.role, event))
        return None

    def _deliver_echoes(self) -> None:
        """The same message once more, long after those that followed it."""
        due = [echo for echo in self.echo_queue if echo[0] <= self.now]
        self.echo_queue = [echo for echo in self.echo_queue if echo[0] > self.now]
        for _, role, event in due:
            if (side := self._side(role)).up:
                self._feed(side, event)

    # --- the contract -------------------------------------------------------------------------

    def _chain(self, side: Side, effect: Effect) -> tuple[bool, Event | None]:
        if self.now < side.chain_down_until:
            return False, None
        now = self.clock(side)
        match effect:
            case m.ChainOpen():
                self.open_at_tick = self.open_at_tick or self._tick() + OPEN_TICKS
                if self._tick() <= self.open_at_tick:
                    return False, None
                if self.escrow is None:
                    return True, m.ChainOpenFailed("chain.funding_failed", "no deposit was locked", now)
                if self.escrow.gone:
                    return True, m.ChainOpenFailed("chain.funding_failed", "it has been closed", now)
                return True, self._opened(now)
            case m.ChainVerify(escrow_id, _):
                if self.escrow is None or self.escrow.close_tick or self.escrow.gone:
                    return True, m.ChainOpenFailed("lease.escrow_wrong", "there is no such escrow", now)
                assert escrow_id == ESCROW
                return True, self._opened(now)
            case m.ChainClose(escrow_id, cumulative, signature):
                assert escrow_id == ESCROW
                assert not cumulative or signature == b"signature of %d" % cumulative
                return self._order(now, cumulative)
            case m.ChainRedeem(escrow_id, cumulative, signature):
                assert escrow_id == ESCROW and self.escrow
                assert signature == b"signature of %d" % cumulative
                if not self.escrow.gone and self._tick() < self.escrow.last_tick():
                    self.escrow.paid = max(self.escrow.paid, cumulative)
                return True, None
            case m.ChainTopUp():
                return self.top_ups.perform(self, effect, now)
            case m.ChainRequestClose(escrow_id):
                assert escrow_id == ESCROW, "asked to close an escrow that it does not know"
                finished, _ = self._order(now, None)
                return finished, None
            case _:
                raise AssertionError(effect)

    def _opened(self, now: UnixMs) -> m.ChainOpened:
        assert self.escrow
        return m.ChainOpened(ESCROW, Tick(self.escrow.opened_at), Tick(self.escrow.deadline), now)

    def _order(self, now: UnixMs, cumulative: Qu | None) -> tuple[bool, Event | None]:
        """Have a transaction executed some ticks later; finished when the contract shows it."""
        assert self.escrow
        if self.escrow.gone:
            return True, m.ChainClosed(self.escrow.paid, self.escrow.refunded, now)
        if cumulative is None and self.escrow.close_tick:
            return True, None
        if not any(order == cumulative for _, order in self.close_at):
            self.close_at.append((self._tick() + OPEN_TICKS, cumulative))
        return False, None

    def _contract(self) -> None:
        tick = self._tick()
        if tick == self.open_at_tick and self.escrow is None and not self.plan.open_fails:
            terms = self.plan.terms
            self.escrow = Escrow(terms.deposit, tick, tick + terms.deadline_ticks)
        if self.escrow:
            due = [cumulative for at, cumulative in self.close_at if at <= tick]
            self.close_at = [order for order in self.close_at if order[0] > tick]
            self.top_ups.run(self, tick)
            self.escrow.run(tick, due, self.plan.terms.challenge_ticks)

    def clock(self, side: Side) -> UnixMs:
        return UnixMs(self.now + side.skew_ms)

    def _tick(self) -> int:
        return (self.now - START_MS) // TICK_MS + 1_000

    def _side(self, role: Role) -> Side:
        return self.caller if role is Role.CALLER else self.provider

    def sides(self) -> Iterator[Side]:
        yield self.caller
        yield self.provider
