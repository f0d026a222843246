"""Hiring: from a job to a lease. Asks the best few for quotes at once, takes the best one that is good.

Nothing here moves money: the lease it ends in does, and only after the provider has written the
acceptance down. Every refusal on the way is kept, so that a person can be told why nobody took the job
(`qubix why`), and counts against a provider that did not do what its offer said.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import msgpack
import trio

import ledger.settings
from escrow_bridge.chain import Chain
from escrow_bridge.qubic import Wallet
from ledger.store import RunSync, Store
from protocol import control, lease_caller
from protocol import lease_model as m
from protocol.codec import convert, unpack
from protocol.control_market import WhyView
from protocol.errors import (
    BalanceTooLow,
    MessageInvalid,
    NoOffer,
    PriceAboveLimit,
    QubixError,
    Refused,
    WireError,
)
from protocol.images import READY_SECONDS
from protocol.jobspec import NO_FILTER, Job
from protocol.lease import max_loss_words
from protocol.lease_state import Lease, Role
from protocol.messages import Gpu, Offer, QuoteRequest, Terms
from protocol.query import Filter, SortKey
from protocol.signing import NodeKey, Signed
from protocol.units import MAX_QU, PeerKey, Qu, Seconds
from qubixd.book import Entry
from qubixd.choosing import Candidate, Chooser
from qubixd.demand import Demand
from qubixd.desk import lease_id_of
from qubixd.jobfiles import JobFiles, Submission
from qubixd.leases import Clock, Leases
from qubixd.quotes import check_terms, deposit_of
from qubixd.talk import ask
from qubixd.why import code_of, explain
from qubixd.wire import Wire

log = logging.getLogger("qubix.hiring")

MAX_ASKED: Final = 8
"""Providers asked for one job before giving up."""
TRUSTED: Final = 2
"""Of them these are known ones where there are any: else who keeps up eight false offers, cheaper than all
others, would have every job to itself."""
WAVE: Final = 3
"""Providers asked at the same time."""
REMEMBERED: Final = "why"
"""Where the ledger keeps the explanation of the last job that nobody took."""
TOLD: Final = 4
"""Reasons in the sentence of an error."""

Report = Callable[[str, str], Awaitable[None]]
"""(phase, detail in words)"""
Consent = Callable[[str, Terms], Awaitable[None]]
"""(provider's name, its terms): shows them before they are signed. QuoteDeclined: they are not."""


async def always(name: str, terms: Terms) -> None:
    """Consent of a program that has set its limits beforehand."""


@dataclass
class Search:
    """One job's way through the market."""

    job: Job
    demand: Demand
    answers: dict[PeerKey, QubixError | None] = field(default_factory=dict)
    """What those said who were asked; None: a good quote."""
    why: WhyView | None = None
    """Why nobody fits, once that is known."""


@dataclass(frozen=True)
class Hiring:
    """What it takes to hire."""

    wire: Wire
    key: NodeKey
    wallet: Wallet
    chain: Chain
    chooser: Chooser
    leases: Leases
    files: JobFiles
    store: Store
    in_thread: RunSync
    now_ms: Clock
    network: str
    contract_index: int
    interval_seconds: Seconds
    tick_ms: Callable[[], int]
    """How long a tick lasts, as seen."""
    can_prove: bool = False
    """This node can prove machines."""

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
        where: Filter = NO_FILTER,
        order: Sequence[SortKey] = (),
    ) -> Lease:
        """A lease, written down and on its way. Refused, NoOffer, BalanceTooLow, WireError.

        `where` are conditions beside the job's own, `order` comes instead of its own. `consent` sees the
        terms before anything is signed.
        """
        job = await self._with_need(job)
        search = Search(job, demand_of(job, max_price, provider, where))
        try:
            candidates = await self.candidates(search, tuple(order) or job.choice.order)
            await self._check_balance(job, candidates)
            entry, signed = await self._first_quote(search, submission.order_sha256, candidates, report)
        except (NoOffer, Refused, WireError):
            await self._remember(search.why or await self.explain(search))
            raise
        terms: Terms = signed.message
        log.info("%s asks %d QU per hour; at risk: %s", _name(entry), *_price_and_risk(terms))
        await consent(_name(entry), terms)
        return await self.accept(job, submission, entry.offer, signed, output_dir)

    async def _with_need(self, job: Job) -> Job:
        """The job, and what its image says that it needs where this machine has it. Of CUDA only: an image
        that is here for this processor may be there for another."""
        if not job.wish.gpu_count or (known := await self.chooser.image_here(job.image)) is None:
            return job
        return replace(job, wish=replace(job.wish, cuda=max(job.wish.cuda, known.need.cuda)))

    async def candidates(
        self, search: Search, order: Sequence[SortKey] = (), most: int = MAX_ASKED
    ) -> list[Candidate]:
        """Providers to ask, best first. NoOffer or PriceAboveLimit if there is none."""
        found = await self.chooser.candidates(search.demand, order, search.job.image, most)
        if not found:
            search.why = await self.explain(search)
            raise _nobody_fits(search.why, search)
        if len(found) < most:
            return found
        trusted = await self.chooser.trusted(search.demand, order, search.job.image, TRUSTED)
        first = {one.entry.provider for one in found[: most - TRUSTED]}
        added = {one.entry.provider: one for one in trusted if one.entry.provider not in first}
        rest = [one for one in found if one.entry.provider not in added]
        return rest[: most - len(added)] + list(added.values())

    async def ask_all(
        self, search: Search, order_sha256: bytes, wave: Sequence[Candidate], *, all_of_them: bool = False
    ) -> list[tuple[Entry, Signed]]:
        """Ask them at the same time; the good quotes, in the order of the wave. All answers go to the search.

        Nobody waits for those behind the first one that quotes, unless `all_of_them` are wanted.
        """
        good: dict[PeerKey, Signed] = {}
        async with trio.open_nursery() as nursery:

            async def ask_one(entry: Entry) -> None:
                await self._ask(search, order_sha256, entry, good)
                if not all_of_them and _is_decided(wave, search.answers):
                    nursery.cancel_scope.cancel()

            for one in wave:
                nursery.start_soon(ask_one, one.entry)
        for one in wave:
            if error := search.answers.get(one.entry.provider):
                await self.chooser.standing.failed(one.entry.provider, code_of(error), self.now_ms())
        return [(one.entry, good[one.entry.provider]) for one in wave if one.entry.provider in good]

    async def explain(self, search: Search) -> WhyView:
        """Why nobody takes it, from all that is known of everybody."""
        everybody, total = await self.chooser.everybody(search.demand)
        now = self.now_ms()
        # Who was asked was not barred then; what it answered may have barred it since.
        everybody = [
            replace(one, barred=None) if one.entry.provider in search.answers else one for one in everybody
        ]
        return await self.in_thread(
            lambda: explain(search.job.name, search.demand, everybody, search.answers, now, total)
        )

    async def remembered(self) -> WhyView | None:
        """The explanation of the last job that nobody took, also from before a restart."""
        packed = await ledger.settings.get(self.store, REMEMBERED)
        if packed is None:
            return None
        try:
            view: WhyView = convert(unpack(packed, "explanation"), WhyView, "explanation")
        except MessageInvalid:  # another version of qubix wrote it
            return None
        return view

    async def _remember(self, view: WhyView) -> None:
        await ledger.settings.put(self.store, REMEMBERED, msgpack.packb(control.to_body(view)))

    async def _first_quote(
        self, search: Search, order_sha256: bytes, candidates: Sequence[Candidate], report: Report
    ) -> tuple[Entry, Signed]:
        """The best good quote of the first few among whom there is one; a quote binds nobody."""
        for start in range(0, len(candidates), WAVE):
            wave = candidates[start : start + WAVE]
            await report("quoting", f"asking {'; '.join(words(one) for one in wave)}")
            if quotes := await self.ask_all(search, order_sha256, wave):
                return quotes[0]
        raise _nobody([error for error in search.answers.values() if error])

    async def _ask(
        self, search: Search, order_sha256: bytes, entry: Entry, good: dict[PeerKey, Signed]
    ) -> None:
        try:
            good[entry.provider] = await self._quote(search, order_sha256, entry)
            search.answers[entry.provider] = None
        except QubixError as error:
            log.info("no quote from %s: %s", _name(entry), error)
            search.answers[entry.provider] = error

    async def _check_balance(self, job: Job, candidates: Sequence[Candidate]) -> None:
        await self.check_balance(
            deposit_of(min(one.all_in for one in candidates), job.max_seconds, job.budget)
        )

    async def check_balance(self, needed: Qu) -> None:
        """BalanceTooLow if the wallet does not hold a deposit."""
        held = (await self.chain.balance(self.wallet.public_key)).amount
        if held < needed:
            raise BalanceTooLow(
                f"the job needs a deposit of {needed:,} QU and your wallet {self.wallet.identity} holds "
                f"{held:,}; send it some, or rent for a shorter time (max_hours, budget)"
            )

    async def _quote(self, search: Search, order_sha256: bytes, entry: Entry) -> Signed:
        request = self.request(search.job, order_sha256, search.demand.max_price)
        return await self.quote(request, entry.provider, entry.offer.addresses, lambda terms: entry.offer)

    def request(self, job: Job, order_sha256: bytes, max_price: Qu) -> QuoteRequest:
        """What is asked of whoever may take a job."""
        return QuoteRequest(
            nonce=hashlib.sha256(os.urandom(32)).digest(),
            network=self.network,
            contract_index=self.contract_index,
            caller_id=self.wallet.public_key,
            wish=job.wish,
            image=job.image,
            order_sha256=order_sha256,
            max_price_qu_per_hour=max_price,
            max_seconds=job.max_seconds,
            interval_seconds=self.interval_seconds,
            budget=job.budget,
            ready_seconds=job.life.ready_seconds,
            idle_seconds=job.life.idle_seconds,
            proof=self._wants_proof(job),
        )

    async def quote(
        self,
        request: QuoteRequest,
        provider: PeerKey,
        addresses: Sequence[str],
        offered: Callable[[Terms], Offer],
    ) -> Signed:
        """Its signed terms, which are what was asked and offered. Refused, WireError."""
        signed = await ask(self.wire, self.key, provider, request, addresses)
        terms = signed.message
        if not isinstance(terms, Terms):
            raise MessageInvalid("the provider answered with something other than a quote")
        check_terms(terms, request, offered(terms), provider, self.key.public, self.tick_ms())
        return signed

    def _wants_proof(self, job: Job) -> bool:
        """Unless the job says otherwise, of every machine: one that could do without would say so."""
        return self.can_prove if job.proof == "auto" else job.proof == "always"

    async def accept(
        self, job: Job, submission: Submission, offer: Offer, signed: Signed, output_dir: str
    ) -> Lease:
        """The lease that comes of terms, written down; from here on it goes its way by itself."""
        now, lease_id = self.now_ms(), lease_id_of(signed.raw)
        await self.files.keep(lease_id, submission, signed.message.provider, self.key.public)
        lease, effects = lease_caller.new(
            lease_id,
            signed.message,
            signed_terms=signed.raw,
            peer_addresses=offer.addresses,
            name=job.name,
            output_dir=output_dir,
            now=now,
            cards=_rented_cards(offer, signed.message),
            arch=offer.arch,
        )
        return await self.leases.add(lease, effects, m.ClockPassed(now))


