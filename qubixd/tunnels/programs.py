"""A program beside a job, on a stream of its caller: protocol/terminal_frames.py, the provider's side."""

from __future__ import annotations

from typing import Final

import trio

from protocol.errors import MessageInvalid, StreamBroken
from protocol.terminal_frames import (
    Errors,
    Exit,
    Input,
    InputEnd,
    Output,
    Resize,
    Signal,
    pack,
    pack_data,
    reader_to_program,
)
from qubixd.link.stream import LinkStream
from qubixd.runner import ERRORS, Program

WAITING_INPUTS: Final = 16
"""Frames that a program has not taken yet. Signals overtake no more than these."""


async def serve(stream: LinkStream, program: Program) -> None:
    """Until the program has ended, or the stream; then whoever opened the program closes it."""
    send, receive = trio.open_memory_channel[bytes](WAITING_INPUTS)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.wait_broken)  # a caller that is gone takes its program with it
        nursery.start_soon(_feed, program, receive)
        nursery.start_soon(_listen, stream, program, send)
        while (part := await program.receive_some()) is not None:
            await stream.send_all(pack_data(Errors if part[0] == ERRORS else Output, part[1]))
        await stream.send_all(pack(Exit(await program.exit_code())))
        await stream.send_eof()
        nursery.cancel_scope.cancel()


async def _listen(stream: LinkStream, program: Program, inputs: trio.MemorySendChannel[bytes]) -> None:
    """Do what the caller says. An end of the stream is one of the input, too."""
    reader = reader_to_program()
    while data := await stream.receive_some():
        for frame in reader.feed(data):
            match frame:
                case Input(data=given):
                    await inputs.send(given)
                case InputEnd():
                    await inputs.aclose()
                case Resize(columns=columns, rows=rows):
                    await program.resize(columns, rows)
                case Signal(name=name):
                    await program.signal(name)
                case _:
                    raise MessageInvalid("a caller sent what only a program says")
    if reader.unfinished:
        raise MessageInvalid("the stream to a program ended in the middle of a frame")
    await inputs.aclose()


async def _feed(program: Program, inputs: trio.MemoryReceiveChannel[bytes]) -> None:
    """What a program does not take any more is dropped: it has closed its input, or has ended."""
    takes = True
    async for data in inputs:
        try:
            if takes:
                await program.send_all(data)
        except StreamBroken:
            takes = False
    if takes:
        try:
            await program.send_eof()
        except StreamBroken:
            await trio.lowlevel.checkpoint()
