"""The control API's verb `watch`: the present state, then what changes, at a pace a person can follow.

Nothing is queued for a reader but notices. What has changed is marked, and read when its turn comes, so
that a reader who was away for long gets the newest state and no more.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

import trio

import ledger.notices
from ledger.arrivals import Arrival
from ledger.notices import NoticeRow
from protocol import control
from protocol.codec import convert
from protocol.control_wallet import WalletView
from protocol.control_watch import (
    EVENTS_A_SECOND,
    NOTICES_KEPT,
    KeptNotice,
    MarketPulse,
    NoticesArgs,
    NoticesView,
    NoticeView,
    WatchArgs,
    WatchEvent,
)
from protocol.errors import ChainDisagrees, ChainUnreachable, DiskFull, LedgerBroken
from protocol.lease_state import TERMINAL, Lease
from protocol.units import LeaseId, PeerKey, Tick, UnixMs
from qubixd.lease_desk import shown
from qubixd.market_desk import live_offers
from qubixd.node import Node
from qubixd.notices import Severity, is_quiet, notices_of, quiet_notice
from qubixd.views import wallet_view

log = logging.getLogger("qubix.watch")

WALLET_SECONDS: Final = 5.0
"""How often the chain is asked for the balance; a lease that changes its phase asks at once."""
FIRST_WALLET_SECONDS: Final = 2.0
"""The present state does not wait longer for a chain that does not answer."""
LOOK_SECONDS: Final = 1.0
"""How often it is looked whether a provider has fallen silent."""
Emit = Callable[[object], Awaitable[None]]
"""Sends one event of the request being served."""
T = TypeVar("T")


async def watch(node: Node, args: WatchArgs, emit: Emit) -> control.Done:
    reader = _Reader(node, args, emit)
    with reader.listening():
        await reader.tell_present()
        async with trio.open_nursery() as nursery:
            if args.wallet:
                nursery.start_soon(reader.follow_wallet)
            nursery.start_soon(reader.look_around)
            nursery.start_soon(reader.tell_changes)
    return control.Done()


async def keep_notices(node: Node, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Write notices down as somebody who always watches, until cancelled."""

    async def keep(event: object) -> None:
        if isinstance(event, WatchEvent) and (one := event.notice):
            try:
                await ledger.notices.note(
                    node.parts.store, one.code, one.severity, one.sentence, one.lease_id, one.at_ms
                )
            except (DiskFull, LedgerBroken) as error:
                log.warning("a notice is not kept: %s", error)

    reader = _Reader(node, WatchArgs(leases=False, wallet=False), keep)
    with reader.listening():
        task_status.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader.look_around)
            nursery.start_soon(reader.tell_changes)


async def notices(node: Node, args: NoticesArgs, emit: Emit) -> NoticesView:
    rows = await ledger.notices.newest(node.parts.store, args.limit, args.after)
    return NoticesView([KeptNotice(row.number, _view_of(row)) for row in rows])


def _view_of(row: NoticeRow) -> NoticeView:
    fields = {name: value for name, value in vars(row).items() if name != "number"}
    view: NoticeView = convert(fields, NoticeView, "a notice")
    return view


