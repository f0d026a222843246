"""Keeps what jobs were asked for with, so that an ended one can be rented again.

<data dir>/requests/<lease id>, 0600: a job file may say in its variables what is nobody else's business.
Values of secrets are not kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from ledger.store import RunSync
from protocol.control_again import JobFileView
from protocol.control_leases import RunArgs
from protocol.errors import NotFound
from protocol.units import LeaseId
from qubixd.jobfiles import disk_errors, write_private

KEEP_MS: Final = 30 * 24 * 3_600_000
"""After the end of a lease."""


class Requests:
    def __init__(self, root: Path, in_thread: RunSync) -> None:
        self._folder = root / "requests"
        self._in_thread = in_thread

    async def keep(self, lease_id: LeaseId, name: str, args: RunArgs) -> None:
        """Write it down for a lease that has just been opened. DiskFull."""
        asked = (args.where, args.order_by, args.provider, args.max_price_qu_per_hour)
        view = JobFileView(lease_id.hex(), name, args.job_yaml, args.base_dir, *asked)

        def write() -> None:
            with disk_errors():
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_private(self._folder / view.lease_id, msgspec.msgpack.encode(view))

        await self._in_thread(write)

    async def get(self, lease_id: LeaseId) -> JobFileView:
        """NotFound where nothing is kept any more."""
        try:
            kept = await self._in_thread((self._folder / lease_id.hex()).read_bytes)
            return msgspec.msgpack.decode(kept, type=JobFileView)
        except (OSError, msgspec.MsgspecError) as error:
            short = lease_id.hex()[:8]
            raise NotFound(
                f"the job file of lease {short} is not kept here; run its own file again"
            ) from error

    async def known(self) -> frozenset[LeaseId]:
        """The leases whose requests are kept."""

        def look() -> frozenset[LeaseId]:
            names = (path.name for path in self._folder.glob("[0-9a-f]" * 64))
            return frozenset(LeaseId(bytes.fromhex(name)) for name in names)

        return await self._in_thread(look)

    async def forget(self, lease_id: LeaseId) -> None:
        await self._in_thread(lambda: (self._folder / lease_id.hex()).unlink(missing_ok=True))
