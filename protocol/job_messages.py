"""What caller and provider say to each other about a job: its order and files, its life, what it uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from protocol.message_fields import (
    MAX_ORDER_BYTES,
    MAX_PROGRAM_BYTES,
    MAX_SEALED_BYTES,
    Address,
    Bytes32,
    Count32,
    Instant,
    Lease32,
    Sentence,
    Size,
    Tag8,
    Word,
)


@dataclass(frozen=True)
class JobOrder:
    """What to run. Its SHA-256 is in the terms."""

    name: Word
    image: Address
    script: Annotated[str, Meta(max_length=65_536)]
    envs: Annotated[dict[Word, Annotated[str, Meta(max_length=32_768)]], Meta(max_length=256)]
    secrets_sha256: Bytes32
    """Of the encoded secrets, which travel beside the order and are kept apart from it."""
    outputs: Annotated[tuple[Address, ...], Meta(max_length=64)]
    inputs_sha256: Bytes32
    inputs_bytes: Size
    ready: Annotated[str, Meta(max_length=4_096)] = ""
    """A shell command that succeeds inside as soon as the job is ready; empty: it is when it has begun."""
    restart: Word = "never"
    """What becomes of a job that ends by itself: "never", "on_failure" or "always" begun again."""
    restarts: Annotated[int, Meta(ge=0, le=1_000)] = 0
    """How many times at most."""


@dataclass(frozen=True)
class PutInputs:
    """Precedes `inputs_bytes` raw bytes (a tar archive) on a file stream."""

    lease_id: Lease32
    order: Annotated[bytes, Meta(max_length=MAX_ORDER_BYTES)]
    secrets: Annotated[bytes, Meta(max_length=MAX_SEALED_BYTES)]
    """Sealed for the provider's node key; their digest in the order is that of the opened ones."""


@dataclass(frozen=True)
class GetOutputs:
    """Asks for the output archive from byte `offset` on; raw bytes follow an Ack."""

    lease_id: Lease32
    offset: Size


@dataclass(frozen=True)
class GetLogs:
    """Asks for the job's output from byte `offset` on; raw bytes follow an Ack."""

    lease_id: Lease32
    offset: Size
    follow: bool


@dataclass(frozen=True)
class Prepared:
    """The job's container is there and waits: the caller may prove the machine and say Go."""

    lease_id: Lease32


@dataclass(frozen=True)
class Go:
    """The machine is what was rented; the job shall begin."""

    lease_id: Lease32


@dataclass(frozen=True)
class Pause:
    """Freeze the job. The machine stays reserved and the meter runs on."""

    lease_id: Lease32
    sequence: Count32
    """Rises with every Pause and Resume of a lease; one that comes late is passed over."""


@dataclass(frozen=True)
class Resume:
    lease_id: Lease32
    sequence: Count32


@dataclass(frozen=True)
class Restart:
    """End the job and begin it anew in its workspace; the meter runs on. Asked again with the same nonce
    it happens once."""

    lease_id: Lease32
    nonce: Tag8


@dataclass(frozen=True)
class GetMeters:
    """Asks for a running job's Samples that are newer than `since`; with `follow`, for the later ones too."""

    lease_id: Lease32
    since: Instant
    follow: bool


@dataclass(frozen=True)
class GpuUse:
    """One card at one instant; None where the card does not tell."""

    digest: Bytes32
    use_permille: Annotated[int, Meta(ge=0, le=1_000)] | None
    memory_mib: Count32
    temperature_c: Annotated[int, Meta(ge=-300, le=1_000)] | None
    power_mw: Count32 | None


@dataclass(frozen=True)
class Sample:
    """What a job used at one instant of the provider's clock. Traffic counts from the job's start."""

    at: Instant
    cpu_millis: Count32
    """Thousandths of a core, over the last second or so."""
    memory_mib: Count32
    disk_mib: Count32
    received_bytes: Size
    sent_bytes: Size
    gpus: Annotated[tuple[GpuUse, ...], Meta(max_length=16)]


@dataclass(frozen=True)
class OpenProof:
    """Precedes a program that shall run in the job's container; after an Ack its input and output follow."""

    lease_id: Lease32
    program_sha256: Bytes32
    program_bytes: Annotated[int, Meta(ge=1, le=MAX_PROGRAM_BYTES)]


@dataclass(frozen=True)
class Progress:
    """How far the provider has come with a phase of the job. Told when it can be, never told again."""

    lease_id: Lease32
    phase: Word
    permille: Annotated[int, Meta(ge=0, le=1_000)]
    sentence: Sentence
