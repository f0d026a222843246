"""What the daemon sends, checked against protocol.control before anyone sees it; its errors, raised."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta

from protocol import control
from protocol.codec import convert
from protocol.errors import MessageInvalid, PeerRefused, QubixError

Frame = dict[str, Any]


@dataclass(frozen=True)
class ErrorBody:
    """An error as the daemon puts it into an answer."""

    code: Annotated[str, Meta(min_length=1, max_length=128)]
    message: str
    exit_code: Annotated[int, Meta(ge=1, le=255)]


def typed(verb: str, frame: Frame) -> Any:
    """The event or answer in a frame, typed; the error in it, raised."""
    if "event" in frame and verb in control.EVENTS:
        return convert(frame["event"], control.EVENTS[verb], f"event of {verb}")
    if "ok" in frame:
        return convert(frame["ok"], control.ANSWERS[verb], f"answer to {verb}")
    if "error" in frame:
        body: ErrorBody = convert(frame["error"], ErrorBody, f"error of {verb}")
        raise error_of(body.code, body.message, body.exit_code)
    raise MessageInvalid(f"the daemon's answer to {verb} holds neither an event nor an end")


def error_of(code: str, message: str, exit_code: int) -> QubixError:
    """An error of the tree with this code; for a code that is not in it, one made to measure."""
    for kind in _tree(QubixError):
        if kind.code == code and kind is not PeerRefused:
            return kind(message)
    other = type("RemoteError", (QubixError,), {"code": code, "exit_code": exit_code})
    error: QubixError = other(message)
    return error


def _tree(kind: type[QubixError]) -> Iterator[type[QubixError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)
