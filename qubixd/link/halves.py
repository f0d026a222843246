"""The two directions of one stream, as one side sees them: what is sent and what has come. Pure.

Positions count the bytes of a direction since the stream opened; its end counts as one more. What is sent is
kept until the other side has consumed it, so that it can be sent again over another carrier. How much may be
on its way is the window, which the receiving side grants and widens while it is used up.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from protocol.errors import MessageInvalid

Chunk = bytes | bytearray | memoryview

FIRST_WINDOW: Final = 256 * 1024
MAX_WINDOW: Final = 8 << 20
"""640 Mbit/s over 100 ms. Nobody keeps more for one stream, whatever the other side asks for."""
SWIFT_WINDOW: Final = 2 << 20
"""A stream that brings much gets this in any case: there are two ACKs in a window, and each costs both sides
a tenth of what half a megabyte does."""
SMALL: Final = 16 * 1024
"""Chunks below are put together."""
_JOINED: Final = 64 * 1024


class Outgoing:
    """Bytes from here to there."""

    def __init__(self) -> None:
        self._unsent: deque[Chunk] = deque()
        self._sent: deque[Chunk] = deque()
        self.unsent_bytes = 0
        self.sent = 0
        """Position of what goes next."""
        self.acked = 0
        self._kept_from = 0
        """Position of the first byte in `_sent`: acked, or a little less."""
        self._limit = 0
        self.ended = False
        self._end_sent = False

    def add(self, chunk: Chunk) -> None:
        """Put bytes at the end. They must not be changed afterwards."""
        if chunk:
            self._unsent.append(chunk)
            self.unsent_bytes += len(chunk)

    def finish(self) -> None:
        self.ended = True

    @property
    def backlog(self) -> int:
        """Bytes not yet consumed there."""
        return self.unsent_bytes + max(0, self.sent - self.acked)

    @property
    def done(self) -> bool:
        """The other side has it all, and the end."""
        return self._end_sent and self.acked == self.sent

    @property
    def end_said(self) -> bool:
        """All has been sent, and the end."""
        return self._end_sent

    @property
    def end_due(self) -> bool:
        return self.ended and not self._end_sent and not self._unsent

    @property
    def room(self) -> int:
        """Bytes that may go now."""
        return 0 if self._end_sent else max(0, min(self._limit - self.sent, self.unsent_bytes))

    def take(self, most: int) -> Chunk:
        """The next bytes to send, which begin at `sent` before the call; empty if none may go."""
        most = min(most, self._limit - self.sent)
        if most <= 0 or not self._unsent:
            return b""
        chunk = self._unsent.popleft()
        if len(chunk) < SMALL and self._unsent:
            chunk = self._joined(chunk, min(most, _JOINED))
        if len(chunk) > most:
            view = memoryview(chunk)
            chunk = view[:most]
            self._unsent.appendleft(view[most:])
        self._sent.append(chunk)
        self.unsent_bytes -= len(chunk)
        self.sent += len(chunk)
        return chunk

    def _joined(self, first: Chunk, most: int) -> Chunk:
        parts, size = [first], len(first)
        while self._unsent and size + len(self._unsent[0]) <= most:
            parts.append(self._unsent.popleft())
            size += len(parts[-1])
        return b"".join(parts) if len(parts) > 1 else first

    def take_end(self) -> int:
        """The position of the end, which is sent now."""
        self._end_sent = True
        self.sent += 1
        return self.sent - 1

    def grant(self, consumed: int, window: int) -> None:
        """The other side has consumed so much and takes `window` more. MessageInvalid if it cannot have."""
        if not self.acked <= consumed <= self.sent:
            raise MessageInvalid("a peer confirmed bytes that were never sent")
        self.acked = consumed
        self._limit = max(self._limit, consumed + min(window, MAX_WINDOW))
        while self._sent and self._kept_from + len(self._sent[0]) <= consumed:
            self._kept_from += len(self._sent.popleft())

    def rewind(self, received: int, room: int) -> None:
        """On a new carrier: the other side has received so much, takes `room` more, and lost the rest."""
        if not self.acked <= received <= self.sent:
            raise MessageInvalid("a peer wants to go on at a place where the stream never was")
        if self._end_sent and received < self.sent:
            self._end_sent = False
            self.sent -= 1
        lost: deque[Chunk] = deque()
        while self._sent and self.sent > received:
            chunk = self._sent.pop()
            start = self.sent - len(chunk)
            if start < received:
                view, cut = memoryview(chunk), received - start
                self._sent.append(view[:cut])
                chunk = view[cut:]
            lost.appendleft(chunk)
            self.sent -= len(chunk)
        self._unsent.extendleft(reversed(lost))
        self.unsent_bytes += sum(map(len, lost))
        self._limit = received + min(room, MAX_WINDOW)

    def clear(self) -> None:
        self._unsent.clear()
        self._sent.clear()
        self.unsent_bytes = 0


class Incoming:
    """Bytes from there to here."""

    def __init__(self) -> None:
        self._chunks: deque[Chunk] = deque()
        self.waiting_bytes = 0
        self.received = 0
        self.ended = False
        self._consumed = 0
        self._told = 0
        """What the other side was last told to be consumed."""
        self.window = FIRST_WINDOW
        self._limit = FIRST_WINDOW

    def check(self, position: int, size: int) -> None:
        """Bytes come. MessageInvalid if they are not the next ones or more than was granted."""
        if position != self.received or self.ended:
            raise MessageInvalid("a peer sent bytes of a stream out of order")
        if self.received + size > self._limit:
            raise MessageInvalid("a peer sent more bytes than it was granted")

    def add(self, piece: bytes | memoryview) -> None:
        """Keep them until they are taken."""
        self.received += len(piece)
        self.waiting_bytes += len(piece)
        last = self._chunks[-1] if self._chunks else None
        if isinstance(last, bytearray) and len(last) < SMALL:
            last += piece  # so that many tiny pieces take little more than their bytes
        else:
            self._chunks.append(bytearray(piece) if len(piece) < SMALL and last is not None else bytes(piece))

    def pass_by(self, size: int) -> None:
        """They are consumed already; nothing else may be waiting."""
        self.received += size
        self._consumed += size

    def put_back(self, piece: bytes | memoryview) -> None:
        """They are not consumed after all."""
        self.received -= len(piece)
        self._consumed -= len(piece)
        self.add(piece)

    def end(self, position: int) -> None:
        """The end has come."""
        if position != self.received or self.ended:
            raise MessageInvalid("a peer ended a stream in a place where it was not")
        self.ended = True
        self.received += 1

    @property
    def at_end(self) -> bool:
        """All has come and was taken."""
        return self.ended and not self._chunks

    @property
    def consumed(self) -> int:
        return self.received if self.at_end else self._consumed

    @property
    def room(self) -> int:
        """Granted and not yet come."""
        return max(0, self._limit - self.received)

    def take(self, most: int | None) -> bytes | bytearray:
        """What is there, at most so much; empty if nothing is."""
        if not self._chunks:
            return b""
        chunk = self._chunks.popleft()
        if most is not None and len(chunk) > most:
            view = memoryview(chunk)
            self._chunks.appendleft(view[most:])
            chunk = view[:most]
        if isinstance(chunk, memoryview):
            chunk = bytes(chunk)
        self._consumed += len(chunk)
        self.waiting_bytes -= len(chunk)
        return chunk

    @property
    def ack_due(self) -> bool:
        return self.consumed - self._told >= self.window // 2 or (self.at_end and self._told < self.received)

    def grant(self) -> tuple[int, int]:
        """(consumed, window), to be told to the other side now."""
        self._told = self.consumed
        if not self.ended:
            self._limit = max(self._limit, self._told + self.window)
        return self._told, self.window

    @property
    def pressed(self) -> bool:
        """A wider window would let the other side go faster, which has nearly used up what it was granted, or
        would save many ACKs."""
        used_up = self._limit - self.received < self.window // 4
        return self.window < SWIFT_WINDOW or (used_up and self.window < MAX_WINDOW)

    def clear(self) -> None:
        self._chunks.clear()
        self.waiting_bytes = 0
