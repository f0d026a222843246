"""What the lease machine says of the job itself: its images, its beginning, its pauses, its end.

Between its container's start and its beginning a job waits at a gate: `RunStarted`, then (if the terms say
so) the caller's proof, then `RunGo`, then `RunReady`. `lease_model` has the tables that number all of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol.units import UnixMs

# --- events -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunPulled:
    now: UnixMs


@dataclass(frozen=True)
class RunStarted:
    started_at: UnixMs
    now: UnixMs


@dataclass(frozen=True)
class RunFailed:
    """The job could not be made to run here."""

    code: str
    sentence: str
    now: UnixMs


@dataclass(frozen=True)
class RunExited:
    """The engine says how the job ended. `finished_at` is the engine's own time."""

    exit_code: int
    reason: str
    started_at: UnixMs
    finished_at: UnixMs
    now: UnixMs


@dataclass(frozen=True)
class RunCollected:
    """Outputs and log are packed and kept for the caller."""

    outputs_sha256: bytes
    outputs_bytes: int
    now: UnixMs


@dataclass(frozen=True)
class RunSeen:
    """Whether the engine says that the job is there. While nobody knows, the meter stands still."""

    there: bool
    now: UnixMs


@dataclass(frozen=True)
class RunDiscarded:
    """Whatever of the job was here is gone."""

    now: UnixMs


@dataclass(frozen=True)
class RunFetched:
    """Caller: outputs are here and unpacked, or cannot be had (`code` non-empty)."""

    code: str
    sentence: str
    now: UnixMs


@dataclass(frozen=True)
class ReceivePrepared:
    """Caller: the job's container waits at its gate."""

    now: UnixMs


@dataclass(frozen=True)
class RunProved:
    """Caller: how a proof of the machine went; an empty code says that it is what was rented."""

    code: str
    sentence: str
    now: UnixMs


@dataclass(frozen=True)
class ReceiveGo:
    """Provider: the caller has proved the machine."""

    now: UnixMs


@dataclass(frozen=True)
class RunReady:
    """The job is ready since `started_at`: billing begins."""

    started_at: UnixMs
    now: UnixMs


@dataclass(frozen=True)
class ActionPause:
    """The caller freezes its job."""

    now: UnixMs


@dataclass(frozen=True)
class ActionResume:
    now: UnixMs


@dataclass(frozen=True)
class ActionRestart:
    """The caller wants its job begun anew; once for each nonce."""

    nonce: bytes
    now: UnixMs


@dataclass(frozen=True)
class ReceivePause:
    sequence: int
    now: UnixMs


@dataclass(frozen=True)
class ReceiveResume:
    sequence: int
    now: UnixMs


@dataclass(frozen=True)
class ReceiveRestart:
    nonce: bytes
    now: UnixMs


@dataclass(frozen=True)
class RunIdle:
    """The meters say that the job has done nothing for as long as the terms allow."""

    now: UnixMs


@dataclass(frozen=True)
class RunRestarted:
    """The job was begun anew at `began_at`; 0 if it could not be, then its last end counts."""

    nonce: bytes
    began_at: UnixMs
    now: UnixMs


# --- effects ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunPull:
    pass


@dataclass(frozen=True)
class RunStart:
    pass


@dataclass(frozen=True)
class RunPause:
    pass


@dataclass(frozen=True)
class RunResume:
    pass


@dataclass(frozen=True)
class RunStop:
    pass


@dataclass(frozen=True)
class RunCollect:
    """Pack outputs and log, then forget the container."""


@dataclass(frozen=True)
class RunDiscard:
    """Remove whatever of the job is here; nothing of it is owed to anyone."""


@dataclass(frozen=True)
class RunFetch:
    """Caller: fetch outputs and log from the provider."""

    outputs_sha256: bytes
    outputs_bytes: int


@dataclass(frozen=True)
class SendPrepared:
    pass


@dataclass(frozen=True)
class RunProve:
    """Caller: prove the machine, through a program in the job's container."""


@dataclass(frozen=True)
class SendGo:
    pass


@dataclass(frozen=True)
class RunGo:
    """Let the job begin, with its secrets, and wait until it is ready."""


@dataclass(frozen=True)
class SendPause:
    sequence: int


@dataclass(frozen=True)
class SendResume:
    sequence: int


@dataclass(frozen=True)
class SendRestart:
    nonce: bytes


@dataclass(frozen=True)
class RunRestart:
    nonce: bytes
