"""The links of this daemon, one for each peer with which there are streams or carriers."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio

from protocol.errors import QubixError, StreamBroken
from protocol.units import PeerKey
from qubixd.link import Carrier, Dialler, LinkView
from qubixd.link.limits import MAX_CARRIERS
from qubixd.link.link import Link
from qubixd.link.mux import Mux, Turns
from qubixd.link.stream import LinkStream

log = logging.getLogger(__name__)

Handler = Callable[[LinkStream], Awaitable[None]]


class Links:
    """`run` must have started before anything else is asked of it, except `serve`."""

    def __init__(self, me: PeerKey, dialler: Dialler) -> None:
        self._me, self._dialler = me, dialler
        self._run_id = secrets.randbits(64)
        self._turns = Turns()
        self._links: dict[PeerKey, Link] = {}
        self._handler: Handler | None = None
        self._nursery: trio.Nursery | None = None
        self.on_change: list[Callable[[PeerKey], None]] = []
        """Called when carriers or streams with a peer come or go. They must not block."""

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled, which breaks every stream."""
        _keep_memory()
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None
            for link in list(self._links.values()):
                link.fail_all(StreamBroken("the daemon ends"))

    def serve(self, handler: Handler) -> None:
        """Answer what peers open with `handler`, which accepts or refuses; the stream ends with it."""
        self._handler = handler

    async def open(self, peer: PeerKey, opening: Any, addresses: Sequence[str] = ()) -> LinkStream:
        """A stream that the other side has accepted. PeerRefused if it says no, with its reason;
        PeerUnreachable, StreamBroken."""
        link = self._link(peer)
        link.addresses = tuple(addresses) or link.addresses
        try:
            return await link.open(opening)
        finally:
            self._forget_if_empty(link)

    def take(self, peer: PeerKey, carrier: Carrier) -> None:
        """Use a carrier that the peer, who is allowed to, has opened."""
        link = self._link(peer)
        if len(link.muxes) >= MAX_CARRIERS:
            log.info("peer %s has %d connections; one more is closed", peer.hex()[:8], MAX_CARRIERS)
            self._tasks().start_soon(carrier.aclose)
        else:
            link.suspect()  # perhaps the peer has lost those that there are
            link.add(carrier)

    async def improve(self, peer: PeerKey, addresses: Sequence[str] = ()) -> bool:
        """Look for a better way than there is; streams move to it. False if there is none."""
        link = self._links.get(peer)
        if link is None:
            return False
        link.addresses = tuple(addresses) or link.addresses
        return await link.improve()

    def view(self, peer: PeerKey) -> LinkView | None:
        """None while there is no carrier and no stream waits for one."""
        link = self._links.get(peer)
        return _view(link) if link else None

    def peers(self) -> tuple[PeerKey, ...]:
        """With whom there are carriers or streams."""
        return tuple(self._links)

    def streams(self, peer: PeerKey) -> tuple[LinkStream, ...]:
        link = self._links.get(peer)
        return tuple(link.streams.values()) if link else ()

    async def reach(self, peer: PeerKey, addresses: Sequence[str] = ()) -> None:
        """Make sure that there is a carrier. PeerUnreachable."""
        link = self._link(peer)
        link.addresses = tuple(addresses) or link.addresses
        try:
            await link.reach()
        finally:
            self._forget_if_empty(link)

    async def close(self, peer: PeerKey) -> None:
        """End all that there is with a peer."""
        link = self._links.get(peer)
        if link is not None:
            link.fail_all(StreamBroken("there is no lease any more"))
            for mux in tuple(link.muxes):
                await mux.close()

    def suspect(self, peer: PeerKey | None = None) -> None:
        """Addresses changed, this machine's or that peer's, or it slept: find out now which carriers live."""
        for link in list(self._links.values()):
            if peer in (None, link.peer):
                link.moved()

    # --- inside -------------------------------------------------------------------------------

    def _tasks(self) -> trio.Nursery:
        if self._nursery is None:
            raise StreamBroken("the daemon ends")
        return self._nursery

    def _link(self, peer: PeerKey) -> Link:
        link = self._links.get(peer)
        if link is None:
            link = self._links[peer] = Link(
                peer,
                self._me < peer,
                self._run_id,
                self._dialler,
                self._turns,
                start_mux=lambda link, mux: self._tasks().start_soon(self._run_mux, link, mux),
                start_task=lambda task, *args: self._tasks().start_soon(task, *args),
                serve=lambda stream: self._tasks().start_soon(self._serve_one, stream),
                changed=self._changed,
            )
        return link

    async def _run_mux(self, link: Link, mux: Mux) -> None:
        reason = await mux.run()
        link.lost(mux, reason)
        self._forget_if_empty(link)

    def _forget_if_empty(self, link: Link) -> None:
        """What is kept of a peer is little, but peers are many."""
        if not (link.muxes or link.streams or link.dialling) and self._links.get(link.peer) is link:
            del self._links[link.peer]

    def _changed(self, peer: PeerKey) -> None:
        for callback in self.on_change:
            callback(peer)

    async def _serve_one(self, stream: LinkStream) -> None:
        """One handler for one stream, whose failure ends that stream alone."""
        try:
            if self._handler is None:
                stream.abort("tunnel.not_served", "this daemon serves no jobs")
            else:
                await self._handler(stream)
        except trio.BrokenResourceError:
            stream.abort("net.stream_broken", "the connection broke at the other side")
        except QubixError as error:
            stream.fail(error, tell=True)
        except Exception:
            log.exception("a connection of peer %s failed", stream.peer.hex()[:8])
            stream.abort("internal.error", "the other side has made a mistake; its log says which")
        finally:
            await stream.aclose()


def _keep_memory() -> None:
    """Let the C library keep a few megabytes that were freed, instead of giving each chunk of bulk back to
    the system and asking for it anew: freeing a large block tells it so (mallopt(3), M_MMAP_THRESHOLD)."""
    bytes(8 << 20)


def _view(link: Link) -> LinkView | None:
    """As the last carrier was, while streams wait for another; None if there are neither."""
    best = link.best()
    if best:
        link.last = best[0].carrier.kind, best[0].carrier.address
    elif not link.streams:
        return None
    rtts = [mux.rtt for mux in best if mux.rtt is not None]
    return LinkView(
        kind=link.last[0],
        rtt_ms=min(rtts) * 1_000 if rtts else None,
        sent_bytes=link.sent.total,
        received_bytes=link.received.total,
        sent_per_second=link.sent.per_second,
        received_per_second=link.received.per_second,
        streams=len(link.streams),
        address=link.last[1],
        waiting=not best,
    )