def _rented_cards(offer: Offer, terms: Terms) -> tuple[Gpu, ...]:
    """To be kept: later offers show what is free then, and can say anything."""
    return tuple(gpu for gpu in offer.capacity.gpus if gpu.digest in terms.gpu_digests)


def _is_decided(wave: Sequence[Candidate], answers: Mapping[PeerKey, QubixError | None]) -> bool:
    """Whether the best of the wave is known: it has quoted, and all before it have declined."""
    for one in wave:
        if one.entry.provider in answers and answers[one.entry.provider] is None:
            return True
        if one.entry.provider not in answers:
            return False
    return True


def demand_of(job: Job, max_price: Qu | None, provider: str, where: Filter = NO_FILTER) -> Demand:
    """All that a job and those who want it done demand of a provider."""
    prices = (max_price, job.max_price_qu_per_hour, MAX_QU)
    return Demand(
        wish=job.wish,
        max_price=Qu(min(price for price in prices if price is not None)),
        conditions=(*job.choice.where.conditions, *where.conditions),
        provider=provider,
    )


def words(one: Candidate) -> str:
    """Why this one: "alice: 12 QU/h all in, image is there, score 0.61"."""
    values = one.seen.values
    wait = f"starts in about {-(-one.start // 60)} min" if one.start > READY_SECONDS else "image is there"
    said = [f"{one.all_in:,} QU/h all in", wait]
    if isinstance(score := values.get("score"), int | float):
        said.append(f"score {score:.2f}")
    if isinstance(rtt := values.get("rtt"), int | float):
        said.append(f"{rtt:.0f} ms away")
    return f"{_name(one.entry)}: {', '.join(said)}"


