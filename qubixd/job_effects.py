"""The lease machine's effects on jobs; see effects.py. What can never succeed comes back as an event."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from protocol import lease_model as m
from protocol import messages
from protocol.errors import (
    DiskFull,
    FilesInvalid,
    ImageUnavailable,
    InternetUnavailable,
    JobMissing,
    MessageInvalid,
    PeerRefused,
    QubixError,
    StartFailed,
)
from protocol.lease_model import Event
from protocol.lease_state import LIVE, Lease, Phase
from protocol.messages import MAX_MESSAGE_BYTES
from protocol.units import LeaseId, UnixMs
from qubixd.image_check import check_image
from qubixd.jobfiles import MIB
from qubixd.leases import Task
from qubixd.runner import JobState, Runner, RunSpec
from qubixd.talk import (
    FILES_PROTOCOL,
    IDLE_TIMEOUT_S,
    LOGS_PROTOCOL,
    patience,
    receive_signed,
    send_signed,
)
from qubixd.wire import Stream

if TYPE_CHECKING:
    from qubixd.effects import Performer

log = logging.getLogger("qubix.effects")

STOP_GRACE_S: Final = 10.0
READY_TRY_S: Final = 30.0
"""How long one run of a readiness command may take."""
READY_PAUSE_S: Final = 1.0
MAX_RESULT_BYTES: Final = 1 << 30
"""How much log a caller takes from a provider."""
NOT_STARTED: Final = (StartFailed, ImageUnavailable, InternetUnavailable, DiskFull)
"""What the runner says when it will not start a job another time either."""
PROVING: Final = LIVE | {Phase.PROVISIONING}


# --- until it is ready ----------------------------------------------------------------------------


async def run_pull(performer: Performer, task: Task, effect: m.RunPull) -> Event | None:
    lease = task.lease
    try:
        with trio.fail_after(lease.terms.pull_seconds):
            await _runner(performer).pull(lease.terms.image, partial(performer.progress.say, lease))
            await check_image(_runner(performer), lease.terms.image, lease.terms.wish, performer.machine)
    except trio.TooSlowError:
        sentence = f"the image did not come within {lease.terms.pull_seconds} s"
        return m.RunFailed("lease.pull_timeout", sentence, performer.now_ms())
    except (ImageUnavailable, DiskFull) as error:
        return _failed(performer, error)
    return m.RunPulled(performer.now_ms())


async def run_start(performer: Performer, task: Task, effect: m.RunStart) -> Event | None:
    lease, lease_id = task.lease, task.lease.lease_id
    performer.progress.say(lease, "starting the container", 0.0)
    try:
        if (await _runner(performer).status(lease_id)).state is JobState.ABSENT:
            await performer.files.prepare_workspace(lease_id, lease.terms.wish.disk_mib)
        started_at = await _runner(performer).start(_spec(performer, lease))
    except (*NOT_STARTED, FilesInvalid, MessageInvalid) as error:
        return _failed(performer, error)
    return m.RunStarted(started_at, performer.now_ms())


async def run_prove(performer: Performer, task: Task, effect: m.RunProve) -> Event | None:
    """The caller's own look at the machine. Whatever it fails of, nothing of the job has begun."""
    if task.lease.phase not in PROVING:
        return None
    if performer.prove is None:
        sentence = "this node cannot prove machines; rent with `proof: never`"
        return m.RunProved("proof.unavailable", sentence, performer.now_ms())
    verdict = await performer.prove(task.lease)
    return m.RunProved(verdict.code, verdict.sentence, performer.now_ms())


