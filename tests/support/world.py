"""A small world for tests: real nodes and the real contract; network, clock, ticks and jobs in memory.

    async with World(tmp_path) as world:
        provider = await world.start("alice", provider=True)
        caller = await world.start("bob")
        await world.until_offered(caller)
        lease = await world.rent(caller, job(seconds=5))
        await world.until_ended(lease.lease_id, provider, caller)

Everything waits on trio's clock, so an autojump clock makes hours pass in moments. A node can be
killed at any read or write of its ledger and started again on the same files, as after a power cut.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar, cast

import trio

from escrow_bridge.devnet.__main__ import CONTRACT_INDEX, build_engine
from escrow_bridge.devnet.engine import Rules
from escrow_bridge.devnet.local import LocalChain
from escrow_bridge.qubic import Wallet, contract_id
from ledger.store import RunSync, inline, open_store
from protocol.errors import LeaseUnknown
from protocol.jobspec import parse
from protocol.lease_state import TERMINAL, Lease
from protocol.messages import Capacity
from protocol.signing import NodeKey
from protocol.units import LeaseId, PeerKey, Qu, QubicId
from qubixd.config import Config
from qubixd.effects import Prove
from qubixd.machine import Machine
from qubixd.node import Node, run_node
from qubixd.parts import Parts
from tests.support.memory_wire import MemoryNet
from tests.support.world_jobs import Engine, now_ms

T = TypeVar("T")
TICK_SECONDS: Final = 1.0
PRICE: Final = Qu(3_600_000)
"""1,000 QU a second."""
FUNDS: Final = Qu(1_000_000_000)
MACHINE: Final = Machine(
    capacity=Capacity(gpus=(), cpu_millis=4_000, memory_mib=8_192, disk_mib=10_240),
    gpu_class="CPU",
    gpu_uuids={},
    suggested_price=PRICE,
    arch="amd64",
)


class Killed(BaseException):
    """The node was killed here."""


@dataclass
class Person:
    """What survives a node's death: its keys, its files, its jobs."""

    name: str
    root: Path
    provider: bool
    engine: Engine = field(default_factory=Engine)
    node: Node | None = None
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    dead: trio.Event = field(default_factory=trio.Event)
    born: trio.Event = field(default_factory=trio.Event)
    deaths: int = 0
    kill_before: int | None = None
    """Die instead of making this ledger call, counted from 1."""
    kill_after: int | None = None
    """Die right after this commit, counted from 1."""
    calls: int = 0
    commits: int = 0
    settings: dict[str, object] = field(default_factory=dict)

    @property
    def node_seed(self) -> bytes:
        return hashlib.sha256(b"node " + self.name.encode()).digest()

    @property
    def wallet(self) -> Wallet:
        letters = hashlib.sha512(self.name.encode()).digest()
        return Wallet("".join(chr(97 + byte % 26) for byte in letters[:55]))

    @property
    def peer(self) -> PeerKey:
        return NodeKey(self.node_seed).public

    @property
    def up(self) -> Node:
        assert self.node is not None, f"{self.name} is not running"
        return self.node


