"""Every pair of caller and provider, each in the open, behind one of two sorts of home router or behind a
firewall that lets out port 443 only, meets by the best way that there is, and bytes flow through it."""

from __future__ import annotations

from pathlib import Path

import docker
import pytest
import trio

from tests.support.daemons import Daemon
from tests.support.netlab import Host, Lab, netlab
from tests.support.netlab_jobs import PROVIDER, Jobs, echoing, jobs_in, until_offers, until_path

pytestmark = [pytest.mark.usefixtures("netns"), pytest.mark.docker, pytest.mark.timeout(280)]

PLACES = ("public", "cone", "symmetric", "campus")
BEST = {
    "public": {"public": "direct", "cone": "direct", "symmetric": "direct", "campus": "direct"},
    "cone": {"public": "direct", "cone": "punched", "symmetric": "relayed", "campus": "punched"},
    "symmetric": {"public": "direct", "cone": "relayed", "symmetric": "relayed", "campus": "relayed"},
    "campus": {"public": "direct", "cone": "punched", "symmetric": "relayed", "campus": "punched"},
}
"""By caller and provider: what the facts of routers allow (docs/paths.md)."""
NETWORK = {
    *("net.reachable", "net.behind_router", "net.behind_firewall", "net.closed", "net.cone"),
    *("net.symmetric", "net.only_ports", "net.relayed", "net.no_relay", "net.no_443"),
}
DOCTOR = {
    "public": {"net.reachable"},
    "cone": {"net.behind_router", "net.cone", "net.relayed"},
    "symmetric": {"net.behind_router", "net.symmetric", "net.relayed"},
    "campus": {"net.behind_firewall", "net.only_ports", "net.cone", "net.relayed"},
}


def place(lab: Lab, kind: str, name: str) -> Host:
    match kind:
        case "public":
            return lab.public(name)
        case "campus":
            return lab.campus(name)
        case _:
            return lab.home(name, nat="cone" if kind == "cone" else "symmetric")


class Crowd:
    """A provider and a caller in each sort of place. The public ones listen on 443, and one is the relay."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.callers: dict[str, tuple[Host, Daemon]] = {}
        self.relay = ""

    async def gather(self) -> None:
        host = self.lab.public("p-public")
        relay = await host.daemon(*PROVIDER, "public", "--relay", "--directory", listen=(443,))
        self.relay = relay.address
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._caller, "public", 443)
            for kind in PLACES[1:]:
                nursery.start_soon(self._provider, kind)
                nursery.start_soon(self._caller, kind, 0)

    async def _provider(self, kind: str) -> None:
        host = place(self.lab, kind, f"p-{kind}")
        await host.daemon(*PROVIDER, kind, "--bootstrap", self.relay)

    async def _caller(self, kind: str, port: int) -> None:
        host = place(self.lab, kind, f"c-{kind}")
        daemon = await host.daemon("--bootstrap", self.relay, "--interval", "30", listen=(port,))
        self.callers[kind] = host, daemon


async def test_every_pair_meets_by_the_best_way(
    tmp_path: Path, python_image: str, docker_engine: docker.DockerClient
) -> None:
    async with (
        netlab(tmp_path, tick_seconds=0.05) as lab,
        jobs_in(lab, python_image, docker_engine) as jobs,
    ):
        crowd = Crowd(lab)
        await crowd.gather()
        found: dict[str, dict[str, str]] = {kind: {} for kind in PLACES}
        async with trio.open_nursery() as nursery:
            for kind, (host, daemon) in crowd.callers.items():
                nursery.start_soon(_meet_all, host, daemon, jobs, found[kind], BEST[kind])
        assert found == BEST
        async with trio.open_nursery() as nursery:
            for kind, (_, daemon) in crowd.callers.items():
                nursery.start_soon(_ask_doctor, kind, daemon)


async def _ask_doctor(kind: str, daemon: Daemon) -> None:
    """It says of each place what it is, and of each pair what was found."""
    view = await daemon.call("doctor")
    codes = {one["code"] for one in view["findings"] if one["code"] in NETWORK}
    assert codes == DOCTOR[kind], (kind, view)
    assert [one["path"] for one in view["outlook"]] == list(BEST[kind].values()), (kind, view)


async def _meet_all(
    host: Host, caller: Daemon, jobs: Jobs, found: dict[str, str], best: dict[str, str]
) -> None:
    """One after the other: two processors have enough to do with four callers at once."""
    await until_offers(caller, len(PLACES))
    for provider in PLACES:
        lease = await jobs.rent(caller, provider)
        async with echoing(host, caller, lease) as echoed:
            await echoed.progress()
            found[provider] = await until_path(caller, lease, best[provider])
            await echoed.progress()