async def run_go(performer: Performer, task: Task, effect: m.RunGo) -> Event | None:
    """Let the job begin and wait until it is ready. One that ends before is told of by its watcher."""
    lease, runner = task.lease, _runner(performer)
    if lease.phase is not Phase.PROVISIONING:
        return None
    order = performer.files.order(lease.lease_id)
    performer.progress.say(lease, "waiting until the job is ready", 0.0)
    try:
        began_at = await _let_go(performer, lease)
    except (*NOT_STARTED, MessageInvalid) as error:
        return _failed(performer, error)
    if began_at is None:  # whatever its image is made of: no fault of the provider's
        sentence = "the job's container ended before the job began"
        return m.RunFailed("job.not_ready", sentence, performer.now_ms())
    if not order.ready:
        return m.RunReady(began_at, performer.now_ms())
    try:
        while not await _is_ready(runner, lease.lease_id, order.ready):
            await trio.sleep(READY_PAUSE_S)
    except JobMissing:
        return None
    now = performer.now_ms()
    return m.RunReady(now, now)


async def _let_go(performer: Performer, lease: Lease) -> UnixMs | None:
    """When the job began, also if it has ended since; None if its container ended before it could."""
    runner = _runner(performer)
    secrets = performer.files.secrets(lease.lease_id, performer.key)
    try:
        return await runner.release(lease.lease_id, secrets)
    except JobMissing:
        return (await runner.status(lease.lease_id)).released_at


async def _is_ready(runner: Runner, lease_id: LeaseId, command: str) -> bool:
    """One try of a job's own readiness command, whose output nobody reads. JobMissing."""
    with trio.move_on_after(READY_TRY_S):
        try:
            inside = await runner.inside(lease_id, ["/bin/sh", "-c", f"exec >/dev/null 2>&1\n{command}"])
        except StartFailed as error:
            log.info("lease %s: not ready: %s", lease_id.hex()[:12], error)
            return False
        try:
            return await inside.exit_code() == 0
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(READY_PAUSE_S):
                await inside.aclose()
    return False


# --- while it runs --------------------------------------------------------------------------------


async def run_pause(performer: Performer, task: Task, effect: m.RunPause) -> Event | None:
    await _if_there(_runner(performer).pause(task.lease.lease_id))
    return None


async def run_resume(performer: Performer, task: Task, effect: m.RunResume) -> Event | None:
    await _if_there(_runner(performer).resume(task.lease.lease_id))
    return None


async def run_restart(performer: Performer, task: Task, effect: m.RunRestart) -> Event | None:
    """Not after the lease has been stopped. If the job cannot begin anew, its last end counts."""
    lease, began_at = task.lease, UnixMs(0)
    if lease.phase not in LIVE:
        return None
    secrets = performer.files.secrets(lease.lease_id, performer.key)
    try:
        began_at = await _runner(performer).restart(lease.lease_id, secrets, STOP_GRACE_S, effect.nonce)
    except (*NOT_STARTED, JobMissing, MessageInvalid) as error:
        log.warning("lease %s: the job was not begun anew: %s", lease.lease_id.hex()[:12], error)
    return m.RunRestarted(effect.nonce, began_at, performer.now_ms())


# --- its end --------------------------------------------------------------------------------------


async def run_stop(performer: Performer, task: Task, effect: m.RunStop) -> Event | None:
    await _runner(performer).stop(task.lease.lease_id, STOP_GRACE_S)
    return None


async def run_collect(performer: Performer, task: Task, effect: m.RunCollect) -> Event | None:
    lease_id, disk_mib = task.lease.lease_id, task.lease.terms.wish.disk_mib
    files, runner = performer.files, _runner(performer)
    await _if_there(files.keep_log(lease_id, runner.logs(lease_id, follow=False)))
    try:
        packed = await files.collect_outputs(lease_id, disk_mib)
    except FilesInvalid as error:
        log.warning("lease %s: outputs not collected: %s", lease_id.hex()[:12], error)
        packed = None
    await runner.remove(lease_id)
    await files.forget(lease_id, ("secrets",))
    if packed is None:
        return m.RunCollected(bytes(32), 0, performer.now_ms())
    return m.RunCollected(packed.sha256, packed.size, performer.now_ms())


