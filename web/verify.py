"""Fetches an offer from an indexer and checks for itself that the provider signed it.

    python verify.py URL [PEER_ID]

URL is any indexer, such as http://127.0.0.1:8080; without a PEER_ID the cheapest offers are checked. Needs
Python 3.11 and two packages: pip install pynacl msgpack. Nothing the indexer says is believed: the peer id is
the provider's Ed25519 key, the signature is checked over the exact bytes, and what the indexer shows is held
against what was signed. An indexer can still leave offers out, or show old ones until they expire.
"""

from __future__ import annotations

import base64
import json
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import msgpack
import nacl.exceptions
import nacl.signing

DOMAIN = b"qubix/1\0"
"""Stands before what is signed, so that no signature made for something else fits."""
ENVELOPE_VERSION = 1
OFFER_KIND = 1
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
PEER_ID_HEAD = bytes.fromhex("002408011220")
"""What libp2p writes in front of an Ed25519 key."""
MAX_ANSWER_BYTES = 8 << 20
NUL_SHOWN = "\u2400"
"""What databases show in place of a zero byte."""


class Wrong(Exception):
    """Why an offer is not to be believed."""


def key_of(peer_id: str) -> bytes:
    """The 32 bytes of the Ed25519 key that a peer id is."""
    if re.fullmatch("[0-9a-fA-F]{64}", peer_id):
        return bytes.fromhex(peer_id)
    number = 0
    for letter in peer_id if len(peer_id) <= 60 else "":
        if letter not in BASE58:
            raise Wrong(f"{peer_id!r} is no peer id")
        number = number * 58 + BASE58.index(letter)
    raw = number.to_bytes(48, "big")[-38:]
    if not raw.startswith(PEER_ID_HEAD):
        raise Wrong(f"{peer_id!r} is no peer id of an Ed25519 key")
    return raw[len(PEER_ID_HEAD) :]


def signed_offer(envelope: bytes, key: bytes) -> dict[str, Any]:
    """What the owner of `key` signed. Wrong if it did not."""
    try:
        version, signer, payload, signature = msgpack.unpackb(envelope)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise Wrong("the envelope is no list of four things") from error
    if version != ENVELOPE_VERSION or signer != key:
        raise Wrong("somebody else signed this, or in another way")
    if msgpack.packb([version, signer, payload, signature]) != envelope:
        raise Wrong("the envelope is not packed in the shortest way")
    try:
        nacl.signing.VerifyKey(key).verify(DOMAIN + payload, signature)
    except (nacl.exceptions.CryptoError, nacl.exceptions.ValueError, TypeError) as error:
        raise Wrong("the signature does not match the bytes") from error
    kind, offer = msgpack.unpackb(payload)
    if kind != OFFER_KIND:
        raise Wrong("this was signed, but it is no offer")
    return dict(offer)


def check(shown: dict[str, Any], now_ms: float) -> dict[str, Any]:
    """The signed offer behind what an indexer shows. Wrong if it is not signed, over, or something else."""
    offer = signed_offer(base64.b64decode(shown["signed"], validate=True), key_of(shown["peer_id"]))
    if offer["withdrawn"] or offer["expires_at"] <= now_ms:
        raise Wrong("this offer was withdrawn or is over")
    capacity = offer["capacity"]
    said = {
        "name": offer["name"].replace("\0", NUL_SHOWN),
        "region": offer["region"].replace("\0", NUL_SHOWN),
        "gpu": offer["gpu_class"].replace("\0", NUL_SHOWN),
        "gpus": len(capacity["gpus"]),
        "price_qu_per_hour": offer["price_qu_per_hour"],
        "storage_qu_per_tib_hour": offer["storage_qu_per_tib_hour"],
        "cpus": capacity["cpu_millis"] / 1_000,
        "ram_gb": capacity["memory_mib"] / 1_024,
        "disk_gb": capacity["disk_mib"] / 1_024,
        "internet": offer.get("internet", False),
        "sequence": offer["sequence"],
        "expires_ms": offer["expires_at"],
    }
    for field, value in said.items():
        if shown[field] != value:
            raise Wrong(f"{field} is {value!r} in what was signed, the indexer shows {shown[field]!r}")
    return offer


def fetch(url: str, peer_id: str) -> list[dict[str, Any]]:
    """What an indexer shows: one offer, or the cheapest ones."""
    where = f"v1/offers/{urllib.parse.quote(peer_id, safe='')}" if peer_id else "v1/offers?limit=20"
    if not url.startswith(("http://", "https://")):
        raise Wrong("URL begins with http:// or https://")
    with urllib.request.urlopen(f"{url.rstrip('/')}/{where}", timeout=30) as answer:
        told = json.loads(answer.read(MAX_ANSWER_BYTES))
    if not peer_id:
        return list(told["offers"])
    if key_of(told["offer"]["peer_id"]) != key_of(peer_id):
        raise Wrong("the indexer shows an offer of somebody else")
    return [told["offer"]]


def main(arguments: list[str]) -> int:
    """0: all that was fetched is signed as it is shown. 1: something is not. 2: not asked properly."""
    if len(arguments) not in (1, 2) or arguments[0] in ("-h", "--help"):
        sys.stderr.write(f"{__doc__}\n")
        return 2
    try:
        offers = fetch(arguments[0], "".join(arguments[1:]))
    except (Wrong, OSError, ValueError, KeyError, TypeError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    wrong = 0
    for shown in offers:
        try:
            offer = check(shown, time.time() * 1_000)
            price = f"{offer['price_qu_per_hour']:,} QU per GPU and hour"
            line = f"signed  {shown['peer_id']}  {offer['gpu_class']!a}  {price}"
        except (Wrong, ValueError, KeyError, TypeError, AttributeError) as error:
            wrong += 1
            line = f"WRONG   {shown.get('peer_id', '')!a}  {error}"
        sys.stdout.write(f"{line}\n")
    sys.stdout.write(f"{len(offers) - wrong} of {len(offers)} offers are signed by their providers\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
