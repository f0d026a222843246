"""The public mirror: a file beside the ledger from which web pages serve the market to everybody.

It follows the book twice a second, and nothing waits for it: not money (its file and its thread are its own),
nor does the node end when its disk is full or its file is damaged. It then tells, waits, and begins again by
comparing all. Whatever happened before, nothing is shown alive that the book does not hold.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Final

import trio

import ledger.settings
from ledger import mirror, mirror_schema
from ledger.mirror import ROWS_AT_ONCE, SCHEMA
from ledger.store import RunSync, Store, open_store
from protocol.control_mirror import MirrorView
from protocol.errors import ConfigInvalid, QubixError
from protocol.units import PeerKey
from qubixd.book import OfferBook
from qubixd.config import Config
from qubixd.discovery import Discovery
from qubixd.leases import Clock
from qubixd.mirror_rows import offer_row, seen_of
from qubixd.mirror_turns import Turns
from qubixd.parts import Parts
from qubixd.receipts import Receipts
from qubixd.threads import in_turn
from qubixd.watch import Watchers
from qubixd.wire_libp2p import peer_id_of

log = logging.getLogger("qubix.mirror")

SETTING: Final = "mirror"
LOOK_SECONDS: Final = 0.5
TELL_SECONDS: Final = 5.0
"""How often the file says that it is up to date while nothing changes."""
RETRY_SECONDS: Final = 10.0
SHELF: Final = 4
"""Values of a key's first byte: of 100,000 providers 1,600."""


class Mirror:
    """The service. It is on if a person said so: by an option (`always`) or, until told otherwise, by the
    verb `mirror`; or else if `usually`."""

    def __init__(
        self,
        path: Path,
        book: OfferBook,
        store: Store,
        now_ms: Clock,
        whose: Mapping[str, str],
        facts: Callable[[], Mapping[str, str]],
        want: Callable[[], None],
        beside: Callable[[Store], Awaitable[None]],
        run_sync: RunSync,
        *,
        always: bool = False,
        usually: bool = False,
    ) -> None:
        """`store`: the node's ledger. `whose`: as mirror.begin has it; `facts`: what else `meta` says now.
        `want` keeps the book reading; `beside` writes what is not offers, until cancelled."""
        self.path = path
        self._book, self._store, self._now_ms = book, store, now_ms
        self._whose, self._facts, self._want, self._beside = whose, facts, want, beside
        self._always, self._usually, self._run_sync = always, usually, run_sync
        self._switched = trio.Event()
        self._scope = trio.CancelScope()
        self._file: Store | None = None
        self._on = False
        self._updated_ms = 0
        self._trouble = ""

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        kept = await ledger.settings.get(self._store, SETTING)
        self._turn(self._always or (self._usually if kept is None else kept == b"on"))
        task_status.started()
        while True:
            await self._switched.wait()
            with trio.CancelScope() as self._scope:
                await self._keep_up()

    @property
    def complete(self) -> bool:
        """It has held all of the book since it was switched on."""
        return self._updated_ms > 0

    async def switch(self, *, on: bool) -> None:
        """For now and after a restart. ConfigInvalid if the daemon was started to mirror anyway."""
        if self._always and not on:
            raise ConfigInvalid("this daemon was started with --mirror; start it without to switch it off")
        await ledger.settings.put(self._store, SETTING, b"on" if on else b"off")
        self._turn(on)

    async def view(self) -> MirrorView:
        offers = change = 0
        if self._file is not None:
            offers, change = await mirror.counted(self._file)
        return MirrorView(self._on, str(self.path), offers, change, self._updated_ms, self._trouble)

    def _turn(self, on: bool) -> None:
        self._on = on
        if on:
            self._switched.set()
        else:
            self._switched = trio.Event()
            self._scope.cancel()
            self._updated_ms, self._trouble = 0, ""

    # --- following ----------------------------------------------------------------------------

    async def _keep_up(self) -> None:
        """Until cancelled, whatever the disk does."""
        while True:
            try:
                async with open_store(self.path, self._run_sync, schema=SCHEMA) as file:
                    await self._follow(file)
            except* QubixError as group:
                self._tell_trouble(_first(group))
            await trio.sleep(RETRY_SECONDS)

    def _tell_trouble(self, error: QubixError) -> None:
        if str(error) != self._trouble:
            log.warning("the public mirror waits: %s", error)
        self._trouble = str(error)

    async def _follow(self, file: Store) -> None:
        try:
            await mirror.begin(file, self._whose)
            stirred = self._book.stir.take()  # everybody; from here on nothing is missed
            await self._end_others(file)
            self._file = file
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._beside, file)
                await self._look(file, stirred)
        finally:
            self._file = None
            self._book.stir.leave()

    async def _look(self, file: Store, stirred: Collection[PeerKey]) -> None:
        told = -TELL_SECONDS
        while True:
            self._want()
            if await self._write(file, stirred) or trio.current_time() - told >= TELL_SECONDS:
                await self._say_complete(file)
                told = trio.current_time()
            await trio.sleep(LOOK_SECONDS)
            stirred = self._book.stir.take()

    async def _end_others(self, file: Store) -> None:
        """What the file shows from before, and the book does not hold."""
        last = b""
        while shown := await mirror.shown(file, last, ROWS_AT_ONCE):
            last = shown[-1]
            live = {sight.provider for sight in self._book.sights(map(PeerKey, shown))}
            ended = [peer for peer in shown if peer not in live]
            await mirror.show(file, (), ended, offer_row, self._now_ms())

    async def _write(self, file: Store, stirred: Collection[PeerKey]) -> int:
        """Bring these providers' rows up to date; how many changed."""
        changed = 0
        for some in await self._run_sync(lambda: _batches(stirred)):
            seen = [seen_of(sight) for sight in self._book.sights(some)]
            live = {one.peer for one in seen}
            ended = [peer for peer in some if peer not in live]
            changed += await mirror.show(file, seen, ended, offer_row, self._now_ms())
        return changed

    async def _say_complete(self, file: Store) -> None:
        now = self._now_ms()
        await mirror.tell(file, {**self._facts(), "updated_ms": str(now)})
        self._updated_ms, self._trouble = now, ""


