"""What runs goes on while the ways change: its relay dies, a machine sleeps and wakes up elsewhere, a better
way opens. Every byte is counted."""

from __future__ import annotations

from pathlib import Path

import docker
import pytest
import trio

from protocol.units import PeerKey
from qubixd.wire_libp2p import peer_id_of
from tests.support.daemons import Daemon
from tests.support.netlab import Host, Lab, netlab
from tests.support.netlab_jobs import (
    PROVIDER,
    Jobs,
    echoing,
    jobs_in,
    path_of,
    until_offers,
    until_path,
)

pytestmark = [pytest.mark.usefixtures("netns"), pytest.mark.docker, pytest.mark.timeout(280)]


class Cast:
    """alice and dave provide, each behind a home's router; bob, behind one that shows everyone another port,
    and carol, behind one like alice's, rent. Two relays."""

    def __init__(self, lab: Lab, jobs: Jobs) -> None:
        self.lab, self._jobs = lab, jobs
        self.relays: list[Daemon] = []
        self.hosts: dict[str, Host] = {}
        self.daemons: dict[str, Daemon] = {}

    async def gather(self) -> None:
        async with trio.open_nursery() as nursery:
            for name in ("first", "second"):
                nursery.start_soon(self._relay, name)
        known = [word for relay in self.relays for word in ("--bootstrap", relay.address)]
        caller = ["--interval", "30", *known]
        async with trio.open_nursery() as nursery:
            for name in ("alice", "dave"):
                nursery.start_soon(self._home, name, "cone", *PROVIDER, name, *known)
            nursery.start_soon(self._home, "bob", "symmetric", *caller)
            nursery.start_soon(self._home, "carol", "cone", *caller)

    async def _relay(self, name: str) -> None:
        self.relays.append(await self.lab.public(name).daemon("--relay", "--directory", listen=(443,)))

    async def _home(self, name: str, nat: str, *words: str) -> None:
        host = self.lab.home(name, nat="cone" if nat == "cone" else "symmetric")
        self.hosts[name] = host
        self.daemons[name] = await host.daemon(*words)

    async def rent(self, name: str, provider: str) -> str:
        await until_offers(self.daemons[name], 2)
        return await self._jobs.rent(self.daemons[name], provider)

    async def relay_of(self, name: str, lease: str) -> Daemon:
        """Through whom the streams of a lease go."""
        kind, key = await path_of(self.daemons[name], lease)
        assert kind == "relayed"
        peer_id = peer_id_of(PeerKey(bytes.fromhex(key)))
        (relay,) = [one for one in self.relays if one.ready["peer_id"] == peer_id]
        return relay


async def test_a_running_stream_outlives_its_path(
    tmp_path: Path, python_image: str, docker_engine: docker.DockerClient
) -> None:
    async with (
        netlab(tmp_path, tick_seconds=0.05) as lab,
        jobs_in(lab, python_image, docker_engine) as jobs,
    ):
        cast = Cast(lab, jobs)
        await cast.gather()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_a_better_way_opens, cast)
            nursery.start_soon(_bob_travels, cast)
            nursery.start_soon(_dave_moves, cast)


async def _bob_travels(cast: Cast) -> None:
    host, bob = cast.hosts["bob"], cast.daemons["bob"]
    lease = await cast.rent("bob", "alice")
    async with echoing(host, bob, lease) as echoed:
        await echoed.progress()
        assert await until_path(bob, lease, "relayed") == "relayed"
        relay = await cast.relay_of("bob", lease)
        await relay.kill()
        await echoed.progress()
        assert await cast.relay_of("bob", lease) is not relay
        host.sleep()
        await trio.sleep(1)  # it sleeps
        host.wake(cast.lab.home_router("hotel", nat="cone"))
        assert await until_path(bob, lease, "punched") == "punched"
        await echoed.progress()


async def _a_better_way_opens(cast: Cast) -> None:
    """carol's router keeps her from alice's for a while; nobody tells her when that is over."""
    host, carol = cast.hosts["carol"], cast.daemons["carol"]
    assert host.router is not None
    host.router.block(cast.hosts["alice"].public_ip)
    lease = await cast.rent("carol", "alice")
    async with echoing(host, carol, lease) as echoed:
        await echoed.progress()
        assert await until_path(carol, lease, "relayed") == "relayed"
        host.router.block()
        assert await until_path(carol, lease, "punched") == "punched"
        await echoed.progress()


async def _dave_moves(cast: Cast) -> None:
    """The provider gets another address, as homes do every night."""
    host, carol = cast.hosts["carol"], cast.daemons["carol"]
    lease = await cast.rent("carol", "dave")
    async with echoing(host, carol, lease) as echoed:
        await echoed.progress()
        assert await until_path(carol, lease, "punched") == "punched"
        cast.hosts["dave"].unplug()
        cast.hosts["dave"].plug_in(cast.lab.home_router("new", nat="cone"))
        await echoed.progress()
        assert await until_path(carol, lease, "punched") == "punched"
        await echoed.progress()
