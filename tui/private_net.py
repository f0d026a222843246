"""The private network of this machine: where `qubix up` goes if nobody names a chain.

One devnet process for everybody who starts nodes as this user, found through a folder of its own beside the
nodes' data directories. The first `up` starts it, later ones join: they get its address, a wallet with play
money if they have none yet, and the addresses of those who joined before them.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import random
import signal
import string
import time
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import psutil
from msgspec import Meta

from protocol.codec import convert
from protocol.control import StatusArgs, StatusView
from protocol.errors import ConfigInvalid, MessageInvalid, NotFound, QubixError
from tui.client import connect
from tui.places import control_socket, data_home
from tui.processes import module_command, start

DEVNET: Final = "escrow_bridge.devnet"
WALLETS: Final = 16
"""So many nodes of a machine get play money."""
WALLET_QU: Final = 1_000_000_000
QU_PER_CREDIT: Final = 1_000_000
"""Play money needs an exchange rate, too: with it a CPU costs some 280 QU a second."""
START_SECONDS: Final = 120.0
"""The contract is compiled on the way."""
ANSWER_SECONDS: Final = 3.0
MAX_ANSWER_BYTES: Final = 65_536
TICKS_A_SECOND: Final = 2
SINCE: Final = 1_760_000_000
"""A network that starts later has later ticks, so that no node takes it for an earlier one gone back."""
FIRST_TICK: Final = 10_000_000
SEED_CHARS: Final = 55
SENTENCE: Final = (
    "No chain is named, so this node is on the private network of this machine: its coins are play money, "
    "and it forgets everything when it ends (`qubix devnet --end`)."
)


@dataclass(frozen=True)
class PrivateNet:
    """What a node needs to be on it."""

    chain: str
    contract_index: int
    seed_file: Path | None
    """Of a wallet with money, for a node that has none yet."""
    bootstrap: tuple[str, ...]
    log: Path
    rpc: str = ""

    @property
    def options(self) -> list[str]:
        """For the daemon's command line."""
        words = ["--chain", self.chain, "--contract-index", str(self.contract_index)]
        if self.seed_file:
            words += ["--wallet-seed-file", str(self.seed_file)]
        return words + [word for address in self.bootstrap for word in ("--bootstrap", address)]


@dataclass(frozen=True)
class _Running:
    """What the network said when it was ready."""

    nodes: Annotated[list[str], Meta(min_length=1)]
    rpc: str
    contract_index: int
    pid: Annotated[int, Meta(ge=2)]


def no_chain_named(config_file: str | None) -> bool:
    """Neither the environment nor the settings file names one. What cannot be read is the daemon's to
    complain about."""
    return not is_set("chain", config_file)


def is_set(name: str, config_file: str | None) -> bool:
    """Does the environment or the settings file say anything of this setting, as far as can be seen?"""
    if os.environ.get(f"QUBIX_{name.upper()}"):
        return True
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    path = Path(config_file or os.environ.get("QUBIX_CONFIG") or Path(home) / "qubix" / "config.toml")
    try:
        return name in tomllib.loads(path.read_text())
    except OSError:
        return False
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        return True


async def join(directory: Path, *, wants_wallet: bool) -> PrivateNet:
    """Find the network or start it, and be one of its members. ConfigInvalid, StartFailed."""
    home = net_home()
    async with _alone(home):
        seeds = _seeds(home)
        ready = await _running(home) or await _start(home, seeds)
        seed = _seed_of(home, directory, seeds) if wants_wallet else None
        others = await _others(home, directory)
        _remember(home, directory, seed)
    chain = f"node://{ready.nodes[0]}"
    return PrivateNet(chain, ready.contract_index, seed, others, home / "network.log", ready.rpc)


async def gift(identity: str) -> int:
    """Fill a wallet up to WALLET_QU with play money; its balance. NotFound if no private network runs, or
    one does that gives none."""
    ready = await _running(net_home())
    if ready is None:
        raise NotFound("no private network runs on this machine")
    try:
        _, body = await _http(ready.rpc, "POST", "/devnet/v1/gift", json.dumps({"identity": identity}))
        return int(json.loads(body)["balance"])
    except (OSError, ValueError, KeyError, TypeError, TimeoutError, asyncio.IncompleteReadError) as error:
        raise NotFound("the private network of this machine gave no play money") from error


async def end() -> int:
    """End the network; the number of its process. NotFound if none runs."""
    home = net_home()
    async with _alone(home):
        ready = await _running(home)
        if ready is None:
            raise NotFound("no private network runs on this machine")
        with suppress(ProcessLookupError):
            os.kill(ready.pid, signal.SIGTERM)
        (home / "network.json").unlink(missing_ok=True)
        return ready.pid


