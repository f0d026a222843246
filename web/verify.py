"""Fetches an offer from an indexer and checks for itself that the provider signed it.

    python verify.py URL [PEER_ID]

URL is any indexer, such as http://127.0.0.1:8080; without a PEER_ID the cheapest offers are checked. Needs
Python 3.11 and two packages: pip install pynacl msgpack. Nothing the indexer says is believed: the peer id is
the provider's Ed25519 key, the signature is checked over the exact bytes, and what the indexer shows is held
against what was signed. An indexer can still leave offers out, or show old ones until they expire.
"""

from __future__ import annotations

import base64
import http.client
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
PEER_ID_LETTERS = 52
MAX_ANSWER_BYTES = 8 << 20
SOLD_GB = (4, 6, 8, 10, 11, 12, 16, 20, 24, 32, 40, 48, 64, 80, 94, 96, 128, 141, 180, 192)
"""Sizes of cards; their drivers report up to 7 % less."""
ARCHES = {"x8664": "amd64", "x64": "amd64", "aarch64": "arm64"}
WALLET_LETTERS = 56
"""Of the 60 of a Qubic identity; the others are their checksum."""
NUL_SHOWN = "\u2400"
"""What databases show in place of a zero byte."""


class Wrong(Exception):
    """Why an offer is not to be believed."""


def key_of(peer_id: str) -> bytes:
    """The 32 bytes of the Ed25519 key that a peer id is."""
    if re.fullmatch("[0-9a-fA-F]{64}", peer_id):
        return bytes.fromhex(peer_id)
    number = 0
    for letter in peer_id if len(peer_id) == PEER_ID_LETTERS else "":
        if letter not in BASE58:
            raise Wrong(f"{peer_id!r} is no peer id")
        number = number * 58 + BASE58.index(letter)
    head, key = divmod(number, 1 << 256)
    if head != int.from_bytes(PEER_ID_HEAD, "big"):
        raise Wrong(f"{peer_id!r} is no peer id of an Ed25519 key")
    return key.to_bytes(32, "big")


def wallet_of(key: bytes) -> str:
    """A Qubic identity without its checksum: each 8 bytes are 14 letters, the lowest first."""
    words = (int.from_bytes(key[start : start + 8], "little") for start in range(0, len(key), 8))
    return "".join(chr(65 + word // 26**place % 26) for word in words for place in range(14))


def sold_gb(vram_mib: int) -> int:
    """What a card is sold as that reports so much memory."""
    sizes = (size for size in SOLD_GB if size * 1_024 * 0.93 <= vram_mib <= size * 1_024)
    return next(sizes, -(-vram_mib // 1_024))


def word(text: str) -> str:
    """A name as markets compare it: letters and digits."""
    return "".join(filter(str.isalnum, text.casefold()))


def plain(text: object) -> str:
    """What a terminal shows and does not obey."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in str(text))


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
    runner, _, runtime = offer["runner"].partition("+")
    arch, cuda = word(offer.get("arch", "")), offer.get("cuda", 0)
    said = {
        "wallet": wallet_of(offer["qubic_id"]),
        "name": offer["name"].replace("\0", NUL_SHOWN),
        "region": offer["region"].replace("\0", NUL_SHOWN),
        "gpu": offer["gpu_class"].replace("\0", NUL_SHOWN),
        "gpus": len(capacity["gpus"]),
        "vram_gb": max((sold_gb(gpu["vram_mib"]) for gpu in capacity["gpus"]), default=0),
        "price_qu_per_hour": offer["price_qu_per_hour"],
        "storage_qu_per_tib_hour": offer["storage_qu_per_tib_hour"],
        "cpus": capacity["cpu_millis"] / 1_000,
        "ram_gb": capacity["memory_mib"] / 1_024,
        "disk_gb": capacity["disk_mib"] / 1_024,
        "internet": offer.get("internet", False),
        "runner": word(runner),
        "runtime": word(runtime or ("runc" if runner == "docker" else "")),
        "arch": ARCHES.get(arch, arch),
        "cuda": cuda // 1_000 + min(9, cuda % 1_000 // 10) / 10,
        "sequence": offer["sequence"],
        "issued_ms": offer["issued_at"] // 1_000 * 1_000,
        "expires_ms": offer["expires_at"],
        "closes_ms": offer.get("closes_at") or None,
    }
    told = shown | {"wallet": shown["wallet"][:WALLET_LETTERS]}
    for field, value in said.items():
        if told[field] != value:
            raise Wrong(f"{field} is {value!r} in what was signed, the indexer shows {told[field]!r}")
    return offer


def fetch(url: str, peer_id: str) -> list[dict[str, Any]]:
    """What an indexer shows: one offer, or the cheapest ones."""
    where = f"v1/offers/{urllib.parse.quote(peer_id, safe='')}" if peer_id else "v1/offers?limit=20"
    if not url.startswith(("http://", "https://")):
        raise Wrong("URL begins with http:// or https://")
    with urllib.request.urlopen(f"{url.rstrip('/')}/{where}", timeout=30) as answer:
        told = json.loads(answer.read(MAX_ANSWER_BYTES))
    if not peer_id:
        return list(map(dict, told["offers"]))
    if key_of(told["offer"]["peer_id"]) != key_of(peer_id):
        raise Wrong("the indexer shows an offer of somebody else")
    return [dict(told["offer"])]


def main(arguments: list[str]) -> int:
    """0: all that was fetched is signed as it is shown. 1: something is not. 2: not asked properly."""
    if len(arguments) not in (1, 2) or arguments[0] in ("-h", "--help"):
        sys.stderr.write(f"{__doc__}\n")
        return 2
    try:
        offers = fetch(arguments[0], "".join(arguments[1:]))
    except (
        Wrong,
        OSError,
        http.client.HTTPException,
        ValueError,
        KeyError,
        TypeError,
        RecursionError,
    ) as error:
        sys.stderr.write(f"error: {plain(error)}\n")
        return 1
    wrong = 0
    for shown in offers:
        try:
            offer = check(shown, time.time() * 1_000)
            price = f"{offer['price_qu_per_hour']:,} QU per GPU and hour on {offer['network']}"
            line = f"signed  {shown['peer_id']}  {offer['gpu_class']!a}  {price}"
        except (Wrong, ValueError, KeyError, TypeError, AttributeError) as error:
            wrong += 1
            line = f"WRONG   {shown.get('peer_id', '')!a}  {error}"
        sys.stdout.write(f"{plain(line)}\n")
    sys.stdout.write(f"{len(offers) - wrong} of {len(offers)} offers are signed by their providers\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
