"""The demo's rental itself: run the job through the caller's daemon, watch it, and weigh both wallets."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from protocol.control import (
    LeaseView,
    LogChunk,
    LogsArgs,
    PsArgs,
    PsView,
    RunArgs,
    RunEvent,
    StopArgs,
    WaitArgs,
)
from protocol.control_wallet import WalletArgs, WalletView
from protocol.errors import QubixError
from tui import show
from tui.client import Client
from tui.demo_job import RESULT_NAME
from tui.demo_screen import Money, Screen
from tui.run import failure
from tui.safe import SafeStream

SETTLED_SECONDS: Final = 30.0
"""How long the wallets may take to show what the contract has done."""
ABANDON_SECONDS: Final = 15.0
POLL_SECONDS: Final = 0.2
STAGES: Final = {
    "quote": frozenset({"", "quoted"}),
    "fund": frozenset({"funding"}),
    "provision": frozenset({"provisioning"}),
    "run": frozenset({"running", "paused"}),
    "settle": frozenset({"stopping", "settling"}),
}
"""The demo's names for the phases of a lease, in order; "" is before there is one."""
ENDED: Final = "ended"
DOING: Final = {
    "quote": "asking the provider for a quote",
    "fund": "locking the deposit in the escrow contract",
    "provision": "sending the data file and preparing the job",
    "run": "running",
    "settle": "fetching the result and settling",
}


@dataclass(frozen=True)
class Rental:
    """A lease at its end. `seconds` has one entry a stage."""

    lease: LeaseView
    money: Money
    output: bytes
    seconds: dict[str, float]


async def rent(caller: Client, provider: Client, directory: Path, job: str, screen: Screen) -> Rental:
    """Run `job` (a job file whose paths start in `directory`) to its end and settlement."""
    output_dir = directory / "output"
    before = await _balances(caller, provider)
    watch = _Watch(caller, screen)
    try:
        async with aclosing(caller.stream("run", RunArgs(job, str(directory), str(output_dir)))) as items:
            async for event in items:
                watch.take(event)
        await watch.finish()
        lease = watch.ended_lease()
        sold: RunEvent = await provider.call("wait", WaitArgs(lease.lease_id))
        assert sold.lease is not None, "a lease that is waited for exists"
        after = await _settled_balances(caller, provider, before, lease)
    except BaseException:
        await watch.abandon(provider)
        raise
    money = Money(
        deposit=lease.deposit,
        paid=lease.paid,
        provider_received=sold.lease.provider_received,
        fee=lease.fee,
        refunded=lease.refunded,
        caller=(before[0], after[0]),
        provider=(before[1], after[1]),
        seconds=lease.seconds,
        vouchers=lease.vouchers,
        caller_risk=lease.max_loss_qu,
        provider_risk=sold.lease.max_loss_qu,
    )
    return Rental(lease, money, _read(output_dir / RESULT_NAME), watch.seconds)


class _Watch:
    """Follows the lease: times its stages, shows them, and has the job's log printed while it runs."""

    def __init__(self, caller: Client, screen: Screen) -> None:
        self.lease: LeaseView | None = None
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._caller = caller
        self._screen = screen
        self._stage = "quote"
        self._since = time.monotonic()
        self._log: asyncio.Task[None] | None = None
        screen.now("quote", DOING["quote"], self._since)

    def take(self, event: RunEvent) -> None:
        self.lease = event.lease or self.lease
        phase = self.lease.phase if self.lease else ""
        stage = next((name for name, phases in STAGES.items() if phase in phases), ENDED)
        if stage != self._stage:
            self._enter(stage)
        if stage == "run" and self._log is None and self.lease:
            self._log = asyncio.create_task(self._follow_log(self.lease.lease_id))
        if stage != ENDED:
            self._screen.now(stage, self._doing(stage), self._since)

    async def finish(self) -> None:
        """Let the log come to its end."""
        if self._log:
            await self._log

    def ended_lease(self) -> LeaseView:
        assert self.lease is not None, "the daemon answers `run` with a lease"
        error = failure(self.lease)
        if error:
            raise error
        return self.lease

    async def abandon(self, provider: Client) -> None:
        """The demo ends early: leave no job behind."""
        if self._log:
            self._log.cancel()
        if self.lease is None or self.lease.settled:
            return
        self._screen.now("stop", "ending the job", time.monotonic())
        with suppress(QubixError, TimeoutError):
            async with asyncio.timeout(ABANDON_SECONDS):
                await provider.call("stop", StopArgs(self.lease.lease_id))
                while await _is_busy(provider, self.lease.lease_id):
                    await asyncio.sleep(POLL_SECONDS)

    def _enter(self, stage: str) -> None:
        now = time.monotonic()
        self.seconds[self._stage] += now - self._since
        if stage == ENDED:
            self._screen.quiet()
        self._screen.done(self._stage, self._did(), now - self._since)
        self._stage, self._since = stage, now

    def _did(self) -> str:
        assert self.lease is not None
        lease = self.lease
        return {
            "quote": f"terms signed by both; the caller risks at most {show.qu(lease.max_loss_qu)} QU",
            "fund": f"{show.qu(lease.deposit)} QU are locked in the escrow contract",
            "provision": f"the data file is there, the job has started ({lease.runner})",
            "run": f"the job ran {lease.seconds} s",
            "settle": "result fetched, escrow closed, the rest came back",
        }[self._stage]

    def _doing(self, stage: str) -> str:
        if stage != "run" or self.lease is None:
            return DOING[stage]
        return f"{show.qu(self.lease.promised)} QU used, {self.lease.vouchers} vouchers"

    async def _follow_log(self, lease_id: str) -> None:
        safe, rest = SafeStream(), ""
        try:
            async with aclosing(self._caller.stream("logs", LogsArgs(lease_id, follow=True))) as items:
                async for item in items:
                    data = item.data if isinstance(item, LogChunk) else b""
                    *lines, rest = (rest + safe.decode(data)).split("\n")
                    for line in lines:
                        self._screen.log_line(line)
        except QubixError as error:
            self._screen.log_line(f"(the log cannot be followed: {error})")


async def _is_busy(provider: Client, lease_id: str) -> bool:
    view: PsView = await provider.call("ps", PsArgs(all=True))
    busy = STAGES["provision"] | STAGES["run"] | {"stopping"}
    return any(lease.lease_id == lease_id and lease.phase in busy for lease in view.leases)


async def _balances(caller: Client, provider: Client) -> tuple[int, int]:
    wallets: list[WalletView] = [await side.call("wallet", WalletArgs()) for side in (caller, provider)]
    return wallets[0].balance, wallets[1].balance


async def _settled_balances(
    caller: Client, provider: Client, before: tuple[int, int], lease: LeaseView
) -> tuple[int, int]:
    """Both balances once they show the settlement, or as they are when that takes too long."""
    due, began = (before[0] - lease.paid, before[1] + lease.paid - lease.fee), time.monotonic()
    after = await _balances(caller, provider)
    while after != due and time.monotonic() - began < SETTLED_SECONDS:
        await asyncio.sleep(POLL_SECONDS)
        after = await _balances(caller, provider)
    return after


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