async def run_discard(performer: Performer, task: Task, effect: m.RunDiscard) -> Event | None:
    lease_id = task.lease.lease_id
    await _runner(performer).stop(lease_id, STOP_GRACE_S)
    await _runner(performer).remove(lease_id)
    await performer.files.forget(lease_id, ("workspace", "parts", "inputs.tar", "secrets"))
    return m.RunDiscarded(performer.now_ms())


async def run_fetch(performer: Performer, task: Task, effect: m.RunFetch) -> Event | None:
    lease, size = task.lease, effect.outputs_bytes
    try:
        await _fetch_log(performer, lease)
        if size:
            await _fetch_outputs(performer, lease, effect)
            target = Path(lease.output_dir)
            await performer.files.deliver_outputs(lease.lease_id, effect.outputs_sha256, target)
    except (PeerRefused, FilesInvalid, MessageInvalid, DiskFull, OSError) as error:
        code = error.code if isinstance(error, QubixError) else "disk.unwritable"
        return m.RunFetched(code, f"the outputs could not be fetched: {error}", performer.now_ms())
    return m.RunFetched("", "", performer.now_ms())


async def _fetch_outputs(performer: Performer, lease: Lease, effect: m.RunFetch) -> None:
    limit = lease.terms.wish.disk_mib * MIB + 2 * MIB
    if effect.outputs_bytes > limit:
        raise MessageInvalid(f"the provider announces {effect.outputs_bytes} bytes of outputs")
    target = performer.files.path(lease.lease_id, "outputs.tar")
    stream = await performer.open(lease, FILES_PROTOCOL)
    async with stream:
        await send_signed(stream, performer.key.sign(messages.GetOutputs(lease.lease_id, 0)))
        await stream.send_eof()
        await receive_signed(stream, lease.terms.provider)
        await performer.files.receive_file(stream, target, effect.outputs_bytes, effect.outputs_sha256)


async def _fetch_log(performer: Performer, lease: Lease) -> None:
    stream = await performer.open(lease, LOGS_PROTOCOL)
    async with stream:
        request = messages.GetLogs(lease.lease_id, offset=0, follow=False)
        await send_signed(stream, performer.key.sign(request))
        await stream.send_eof()
        await receive_signed(stream, lease.terms.provider)
        await performer.files.keep_log(lease.lease_id, read_all(stream, MAX_RESULT_BYTES))


# --- for all of them ------------------------------------------------------------------------------


def _runner(performer: Performer) -> Runner:
    assert performer.runner is not None, "only providers have jobs to run"
    return performer.runner


async def _if_there(action: Awaitable[None]) -> None:
    try:
        await action
    except JobMissing:
        log.debug("no job is left to act on")


def _failed(performer: Performer, error: QubixError) -> Event:
    return m.RunFailed(error.code, str(error), performer.now_ms())


def _gpu_uuids(performer: Performer, lease: Lease) -> tuple[str, ...]:
    try:
        return tuple(performer.gpu_uuid_of(digest) for digest in lease.terms.gpu_digests)
    except KeyError as error:
        raise StartFailed("a graphics card of this lease is not in this machine any more") from error


def _spec(performer: Performer, lease: Lease) -> RunSpec:
    order, wish = performer.files.order(lease.lease_id), lease.terms.wish
    return RunSpec(
        lease_id=lease.lease_id,
        image=order.image,
        script=order.script,
        env=order.envs,
        workspace=performer.files.path(lease.lease_id, "workspace"),
        gpu_uuids=_gpu_uuids(performer, lease),
        cpu_millis=wish.cpu_millis,
        memory_bytes=wish.memory_mib * MIB,
        disk_bytes=wish.disk_mib * MIB,
        internet=wish.internet,
    )


async def read_all(stream: Stream, max_bytes: int) -> AsyncGenerator[bytes, None]:
    """The rest of a stream in chunks, cut off at `max_bytes`."""
    left = max_bytes
    while left:
        with patience(IDLE_TIMEOUT_S):
            chunk = bytes(await stream.receive_some(min(MAX_MESSAGE_BYTES, left)))
        if not chunk:
            return
        left -= len(chunk)
        yield chunk
