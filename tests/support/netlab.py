"""A small Internet in network namespaces, with real daemons in it (trio, Linux, root).

async with netlab(tmp_path) as lab:
    relay = await lab.public("relay").daemon("--relay", listen=(443,))
    alice = await lab.home("alice", nat="symmetric").daemon("--provider", "--bootstrap", relay.address)
    bob = await lab.campus("bob").daemon("--bootstrap", relay.address)

One public segment; behind it homes whose router translates addresses (cone: one outer port for all
destinations; symmetric: another one for each) and drops what nobody asked for, and campuses whose firewall
lets out TCP to port 443 and nothing else. All homes use the same private network, as homes do. The devnet is
a public host, on port 443. The control socket of a daemon is a file, so tests speak to it from outside.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, NoReturn

import pytest
import trio

from escrow_bridge.qubic import Wallet, generate_seed
from tests.support.daemons import FUNDS, Daemon
from tests.support.devnet_process import DevnetProcess, devnet_process
from tests.support.netlab_space import Space, Unavailable, check, tool

Nat = Literal["cone", "symmetric"]

PUBLIC: Final = "11.0.0."
"""Looks public to any program, and is nobody's here: the segment has no way out."""
LAN: Final = "192.168.1."
OPEN_PORT: Final = 443
"""The one that a campus lets out."""
ROUTER: Final = """
table ip nat {{
    chain out {{
        type nat hook postrouting priority srcnat
        oifname "wan" masquerade {how}
    }}
    chain in {{
        type nat hook prerouting priority dstnat
        {forwards}
    }}
}}
table ip filter {{
    chain forward {{
        type filter hook forward priority filter; policy drop
        ct state established,related accept
        ct status dnat accept
        {blocked}
        iifname "lan" {lets_out} accept
    }}
    chain input {{
        type filter hook input priority filter; policy drop
        ct state established,related accept
        iifname {{ "lan", "lo" }} accept
    }}
}}
"""
CONNECT: Final = """
import socket, sys
channel = socket.socket(fileno=int(sys.argv[1]))
with socket.create_connection((sys.argv[2], int(sys.argv[3])), 10) as sock:
    socket.send_fds(channel, [b"!"], [sock.fileno()])
"""
DEVNET: Final = """
table ip nat {{
    chain in {{
        type nat hook prerouting priority dstnat
        tcp dport {outside} dnat to 127.0.0.1:{inside}
    }}
}}
"""


class Router:
    """Between the public segment and one private network."""

    def __init__(self, lab: Lab, name: str, how: str, lets_out: str) -> None:
        self.lab, self.how, self.lets_out = lab, how, lets_out
        self.forwards: list[str] = []
        self.blocked: list[str] = []
        self.space = lab.space(f"{name}-router")
        self.ip = lab.attach(self.space, "wan")
        self.space.ip("link add lan type bridge")
        self.space.ip("link set lan up")
        self.space.address("lan", f"{LAN}1/24")
        self.space.sysctl("ipv4/ip_forward", "1")
        self._write()

    def forward(self, port: int, host: Host) -> None:
        """The outer `port` leads to the same port of `host`, as one sets it up by hand."""
        self.forwards.append(f'iifname "wan" tcp dport {port} dnat to {host.ip}')
        self._write()

    def block(self, *ips: str) -> None:
        """Nothing new leaves for these addresses, until it is said anew for which."""
        self.blocked = [f"ip daddr {ip} drop" for ip in ips]
        self._write()

    def _write(self) -> None:
        forwards, blocked = "\n".join(self.forwards), "\n".join(self.blocked)
        text = ROUTER.format(how=self.how, lets_out=self.lets_out, forwards=forwards, blocked=blocked)
        self.space.rules(text)


