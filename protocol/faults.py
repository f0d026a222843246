"""Whose fault it is when a lease or a quote fails. Pure.

Codes are those of docs/errors.md. What may as well be the caller's own doing (an image that does not exist,
a full disk, a price that rose, capacity that was taken) is nobody's fault: a provider is not blamed for it.
"""

from __future__ import annotations

import enum
from typing import Final

PROVIDER_FAULTS: Final = frozenset(
    {
        "internal.error",
        "job.lost",
        "ledger.broken",
        "lease.closed_early",
        "lease.outputs_missing",
        "lease.proof_skipped",
        "lease.provider_lost",
        "lease.start_timeout",
        "lease.stopped_by_provider",
        "machine.error",
        "net.peer_unreachable",
        "net.stream_broken",
        "peer.no_reason",
        "proof.malformed",
        "proof.no_answer",
        "proof.too_few_gpus",
        "proof.too_slow",
        "proof.wrong",
        "proof.wrong_gpu",
        "quote.changed",
        "runner.engine_unreachable",
        "runner.job_missing",
        "runner.start_failed",
        "wire.message_invalid",
        "wire.message_too_large",
        "wire.signature_invalid",
    }
)


class Outcome(enum.StrEnum):
    """How a lease went, in the caller's word; what a Receipt says."""

    COMPLETED = "completed"
    """The provider did its part, whatever the job did."""
    STOPPED = "stopped"
    """The caller ended it, as every rental is ended."""
    FAILED = "failed"
    """By the provider."""


def is_fault(code: str) -> bool:
    """Whether a failure with this code is the provider's."""
    return code in PROVIDER_FAULTS


def outcome_of(reason: str) -> Outcome:
    """The outcome of a caller's lease that ended for this reason."""
    if is_fault(reason):
        return Outcome.FAILED
    return Outcome.STOPPED if reason == "lease.stopped_by_caller" else Outcome.COMPLETED
