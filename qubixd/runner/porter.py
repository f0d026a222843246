"""Sockets of a job's network, for the daemon to connect: a container of our own stands in it as porter.

The porter hands descriptors out through a unix socket in a directory of the daemon's, which no job sees. So
whatever runs through a connection passes no further program, a job needs no network beside its loopback, and
the daemon no root. porter.c is the program. Where an engine cannot hand descriptors to this machine (a
sandbox's own network, an engine elsewhere), the same program runs inside the job's container and passes the
bytes on: slower.
"""

from __future__ import annotations

import array
import errno
import logging
import os
import shutil
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio
from docker.errors import APIError, NotFound
from docker.types import Mount

from protocol.errors import EngineUnreachable, InternetUnavailable, PortClosed, TunnelUnavailable
from protocol.units import LeaseId
from qubixd.runner import Dialed, Inside
from qubixd.runner import docker_config as config
from qubixd.runner.docker_engine import HTTP_CONFLICT, Client, DockerEngine, ignoring_ended
from qubixd.runner.docker_inside import open_inside
from qubixd.runner.loopback import PortBusy, connect, port_closed
from qubixd.runner.own_image import PORTER, SMALL, ensure_image, program

log = logging.getLogger(__name__)

LABEL_PORTER: Final = "qubix.porter"
PORTER_UID: Final = 65_431
"""The porter's user where the daemon is root: neither a job's nor anybody's."""
MEMORY_BYTES: Final = 256 << 20
"""What waits in the sockets that a porter made may count as its memory."""
DOOR: Final = "/door"
DOOR_SECONDS: Final = 5.0
"""In which a porter opens its door, and answers there."""
LOOK_SECONDS: Final = 0.005
LOOK_SECONDS_MOST: Final = 0.1
NETNS_COOKIE: Final = 71
"""SO_NETNS_COOKIE: tells network namespaces apart; since Linux 5.14."""
SEND: Final = 'umask 077; cat >"$1.$$" && chmod 700 "$1.$$" && mv "$1.$$" "$1"'
INSIDE: Final = "/tmp/.qubix-porter"
"""Where the program lies in the job's own container when it has to run there."""
CONNECTED: Final = b"+"
TRIES: Final = 3


@dataclass
class _Place:
    """What this daemon knows of one job's porter."""

    lock: trio.Lock = field(default_factory=trio.Lock)
    run: str = ""
    """The run of the job in whose network it stands; "" if that has to be looked at."""
    shut: str = ""
    """The run in which it handed nothing out."""
    sent: str = ""
    """The run in which the program was laid into the job's own container."""


