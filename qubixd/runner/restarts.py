"""Restarts of jobs, each once however often it is asked for and wherever a daemon died in between."""

from __future__ import annotations

import enum
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from typing import Final

import trio

from protocol.errors import DiskFull, ImageUnavailable, InternetUnavailable, JobMissing, StartFailed
from protocol.units import LeaseId, UnixMs
from qubixd.runner.common import JobNotes, job_missing
from qubixd.runner.gate import Passage

NOTE: Final = "restart"
EARLIER_KEPT: Final = 64
FINAL: Final = (StartFailed, ImageUnavailable, InternetUnavailable, JobMissing, DiskFull)
"""After these the job stays as it is; after others the restart is asked for again."""


class Stage(enum.StrEnum):
    UNDER_WAY = "under_way"
    DONE = "done"
    FAILED = "failed"
    """Also of one that a stop came before."""


@dataclass(frozen=True)
class Restart:
    """One wish to restart a job."""

    nonce: str
    run: str
    """The run that was to end; a job at another one has already begun anew."""
    stage: Stage = Stage.UNDER_WAY
    reason: str = ""
    """Why it failed."""
    earlier: tuple[str, ...] = ()
    """Nonces of restarts before, the last first."""


Again = Callable[[Restart], Awaitable[Passage]]


class Restarts:
    """The durable notes of restarts, and who may begin a job's next run."""

    def __init__(self, notes: JobNotes) -> None:
        self._notes = notes
        self._beginning: defaultdict[LeaseId, trio.Lock] = defaultdict(trio.Lock)

    def last(self, lease_id: LeaseId) -> Restart | None:
        text = self._notes.read(lease_id, NOTE)
        if text is None:
            return None
        content = json.loads(text)
        stage, earlier = Stage(content["stage"]), tuple(content["earlier"])
        return Restart(content["nonce"], content["run"], stage, content["reason"], earlier)

    def under_way(self, lease_id: LeaseId) -> bool:
        last = self.last(lease_id)
        return last is not None and last.stage is Stage.UNDER_WAY

    async def once(self, lease_id: LeaseId, nonce: bytes, run: str, again: Again) -> UnixMs:
        """Do it `again` unless that nonce's restart was done; when the job's present run was let go."""
        restart = self._intend(lease_id, nonce.hex(), run)
        if restart.stage is Stage.FAILED:
            raise StartFailed(f"the job could not be restarted: {restart.reason}")
        try:
            passage = await again(restart)
        except FINAL as error:
            self._keep(lease_id, replace(restart, stage=Stage.FAILED, reason=str(error)))
            raise
        self._keep(lease_id, replace(restart, stage=Stage.DONE))
        return passage.at

    def _intend(self, lease_id: LeaseId, nonce: str, run: str) -> Restart:
        """The restart of that nonce, as far as it came; a new one is to end `run`. DiskFull."""
        last = self.last(lease_id)
        if last is None:
            return self._keep(lease_id, Restart(nonce, run))
        if nonce == last.nonce or nonce in last.earlier:
            return last
        return self._keep(lease_id, Restart(nonce, run, earlier=(last.nonce, *last.earlier)[:EARLIER_KEPT]))

    async def begin_anew(self, lease_id: LeaseId, begin: Callable[[], Awaitable[object]]) -> None:
        """`begin` the next run, unless a stop came before: then JobMissing."""
        async with self._beginning[lease_id]:
            if not self.under_way(lease_id):
                raise job_missing(lease_id)
            self._notes.forget_reason(lease_id)
            await begin()

    async def cancel(self, lease_id: LeaseId) -> bool:
        """Keep a restart that is under way from beginning anything; whether there was one."""
        if not self.under_way(lease_id):
            return False
        async with self._beginning[lease_id]:
            if last := self.last(lease_id):
                self._keep(lease_id, replace(last, stage=Stage.FAILED, reason="it was stopped meanwhile"))
        return True

    def forget(self, lease_id: LeaseId) -> None:
        self._beginning.pop(lease_id, None)

    def _keep(self, lease_id: LeaseId, restart: Restart) -> Restart:
        self._notes.write(lease_id, NOTE, json.dumps(asdict(restart)))
        return restart
