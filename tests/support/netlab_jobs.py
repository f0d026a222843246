"""Jobs in the lab that answer at a port, and streams to them that show every lost or doubled byte.

Providers use the Docker engine of this machine: it starts a job beside the lab, and the node reaches into
its network without any of the lab's wires, so what is tested is the way between the two nodes.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import docker
import trio

from tests.support.daemons import PATIENCE_SECONDS, Daemon
from tests.support.netlab import Host, Lab

PORT: Final = 7_000
BLOCK: Final = 16_384
PAUSE_SECONDS: Final = 0.05
"""Between blocks: it is to last, not to load the machine."""
PROVIDER: Final = ("--provider", "--price", "3600000", "--runner", "docker", "--egress", "none", "--name")
"""The name follows."""
ECHO_JOB: Final = """
name: echo
resources: {image: "%s", cpus: 0.25, memory: 64MB, disk: 10MB}
proof: never
max_hours: 0.2
run: |
  exec python3 -c '
  import socket, threading
  def echo(sock):
      while data := sock.recv(65536):
          sock.sendall(data)
      sock.shutdown(socket.SHUT_WR)
  door = socket.create_server(("", 7000))
  while True:
      threading.Thread(target=echo, args=(door.accept()[0],), daemon=True).start()
  '
"""


class Jobs:
    """Jobs of one test, whose containers are gone when it is over: their nodes are killed before they end."""

    def __init__(self, image: str, folder: Path, engine: docker.DockerClient) -> None:
        self._image, self._folder, self._engine = image, folder, engine
        self._leases: list[str] = []

    async def rent(self, caller: Daemon, provider: str) -> str:
        """A lease with the provider of that name, whose job runs and echoes at PORT; its id."""
        out = self._folder / f"out-{caller.name}-{len(self._leases)}"
        text = {"job_yaml": ECHO_JOB % self._image, "base_dir": str(self._folder), "output_dir": str(out)}
        event = await caller.call("run", provider=provider, detach=True, **text)
        lease = str(event["lease"]["lease_id"])
        self._leases.append(lease)
        with trio.fail_after(PATIENCE_SECONDS):
            async with aclosing(caller.stream("wait", lease=lease)) as events:
                async for event in events:
                    if event["phase"] == "running":
                        return lease
        raise AssertionError(f"the job never ran: {event}\n{caller.log()}")

    async def remove(self) -> None:
        """Every container of them; call it when their nodes are dead."""
        async with trio.open_nursery() as nursery:
            for one in self._engine.containers.list(all=True):
                if one.name and one.name.rpartition("-")[2] in self._leases:
                    nursery.start_soon(trio.to_thread.run_sync, partial(one.remove, force=True))


@asynccontextmanager
async def jobs_in(lab: Lab, image: str, engine: docker.DockerClient) -> AsyncIterator[Jobs]:
    jobs = Jobs(image, lab.root, engine)
    try:
        yield jobs
    finally:
        with trio.CancelScope(shield=True):
            await lab.end()
            await jobs.remove()


async def until_offers(caller: Daemon, count: int) -> None:
    """Wait until so many providers are known."""
    with trio.fail_after(PATIENCE_SECONDS):
        while len((await caller.call("market"))["offers"]) < count:
            await trio.sleep(0.1)


async def path_of(caller: Daemon, lease: str) -> tuple[str, str]:
    """(kind, address) of the path in `ps`."""
    leases = (await caller.call("ps", all=True))["leases"]
    (path,) = [one["path"] for one in leases if one["lease_id"] == lease]
    return (str(path["kind"]), str(path["address"])) if path else ("", "")


async def until_path(caller: Daemon, lease: str, kind: str, seconds: float = 50.0) -> str:
    """Wait until the streams of a lease travel so; how they do travel then, or after so long."""
    with trio.move_on_after(seconds):
        while (await path_of(caller, lease))[0] != kind:
            await trio.sleep(0.1)
    return (await path_of(caller, lease))[0]


@asynccontextmanager
async def forwarded(caller: Daemon, lease: str) -> AsyncIterator[int]:
    """`qubix forward`: the local port on the caller's machine that leads to the job's."""
    ports = [{"local": 0, "remote": PORT}]
    async with aclosing(caller.stream("forward", lease=lease, ports=ports)) as events:
        with trio.fail_after(PATIENCE_SECONDS):
            listening = await anext(events)
        assert listening["what"] == "listening", listening
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_drain, events)
            yield int(listening["ports"][0]["local"])
            nursery.cancel_scope.cancel()


async def _drain(events: AsyncIterator[dict[str, Any]]) -> None:
    async for _ in events:
        pass


class Echoed:
    """A connection through `qubix forward` into the job, and what it has brought back so far."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.sent = self.received = 0
        self._sent_hash, self._received_hash = hashlib.sha256(), hashlib.sha256()
        self._enough = False

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send ever other bytes and take them back, until `finish`; both ends in order."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._receive)
            task_status.started()
            while not self._enough:
                block = hashlib.sha256(self.sent.to_bytes(8, "big")).digest() * (BLOCK // 32)
                await self.stream.send_all(block)
                self.sent += len(block)
                self._sent_hash.update(block)
                await trio.sleep(PAUSE_SECONDS)
            await self.stream.send_eof()

    async def _receive(self) -> None:
        async for data in self.stream:
            self.received += len(data)
            self._received_hash.update(data)

    def finish(self) -> None:
        self._enough = True

    @property
    def exact(self) -> bool:
        """What came back is what was sent, byte for byte. Once `run` is over."""
        return self.sent == self.received and self._sent_hash.digest() == self._received_hash.digest()

    async def progress(self, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until bytes that are sent from now on have come back."""
        goal = self.sent + BLOCK
        with trio.fail_after(seconds):
            while self.received < goal:
                await trio.sleep(0.05)


@asynccontextmanager
async def echoing(host: Host, caller: Daemon, lease: str) -> AsyncIterator[Echoed]:
    """Bytes flow through `qubix forward` for as long as the block lasts; then all of them must be back."""
    async with forwarded(caller, lease) as port, await host.connect(port) as stream:
        echoed = Echoed(stream)
        async with trio.open_nursery() as nursery:
            await nursery.start(echoed.run)
            yield echoed
            echoed.finish()
    assert echoed.exact, f"sent {echoed.sent} bytes, got {echoed.received} back, or others"