def mirror_of(
    config: Config, parts: Parts, discovery: Discovery, receipts: Receipts, watchers: Watchers
) -> Mirror:
    """A node's own."""
    wire, own = parts.wire, parts.key.public

    def facts() -> dict[str, str]:
        return {
            "peers": str(len(wire.peers())),
            "directories": str(len(discovery.directories.in_use())),
            "tick": str(watchers.tick.tick if watchers.tick else 0),
        }

    async def beside(file: Store) -> None:
        await Turns(file, parts.store, receipts, parts.now_ms, own, lambda: len(wire.peers())).run()

    whose = {
        "network": config.network,
        "contract_index": str(config.contract_index),
        "node": peer_id_of(own),
    }
    return Mirror(
        Path(config.mirror_dir or config.root) / mirror_schema.FILE,
        discovery.book,
        parts.store,
        parts.now_ms,
        whose,
        facts,
        discovery.offers.want,
        beside,
        in_turn(parts.in_thread),
        always=config.mirror,
        usually=config.directory,
    )


def _batches(providers: Collection[PeerKey]) -> list[list[PeerKey]]:
    """In the order of their keys: neighbours in the file are written together. Of 100,000 that takes a
    while, in which a thread lets others go on: hence many small sorts."""
    width = SHELF if len(providers) > ROWS_AT_ONCE else 256
    shelves: dict[int, list[PeerKey]] = defaultdict(list)
    for provider in providers:
        shelves[provider[0] // width].append(provider)
    in_order = (sorted(shelves[shelf]) for shelf in sorted(shelves))
    return [
        shelf[start : start + ROWS_AT_ONCE]
        for shelf in in_order
        for start in range(0, len(shelf), ROWS_AT_ONCE)
    ]


def _first(group: BaseExceptionGroup[QubixError]) -> QubixError:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner
