"""`qubix demo`: a whole rental on this machine, on real parts and with test money.

A private Qubic network, a provider and a caller run as processes of their own on loopback. The caller
finds the provider's offer, locks a deposit in the escrow contract, has a job run on a data file, pays
for it by vouchers and gets the rest back. Then everything is counted and checked.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import secrets
import shutil
import signal
import string
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from protocol.control_market import MarketArgs, MarketView, OfferView
from protocol.errors import DaemonUnreachable, EngineUnreachable, ImageUnavailable, NoOffer, QubixError
from tui import argument, demo_job, show
from tui.client import Client, connect
from tui.demo_chain import Foreign, foreign_of, give_back, lend
from tui.demo_image import ensure_image
from tui.demo_rental import Rental, rent
from tui.demo_screen import Screen
from tui.places import control_socket
from tui.processes import Child, end, last_words, module_command, start

PRICE_QU_PER_HOUR: Final = 360_000
"""100 QU a second: the sums come out round."""
CALLER_QU: Final = 1_000_000
PROVIDER_QU: Final = 10_000
TICK_SECONDS: Final = 0.5
DEVNET_SECONDS: Final = 300.0
"""The first start compiles the contract, perhaps with a compiler that is new to this machine."""
DAEMON_SECONDS: Final = 90.0
DISCOVER_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.2
ALIVE_SECONDS: Final = 0.5
"""How often the processes are looked after."""
SEED_LETTERS: Final = 55
MAX_TEMP_CHARS: Final = 55
T = TypeVar("T")
PARTS: Final = ("network", "provider", "caller")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--runner", choices=("auto", "docker", "process"), default="auto", help="what runs it"
    )
    parser.add_argument("--keep", action="store_true", help="keep the files and logs of the demo")
    parser.add_argument(
        "--chain",
        metavar="URL",
        help="a chain of yours: node://HOST:PORT[,HOST:PORT...] or rpc+http://HOST:PORT",
    )
    parser.add_argument(
        "--contract-index", type=argument.count, metavar="N", help="where the contract is on it"
    )
    parser.add_argument("--wallet-seed-file", metavar="FILE", help="the wallet that pays there, mode 0600")


async def demo(options: argparse.Namespace) -> int:
    """The exit code: 0 if the job ran and every sum is right."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, _cancel_me())
    foreign = foreign_of(options)
    screen, began = Screen(as_json=options.json), time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="qubix-demo-", dir=_short_temp()))
    children: list[Child] = []
    stage = Stage(directory, children, screen, foreign)
    try:
        money = f"on {foreign.chain}" if foreign else "with test money on a private network"
        screen.say(f"qubix demo: a whole rental on this machine, {money}")
        report = await _play(options.runner, stage, began)
    except QubixError:
        screen.logs_of(_suspects(directory, children))
        raise
    except asyncio.CancelledError:
        screen.quiet()
        screen.say("Stopped; everything that was started here is ended.")
        raise
    finally:
        screen.quiet()
        end(children)
        if stage.lent:
            screen.say(
                f"The provider's wallet may still hold money; its keys are kept in {directory}", show.BAD
            )
        _tidy(directory, screen, keep=options.keep or stage.lent)
    if options.json:
        show.print_json(report)
    return 0 if report["ok"] else 1


def _suspects(directory: Path, children: list[Child]) -> dict[str, Path]:
    """Logs worth a look after a failure: of what did not start, of what has died, else of the daemons."""
    logs = {name: directory / f"{name}.log" for name in PARTS}
    running = {child.name for child in children if child.process.poll() is None}
    failed = {name: log for name, log in logs.items() if name not in running and log.exists()}
    return failed or {name: logs[name] for name in running - {"network"}}


def _short_temp() -> str | None:
    """Where temporary files go; /tmp where that path is too long to hold a unix socket's."""
    return None if len(tempfile.gettempdir()) <= MAX_TEMP_CHARS else "/tmp"


def _cancel_me() -> Any:
    task = asyncio.current_task()
    assert task is not None
    return task.cancel


def _tidy(directory: Path, screen: Screen, *, keep: bool) -> None:
    if keep:
        screen.say(f"Files and logs are in {directory}")
    else:
        shutil.rmtree(directory, ignore_errors=True)


async def _play(runner: str, stage: Stage, began: float) -> dict[str, Any]:
    """The demo from the first step to the report."""
    directory, children, screen = stage.directory, stage.children, stage.screen
    runner, image = await _choose_runner(runner, screen)
    data = directory / demo_job.DATA_NAME
    with screen.step("data", "writing a data file") as said:
        await asyncio.to_thread(demo_job.write_data, data)
        readings = demo_job.CARDS * demo_job.READINGS_PER_CARD
        said.append(f"{data.name}: {readings:,} readings, {data.stat().st_size / 1e6:.1f} MB")
    expected = await asyncio.to_thread(demo_job.expected_result, data)
    await stage.set_up(runner)
    async with (
        connect(stage.socket("caller")) as caller,
        connect(stage.socket("provider")) as provider,
        stage.funded(caller, provider),  # a provider without money for a bond offers nothing
    ):
        discover_seconds = await _while_alive(children, _discover(caller, screen))
        work = rent(caller, provider, directory, demo_job.job_file(image), screen)
        rental = await _while_alive(children, work)
        report = _report(rental, runner, expected, screen, discover_seconds, began)
    return report


async def _while_alive(children: list[Child], work: Coroutine[Any, Any, T]) -> T:
    """The work's result; the last words of the first of the processes that dies before it is there."""
    task = asyncio.create_task(work)
    try:
        while not task.done():
            _all_alive(children)
            await asyncio.wait({task}, timeout=ALIVE_SECONDS)
        if isinstance(task.exception(), DaemonUnreachable):
            await asyncio.sleep(ALIVE_SECONDS)  # a connection breaks before its process is seen to have ended
            _all_alive(children)
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _all_alive(children: list[Child]) -> None:
    """The last words of a process that has died, raised."""
    for child in children:
        if child.process.poll() is not None:
            raise last_words(child.name, child.log, child.process.returncode)


async def _choose_runner(wanted: str, screen: Screen) -> tuple[str, str]:
    """(runner, image): a container if one can be had, else a plain process, and a sentence why."""
    if wanted != "process":
        try:
            with screen.step("image", "packing a container image from this machine's programs") as said:
                image = await asyncio.to_thread(ensure_image)
                said.append(f"{image}, packed from this machine's programs")
            return "docker", image
        except (EngineUnreachable, ImageUnavailable) as error:
            screen.quiet()
            if wanted == "docker":
                raise
            screen.say(f"The job runs as a plain process, without a container: {error}.")
    return "process", "qubix-demo:none"


