"""What a job file says of a job's life: its being ready, its restarts, its being stopped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from protocol.templates import Template
from protocol.units import Seconds
from protocol.yaml_fields import Field

MAX_READY_CHARS: Final = 4_096
READY_SECONDS: Final = Seconds(600)
MAX_READY_SECONDS: Final = Seconds(1_800)
"""Until a job is ready the machine works for nothing."""
MIN_IDLE_SECONDS: Final = Seconds(60)
MAX_IDLE_SECONDS: Final = Seconds(30 * 86_400)
RESTARTS: Final = ("never", "on_failure", "always")
USUAL_RESTARTS: Final = 10
MAX_RESTARTS: Final = 1_000
FIELDS: Final = frozenset({"ready", "ready_within", "restart", "restarts", "idle_stop"})


@dataclass(frozen=True)
class Life:
    ready: str = ""
    """A shell command that succeeds inside as soon as the job is ready; empty: at once."""
    ready_seconds: Seconds = READY_SECONDS
    restart: str = "never"
    """One of RESTARTS."""
    restarts: int = 0
    """How many times at most."""
    idle_seconds: Seconds = Seconds(0)
    """0: it is never stopped for being idle."""


USUAL_LIFE: Final = Life()


def life_of(fields: dict[str, Field], template: Template | None) -> Life:
    within, idle = fields.get("ready_within"), fields.get("idle_stop")
    restart, restarts = _restart(fields)
    return Life(
        ready=_ready(fields, template),
        ready_seconds=within.seconds(1, MAX_READY_SECONDS) if within else READY_SECONDS,
        restart=restart,
        restarts=restarts,
        idle_seconds=idle.seconds(MIN_IDLE_SECONDS, MAX_IDLE_SECONDS) if idle else Seconds(0),
    )


def _ready(fields: dict[str, Field], template: Template | None) -> str:
    """A template's own is for its own programs."""
    if "ready" in fields:
        return fields["ready"].text(MAX_READY_CHARS).strip()
    return template.ready if template and "run" not in fields else ""


def _restart(fields: dict[str, Field]) -> tuple[str, int]:
    policy = fields["restart"].one_of(RESTARTS) if "restart" in fields else "never"
    if "restarts" not in fields:
        return policy, 0 if policy == "never" else USUAL_RESTARTS
    if policy == "never":
        fields["restarts"].fail("needs `restart: on_failure` or `restart: always`")
    return policy, fields["restarts"].whole(0, MAX_RESTARTS)