@dataclass
class Host:
    """A machine; its `ip` is its own, behind a router not what others see."""

    lab: Lab
    name: str
    space: Space
    ip: str = ""
    router: Router | None = None
    daemons: list[Daemon] = field(default_factory=list)

    @property
    def public_ip(self) -> str:
        return self.router.ip if self.router else self.ip

    async def daemon(
        self, *arguments: str, listen: tuple[int, ...] = (0,), name: str = "", seed: bool = True
    ) -> Daemon:
        """A real daemon with a funded wallet on this machine, ready, listening at these ports."""
        name = name or self.name
        lab = self.lab
        listening = [word for port in listen for word in ("--listen", f"0.0.0.0:{port}")]
        chain = ["--chain", lab.chain, "--contract-index", str(lab.devnet.contract_index), "--mdns", "off"]
        wallet = ["--wallet-seed-file", str(lab.seeds.pop())] if seed else []
        made = Daemon(
            name,
            lab.root / name,
            lab.root / f"{name}.log",
            (*chain, *wallet, *listening, *arguments),
            {},
            enter=self.space.enter,
        )
        self.daemons.append(made)
        await made.start()
        return made

    def plug_in(self, router: Router) -> None:
        """Into a private network, with an address there."""
        self.router, number = router, self.lab.number()
        port = f"port{number}"
        router.space.wire(port, self.space, "eth0")
        router.space.ip(f"link set {port} master lan")
        self.ip = f"{LAN}{number}"
        self.space.address("eth0", f"{self.ip}/24", f"{LAN}1")

    def unplug(self) -> None:
        """The cable is gone, and with it the address."""
        self.space.ip("link del eth0")

    def cut(self) -> None:
        """Nothing comes through any more; nobody is told."""
        self.space.ip("link set eth0 down")

    def sleep(self) -> None:
        """The lid is closed: every process of this machine stops where it is, the network is gone."""
        for pid in self._pids():
            os.kill(pid, signal.SIGSTOP)
        self.unplug()

    def wake(self, router: Router) -> None:
        """Opened again elsewhere, so with another address inside and outside."""
        self.plug_in(router)
        for pid in self._pids():
            os.kill(pid, signal.SIGCONT)

    def _pids(self) -> list[int]:
        return [int(pid) for pid in tool("ip", "netns", "pids", self.space.name).split()]

    def run(self, *command: str, text: str = "") -> str:
        """What a program says that runs on this machine."""
        return tool(*self.space.enter, *command, text=text)

    async def connect(self, port: int, ip: str = "127.0.0.1") -> trio.SocketStream:
        """A connection that this machine opens, for the test to use: a socket stays where it was made."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            command = [*self.space.enter, sys.executable, "-c", CONNECT, str(theirs.fileno()), ip, str(port)]
            await trio.run_process(command, pass_fds=(theirs.fileno(),))
            _, (descriptor, *_), _, _ = socket.recv_fds(ours, 1, 1)
        return trio.SocketStream(trio.socket.from_stdlib_socket(socket.socket(fileno=descriptor)))


class Lab:
    """The public segment and whatever is connected to it."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self.root, self._stack = root, stack
        self._numbers = iter(range(10, 250))
        self.seeds: list[Path] = []
        self.hosts: list[Host] = []
        self.devnet: DevnetProcess
        self._internet = self.space("internet")
        self._internet.ip("link add br0 type bridge")
        self._internet.ip("link set br0 up")
        self.chain = ""

    def space(self, name: str) -> Space:
        made = Space(name)
        self._stack.callback(made.remove)
        return made

    def number(self) -> int:
        return next(self._numbers)

    def attach(self, space: Space, device: str) -> str:
        """Connects a namespace to the public segment; its address there."""
        number = self.number()
        self._internet.wire(f"port{number}", space, device)
        self._internet.ip(f"link set port{number} master br0")
        space.address(device, f"{PUBLIC}{number}/24")
        return f"{PUBLIC}{number}"

    def public(self, name: str) -> Host:
        """A machine that everybody can reach, at every port."""
        space = self.space(name)
        return self._host(Host(self, name, space, self.attach(space, "eth0")))

    def home(self, name: str, *, nat: Nat) -> Host:
        """A machine behind a home's router, alone there."""
        return self._behind(self.home_router(name, nat=nat), name)

    def campus(self, name: str) -> Host:
        """A machine behind a firewall that lets out TCP to port 443 only."""
        return self._behind(self.campus_router(name), name)

    def home_router(self, name: str, *, nat: Nat) -> Router:
        return Router(self, name, "" if nat == "cone" else "random,fully-random", "")

    def campus_router(self, name: str) -> Router:
        return Router(self, name, "", f"tcp dport {OPEN_PORT}")

    def _behind(self, router: Router, name: str) -> Host:
        host = self._host(Host(self, name, self.space(name)))
        host.plug_in(router)
        return host

    def _host(self, host: Host) -> Host:
        self.hosts.append(host)
        return host

    async def end(self) -> None:
        """Ends every daemon, awake or not."""
        for daemon in (daemon for host in self.hosts for daemon in host.daemons):
            if daemon.process is not None and daemon.process.returncode is None:
                await daemon.kill()


@asynccontextmanager
async def netlab(root: Path, *, people: int = 10, tick_seconds: float = 0.2) -> AsyncIterator[Lab]:
    """A segment with a devnet and room for the daemons of so many people, whose wallets are funded. `root`
    holds their files: short, for the sake of the sockets. At its end nothing is left of it."""
    seeds = [generate_seed() for _ in range(people)]
    with ExitStack() as stack:
        lab = Lab(root, stack)
        for number, seed in enumerate(seeds):
            lab.seeds.append(root / f"seed-{number}")
            lab.seeds[-1].touch(mode=0o600)
            lab.seeds[-1].write_text(seed)
        host = lab.public("devnet")
        host.space.sysctl("ipv4/conf/all/route_localnet", "1")
        funds = [(Wallet(seed).public_key, FUNDS) for seed in seeds]
        async with devnet_process(funds, tick_seconds=tick_seconds, enter=host.space.enter) as lab.devnet:
            host.space.rules(DEVNET.format(outside=OPEN_PORT, inside=lab.devnet.port))
            lab.chain = f"node://{host.ip}:{OPEN_PORT}"
            try:
                yield lab
            finally:
                with trio.CancelScope(shield=True):
                    await lab.end()


def skip_or_fail(reason: str) -> NoReturn:
    """The end of a test that needs what this machine lacks; in CI it must not lack it."""
    if os.environ.get("QUBIX_TEST_REQUIRE_NETNS"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def netns() -> None:
    """Skips with the reason where netlab cannot work. For `@pytest.mark.usefixtures("netns")`: the lab is
    made within an async test, and pytest-trio drops the reason of a skip that comes as late as that."""
    try:
        check()
    except Unavailable as error:
        skip_or_fail(str(error))
