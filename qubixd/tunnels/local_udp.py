"""A UDP port of this machine that leads into a job: every address that sends to it has a stream of its own,
so that answers find back, and loses it when neither side has said anything for a while."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any, Final

import trio

from protocol.control_tunnels import ForwardPort
from protocol.errors import QubixError
from protocol.messages import OpenUdp
from qubixd.link import pump
from qubixd.tunnels.local_forward import Forwarding

IDLE_SECONDS: Final = 120.0
MAX_SENDERS: Final = 32
"""Of one port at a time; what others send is dropped, as datagrams may be."""
QUEUED: Final = 256
"""Datagrams that wait while a stream is being opened; then those that come faster than they can go."""
REFUSED_SECONDS: Final = 2.0
"""A sender to whom nobody answers inside the job is not tried again sooner."""


@dataclass
class _Sender:
    address: Any
    put: trio.MemorySendChannel[bytes]
    get: trio.MemoryReceiveChannel[bytes]
    moved: bool = True
    """Something has been said since this was last looked at."""

    def take(self, data: bytes) -> None:
        self.moved = True
        try:
            self.put.send_nowait(data)
        except trio.WouldBlock:
            return  # late datagrams are worth less than none


async def serve_udp(forwarding: Forwarding, port: ForwardPort, bound: socket.socket) -> None:
    """Until cancelled."""
    sock = trio.socket.from_stdlib_socket(bound)
    senders: dict[Any, _Sender] = {}

    async def converse(sender: _Sender) -> None:
        try:
            await _converse(forwarding, port, sock, sender)
        finally:
            del senders[sender.address]

    async with trio.open_nursery() as nursery:
        while True:
            data, address = await sock.recvfrom(65_535)
            sender = senders.get(address)
            if sender is None and len(senders) < MAX_SENDERS:
                sender = senders[address] = _Sender(address, *trio.open_memory_channel[bytes](QUEUED))
                nursery.start_soon(converse, sender)
            if sender is not None:
                sender.take(data)


async def _converse(
    forwarding: Forwarding, port: ForwardPort, sock: trio.socket.SocketType, sender: _Sender
) -> None:
    stream = await forwarding.stream(port, OpenUdp(forwarding.lease.lease_id, port.remote))
    if stream is None:
        await trio.sleep(REFUSED_SECONDS)
        return

    async def answer(data: bytes) -> None:
        sender.moved = True
        await sock.sendto(data, sender.address)

    async def carry() -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_until_idle, sender, nursery.cancel_scope)
                await pump.carry_datagrams(stream, sender.get.receive, answer)
                nursery.cancel_scope.cancel()
            await stream.send_eof()
            await stream.aclose()
        except* QubixError:
            pass  # it is the stream's, which keeps it

    await forwarding.follow(port, stream, carry)


async def _until_idle(sender: _Sender, conversation: trio.CancelScope) -> None:
    while sender.moved:
        sender.moved = False
        await trio.sleep(IDLE_SECONDS)
    conversation.cancel()
