"""/verify: why nothing here need be believed, and how to check an offer's signature by oneself."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any, Final

import msgpack
from fastapi import APIRouter, Request, Response

from protocol.messages import Offer
from protocol.query import provider_key
from protocol.signing import Signed
from web.asked import Asked
from web.pages.providers import checked
from web.pages.render import page
from web.store import Store
from web.views import OfferView

router = APIRouter()

MAX_NAME: Final = 100


@dataclass(frozen=True)
class Parts:
    """An envelope taken apart, in hexadecimal."""

    version: int
    signer: str
    payload: str
    signature: str


@router.get("/verify")
async def verify_page(request: Request, store: Asked, provider: str = "") -> Response:
    name = provider.strip()[:MAX_NAME]
    offer, fault = await _offer(store, name)
    signed = checked(offer) if offer else None
    base = str(request.base_url).rstrip("/")
    return page(
        request,
        "verify.html",
        asked=name,
        fault=fault,
        offer=offer,
        signed=signed,
        parts=_parts(offer.record) if offer and signed else None,
        said=_said(signed) if signed else [],
        fetch=f"curl -fsSO {shlex.quote(base + '/verify.py')}",
        install="python3 -m venv check && check/bin/pip install pynacl msgpack",
        run=shlex.join(["check/bin/python", "verify.py", base, *([offer.peer_id] if offer else [])]),
    )


async def _offer(store: Store, name: str) -> tuple[OfferView | None, str]:
    """The offer, or in a word why there is none."""
    if not name:
        return None, ""
    try:
        peer = bytes.fromhex(provider_key(name))
    except ValueError:
        return None, "name"
    found = await store.offer(peer)
    return (found, "") if found and found.record else (None, "gone")


def _parts(record: bytes) -> Parts:
    version, signer, payload, signature = msgpack.unpackb(record)
    return Parts(version, signer.hex(), payload.hex(), signature.hex())


def _said(signed: Signed) -> list[tuple[str, Any]]:
    """What was signed, field by field, as it stands in the message."""
    offer = signed.message
    assert isinstance(offer, Offer)
    cards = [f"{gpu.model}, {gpu.vram_mib:,} MiB" for gpu in offer.capacity.gpus]
    return [
        ("sequence", offer.sequence),
        ("network", offer.network),
        ("contract_index", offer.contract_index),
        ("name", offer.name),
        ("region", offer.region),
        ("gpu_class", offer.gpu_class),
        ("price_qu_per_hour", f"{offer.price_qu_per_hour:,}"),
        ("storage_qu_per_tib_hour", f"{offer.storage_qu_per_tib_hour:,}"),
        ("gpus", "; ".join(cards)),
        ("cpu_millis", f"{offer.capacity.cpu_millis:,}"),
        ("memory_mib", f"{offer.capacity.memory_mib:,}"),
        ("disk_mib", f"{offer.capacity.disk_mib:,}"),
        ("runner", offer.runner),
        ("arch", offer.arch),
        ("qubic_id", offer.qubic_id.hex()),
    ]