@dataclass
class _Reader:
    """What one front end has yet to be told."""

    node: Node
    args: WatchArgs
    emit: Emit
    changed: set[LeaseId] = field(default_factory=set)
    market: bool = False
    wallet: WalletView | None = None
    notices: deque[NoticeView] = field(default_factory=lambda: deque(maxlen=NOTICES_KEPT))
    news: trio.Event = field(default_factory=trio.Event)
    money_moved: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        node = self.node
        self._last = {lease.lease_id: lease for lease in node.leases.active()}
        self._quiet = {one.lease_id for one in self._last.values() if is_quiet(one, self._now())}
        self._chain_says, self._shut = node.waiting.why, self._why_shut()
        self._purse = _Purse(node)
        self._told_wallet: WalletView | None = None

    def _now(self) -> UnixMs:
        return self.node.parts.now_ms()

    # --- hearing of changes -------------------------------------------------------------------

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Callbacks of what can change; none of them blocks."""
        node = self.node
        with (
            _in(node.leases.on_change, self._lease_changed),
            _in(node.connections.links.on_change, self._path_changed),
            _in(node.offers.book.on_change, self._market_changed),
            _in(node.waiting.on_change, self._chain_changed),
            _in(node.provider.on_change, self._shop_changed),
            _in(node.arrivals.on_arrival, self._money_came),
        ):
            yield

    def _lease_changed(self, lease: Lease) -> None:
        before = self._last.get(lease.lease_id)
        if before is None or (before.phase, before.settled) != (lease.phase, lease.settled):
            self._purse.ends += lease.phase in TERMINAL
            self.money_moved.set()
        if self.args.leases:
            self.changed.add(lease.lease_id)
        self._notice(*notices_of(before, lease, self._now()))
        if lease.phase in TERMINAL:
            self._last.pop(lease.lease_id, None)
            self._quiet.discard(lease.lease_id)
        else:
            self._last[lease.lease_id] = lease
            self._look_whether_quiet(lease)
        self.news.set()

    def _path_changed(self, peer: PeerKey) -> None:
        if self.args.leases:
            self.changed |= {
                lease.lease_id
                for lease in self.node.leases.active()
                if peer in (lease.terms.provider, lease.terms.caller)
            }
            self.news.set()

    def _market_changed(self) -> None:
        if self.args.market:
            self.market = True
            self.news.set()

    def _chain_changed(self) -> None:
        was, self._chain_says = self._chain_says, self.node.waiting.why
        if self._chain_says and not was:
            self._notice(NoticeView("chain.behind", "warning", self._chain_says, "", self._now()))
        elif was and not self._chain_says:
            self._notice(NoticeView("chain.back", "good", "the chain goes on", "", self._now()))

    def _money_came(self, one: Arrival) -> None:
        self.money_moved.set()
        if one.kind in ("received", "unexplained"):
            severity: Severity = "good" if one.amount > 0 else "bad"
            words = f"{one.amount:+,} QU in the wallet, not by a job or a payment of this node"
            self._notice(NoticeView("wallet.received", severity, words, "", self._now()))

    def _shop_changed(self) -> None:
        was, self._shut = self._shut, self._why_shut()
        if self._shut and not was:
            words = f"no new jobs are taken: {self._shut}"
            self._notice(NoticeView("shop.closed", "bad", words, "", self._now()))
        elif was and not self._shut:
            self._notice(
                NoticeView("shop.open", "good", "nothing keeps new jobs away any more", "", self._now())
            )

    def _why_shut(self) -> str:
        """Why the shop is shut, the person's own pause and hours left out; empty if it is not, or there is
        none."""
        if not self.node.config.provider:
            return ""
        own = ("provider.paused", "provider.closed")
        reasons = self.node.provider.hindrances()
        return next((one.sentence for one in reasons if one.closes and one.code not in own), "")

    def _notice(self, *notices: NoticeView) -> None:
        if self.args.notices:
            self.notices += notices
            self.news.set()

    def _look_whether_quiet(self, lease: Lease) -> None:
        quiet = is_quiet(lease, self._now())
        if quiet != (lease.lease_id in self._quiet):
            self._quiet.symmetric_difference_update({lease.lease_id})
            self._notice(quiet_notice(lease, self._now(), lost=quiet))

    async def look_around(self) -> None:
        """What comes with time alone. While somebody watches the market, this node hears all of it."""
        while True:
            if self.args.market:
                self.node.offers.want()
            for lease in tuple(self._last.values()):
                self._look_whether_quiet(lease)
            await trio.sleep(LOOK_SECONDS)

    async def follow_wallet(self) -> None:
        while True:
            self.money_moved = trio.Event()
            await self._look_into_purse()
            with trio.move_on_after(WALLET_SECONDS):
                await self.money_moved.wait()
            await trio.sleep(1 / EVENTS_A_SECOND)

    async def _look_into_purse(self) -> None:
        with suppress(ChainUnreachable, ChainDisagrees):
            view = await self._purse.look()
            if self._told_wallet is None or replace(view, tick=self._told_wallet.tick) != self._told_wallet:
                self.wallet = self._told_wallet = view
                self.news.set()

    # --- telling --------------------------------------------------------------------------------

    async def tell_present(self) -> None:
        node = self.node
        if self.args.leases:
            self.changed |= self._last.keys() | {LeaseId(one) for one in node.reconciler.standing}
        self.market = self.args.market
        await self._tell()
        if self.args.wallet:
            with trio.move_on_after(FIRST_WALLET_SECONDS):
                await self._look_into_purse()
            await self._tell()
        await self.emit(WatchEvent("present", self._now()))

    async def tell_changes(self) -> None:
        while True:
            await self.news.wait()
            await self._tell()
            await trio.sleep(1 / EVENTS_A_SECOND)

    async def _tell(self) -> None:
        """All that has changed by now, each once."""
        self.news = trio.Event()
        changed, self.changed = self.changed, set()
        for lease_id in changed:
            view = shown(self.node, await self.node.leases.get(lease_id))
            await self.emit(WatchEvent("lease", self._now(), lease=view))
        if self.wallet:
            view_of_wallet, self.wallet = self.wallet, None
            await self.emit(WatchEvent("wallet", self._now(), wallet=view_of_wallet))
        if self.market:
            self.market = False
            pulse = MarketPulse(self.node.offers.book.cursor, live_offers(self.node))
            await self.emit(WatchEvent("market", self._now(), market=pulse))
        while self.notices:
            await self.emit(WatchEvent("notice", self._now(), notice=self.notices.popleft()))


@dataclass
class _Purse:
    """The wallet as `wallet` shows it, without reading every lease there ever was each time."""

    node: Node
    ends: int = 0
    """Leases seen to end."""
    read: int = field(init=False, default=-1)
    """`ends` as it was when those that have ended were last read."""
    ended: WalletView = field(init=False)

    async def look(self) -> WalletView:
        """ChainUnreachable, ChainDisagrees."""
        parts, active = self.node.parts, self.node.leases.active
        balance = await parts.chain.balance(parts.wallet.public_key)
        tick = self.node.watchers.tick.tick if self.node.watchers.tick else Tick(0)
        while self.read != self.ends:  # again if one ended meanwhile
            read = self.ends
            leases = [one for one in await self.node.all_leases() if one.phase in TERMINAL]
            self.ended = wallet_view(parts.wallet.identity, balance.amount, tick, leases)
            self.read = read
        now, ended = wallet_view(parts.wallet.identity, balance.amount, tick, active()), self.ended
        return replace(now, spent=now.spent + ended.spent, earned=now.earned + ended.earned)


@contextmanager
def _in(callbacks: list[T], callback: T) -> Iterator[None]:
    callbacks.append(callback)
    try:
        yield
    finally:
        callbacks.remove(callback)
