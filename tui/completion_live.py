"""What may stand on a command line because it is there now: leases, providers, GPUs, templates.

A shell waits for this, so that a daemon which is slow or away is nothing to wait for: there are no
candidates then. What strangers call themselves becomes a candidate only if no shell could misread it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any, Final

from protocol.errors import QubixError
from tui.completion import Candidate, Source
from tui.places import control_socket, data_dir

PATIENCE_SECONDS: Final = 1.5
MAX_OFFERS: Final = 200
PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
ENDED_TOO: Final = ("logs", "metrics", "cp")
"""Words that are also for leases that have ended."""
ID_CHARS: Final = 8


def source_for(before: Sequence[str]) -> Source:
    """Candidates from the daemon that the words so far are for."""
    directory = next((after for word, after in pairwise(before) if word == "--data-dir"), None)

    def source(metavar: str, verb: str) -> Iterable[Candidate]:
        match metavar:
            case "LEASE":
                return _leases(directory, verb)
            case "P" | "PROVIDER":
                return [(_name(offer), _words(offer)) for offer in _offers(directory)]
            case "MODEL" | "GPU":
                return [
                    (re.sub(r"[^A-Za-z0-9]", "", one.gpu_class), one.name)
                    for one in _offers(directory)
                    if one.gpus
                ]
            case "TEMPLATE":
                return _templates()
            case "NAME" if verb == "images":
                return [*_templates(), ("all", "every one")]
            case "WHAT" if verb == "market":
                return _use_cases()
            case "KEYS":
                return _sort_keys()
        return []

    return source


def _leases(directory: str | None, verb: str) -> list[Candidate]:
    from protocol.control import PsArgs

    view = _ask(directory, "ps", PsArgs(verb in ENDED_TOO))
    found = view.leases if view else []
    return [(one.lease_id[:ID_CHARS], f"{one.name}, {one.phase}") for one in reversed(found)]


def _offers(directory: str | None) -> list[Any]:
    from protocol.control_market import MarketArgs

    view = _ask(directory, "market", MarketArgs(limit=MAX_OFFERS))
    return view.offers if view else []


def _name(offer: Any) -> str:
    return str(offer.name if PLAIN.fullmatch(offer.name) else offer.peer_id)


def _words(offer: Any) -> str:
    return f"{offer.gpu_class if offer.gpus else 'no GPU'}, {offer.price_qu_per_hour:,} QU/h"


def _templates() -> list[Candidate]:
    from protocol.templates import TEMPLATES

    return [(one.name, one.title) for one in TEMPLATES.values()]


def _use_cases() -> list[Candidate]:
    from protocol.catalogue import USE_CASES

    return [(one.name, one.title) for one in USE_CASES.values()]


def _sort_keys() -> list[Candidate]:
    from protocol.query import FIELDS

    return [(one.name, one.description) for one in FIELDS.values()]


def _ask(directory: str | None, verb: str, args: object) -> Any:
    from tui.client import connect

    async def ask() -> Any:
        async with asyncio.timeout(PATIENCE_SECONDS), connect(control_socket(data_dir(directory))) as client:
            return await client.call(verb, args)

    with suppress(QubixError, OSError, TimeoutError):
        return asyncio.run(ask())
    return None