@dataclass
class Stage:
    """The three processes, two where the network is there already. `set_up` starts them one after the
    other: each needs the one before."""

    directory: Path
    children: list[Child]
    screen: Screen
    foreign: Foreign | None
    lent: bool = False
    """The provider's wallet holds money of the caller's."""

    async def set_up(self, runner: str) -> None:
        seeds = {"provider": self._secret_file("provider.seed", _seed())}
        if self.foreign:
            seeds["caller"], chain = self.foreign.seed_file, self.foreign.options
        else:
            seeds["caller"] = self._secret_file("caller.seed", _seed())
            chain = await self._private_network(seeds)
        with self.screen.step("provider", "starting the provider's daemon") as said:
            offers = ("--provider", "--price", str(PRICE_QU_PER_HOUR), "--runner", runner)
            provider = await self._daemon("provider", seeds["provider"], *chain, *offers)
            said.append(f"offers this machine for {PRICE_QU_PER_HOUR // 3_600} QU a second")
        with self.screen.step("caller", "starting the caller's daemon") as said:
            meet = [word for address in provider.ready["addresses"] for word in ("--bootstrap", address)]
            await self._daemon("caller", seeds["caller"], *chain, *meet)
            wallet = "your wallet" if self.foreign else f"{CALLER_QU:,} QU in its wallet"
            said.append(f"a second daemon, with {wallet}")

    @asynccontextmanager
    async def funded(self, caller: Client, provider: Client) -> AsyncIterator[None]:
        """On a foreign chain: money in the provider's wallet, and back again however the rental ends."""
        if self.foreign is None:
            yield
            return
        self.lent = True
        await _while_alive(self.children, lend(caller, provider, self.screen))
        try:
            yield
        finally:
            self.lent = not await give_back(caller, provider, self.screen)

    async def _private_network(self, seeds: dict[str, Path]) -> tuple[str, ...]:
        """Start it; the daemons' options for it."""
        with self.screen.step("network", "starting a private Qubic network (compiles the contract)") as said:
            funds = ((seeds["caller"], CALLER_QU), (seeds["provider"], PROVIDER_QU))
            options = [word for seed, amount in funds for word in ("--fund-seed-file", f"{seed}={amount}")]
            ticks = ("--port", "0", "--tick-seconds", str(TICK_SECONDS), "--json")
            network = await self._start("network", "escrow_bridge.devnet", DEVNET_SECONDS, *ticks, *options)
            said.append("a private Qubic network with the escrow contract")
        nodes = ",".join(network.ready["nodes"])
        return ("--chain", f"node://{nodes}", "--contract-index", str(network.ready["contract_index"]))

    def socket(self, name: str) -> Path:
        return control_socket(self.directory / name)

    async def _daemon(self, name: str, seed: Path, *options: str) -> Child:
        passphrase = self._secret_file(f"{name}.passphrase", secrets.token_hex(16))
        keys = ("--wallet-seed-file", str(seed), "--passphrase-file", str(passphrase))
        place = (
            "--data-dir",
            str(self.directory / name),
            "--listen",
            "127.0.0.1:0",
            "--name",
            f"demo-{name}",
        )
        rest = ("--interval", "1", "--json")
        return await self._start(name, "qubixd", DAEMON_SECONDS, *place, *keys, *options, *rest)

    async def _start(self, name: str, module: str, seconds: float, *options: str) -> Child:
        command = module_command(module, *options)
        child = await start(name, command, self.directory / f"{name}.log", seconds, self._environment())
        self.children.append(child)
        return child

    def _environment(self) -> dict[str, str]:
        """This process's, without the settings of the person's own node."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("QUBIX_")}
        return own | {"XDG_CONFIG_HOME": str(self.directory / "config")}

    def _secret_file(self, name: str, content: str) -> Path:
        path = self.directory / name
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(content)
        return path


def _seed() -> str:
    return "".join(secrets.choice(string.ascii_lowercase) for _ in range(SEED_LETTERS))


async def _discover(caller: Client, screen: Screen) -> float:
    """Wait until the provider's offer has reached the caller; the seconds that took."""
    began = time.monotonic()
    with screen.step("discover", "waiting for the provider's offer to arrive") as said:
        while not (offers := await _foreign_offers(caller)):
            if time.monotonic() - began > DISCOVER_SECONDS:
                raise NoOffer(
                    f"the provider's offer did not reach the caller in {DISCOVER_SECONDS:g} seconds"
                )
            await asyncio.sleep(POLL_SECONDS)
        offer = offers[0]
        said.append(f"{offer.name} asks {show.qu(offer.price_qu_per_hour)} QU an hour")
    return time.monotonic() - began


async def _foreign_offers(caller: Client) -> list[OfferView]:
    view: MarketView = await caller.call("market", MarketArgs())
    return [offer for offer in view.offers if not offer.own and not offer.withdrawn]


def _report(
    rental: Rental, runner: str, expected: bytes, screen: Screen, discover_seconds: float, began: float
) -> dict[str, Any]:
    """Count and check everything; show it; the object that `--json` prints."""
    lease, output = rental.lease, rental.output
    digest = hashlib.sha256(output).hexdigest() if output else ""
    screen.result(
        demo_job.RESULT_NAME,
        output.decode(errors="replace").splitlines()[:4],
        digest,
        matches=output == expected,
    )
    screen.balance_sheet(rental.money)
    wrong = [*rental.money.mistakes()]
    if lease.phase != "done" or lease.exit_code != 0:
        wrong.append(f"the lease ended as {lease.phase} with exit code {lease.exit_code}: {lease.sentence}")
    if output != expected:
        wrong.append("the result is not what the same computation gives here")
    for sentence in wrong:
        screen.say(f"WRONG: {sentence}", show.BAD)
    seconds = {"discover": discover_seconds, **rental.seconds, "total": time.monotonic() - began}
    return {
        "ok": not wrong,
        "runner": lease.runner or runner,
        "lease_id": lease.lease_id,
        "state": lease.phase,
        "deposit": lease.deposit,
        "paid": lease.paid,
        "provider_received": rental.money.provider_received,
        "fee": rental.money.fee,
        "refunded": lease.refunded,
        "vouchers": lease.vouchers,
        "exit_code": lease.exit_code,
        "output_sha256": digest,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }
