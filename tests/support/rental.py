"""One provider, one caller and one lease in a World, and how the books must look when it is over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from protocol import lease_model as m
from protocol.lease import max_loss
from protocol.lease_state import Lease, Phase, Role
from protocol.units import LeaseId, Qu, amount_due, fee_of
from qubixd.effects import Prove
from tests.support.world import Person, World
from tests.support.world_jobs import job, now_ms


@dataclass
class Rental:
    """alice provides, bob calls; `lease_id` is set by `rent`."""

    world: World
    alice: Person
    bob: Person
    lease_id: LeaseId = field(default_factory=lambda: LeaseId(b""))
    awaited: set[Callable[[], None]] = field(default_factory=set)

    async def rent(self, text: str = "", **how: object) -> Lease:
        lease = await self.world.rent(self.bob, text or job(seconds=20), **how)
        self.lease_id = lease.lease_id
        return lease

    async def until(self, person: Person, *phases: Phase) -> Lease:
        return await self.world.until(self.lease_id, person, lambda lease: lease.phase in phases)

    def when(self, person: Person, phase: Phase, do: Callable[[], None]) -> None:
        """Call `do` at the very change that brings a lease of somebody's into a phase, once."""
        self.awaited.add(do)

        def changed(lease: Lease) -> None:
            if lease.phase is phase and do in self.awaited:
                self.awaited.remove(do)
                do()

        person.up.leases.on_change.append(changed)

    async def until_paid(self, amount: int) -> Lease:
        """Until the provider holds a voucher of at least so much."""
        enough: Callable[[Lease], bool] = lambda lease: lease.promised >= amount  # noqa: E731  # typed
        return await self.world.until(self.lease_id, self.alice, enough)

    async def ended(self) -> tuple[Lease, Lease]:
        """(the provider's lease, the caller's), both over."""
        served, paid = await self.world.until_ended(self.lease_id, self.alice, self.bob)
        return served, paid

    async def stop(self, person: Person) -> None:
        await person.up.leases.feed(self.lease_id, m.ActionStop(now_ms()))

    def check_books(self, served: Lease, paid: Lease) -> None:
        """Both sides and the chain agree to the last QU, and nobody lost more than was agreed."""
        assert not self.awaited, "something that was to happen meanwhile did not"
        assert served.paid == paid.paid and served.refunded == paid.refunded
        self.check_balances(paid)
        self.check_losses(served, paid)

    def check_balances(self, lease: Lease) -> None:
        assert lease.settled and lease.paid + lease.refunded == lease.terms.deposit
        assert self.world.balance(self.bob) == self.world.funds - lease.paid
        assert self.world.balance(self.alice) == self.world.funds + lease.paid - fee_of(lease.paid)
        self.world.check_conservation()

    def check_losses(self, served: Lease, paid: Lease) -> None:
        """Unpaid work, and money for nothing, are within what each side was shown beforehand."""
        worth = min(amount_due(served.terms.price_qu_per_hour, served.seconds), served.terms.deposit)
        assert worth - served.paid <= max_loss(Role.PROVIDER, served.terms)
        assert paid.paid - worth <= max_loss(Role.CALLER, paid.terms)

    def check_nothing_paid(self, *leases: Lease) -> None:
        for lease in leases:
            assert lease.paid == 0 and lease.promised == 0
        self.check_whole()

    def check_whole(self) -> None:
        """Both wallets hold what they held in the beginning."""
        for person in (self.alice, self.bob):
            assert self.world.balance(person) == self.world.funds
        self.world.check_conservation()

    def check_nothing_sent(self) -> None:
        assert self.world.chain.broadcasts == []
        self.check_whole()


@asynccontextmanager
async def rental(
    root: Path, *, seed: int = 0, prove: Prove | None = None, **settings: object
) -> AsyncIterator[Rental]:
    """Both nodes up, the offer known, nothing rented yet. `settings` are the provider's."""
    async with World(root, seed=seed) as world:
        world.prove = prove
        alice = await world.start("alice", provider=True, **settings)
        bob = await world.start("bob")
        await world.until_offered(bob)
        yield Rental(world, alice, bob)


def due(seconds: float) -> Qu:
    """At the world's price of 1,000 QU a second."""
    return Qu(round(seconds * 1_000))
