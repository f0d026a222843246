"""Renting a relay, as its caller: a quote, a look at it, and a lease like any other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import trio

from protocol.jobspec import Job
from protocol.lease_state import Lease, Role
from protocol.messages import Capacity, Offer, Terms
from protocol.relay_lease import RELAY, RELAY_IMAGE, RELAY_WISH, is_relay
from protocol.units import PeerKey, Qu, Seconds
from qubixd.hiring import Consent, Hiring, always
from qubixd.leases import Leases


def rented_relays(leases: Leases) -> dict[PeerKey, tuple[str, ...]]:
    """Relays that this node has rented or is about to, and where they can be dialled."""
    mine = [one for one in leases.active() if is_renting(one)]
    return {one.terms.provider: one.peer_addresses for one in mine}


def is_renting(lease: Lease) -> bool:
    return lease.role is Role.CALLER and is_relay(lease.terms)


def relay_job(seconds: Seconds) -> Job:
    """What stands where other leases have a job file."""
    return Job(
        name=RELAY,
        image=RELAY_IMAGE,
        wish=RELAY_WISH,
        script="",
        envs={},
        secrets=(),
        file_mounts={},
        outputs=(),
        max_price_qu_per_hour=None,
        max_seconds=seconds,
        proof="never",
    )


async def rent(
    hiring: Hiring,
    relay: PeerKey,
    addresses: Sequence[str],
    seconds: Seconds,
    *,
    max_price: Qu,
    name: str = "",
    consent: Consent = always,
) -> Lease:
    """A lease with a relay, written down and on its way. Refused, BalanceTooLow, WireError."""
    job = relay_job(seconds)
    submission = await hiring.files.submit(job, Path(), {})
    try:
        request = hiring.request(job, submission.order_sha256, max_price)
        offered = partial(_offered, max_price, tuple(addresses))
        signed = await hiring.quote(request, relay, addresses, offered)
        terms: Terms = signed.message
        await hiring.check_balance(terms.deposit)
        await consent(name or relay.hex()[:12], terms)
        return await hiring.accept(job, submission, offered(terms), signed, "")
    except BaseException:
        with trio.CancelScope(shield=True):
            await hiring.files.discard(submission)
        raise


def _offered(price: Qu, addresses: tuple[str, ...], terms: Terms) -> Offer:
    """Relays advertise nothing in the market: what was offered is the most that their caller would pay, to
    the account that the relay itself has signed."""
    return Offer(
        sequence=0,
        issued_at=terms.quoted_at,
        expires_at=terms.valid_until,
        withdrawn=False,
        network=terms.network,
        contract_index=terms.contract_index,
        qubic_id=terms.provider_id,
        name="",
        region="",
        gpu_class="CPU",
        runner=RELAY,
        price_qu_per_hour=price,
        storage_qu_per_tib_hour=Qu(0),
        capacity=Capacity((), 0, 0, 0),
        addresses=addresses[:8],
        layers=(),
        pull_mib_per_s=0,
    )
