"""A node that looks for neighbours: `python -m tests.support.neighbour NUMBER`. Prints "met <peer id>" for
each peer it meets, until its input ends."""

from __future__ import annotations

import sys

import trio

from protocol.units import PeerKey
from qubixd.wire_libp2p import WireConfig, open_wire, peer_id_of


def seed_of(number: int) -> bytes:
    return bytes([number]) * 32


async def main(number: int) -> None:
    def met(peer: PeerKey) -> None:
        sys.stdout.write(f"met {peer_id_of(peer)}\n")
        sys.stdout.flush()

    async with open_wire(WireConfig("0.0.0.0", 0, (), mdns=True), seed_of(number)) as wire:
        wire.on_peer(met)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]))
