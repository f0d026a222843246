"""Hiring: from a job to a lease. Finds who could take it, asks for quotes, accepts the first good one.

Nothing here moves money: the lease it ends in does, and only after the provider has written the
acceptance down. Every refusal on the way is kept, so that a person can be told why nobody took it.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from escrow_bridge.chain import Chain
from escrow_bridge.qubic import Wallet
from protocol import lease_caller
from protocol import lease_model as m
from protocol.errors import BalanceTooLow, MessageInvalid, NoOffer, PriceAboveLimit, QubixError, WireError
from protocol.jobspec import Job
from protocol.lease import max_loss_words
from protocol.lease_state import Lease, Role
from protocol.messages import QuoteRequest, Terms
from protocol.signing import NodeKey, Signed
from protocol.units import MAX_QU, Qu, Seconds
from qubixd.desk import lease_id_of
from qubixd.jobfiles import JobFiles, Submission
from qubixd.leases import Clock, Leases
from qubixd.offers import Entry, OfferBook
from qubixd.quotes import all_in, check_terms, deposit_of, gpu_fits
from qubixd.talk import ask
from qubixd.wire import Wire
from qubixd.wire_libp2p import peer_id_of

log = logging.getLogger("qubix.hiring")

MAX_ASKED: Final = 8
"""Providers asked for one job before giving up."""

Report = Callable[[str, str], Awaitable[None]]
"""(phase, detail in words)"""
Consent = Callable[[str, Terms], Awaitable[None]]
"""(provider's name, its terms): shows them before they are signed. QuoteDeclined: they are not."""


async def always(name: str, terms: Terms) -> None:
    """Consent of a program that has set its limits beforehand."""


@dataclass(frozen=True)
class Hiring:
    """What it takes to hire."""

    wire: Wire
    key: NodeKey
    wallet: Wallet
    chain: Chain
    book: OfferBook
    leases: Leases
    files: JobFiles
    now_ms: Clock
    network: str
    contract_index: int
    interval_seconds: Seconds
    tick_ms: Callable[[], int]
    """How long a tick lasts, as seen."""

    async def hire(
        self,
        job: Job,
        submission: Submission,
        *,
        max_price: Qu | None,
        provider: str,
        output_dir: str,
        report: Report,
        consent: Consent = always,
    ) -> Lease:
        """A lease, written down and on its way. Refused, NoOffer, BalanceTooLow, WireError.

        `consent` sees the terms before anything is signed.
        """
        limit = min(price for price in (max_price, job.max_price_qu_per_hour, MAX_QU) if price is not None)
        entries = self.candidates(job, limit, provider)
        await self._check_balance(job, entries[0])
        refusals: list[QubixError] = []
        for entry in entries[:MAX_ASKED]:
            name = entry.offer.name or entry.provider.hex()[:12]
            await report("quoting", f"asking {name} for a quote")
            try:
                signed = await self._quote(job, submission, entry, Qu(limit))
            except QubixError as error:
                log.info("no quote from %s: %s", name, error)
                refusals.append(error)
                continue
            terms: Terms = signed.message
            log.info("%s asks %d QU per hour; at risk: %s", name, *_price_and_risk(terms))
            await consent(name, terms)
            return await self._accept(job, submission, entry, signed, output_dir)
        raise _nobody(refusals)

    def candidates(self, job: Job, limit: Qu | int, provider: str) -> list[Entry]:
        """Live offers that fit, cheapest first. NoOffer or PriceAboveLimit if there is none."""
        known = [e for e in self.book.entries(self.now_ms()) if e.provider != self.key.public]
        fitting = [e for e in known if _fits(e, job) and _is(e, provider)]
        if not fitting:
            raise NoOffer(_why_nothing_fits(known, job, provider))
        affordable = [e for e in fitting if all_in(e.offer, job.wish) <= limit]
        if not affordable:
            cheapest = min(all_in(e.offer, job.wish) for e in fitting)
            raise PriceAboveLimit(
                f"the cheapest offer that fits asks {cheapest:,} QU per hour and your limit is {limit:,}"
            )
        return sorted(affordable, key=lambda e: (all_in(e.offer, job.wish), e.provider))

    async def _check_balance(self, job: Job, cheapest: Entry) -> None:
        needed = deposit_of(all_in(cheapest.offer, job.wish), job.max_seconds)
        held = (await self.chain.balance(self.wallet.public_key)).amount
        if held < needed:
            raise BalanceTooLow(
                f"the job needs a deposit of {needed:,} QU and your wallet {self.wallet.identity} holds "
                f"{held:,}; send it some, or rent for a shorter time (max_hours)"
            )

    async def _quote(self, job: Job, submission: Submission, entry: Entry, limit: Qu) -> Signed:
        request = QuoteRequest(
            nonce=hashlib.sha256(os.urandom(32)).digest(),
            network=self.network,
            contract_index=self.contract_index,
            caller_id=self.wallet.public_key,
            wish=job.wish,
            image=job.image,
            order_sha256=submission.order_sha256,
            max_price_qu_per_hour=limit,
            max_seconds=job.max_seconds,
            interval_seconds=self.interval_seconds,
        )
        signed = await ask(self.wire, self.key, entry.provider, request, entry.offer.addresses)
        if not isinstance(signed.message, Terms):
            raise MessageInvalid("the provider answered with something other than a quote")
        check_terms(signed.message, request, entry.offer, entry.provider, self.key.public, self.tick_ms())
        return signed

    async def _accept(
        self, job: Job, submission: Submission, entry: Entry, signed: Signed, output_dir: str
    ) -> Lease:
        now, lease_id = self.now_ms(), lease_id_of(signed.raw)
        await self.files.keep(lease_id, submission)
        lease, effects = lease_caller.new(
            lease_id,
            signed.message,
            signed_terms=signed.raw,
            peer_addresses=entry.offer.addresses,
            name=job.name,
            output_dir=output_dir,
            now=now,
        )
        return await self.leases.add(lease, effects, m.ClockPassed(now))


def _price_and_risk(terms: Terms) -> tuple[Qu, str]:
    return terms.price_qu_per_hour, max_loss_words(Role.CALLER, terms)


def _is(entry: Entry, provider: str) -> bool:
    return peer_id_of(entry.provider).startswith(provider) or entry.offer.name.startswith(provider)


def _fits(entry: Entry, job: Job) -> bool:
    capacity, wish = entry.offer.capacity, job.wish
    return (
        sum(gpu_fits(gpu, wish) for gpu in capacity.gpus) >= wish.gpu_count
        and capacity.cpu_millis >= wish.cpu_millis
        and capacity.memory_mib >= wish.memory_mib
        and capacity.disk_mib >= wish.disk_mib
    )


def _why_nothing_fits(known: list[Entry], job: Job, provider: str) -> str:
    if not known:
        return "no offers are known here yet; see `qubix market` and whether this node has peers"
    if provider and not any(_is(e, provider) for e in known):
        return f"none of the {len(known)} offers known here is by a provider {provider!r}"
    wish = job.wish
    gpus = f"{wish.gpu_count} x {wish.gpu_model or 'any GPU'}"
    memory = f" with {wish.gpu_vram_mib:,} MiB" if wish.gpu_vram_mib else ""
    return (
        f"none of the {len(known)} offers known here has {f'{gpus}{memory}, ' if wish.gpu_count else ''}"
        f"{wish.cpu_millis / 1000:g} CPUs, {wish.memory_mib:,} MiB of memory and {wish.disk_mib:,} MiB of "
        "disk free"
    )


def _nobody(refusals: list[QubixError]) -> QubixError:
    """One refusal is told as it is; several are summed up."""
    if len(refusals) == 1:
        return refusals[0]
    reasons = "; ".join(sorted({str(error) for error in refusals}))
    kind = WireError if all(isinstance(error, WireError) for error in refusals) else NoOffer
    return kind(f"{len(refusals)} providers were asked and none took the job: {reasons}")
