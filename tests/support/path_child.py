"""One end of tests/support/path_ends.py as a program of its own, for a place with a network of its own.

Arguments: its number, the port it listens at, `hidden` where its offer shall name no place, and addresses of
others to stay connected with. It prints a line when it is ready, and then one for each line of its input:
`reach NUMBER` says how a stream to that end travels, `look` how it looks from outside, and `move` when its
network has become another.
"""

from __future__ import annotations

import sys

import trio

from protocol.errors import QubixError
from protocol.signing import NodeKey
from qubixd.wire_libp2p.identity import peer_id_of
from tests.support.path_ends import OPENING, End, end, says
from tests.support.wire_nodes import seed_of, until

ENDS = 9
"""All of them have leases with each other."""


def key_of(number: int) -> NodeKey:
    return NodeKey(seed_of(number))


def address_of(number: int, ip: str, port: int) -> str:
    return f"/ip4/{ip}/tcp/{port}/p2p/{peer_id_of(key_of(number).public)}"


async def main() -> None:
    number, port, *others = sys.argv[1:]
    hidden = others[:1] == ["hidden"]
    async with end(int(number), others[hidden:], host="0.0.0.0", port=int(port), hidden=hidden) as one:
        one.friends.update(key_of(other).public for other in range(1, ENDS + 1))
        await until(lambda: len(one.wire.peers()) >= len(others[hidden:]))
        print("ready", flush=True)
        async for line in trio.wrap_file(sys.stdin):
            print(await answer(one, line.split()), flush=True)


async def answer(one: End, words: list[str]) -> str:
    match words:
        case ["look"]:
            seen = await one.paths.look()
            return f"{seen.nat or 'unknown'} {','.join(map(str, seen.only_ports)) or 'all'}"
        case ["move"]:
            moved = trio.Event()
            one.paths.on_moved.append(moved.set)
            print("waiting", flush=True)
            await moved.wait()
            return "moved"
        case ["reach", number]:
            return await reached(one, int(number))
        case _:
            raise ValueError(words)


async def reached(one: End, number: int) -> str:
    """The kind of path, or the error's code."""
    peer = key_of(number).public
    try:
        with trio.fail_after(30):
            stream = await one.links.open(peer, OPENING)
            assert await says(stream, b"hello") == b"hello"
    except QubixError as error:
        return f"{error.code} {error}"
    view = one.links.view(peer)
    assert view is not None
    await stream.aclose()
    return view.kind


if __name__ == "__main__":
    trio.run(main)
