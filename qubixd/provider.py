"""Everything only a provider runs: the shop, what is free of the machine, its offer, and what keeps it shut.

Every node has a Provider, so that whoever asks a caller for a quote is told no; `run` is for those that
offer their machine.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

import trio

from escrow_bridge import layout
from ledger import journal
from protocol.errors import ChainDisagrees, ChainUnreachable, EngineUnreachable
from protocol.lease_state import Lease
from protocol.messages import Offer
from protocol.units import Qu, Tick, UnixMs
from qubixd.cards import Cards
from qubixd.config import Config
from qubixd.earnings import Earnings
from qubixd.leases import Leases, decode_state
from qubixd.parts import Parts
from qubixd.quotes import House, free_of
from qubixd.runner import Stock
from qubixd.runner.docker import DockerRunner
from qubixd.runner.image_tidy import Policy
from qubixd.shop import Shop, clock_words
from qubixd.stock import StockWatch
from qubixd.tidying import Tidying
from qubixd.views import holds_capacity
from qubixd.watch import Watchers

log = logging.getLogger("qubix.provider")

SOLVENCY_SECONDS: Final = 10
POOR_SECONDS: Final = 2
"""How often the balance is looked at while it is enough, and while it is not."""
ENGINE_SECONDS: Final = 10
AWAY_SECONDS: Final = 2
"""How often the engine is asked while it answers, and while it does not."""
CLOCK_SECONDS: Final = 30
"""How often the clock is looked at, which somebody may set."""
NEVER_DAYS: Final = 36_500


@dataclass(frozen=True)
class Hindrance:
    """Why no jobs are taken (`closes`), or why a part of the machine is not offered."""

    code: str
    sentence: str
    closes: bool = True


@dataclass
class Provider:
    config: Config
    parts: Parts
    shop: Shop
    leases: Leases
    watchers: Watchers
    stock: StockWatch | None
    on_change: list[Callable[[], None]] = field(default_factory=list)
    """Called when the offer should say something else."""
    can_cash: bool | None = None
    """The wallet holds the bond that the contract asks (and gives back) for looking at a voucher: with less
    nothing earned could be cashed. None before the chain has said so."""
    engine_says: str = ""
    """Why no job could be started, in a sentence; empty while the engine answers."""
    earnings: Earnings = field(default_factory=Earnings)
    _said: str | None = field(init=False, default=None)
    cards: Cards | None = field(init=False, default=None)
    """The watch over this machine's GPUs; None where there are none to offer."""

    def __post_init__(self) -> None:
        parts = self.parts
        if parts.machine.gpus and parts.runner:
            self.cards = Cards(
                parts.machine, parts.runner, self.leases.active, parts.now_ms, handed=parts.hands_gpus
            )
            self.cards.on_change.append(self.changed)

    def house(self) -> House:
        """What quotes are made from, at this moment."""
        config, parts, now = self.config, self.parts, self.parts.now_ms()
        taken = (lease.terms for lease in self.leases.active() if holds_capacity(lease))
        return House(
            network=config.network,
            contract_index=config.contract_index,
            provider=parts.key.public,
            provider_id=parts.wallet.public_key,
            runner=parts.runner.name if parts.runner else "",
            price_qu_per_hour=self.shop.quoted_price(now),
            storage_qu_per_tib_hour=Qu(config.storage_price),
            unpaid_intervals=config.unpaid_intervals,
            tick_duration_ms=self.watchers.tick_ms,
            free=free_of(self.cards.fit() if self.cards else parts.machine.capacity, taken),
            open_for_business=not any(one.closes for one in self.hindrances()),
            arch=parts.machine.arch,
            cuda=parts.machine.cuda,
            internet=parts.internet,
            closes_at=self.shop.hours(now).closes_at,
            tick=self.watchers.tick.tick if self.watchers.tick else Tick(0),
        )

    def relay_house(self) -> House:
        """The same for a relay, which needs neither a runner nor to be offered in the market."""
        return replace(self.house(), open_for_business=self.can_settle, closes_at=UnixMs(0))

    def offer(self, sequence: int, issued_at: UnixMs, expires_at: UnixMs) -> Offer | None:
        """What this machine advertises now; None if it never offers anything."""
        config, parts = self.config, self.parts
        if not config.provider:
            return None
        now, stock = self.house(), self.stock.stock if self.stock else Stock()
        return Offer(
            sequence=sequence,
            issued_at=issued_at,
            expires_at=expires_at,
            withdrawn=not now.open_for_business,
            network=config.network,
            contract_index=config.contract_index,
            qubic_id=parts.wallet.public_key,
            name=config.name,
            region=config.region,
            gpu_class=parts.machine.gpu_class,
            runner=now.runner,
            price_qu_per_hour=self.shop.hours(parts.now_ms()).price,
            storage_qu_per_tib_hour=now.storage_qu_per_tib_hour,
            capacity=now.free,
            addresses=parts.wire.addresses[:8],
            layers=stock.tags,
            pull_mib_per_s=stock.pull_mib_per_s,
            arch=parts.machine.arch,
            cuda=parts.machine.cuda,
            internet=parts.internet,
            closes_at=now.closes_at,
        )

    def hindrances(self) -> list[Hindrance]:
        """All that keeps jobs away at this moment, the most important first."""
        if not self.config.provider or self.parts.runner is None:
            return [Hindrance("provider.none", "this daemon offers nothing; start it with --provider")]
        found = []
        if self.watchers.tick is None:  # a lease could neither be verified nor settled
            sentence = f"no node of the chain has answered yet at {self.config.chain}; is it running?"
            found.append(Hindrance("provider.no_chain", sentence))
        elif not self.can_cash:
            found.append(Hindrance("provider.too_poor", self._poor_words()))
        if self.engine_says:
            found.append(Hindrance("provider.engine_away", self.engine_says))
        if not self.shop.open_for_business:
            sentence = "you paused it; `qubix provider resume` takes jobs again"
            found.append(Hindrance("provider.paused", sentence))
        if sentence := self._closed_words():
            found.append(Hindrance("provider.closed", sentence))
        reasons = (*(self.cards.reasons() if self.cards else ()), *self.parts.remarks)
        return found + [Hindrance(code, sentence, closes=False) for code, sentence in reasons]

    @property
    def can_settle(self) -> bool:
        """The chain has been seen, and what is earned can be cashed."""
        return self.watchers.tick is not None and bool(self.can_cash)

    def _closed_words(self) -> str:
        plan, now = self.shop.schedule, self.parts.now_ms()
        hours = self.shop.hours(now)
        if plan is None or hours.open:
            return ""
        opens = clock_words(hours.until, plan.zone) if hours.changes else "never"
        return f"its schedule says closed; it opens {opens}"

    def _poor_words(self) -> str:
        return (
            f"cashing vouchers needs {layout.SIGNATURE_BOND} QU for a moment; "
            f"send the wallet {self.parts.wallet.identity} some"
        )

    # --- services -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Everything that goes on while the machine is offered."""
        self.leases.on_change.append(self._note)
        for row in await journal.leases(self.parts.store):
            self._note(decode_state(row.state))
        async with trio.open_nursery() as nursery:
            if self.stock:
                self.leases.on_change.append(self.stock.lease_changed)
                self.stock.on_change.append(self.changed)
                nursery.start_soon(self.stock.run)
            if self.cards:
                nursery.start_soon(self.cards.run)
            if isinstance(self.parts.runner, DockerRunner):
                nursery.start_soon(Tidying(self.parts.runner, self._images(), self.parts.now_ms).run)
            nursery.start_soon(self.watch_balance)
            nursery.start_soon(self._watch_engine)
            nursery.start_soon(self._follow_schedule)

    def _images(self) -> Policy:
        config = self.config
        share, days = config.image_percent / 100, config.image_days or NEVER_DAYS
        return Policy(share=share, idle_days=days, keep=config.image_keep)

    def _note(self, lease: Lease) -> None:
        self.earnings.note(lease, self.parts.now_ms())

    def changed(self) -> None:
        self._say()
        for tell in self.on_change:
            tell()

    def _say(self) -> None:
        """Tell the log, once each time, whether jobs are taken."""
        said = "; ".join(one.sentence for one in self.hindrances() if one.closes)
        if said == self._said:
            return
        self._said = said
        log.warning("no jobs are taken: %s", said) if said else log.info("jobs are taken")

    async def watch_balance(self) -> None:
        """The offer says withdrawn until the chain has been seen, and while the wallet holds too little."""
        await self.watchers.first_tick.wait()
        while True:
            before = self.can_cash
            with suppress(ChainUnreachable, ChainDisagrees):
                balance = await self.parts.chain.balance(self.parts.wallet.public_key)
                self.can_cash = balance.amount >= layout.SIGNATURE_BOND
            if self.can_cash is not before:
                self.changed()
            await trio.sleep(SOLVENCY_SECONDS if self.can_cash else POOR_SECONDS)

    async def _follow_schedule(self) -> None:
        """Tell of every change at its minute. Quotes look at the clock themselves."""
        while True:
            now, renewed = self.parts.now_ms(), self.shop.renewed
            before = self.shop.hours(now)
            with trio.move_on_after(min(CLOCK_SECONDS, (before.until - now) / 1_000)):
                await renewed.wait()
            after = self.shop.hours(self.parts.now_ms())
            if (before.open, before.price, before.closes_at) != (after.open, after.price, after.closes_at):
                self.changed()

    async def _watch_engine(self) -> None:
        runner = self.parts.runner
        assert runner is not None  # a provider has one
        while True:
            says = ""
            try:
                await runner.check()
            except EngineUnreachable as error:
                says = str(error)
            if bool(says) != bool(self.engine_says):
                self.engine_says = says
                self.changed()
            await trio.sleep(AWAY_SECONDS if self.engine_says else ENGINE_SECONDS)