class Porters:
    """The porters of one daemon, known by their leases."""

    def __init__(self, engine: DockerEngine, state_dir: Path, home: str, *, sandboxed: bool) -> None:
        """Nothing is contacted yet. `home`: the label of this daemon's containers; `sandboxed`: the networks
        of jobs are not the kernel's."""
        self._engine = engine
        self._built = state_dir / "fence"
        self._doors = state_dir.resolve() / "porters"
        self._home = home
        self._hands = not sandboxed and sys.platform == "linux"
        """Whether descriptors could reach this machine."""
        self._places: dict[LeaseId, _Place] = {}

    async def redial(self, lease_id: LeaseId, port: int) -> Dialed | None:
        """A TCP connection without asking the engine, where that cannot mislead: in the network of a job that
        has ended nobody listens. None if there is none to be had like this."""
        place = self._places.get(lease_id)
        if place is None or not place.run:
            return None
        try:
            return await connect(partial(self._socket, place, lease_id, udp=False), port, udp=False)
        except PortBusy:
            raise
        except (PortClosed, _Shut):
            return None

    def look_again(self, lease_id: LeaseId) -> None:
        """The engine is to be asked before the next connection."""
        if place := self._places.get(lease_id):
            place.run = ""

    async def dial(self, info: config.Info, lease_id: LeaseId, port: int, *, udp: bool) -> Dialed:
        """See `Runner.dial`. `info`: of the job's container, which runs."""
        place, run = self._places.setdefault(lease_id, _Place()), config.run_of(info)
        for _ in range(TRIES):
            if not self._hands or place.shut == run:
                return await self._pipe(place, lease_id, run, port, udp=udp)
            await self._stand(place, lease_id, run)
            with suppress(_Shut):
                fresh = partial(self._socket, place, lease_id, udp=udp)
                return await connect(fresh, port, udp=udp)
        raise TunnelUnavailable("the way into the job breaks again and again; does somebody end its porter?")

    def remove(self, client: Client, lease_id: LeaseId) -> None:
        """No error if there is none. Blocks."""
        with suppress(EngineUnreachable):  # another daemon's
            if self._find(client, lease_id) is not None:
                with ignoring_ended():
                    client.remove_container(config.porter_name(lease_id), v=True, force=True)
        shutil.rmtree(self._door(lease_id), ignore_errors=True)

    def forget(self, lease_id: LeaseId) -> None:
        self._places.pop(lease_id, None)

    # Handing over ------------------------------------------------------------------------------

    async def _socket(self, place: _Place, lease_id: LeaseId, family: int, *, udp: bool) -> socket.socket:
        """A fresh socket of the job's network. _Shut if nothing is handed out any more."""
        wish = ("6" if family == socket.AF_INET6 else "4") + ("u" if udp else "t")
        try:
            descriptor = await self._ask(lease_id, wish.encode())
        except OSError as error:  # somebody has ended it
            place.run = ""
            raise _Shut from error
        fresh = socket.socket(fileno=descriptor)
        wanted = (family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
        if (fresh.family, fresh.type & 0xF) != wanted or not _is_elsewhere(fresh):
            fresh.close()
            raise TunnelUnavailable("what was handed out of the job's network is no socket of it")
        return fresh

    async def _ask(self, lease_id: LeaseId, wish: bytes) -> int:
        """The descriptor that the porter hands out. OSError if none comes."""
        visitor = trio.socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        door = os.open(self._door(lease_id) / PORTER, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            with visitor, trio.move_on_after(DOOR_SECONDS):
                # By the descriptor: no link leads elsewhere, and a path may be longer than an address.
                await visitor.connect(f"/proc/self/fd/{door}")
                await visitor.send(wish)
                _, extra, _, _ = await visitor.recvmsg(1, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
                for level, kind, data in extra:
                    if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS) and len(data) == 4:
                        return array.array("i", data)[0]
        finally:
            os.close(door)
        raise OSError(errno.ETIMEDOUT, "nothing was handed out")

    # Standing ----------------------------------------------------------------------------------

    async def _stand(self, place: _Place, lease_id: LeaseId, run: str) -> None:
        """Have a porter in the network of this run of the job, or know that its door stays shut."""
        async with place.lock:
            if run in (place.run, place.shut):
                return
            try:
                await self._engine.call(lambda client: self._begin(client, lease_id, run))
            except InternetUnavailable as error:
                raise TunnelUnavailable(f"this machine cannot reach into its jobs: {error}") from error
            if await self._opens(lease_id):
                place.run = run
            else:
                place.shut = run
                log.warning("the engine hands no descriptors to this machine: tunnels will be slower")

    async def _opens(self, lease_id: LeaseId) -> bool:
        """Whether its door is there soon, and something comes out."""
        seconds = LOOK_SECONDS
        with trio.move_on_after(DOOR_SECONDS):
            while True:
                with suppress(OSError):
                    os.close(await self._ask(lease_id, b"4t"))
                    return True
                await trio.sleep(seconds)
                seconds = min(2 * seconds, LOOK_SECONDS_MOST)
        return False

    def _begin(self, client: Client, lease_id: LeaseId, run: str) -> None:
        """A porter that was started after this run of the job stands in its network: no older one does."""
        known = self._find(client, lease_id)
        if known is None:
            self._create(client, lease_id)
        elif known["State"]["Running"]:
            if config.moment(known["State"]["StartedAt"]) > config.moment(run):
                return
            with ignoring_ended():
                client.kill(config.porter_name(lease_id), "SIGKILL")
            client.wait(config.porter_name(lease_id))
        try:
            client.start(config.porter_name(lease_id))
        except APIError as error:
            raise TunnelUnavailable(f"the engine opens no way into the job: {error.explanation}") from error

    def _find(self, client: Client, lease_id: LeaseId) -> config.Info | None:
        try:
            info: config.Info = client.inspect_container(config.porter_name(lease_id))
        except NotFound:
            return None
        if info["Config"]["Labels"].get(config.LABEL_HOME) != self._home:
            raise EngineUnreachable("another daemon on this Docker engine already has a job of this lease")
        return info

    def _create(self, client: Client, lease_id: LeaseId) -> None:
        image = ensure_image(client, self._built)
        user, folder = _own_user(), self._door(lease_id)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.geteuid() == 0:
            os.chown(folder, PORTER_UID, PORTER_UID)
        limits = {**SMALL, "mem_limit": MEMORY_BYTES, "memswap_limit": MEMORY_BYTES}
        host_config = client.create_host_config(
            **limits,
            network_mode=f"container:{config.container_name(lease_id)}",
            mounts=[Mount(DOOR, str(folder), type="bind", propagation="rprivate")],
        )
        labels = {config.LABEL_HOME: self._home, LABEL_PORTER: lease_id.hex()}
        try:
            client.create_container(
                image,
                [],
                name=config.porter_name(lease_id),
                entrypoint=["/porter", "hold"],
                user=user,
                labels=labels,
                stop_signal="SIGKILL",  # process 1 hears no other, and the engine's own end would wait for it
                host_config=host_config,
                use_config_proxy=False,
            )
        except APIError as error:
            if error.status_code != HTTP_CONFLICT:
                raise

    def _door(self, lease_id: LeaseId) -> Path:
        return self._doors / lease_id.hex()

    # Inside ------------------------------------------------------------------------------------

    async def _pipe(self, place: _Place, lease_id: LeaseId, run: str, port: int, *, udp: bool) -> Inside:
        """A connection that a program inside the job's container makes and passes on."""
        container = config.container_name(lease_id)
        async with place.lock:
            if place.sent != run:
                await self._send_program(container)
                place.sent = run
        inside = await open_inside(self._engine, container, [INSIDE, "pipe", "u" if udp else "t", str(port)])
        try:
            if await inside.receive_some(1) != CONNECTED:
                raise port_closed(port, udp=udp)
        except BaseException:
            await inside.aclose()
            raise
        return inside

    async def _send_program(self, container: str) -> None:
        def compiled(client: Client) -> bytes:
            return program(PORTER, str(client.info()["Architecture"]), self._built)

        try:
            data = await self._engine.call(compiled)
        except InternetUnavailable as error:
            raise TunnelUnavailable(f"this machine cannot reach into its jobs: {error}") from error
        sender = await open_inside(self._engine, container, ["/bin/sh", "-c", SEND, "qubix", INSIDE])
        try:
            await sender.send_all(data)
            await sender.send_eof()
            if await sender.exit_code():
                raise TunnelUnavailable("the job's image takes no program that would open a way into the job")
        finally:
            await sender.aclose()


class _Shut(Exception):
    """Nothing is handed out at this door."""


def _own_user() -> str:
    if os.geteuid() == 0:
        return f"{PORTER_UID}:{PORTER_UID}"
    return f"{os.geteuid()}:{os.getegid()}"


def _is_elsewhere(fresh: socket.socket) -> bool:
    """Whether a socket is of another network than this daemon's: one of ours would reach what only this
    machine may. True where the kernel cannot tell."""
    with suppress(OSError), socket.socket() as own:
        cookie: Any = own.getsockopt(socket.SOL_SOCKET, NETNS_COOKIE, 8)
        return bool(cookie != fresh.getsockopt(socket.SOL_SOCKET, NETNS_COOKIE, 8))
    return True