class World:
    def __init__(self, root: Path, *, delay_seconds: float = 0.02, seed: int = 0) -> None:
        self.root = root
        self.net = MemoryNet(seed=seed, delay_seconds=delay_seconds)
        self.people: dict[str, Person] = {}
        engine = build_engine(Rules(round(TICK_SECONDS * 1_000)))
        self.chain = LocalChain(engine)
        self.total = 0
        self.funds = FUNDS
        self.prove: Prove | None = None
        """How callers prove machines that they rent; nodes that are started later do it so."""
        self.nursery: trio.Nursery
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self.nursery = await self._stack.enter_async_context(trio.open_nursery())
        self.nursery.start_soon(self._tick)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.nursery.cancel_scope.cancel()
        await self._stack.__aexit__(kind, error, trace)

    async def _tick(self) -> None:
        while True:
            await trio.sleep(TICK_SECONDS)
            await self.chain.advance()

    # --- people -------------------------------------------------------------------------------

    async def start(self, name: str, *, provider: bool = False, **settings: object) -> Person:
        """Start somebody's node, or start it again."""
        person = self.people.get(name)
        if person is None:
            person = self.people[name] = Person(name, self.root / name, provider, settings=settings)
            self.fund(person.wallet.public_key, FUNDS)
        person.scope, person.dead = trio.CancelScope(), trio.Event()
        person.calls = person.commits = 0
        person.node = await self.nursery.start(self._live, person)
        person.born.set()
        return person

    async def kill(self, person: Person) -> None:
        """As with SIGKILL: nothing is said, nothing is written."""
        person.scope.cancel()
        await person.dead.wait()

    def fund(self, owner: QubicId, amount: Qu) -> None:
        self.chain.engine.host.credit(owner, amount)
        self.total += amount

    async def _live(self, person: Person, task_status: trio.TaskStatus[Node | None]) -> None:
        """One life of a node. Killed = its tasks are gone; what it wrote is there."""
        began = False
        try:
            with person.scope:
                async with self._parts(person) as parts, trio.open_nursery() as nursery:
                    node = await nursery.start(run_node, self._config(person), parts)
                    task_status.started(node)
                    began = True
        except* Killed:
            pass
        finally:
            person.node = None
            person.deaths += 1
            person.born = trio.Event()
            person.dead.set()
            if not began:
                task_status.started(None)

    def _config(self, person: Person) -> Config:
        config = Config(
            data_dir=str(person.root),
            contract_index=CONTRACT_INDEX,
            network="devnet",
            provider=person.provider,
            price=PRICE,
            name=person.name,
            interval=1,
        )
        return replace(config, **person.settings)  # type: ignore[arg-type]  # settings come from tests

    @asynccontextmanager
    async def _parts(self, person: Person) -> AsyncIterator[Parts]:
        person.root.mkdir(parents=True, exist_ok=True)
        async with (
            open_store(person.root / "ledger.sqlite", _counted(person), _committed(person)) as store,
            self.net.wire(person.peer) as wire,
        ):
            yield Parts(
                key=NodeKey(person.node_seed),
                wallet=person.wallet,
                store=store,
                wire=wire,
                chain=self.chain,
                runner=person.engine if person.provider else None,
                machine=MACHINE,
                in_thread=inline,
                now_ms=now_ms,
                prove=self.prove,
            )

    # --- doing things -------------------------------------------------------------------------

    async def until_offered(self, caller: Person, count: int = 1) -> None:
        """Wait until the caller's book has that many offers."""
        with trio.fail_after(60):
            while len([e for e in caller.up.offers.book.entries(now_ms())]) < count:
                await trio.sleep(0.05)

    async def rent(self, caller: Person, text: str, **how: object) -> Lease:
        """The CLI's `run`, up to the lease: hire somebody for a job file."""
        secrets = cast(Mapping[str, str], how.pop("secrets", {}))
        node = caller.up
        parsed = parse(text)
        submission = await node.files.submit(parsed, self.root, secrets)
        arguments: dict[str, object] = {"max_price": None, "provider": "", **how}
        return await node.hiring.hire(
            parsed,
            submission,
            output_dir=str(caller.root / "out"),
            report=_silent,
            **arguments,  # type: ignore[arg-type]  # settings come from tests
        )

    async def until(self, lease_id: LeaseId, person: Person, done: Callable[[Lease], bool]) -> Lease:
        """Wait (in virtual time) until a lease of somebody's is so."""
        with trio.fail_after(4 * 3_600):
            while True:
                with suppress(LeaseUnknown, Killed):  # this very look may be what it dies of
                    if person.node is not None and done(lease := await person.node.leases.get(lease_id)):
                        return lease
                await trio.sleep(0.2)

    async def until_ended(self, lease_id: LeaseId, *people: Person) -> tuple[Lease, ...]:
        return tuple([await self.until(lease_id, one, lambda a: a.phase in TERMINAL) for one in people])

    def balance(self, person: Person) -> int:
        return self.chain.engine.balance(person.wallet.public_key)

    def check_conservation(self) -> None:
        """Every QU that was ever funded is somewhere."""
        host = self.chain.engine.host
        owners = [one.wallet.public_key for one in self.people.values()]
        held = sum(host.balance(owner) for owner in [*owners, contract_id(CONTRACT_INDEX)])
        assert held == self.total


async def _silent(phase: str, detail: str) -> None: ...


def _counted(person: Person) -> RunSync:
    async def run(fn: Callable[[], T]) -> T:
        person.calls += 1
        if person.calls == person.kill_before:
            person.kill_before = None
            person.scope.cancel()
            raise Killed
        return await inline(fn)

    return run


def _committed(person: Person) -> Callable[[str], None]:
    def committed(operation: str) -> None:
        person.commits += 1
        if person.commits == person.kill_after:
            person.kill_after = None
            person.scope.cancel()
            raise Killed

    return committed


@contextmanager
def fast_root(fallback: Path) -> Iterator[Path]:
    """A folder in memory where there is one: syncing a disk hundreds of times proves nothing more."""
    shm = Path("/dev/shm")
    if not os.access(shm, os.W_OK):
        yield fallback
        return
    with tempfile.TemporaryDirectory(prefix="qubix-test-", dir=shm) as folder:
        yield Path(folder)
