"""A node as a Python program uses it: one typed method per thing to do, each one verb of the control API.

Whatever has no method here goes through `node.client`, with the arguments and answers of protocol/control.py.
Leases are named by their id or an unambiguous beginning of it. Money is whole QU.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from protocol import control, control_watch
from protocol.control_extend import ExtendArgs, ExtendView
from protocol.control_market import MarketArgs, MarketView
from protocol.control_wallet import PaymentView, SendArgs, WalletArgs, WalletView
from qubix import client as clients
from qubix.places import control_socket, data_dir


@asynccontextmanager
async def connect(directory: str | os.PathLike[str] | None = None) -> AsyncIterator[Node]:
    """The node whose files are in that directory; by default the one that `qubix` speaks to.

    DaemonUnreachable if no daemon answers, VersionMismatch if it is of another version.
    """
    async with clients.connect(control_socket(data_dir(directory))) as client:
        yield Node(client)


@dataclass(frozen=True)
class Node:
    """Every method raises the QubixError that the daemon answers with."""

    client: clients.Client

    async def status(self) -> control.StatusView:
        view: control.StatusView = await self.client.call("status", control.StatusArgs())
        return view

    async def market(self, where: str = "", *, sort: str = "", limit: int = 100) -> MarketView:
        """Offers for which `where` holds, in the filter language: "gpu=RTX_4090 reliability>0.98"."""
        args = MarketArgs(filter=where, sort=sort, limit=limit)
        view: MarketView = await self.client.call("market", args)
        return view

    async def run(
        self,
        job: str | os.PathLike[str],
        *,
        max_price_qu_per_hour: int | None = None,
        where: str = "",
        provider: str = "",
        output_dir: str | os.PathLike[str] | None = None,
        secrets: Mapping[str, str] | None = None,
        detach: bool = False,
    ) -> AsyncGenerator[control.RunEvent, None]:
        """Rent a machine for the job file at `job` and follow the job to its end; with `detach` only until
        the lease exists. It signs the cheapest terms that fit without asking: set a limit. Outputs go to
        `output_dir`, by default a new folder here. A job goes on when nobody follows it."""
        path = Path(job).absolute()
        args = control.RunArgs(
            job_yaml=path.read_text("utf-8"),
            base_dir=str(path.parent),
            output_dir=str(Path(output_dir or f"{path.stem}-{time.strftime('%Y%m%d-%H%M%S')}").absolute()),
            secrets=dict(secrets or {}),
            max_price_qu_per_hour=max_price_qu_per_hour,
            provider=provider,
            where=where,
            detach=detach,
        )
        async with aclosing(self.client.stream("run", args)) as events:
            async for event in events:
                yield event

    async def leases(self, *, ended: bool = False) -> list[control.LeaseView]:
        """Those under way, with `ended` all there ever were; oldest first."""
        view: control.PsView = await self.client.call("ps", control.PsArgs(all=ended))
        return view.leases

    async def wait(self, lease: str) -> AsyncGenerator[control.RunEvent, None]:
        """Every change of a lease, to its end."""
        async with aclosing(self.client.stream("wait", control.WaitArgs(lease))) as events:
            async for event in events:
                yield event

    async def logs(self, lease: str, *, follow: bool = False) -> AsyncGenerator[bytes, None]:
        """What the job has printed, piece by piece, as its provider sent it: not to be trusted."""
        async with aclosing(self.client.stream("logs", control.LogsArgs(lease, follow))) as chunks:
            async for chunk in chunks:
                if isinstance(chunk, control.LogChunk):
                    yield chunk.data

    async def stop(self, lease: str) -> control.RunEvent:
        """Ask for the end; `wait` tells when it has come."""
        return await self._change("stop", control.StopArgs(lease))

    async def pause(self, lease: str) -> control.RunEvent:
        """Freeze a job. The machine stays reserved and the meter runs on."""
        return await self._change("pause", control.PauseArgs(lease))

    async def resume(self, lease: str) -> control.RunEvent:
        return await self._change("resume", control.ResumeArgs(lease))

    async def restart(self, lease: str) -> control.RunEvent:
        """End a job and begin it anew in its workspace. The meter runs on."""
        return await self._change("restart", control.RestartArgs(lease))

    async def extend(
        self,
        lease: str,
        seconds: int,
        *,
        order: str = "",
        max_cost_qu: int | None = None,
        check: bool = False,
    ) -> ExtendView:
        """Add time to a running job; comes back when its money is locked. With the same `order` it is added
        once only, however often it is asked for; with `check` it is only said what it would take."""
        args = ExtendArgs(lease, seconds, order or os.urandom(8).hex(), max_cost_qu, check)
        view: ExtendView = await self.client.call("extend", args)
        return view

    async def _change(self, verb: str, args: object) -> control.RunEvent:
        event: control.RunEvent = await self.client.call(verb, args)
        return event

    async def wallet(self) -> WalletView:
        view: WalletView = await self.client.call("wallet", WalletArgs())
        return view

    async def send(self, payment_id: str, identity: str, amount: int) -> PaymentView:
        """Pay an account; comes back when that is final. With the same `payment_id` it is paid once only,
        however often it is asked for."""
        view: PaymentView = await self.client.call("send", SendArgs(payment_id, identity, amount))
        return view

    async def watch(
        self, *, leases: bool = True, wallet: bool = True, market: bool = False, notices: bool = True
    ) -> AsyncGenerator[control_watch.WatchEvent, None]:
        """The present state, then what changes, for as long as it is read."""
        args = control_watch.WatchArgs(leases, wallet, market, notices)
        async with aclosing(self.client.stream("watch", args)) as events:
            async for event in events:
                yield event