def _name(entry: Entry) -> str:
    return entry.offer.name or entry.provider.hex()[:12]


def _price_and_risk(terms: Terms) -> tuple[Qu, str]:
    return terms.price_qu_per_hour, max_loss_words(Role.CALLER, terms)


def _nobody_fits(why: WhyView, search: Search) -> QubixError:
    """What keeps everybody away, in one sentence."""
    if not why.known:
        return NoOffer("no offers are known here yet; see `qubix market` and whether this node has peers")
    counts = {group.code: group.count for group in why.groups}
    if counts.get("provider") == why.known:
        return NoOffer(
            f"none of the offers known here ({why.known:,}) is by a provider {search.demand.provider!r}"
        )
    if set(counts) == {"price"}:
        cheapest = int(why.changes[0].fields["max_price"])
        return PriceAboveLimit(
            f"the cheapest offer that fits asks {cheapest:,} QU per hour and your limit is "
            f"{search.demand.max_price:,}"
        )
    hint = f"what would help: {why.changes[0].sentence}; " if why.changes else ""
    reasons = ", ".join(f"{group.title} ({group.count:,})" for group in why.groups[:TOLD])
    return NoOffer(f"none of the offers known here ({why.known:,}) fits: {reasons} ({hint}see `qubix why`)")


def _nobody(refusals: list[QubixError]) -> QubixError:
    """One refusal is told as it is; several are summed up."""
    if len(refusals) == 1:
        return refusals[0]
    reasons = "; ".join(sorted({str(error) for error in refusals}))
    kind = WireError if all(isinstance(error, WireError) for error in refusals) else NoOffer
    return kind(f"{len(refusals)} providers were asked and none took the job: {reasons}")
