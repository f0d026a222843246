"""Leases and offers as front ends see them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from protocol.control import LeaseView, QuoteView
from protocol.control_market import OfferView
from protocol.control_wallet import WalletView
from protocol.lease import max_loss, max_loss_intervals
from protocol.lease_state import LIVE, TERMINAL, Lease, Phase, Role, locked
from protocol.messages import Progress, Terms
from protocol.relay_lease import is_relay
from protocol.units import PeerKey, Qu, Tick, UnixMs, fee_of, net_of, seconds_covered
from qubixd.book import Entry
from qubixd.wire_libp2p import peer_id_of


def offer_view(entry: Entry, own: PeerKey, now: UnixMs) -> OfferView:
    offer = entry.offer
    return OfferView(
        peer_id=peer_id_of(entry.provider),
        name=offer.name,
        region=offer.region,
        gpu_class=offer.gpu_class,
        gpus=len(offer.capacity.gpus),
        vram_mib=max((gpu.vram_mib for gpu in offer.capacity.gpus), default=0),
        cpu_millis=offer.capacity.cpu_millis,
        memory_mib=offer.capacity.memory_mib,
        disk_mib=offer.capacity.disk_mib,
        runner=offer.runner,
        price_qu_per_hour=offer.price_qu_per_hour,
        sequence=offer.sequence,
        expires_in_s=max(0, (offer.expires_at - now) // 1_000),
        own=entry.provider == own,
        withdrawn=offer.withdrawn,
        storage_qu_per_tib_hour=offer.storage_qu_per_tib_hour,
        arch=offer.arch,
        cuda=cuda_words(offer.cuda),
        internet=offer.internet,
        closes_in_s=max(0, (offer.closes_at - now) // 1_000) if offer.closes_at else None,
    )


def cuda_words(cuda: int) -> str:
    """12040 is "12.4"; empty for none."""
    return f"{cuda // 1_000}.{cuda % 1_000 // 10}" if cuda else ""


def lease_view(lease: Lease, differences: Iterable[str] = (), told: Progress | None = None) -> LeaseView:
    """`differences`: codes of what the chain says otherwise; `told` as in `words_of`."""
    terms = lease.terms
    other = terms.provider if lease.role is Role.CALLER else terms.caller
    return LeaseView(
        lease_id=lease.lease_id.hex(),
        role=lease.role,
        phase=lease.phase,
        reason=lease.reason,
        sentence=lease.sentence,
        name=lease.name,
        peer_id=peer_id_of(other),
        runner=terms.runner,
        image=terms.image,
        gpu=f"{terms.wish.gpu_count} x {terms.wish.gpu_model or 'GPU'}" if terms.wish.gpu_count else "CPU",
        price_qu_per_hour=terms.price_qu_per_hour,
        interval_seconds=terms.interval_seconds,
        max_loss_qu=max_loss(lease.role, terms),
        deposit=locked(lease),
        promised=lease.promised,
        paid=lease.paid,
        provider_received=net_of(lease.paid),
        fee=fee_of(lease.paid),
        refunded=lease.refunded,
        vouchers=lease.vouchers,
        seconds=lease.seconds,
        exit_code=lease.exit_code if lease.exited and (lease.started_at or lease.exit_code >= 0) else None,
        outputs_sha256=lease.outputs_sha256.hex() if lease.outputs_bytes else "",
        output_dir=lease.output_dir,
        escrow_id=lease.escrow_id.hex(),
        opened_at_ms=lease.opened_at,
        ended_at_ms=lease.ended_at,
        settled=lease.settled,
        differences=list(differences),
        frozen=lease.frozen,
        restarts=lease.restarts,
        detail="" if lease.phase in TERMINAL else words_of(lease, told),
        max_seconds=min(terms.max_seconds, seconds_covered(terms.price_qu_per_hour, terms.deposit)),
        started_at_ms=lease.started_at,
        extending=lease.extending is not None,
    )


def quote_view(token: str, provider: str, terms: Terms) -> QuoteView:
    return QuoteView(
        token=token,
        provider=provider,
        price_qu_per_hour=terms.price_qu_per_hour,
        max_seconds=terms.max_seconds,
        interval_seconds=terms.interval_seconds,
        deposit=terms.deposit,
        max_loss_qu=max_loss(Role.CALLER, terms),
        max_loss_intervals=max_loss_intervals(Role.CALLER, terms),
        machine_qu_per_hour=terms.price_qu_per_hour - terms.storage_qu_per_hour,
        disk_qu_per_hour=terms.storage_qu_per_hour,
        fee_qu_per_hour=fee_of(terms.price_qu_per_hour),
        closes_at_ms=terms.closes_at,
    )


def wallet_view(identity: str, balance: Qu, tick: Tick, leases: Iterable[Lease]) -> WalletView:
    escrowed = spent = earned = 0
    for lease in leases:
        if lease.role is Role.PROVIDER:
            earned += net_of(lease.paid) if lease.settled else 0
        elif lease.phase in TERMINAL or lease.settled:
            spent += lease.paid
        elif lease.escrow_id:
            escrowed += locked(lease) - lease.promised
    return WalletView(identity, balance, escrowed, spent, earned, tick)


STARTING: Final = "starting the container"
"""A phase as job_effects names it."""
FULL: Final = 1_000
"""Permille."""
PROVING: Final = "proving the machine; the very first time a program is compiled for that"
PHASE_WORDS: Final = {
    Phase.QUOTED: "the provider writes the acceptance down",
    Phase.FUNDING: "the deposit is being locked in the escrow",
    Phase.PROVISIONING: "the provider prepares the job",
    Phase.RUNNING: "the job is running",
    Phase.PAUSED: "the job is paused",
    Phase.STOPPING: "the job has ended, its outputs are fetched",
    Phase.SETTLING: "the escrow is being settled",
    Phase.DONE: "done",
    Phase.FAILED: "failed",
    Phase.CANCELLED: "cancelled",
}


def words_of(lease: Lease, told: Progress | None = None) -> str:
    """What happens in a lease's present phase. `told`: what its provider said last of preparing the job."""
    if lease.phase in LIVE and lease.frozen:
        return "the job is frozen; the machine stays reserved and the meter runs on"
    if lease.phase in LIVE and lease.extending:
        return f"{PHASE_WORDS[lease.phase]}; the money for more time is on its way"
    if lease.phase is not Phase.PROVISIONING:
        return PHASE_WORDS[lease.phase]
    if lease.prepared and not lease.proved:
        return PROVING
    if told is None:
        return PHASE_WORDS[lease.phase]
    if lease.prepared and told.phase == STARTING:  # that was before the proof
        return "the machine is proved, the job begins"
    share = f" {told.permille // 10} %" if 0 < told.permille < FULL else ""
    return f"{told.sentence}{share}"


def holds_capacity(lease: Lease) -> bool:
    """Does this lease take a part of this machine? Also while its money is settled before its job is gone."""
    taken = not lease.collected if lease.phase is Phase.SETTLING else lease.phase not in TERMINAL
    return lease.role is Role.PROVIDER and taken and not is_relay(lease.terms)
