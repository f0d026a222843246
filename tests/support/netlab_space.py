"""Network namespaces for netlab.py: made, wired to each other, filled with nftables rules, removed.

Nothing of it is in the machine's own namespace. Names begin with the process that made them, so that
what a killed test run left is known for what it is and removed by the next one.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Final

PREFIX: Final = "qubix-lab"
TOOLS: Final = ("ip", "nft", "nsenter")
SECONDS: Final = 20
NAMES: Final = Path("/run/netns")


class Unavailable(Exception):
    """This machine cannot make such networks; the text says why."""


class Space:
    """One network namespace, with its loopback up and IPv6 off."""

    def __init__(self, name: str) -> None:
        self.name = f"{PREFIX}-{os.getpid()}-{name}"
        self.enter: Final = ("nsenter", f"--net={NAMES / self.name}", "--")
        """Before a command: it runs in this namespace, and sees the same files as everybody."""
        tool("ip", "netns", "add", self.name)
        self.ip("link set lo up")
        self.sysctl("ipv6/conf/all/disable_ipv6", "1")
        self.sysctl("ipv6/conf/default/disable_ipv6", "1")

    def ip(self, words: str) -> None:
        tool("ip", "-n", self.name, *words.split())

    def sysctl(self, name: str, value: str) -> None:
        tool(*self.enter, "tee", f"/proc/sys/net/{name}", text=value)

    def rules(self, text: str) -> None:
        """nftables rules instead of those there are. What they said of connections is forgotten: a NAT
        that changes does not keep its table."""
        tool(*self.enter, "nft", "-f", "-", text=f"flush ruleset\n{text}")

    def wire(self, device: str, other: Space, far_device: str) -> None:
        """A cable between two namespaces."""
        tool(
            *("ip", "link", "add", device, "netns", self.name, "type", "veth"),
            *("peer", "name", far_device, "netns", other.name),
        )
        self.ip(f"link set {device} up")
        other.ip(f"link set {far_device} up")

    def address(self, device: str, address: str, gateway: str = "") -> None:
        """`address` as 192.168.1.2/24, and the way to everybody else."""
        self.ip(f"addr add {address} dev {device}")
        if gateway:
            self.ip(f"route add default via {gateway}")

    def remove(self) -> None:
        remove(self.name)


def remove(name: str) -> None:
    """End what runs in a namespace, and the namespace with its cables."""
    for pid in tool("ip", "netns", "pids", name).split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    tool("ip", "netns", "del", name)


def sweep() -> None:
    """Remove what test runs left that are no more."""
    for path in NAMES.glob(f"{PREFIX}-*") if NAMES.is_dir() else ():
        made = re.match(rf"{PREFIX}-(\d+)-", path.name)
        if made and not Path(f"/proc/{made[1]}").exists():
            remove(path.name)


def check() -> None:
    """Unavailable if a namespace with NAT cannot be made here."""
    if os.geteuid() != 0:
        raise Unavailable("network namespaces need root")
    if missing := [name for name in TOOLS if shutil.which(name) is None]:
        raise Unavailable(f"{missing[0]} is not installed (Debian packages iproute2, nftables, util-linux)")
    sweep()
    try:
        probe = Space("probe")
    except Unavailable as error:
        raise Unavailable(f"no network namespace can be made here: {error}") from error
    try:
        probe.rules(
            "table ip nat {\nchain out {\ntype nat hook postrouting priority srcnat\nmasquerade\n}\n}"
        )
    finally:
        probe.remove()


def tool(*command: str, text: str = "") -> str:
    """What a tool says. Unavailable with its complaint if it fails."""
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=SECONDS, check=False, errors="replace"
    )
    if done.returncode:
        raise Unavailable(f"`{' '.join(command)}` failed: {done.stderr.strip() or done.returncode}")
    return done.stdout
