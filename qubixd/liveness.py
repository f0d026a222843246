"""Signs of life by gossip: what directories say they heard. A hint, because a directory can lie in it.

Only directories that are known are listened to, each no more than a directory has to say. A lie costs
whoever believes it one quote that nobody answers, for as long as the offer itself has not expired.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final

from protocol import messages, signing
from protocol.errors import WireError
from protocol.messages import SIGHTING_BYTES, Liveness
from protocol.units import PeerKey, UnixMs
from qubixd.book import OfferBook
from qubixd.places import Buckets
from qubixd.register import MAX_KNOWN, Register
from qubixd.wire import Verdict

LIVENESS_TOPIC: Final = "/qubix/liveness/1"
MAX_AGE_MS: Final = 60_000
"""Of a message, by the clock of its directory, either way."""
REPORTS: Final = (1.0, 60)
"""A second, and at once: 12,000 providers every 30 s."""


class Hearing:
    """The validator of the liveness topic."""

    def __init__(self, book: OfferBook, register: Register, now_ms: Callable[[], UnixMs]) -> None:
        self.counters: Counter[str] = Counter()
        self._book, self._register, self._now_ms = book, register, now_ms
        self._reports = Buckets(*REPORTS)
        self._last: OrderedDict[PeerKey, UnixMs] = OrderedDict()

    def __call__(self, data: bytes, forwarder: PeerKey) -> Verdict:
        reason, verdict = self._judge(data)
        if reason:
            self.counters[reason] += 1
        return verdict

    def _judge(self, data: bytes) -> tuple[str, Verdict]:
        try:
            signed = signing.verify(data, messages.MAX_OFFER_BYTES)
        except WireError:
            return "liveness.malformed", Verdict.REJECT
        report, source = signed.message, signed.signer
        if not isinstance(report, Liveness) or len(report.alive) % SIGHTING_BYTES:
            return "liveness.malformed", Verdict.REJECT
        now = self._now_ms()
        if abs(report.issued_at - now) > MAX_AGE_MS or report.issued_at <= self._last.get(source, 0):
            return "liveness.old", Verdict.IGNORE
        if self._register.get(source) is None:
            return "liveness.of_a_stranger", Verdict.IGNORE
        if not self._reports.take(source):
            return "liveness.too_often", Verdict.IGNORE
        self._last[source] = report.issued_at
        while len(self._last) > 2 * MAX_KNOWN:
            self._last.popitem(last=False)
        self._book.heard(report.alive, now, source)
        return "", Verdict.ACCEPT