def net_home() -> Path:
    """Where everything of the private network lies."""
    home = data_home() / "qubix-devnet"
    try:
        for folder in (home, home / "wallets", home / "members"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigInvalid(f"the private network has no place: {home}: {error.strerror}") from error
    return home


@asynccontextmanager
async def _alone(home: Path) -> AsyncIterator[None]:
    """Two that start at the same time shall not start two networks."""
    with (home / "lock").open("w") as file:
        await asyncio.to_thread(fcntl.flock, file, fcntl.LOCK_EX)
        yield


# --- the process --------------------------------------------------------------------------------


async def _running(home: Path) -> _Running | None:
    """The one that answers now."""
    try:
        ready: _Running = convert(json.loads((home / "network.json").read_text()), _Running, "network")
        status, _ = await _http(ready.rpc, "GET", "/live/v1/tick-info")
    except (OSError, ValueError, MessageInvalid, TimeoutError, asyncio.IncompleteReadError):
        return None
    return ready if status == HTTPStatus.OK and _is_ours(ready.pid) else None


async def _http(rpc: str, method: str, path: str, body: str = "") -> tuple[int, bytes]:
    """Status and body. OSError, ValueError, TimeoutError, IncompleteReadError."""
    host, port = urlsplit(rpc).netloc.split(":")
    async with asyncio.timeout(ANSWER_SECONDS):
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            answer = await reader.read(MAX_ANSWER_BYTES)
            while not reader.at_eof() and len(answer) < MAX_ANSWER_BYTES:
                answer += await reader.read(MAX_ANSWER_BYTES)
        finally:
            writer.close()
    status, _, rest = answer.partition(b"\r\n")
    return int(status.split()[1]), rest.partition(b"\r\n\r\n")[2]


def _is_ours(pid: int) -> bool:
    """Numbers of processes and ports are given anew: what answers there may be somebody else's by now."""
    try:
        return DEVNET in psutil.Process(pid).cmdline()
    except psutil.Error:
        return False


async def _start(home: Path, seeds: list[Path]) -> _Running:
    tick = FIRST_TICK + int(time.time() - SINCE) * TICKS_A_SECOND
    command = module_command(DEVNET, "--json", "--first-tick", str(tick), "--gift", str(WALLET_QU))
    command += [f"--fund-seed-file={seed}={WALLET_QU}" for seed in seeds]
    child = await start("private network", command, home / "network.log", START_SECONDS)
    said = {name: child.ready.get(name) for name in ("nodes", "rpc", "contract_index")}
    ready: _Running = convert({**said, "pid": child.process.pid}, _Running, "network")
    (home / "network.json").write_text(json.dumps(asdict(ready)))
    return ready


# --- wallets and members ------------------------------------------------------------------------


def _seeds(home: Path) -> list[Path]:
    """Always the same, so that a node is rich again on the next network."""
    paths = [home / "wallets" / f"{number:02}.seed" for number in range(WALLETS)]
    for path in paths:
        if not path.exists():
            letters = random.SystemRandom().choices(string.ascii_lowercase, k=SEED_CHARS)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write("".join(letters))
    return paths


def _member(home: Path, directory: Path) -> Path:
    name = hashlib.sha256(str(directory).encode()).hexdigest()[:16]
    return home / "members" / f"{name}.json"


def _members(home: Path) -> list[dict[str, str]]:
    found = []
    for path in sorted((home / "members").glob("*.json")):
        with suppress(OSError, ValueError):
            body = json.loads(path.read_text())
            if isinstance(body, dict):
                found.append(body)
    return found


def _seed_of(home: Path, directory: Path, seeds: list[Path]) -> Path:
    """A data directory's own one, else the first that nobody has."""
    given = {one.get("seed"): one.get("directory") for one in _members(home)}
    for seed in seeds:
        if given.get(str(seed), str(directory)) == str(directory):
            return seed
    raise ConfigInvalid(
        f"the private network has no wallet left: {WALLETS} nodes have one each; import another with "
        f"--wallet-seed-file, or delete {home} after `qubix devnet --end`"
    )


def _remember(home: Path, directory: Path, seed: Path | None) -> None:
    path = _member(home, directory)
    if seed or not path.exists():
        path.write_text(json.dumps({"directory": str(directory), "seed": str(seed) if seed else ""}))


async def _others(home: Path, directory: Path) -> tuple[str, ...]:
    """Addresses of members whose daemons answer."""
    places = [Path(one["directory"]) for one in _members(home) if one.get("directory")]
    asked = [_address(place) for place in places if place != directory]
    return tuple(address for address in await asyncio.gather(*asked) if address)


async def _address(directory: Path) -> str:
    try:
        async with asyncio.timeout(ANSWER_SECONDS), connect(control_socket(directory)) as client:
            status: StatusView = await client.call("status", StatusArgs())
    except (QubixError, TimeoutError):
        return ""
    return status.addresses[0] if status.addresses else ""
