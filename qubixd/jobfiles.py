"""Where a lease's files lie, and moving them: from a person's folder, to the other side, and back.

<data dir>/leases/<lease id>/
  order      JobOrder message           secrets     sealed for the provider, 0600, on both sides
  access     sealed for this node: what lets its person into a job that it rented (access.py)
  inputs.tar what the caller sent       workspace/  what the job sees (provider)
  outputs.tar, job.log                  what the job left
                                        parts/      files that are being copied into it (tunnels/parts.py)
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tarfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import msgpack
import trio

from ledger.store import RunSync
from protocol import messages
from protocol.codec import convert, unpack
from protocol.errors import DiskFull, JobFileInvalid, MessageInvalid, StreamBroken
from protocol.jobspec import Job
from protocol.messages import MAX_MESSAGE_BYTES, MAX_ORDER_BYTES, JobOrder
from protocol.signing import NodeKey, seal_for
from protocol.units import LeaseId, PeerKey
from qubixd import access
from qubixd.access import Access
from qubixd.runner.workspace import PackResult, names_below, pack_to_file, remove_tree, unpack_file
from qubixd.talk import IDLE_TIMEOUT_S, patience
from qubixd.wire import Stream

T = TypeVar("T")
MAX_FILES: Final = 10_000
CHUNK_BYTES: Final = 65_507
"""One yamux frame is then one noise message."""
MIB: Final = 1 << 20
NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)
MAX_INPUT_BYTES: Final = 1 << 40
TAR_SLACK_BYTES: Final = 1 << 20
"""Headers and padding of an archive, beyond the files' own disk limit."""


@dataclass(frozen=True)
class Submission:
    """A job ready to be offered to providers; its archive waits at `archive`."""

    order: bytes
    secrets: bytes = field(repr=False)
    """In clear, in memory only."""
    archive: Path
    order_sha256: bytes
    access: bytes = field(repr=False)
    """In clear, in memory only."""


class JobFiles:
    """The files of all leases of this node. Blocking work goes through `in_thread`."""

    def __init__(self, root: Path, in_thread: RunSync) -> None:
        self.root = root
        self.in_thread = in_thread

    def folder(self, lease_id: LeaseId) -> Path:
        return self.root / "leases" / lease_id.hex()

    def path(self, lease_id: LeaseId, name: str) -> Path:
        return self.folder(lease_id) / name

    # --- caller -------------------------------------------------------------------------------

    async def submit(self, job: Job, base_dir: Path, secrets: Mapping[str, str]) -> Submission:
        """Pack a job's input files and fix its order. JobFileInvalid, FilesInvalid, DiskFull."""
        return await self.in_thread(lambda: self._submit(job, base_dir, secrets))

    def _submit(self, job: Job, base_dir: Path, secrets: Mapping[str, str]) -> Submission:
        waiting = self.root / "waiting" / os.urandom(8).hex()
        try:
            with disk_errors():
                waiting.mkdir(mode=0o700, parents=True)  # what is copied into it may be private
                _stage(job.file_mounts, base_dir, waiting / "inputs")
                packed = pack_to_file(waiting / "inputs", None, waiting / "inputs.tar", MAX_INPUT_BYTES)
                shutil.rmtree(waiting / "inputs")
            encoded = encode_secrets(secrets)
            order = messages.encode(_order(job, packed, encoded))
            if len(order) > MAX_ORDER_BYTES or len(encoded) > MAX_MESSAGE_BYTES // 2:
                raise JobFileInvalid("the job's script, variables or secrets are too large")
        except BaseException:
            shutil.rmtree(waiting, ignore_errors=True)
            raise
        kept = access.encode(access.access_of(job, secrets))
        return Submission(order, encoded, waiting / "inputs.tar", hashlib.sha256(order).digest(), kept)

    async def keep(self, lease_id: LeaseId, submission: Submission, provider: PeerKey, own: PeerKey) -> None:
        """Give a submission to the lease it led to. Its secrets can be read by that provider alone, what
        lets in who rents the machine by the own node alone."""
        await self.in_thread(lambda: self._keep(lease_id, submission, provider, own))

    def _keep(self, lease_id: LeaseId, submission: Submission, provider: PeerKey, own: PeerKey) -> None:
        with disk_errors():
            self.folder(lease_id).mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(self.path(lease_id, "order"), submission.order)
            write_private(self.path(lease_id, "secrets"), seal_for(provider, submission.secrets))
            write_private(self.path(lease_id, "access"), seal_for(own, submission.access))
            submission.archive.rename(self.path(lease_id, "inputs.tar"))
            shutil.rmtree(submission.archive.parent, ignore_errors=True)

    def access(self, lease_id: LeaseId, key: NodeKey) -> Access:
        """What lets in; nothing where nothing is kept any more."""
        try:
            sealed = self.path(lease_id, "access").read_bytes()
        except FileNotFoundError:
            return Access()
        return access.decode(key.open_sealed(sealed))

    async def forget_unfinished(self) -> None:
        """Called at start: whatever was being packed or offered when the last daemon ended."""
        await self.in_thread(lambda: shutil.rmtree(self.root / "waiting", ignore_errors=True))

    async def discard(self, submission: Submission) -> None:
        """Nobody took it."""
        await self.in_thread(lambda: shutil.rmtree(submission.archive.parent, ignore_errors=True))

    async def deliver_outputs(self, lease_id: LeaseId, sha256: bytes, target: Path) -> None:
        """Unpack fetched outputs where the person wants them. FilesInvalid, DiskFull."""
        await self.in_thread(lambda: self._deliver(lease_id, sha256, target))

    def _deliver(self, lease_id: LeaseId, sha256: bytes, target: Path) -> None:
        unpacked = self.path(lease_id, "outputs")
        with disk_errors():
            shutil.rmtree(unpacked, ignore_errors=True)
            archive = self.path(lease_id, "outputs.tar")
            unpack_file(archive, unpacked, archive.stat().st_size, MAX_FILES, sha256)
            shutil.copytree(unpacked, target, dirs_exist_ok=True)
            shutil.rmtree(unpacked)

    # --- provider -----------------------------------------------------------------------------

    async def prepare_workspace(self, lease_id: LeaseId, disk_mib: int) -> JobOrder:
        """Lay the inputs out afresh; returns the order to run. FilesInvalid, DiskFull."""
        return await self.in_thread(lambda: self._prepare(lease_id, disk_mib))

    def _prepare(self, lease_id: LeaseId, disk_mib: int) -> JobOrder:
        order = self.order(lease_id)
        workspace = self.path(lease_id, "workspace")
        remove_tree(workspace)
        with disk_errors():
            limit = disk_mib * MIB + TAR_SLACK_BYTES
            unpack_file(self.path(lease_id, "inputs.tar"), workspace, limit, MAX_FILES, order.inputs_sha256)
        return order

    async def collect_outputs(self, lease_id: LeaseId, disk_mib: int) -> PackResult | None:
        """Pack what the job left; None if that is nothing or cannot be packed within the limit."""
        return await self.in_thread(lambda: self._collect(lease_id, disk_mib))

    def _collect(self, lease_id: LeaseId, disk_mib: int) -> PackResult | None:
        workspace, archive = self.path(lease_id, "workspace"), self.path(lease_id, "outputs.tar")
        if not workspace.is_dir():
            return None
        patterns = self.order(lease_id).outputs
        inputs = _names_in(self.path(lease_id, "inputs.tar"))
        members = _matching(workspace, patterns) if patterns else None
        exclude = () if patterns else inputs
        temporary = archive.with_suffix(".part")
        with disk_errors():
            limit = disk_mib * MIB + TAR_SLACK_BYTES
            packed = pack_to_file(workspace, members, temporary, limit, exclude=exclude)
            temporary.rename(archive)
        return packed if packed.files else None

    async def keep_log(self, lease_id: LeaseId, chunks: AsyncIterator[bytes]) -> None:
        """Write a job's whole output (which its runner caps) beside its lease, or nothing."""
        temporary = self.path(lease_id, "job.log.part")
        file = await self.in_thread(lambda: temporary.open("wb"))
        with file, disk_errors():
            async for chunk in chunks:
                await self.in_thread(partial(file.write, chunk))
        temporary.rename(self.path(lease_id, "job.log"))

    def order(self, lease_id: LeaseId) -> JobOrder:
        """The kept order. MessageInvalid if there is none."""
        try:
            data = self.path(lease_id, "order").read_bytes()
        except FileNotFoundError as error:
            raise MessageInvalid("the job's order has not arrived") from error
        order: JobOrder = messages.decode(data, MAX_ORDER_BYTES)
        return order

    def secrets(self, lease_id: LeaseId, key: NodeKey) -> dict[str, str]:
        """The secrets of a job that were sealed for this node. They are in memory only."""
        return decode_secrets(key.open_sealed(self.path(lease_id, "secrets").read_bytes()))

    async def folders(self) -> frozenset[LeaseId]:
        """The leases that have files here."""

        def look() -> frozenset[LeaseId]:
            names = (path.name for path in (self.root / "leases").glob("[0-9a-f]" * 64))
            return frozenset(LeaseId(bytes.fromhex(name)) for name in names)

        return await self.in_thread(look)

    async def forget(self, lease_id: LeaseId, names: Sequence[str]) -> None:
        """Delete some of a lease's files."""

        def remove() -> None:
            for name in names:
                path = self.path(lease_id, name)
                remove_tree(path) if path.is_dir() else path.unlink(missing_ok=True)

        await self.in_thread(remove)

    # --- over streams -------------------------------------------------------------------------

    async def send_file(self, stream: Stream, path: Path, offset: int = 0) -> None:
        """The raw bytes of a file from `offset` on."""
        file = await self.in_thread(lambda: path.open("rb"))
        with file:
            file.seek(offset)
            while chunk := await self.in_thread(partial(file.read, CHUNK_BYTES)):
                await _send_all(stream, chunk)

    async def receive_file(self, stream: Stream, path: Path, size: int, sha256: bytes | None) -> None:
        """Exactly `size` raw bytes into `path`, whole, checked and on disk, or not at all."""
        # A name of its own: the same file may be arriving on another stream.
        temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.part")
        try:
            await self._receive_into(temporary, stream, size, sha256)
            temporary.rename(path)
        finally:
            temporary.unlink(missing_ok=True)

    async def _receive_into(self, path: Path, stream: Stream, size: int, sha256: bytes | None) -> None:
        digest, received = hashlib.sha256(), 0
        file = await self.in_thread(lambda: path.open("wb"))
        with file, disk_errors():
            while received < size:
                chunk = await _receive_some(stream, min(CHUNK_BYTES, size - received))
                digest.update(chunk)
                received += len(chunk)
                await self.in_thread(partial(file.write, chunk))
            await self.in_thread(partial(_flush, file))
        if sha256 is not None and digest.digest() != sha256:
            raise MessageInvalid("the file that arrived is not the one that was announced")


async def _send_all(stream: Stream, chunk: bytes) -> None:
    try:
        with patience(IDLE_TIMEOUT_S):
            await stream.send_all(chunk)
    except trio.BrokenResourceError as error:
        raise StreamBroken("the connection broke while a file was sent") from error


async def _receive_some(stream: Stream, max_bytes: int) -> bytes:
    try:
        with patience(IDLE_TIMEOUT_S):
            chunk = bytes(await stream.receive_some(max_bytes))
    except trio.BrokenResourceError as error:
        raise StreamBroken("the connection broke while a file was received") from error
    if not chunk:
        raise StreamBroken("the peer ended the stream in the middle of a file")
    return chunk


# --- helpers ----------------------------------------------------------------------------------


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def encode_secrets(secrets: Mapping[str, str]) -> bytes:
    """With some salt: their digest is in the order, and must not tell those who guess that they are right."""
    packed: bytes = msgpack.packb([os.urandom(16), dict(secrets)])
    return packed


def decode_secrets(data: bytes) -> dict[str, str]:
    """MessageInvalid unless it is salt and a map of texts."""
    found: tuple[bytes, dict[str, str]] = convert(
        unpack(data, "secrets"), tuple[bytes, dict[str, str]], "secrets"
    )
    return found[1]


def write_private(path: Path, data: bytes) -> None:
    """Atomically, durably, 0600."""
    temporary = path.with_name(f".{path.name}.part")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


@contextmanager
def disk_errors() -> Any:
    """A full disk or quota as DiskFull."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            raise DiskFull("the disk is full; free some space and try again") from error
        raise


def _stage(mounts: Mapping[str, str], base_dir: Path, inputs: Path) -> None:
    inputs.mkdir(parents=True)
    for target, source in mounts.items():
        origin = base_dir / os.path.expanduser(source)
        destination = inputs / target
        destination.parent.mkdir(parents=True, exist_ok=True)
        try:
            if origin.is_dir():
                shutil.copytree(origin, destination, symlinks=True)
            else:
                shutil.copyfile(origin, destination)
        except FileNotFoundError as error:
            raise JobFileInvalid(f"file_mounts.{target}: {origin} does not exist") from error
        except OSError as error:
            if error.errno in NO_SPACE:
                raise
            raise JobFileInvalid(f"file_mounts.{target}: {origin} cannot be read") from error


def _order(job: Job, packed: PackResult, secrets: bytes) -> JobOrder:
    return JobOrder(
        name=job.name,
        image=job.image,
        script=job.script,
        envs=job.envs,
        secrets_sha256=hashlib.sha256(secrets).digest(),
        outputs=job.outputs,
        inputs_sha256=packed.sha256,
        inputs_bytes=packed.size,
        ready=job.life.ready,
        restart=job.life.restart,
        restarts=job.life.restarts,
    )


def _names_in(archive: Path) -> tuple[str, ...]:
    with tarfile.open(archive, "r:") as tar:
        return tuple(tar.getnames())


def _matching(workspace: Path, patterns: Sequence[str]) -> list[str]:
    """Names in the workspace that a pattern names; a folder stands for all that is in it. FilesInvalid."""
    matching = (
        name for name in names_below(workspace) if any(fnmatchcase(name, pattern) for pattern in patterns)
    )
    return sorted(matching)
