"""/v1/events as strangers ask for it: whatever stands in the parameters, the answer is a stream that begins
as described or an error of the usual shape, and nothing of it stays behind when the asker leaves.

The stream has no end, which schemathesis (test_web_described.py) would wait for.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Message

from tests.support.web_mirror import filled
from web.app import create_app
from web.settings import Settings

OFFERS = 40
EVENTS = {"ready", "offer", "gone", "reset"}
FILTERS = st.one_of(
    st.sampled_from(("", "price>0", "gpu=RTX_4090", "price<=", "rtt<5", "name=\x00", "region in (eu)")),
    st.text(max_size=30),
)
PLACES = st.one_of(
    st.just("{at}"),
    st.builds("{{book}}-{}".format, st.integers(0, OFFERS) | st.integers(-2, 10**20)),
    st.builds("{}-{}".format, st.text("0123456789abcdef", max_size=20), st.integers(0, 10**6)),
    st.text(max_size=20),
)
Asked = dict[str, str]


class Door:
    """The application, asked as uvicorn asks it, by somebody who leaves after the first events."""

    def __init__(self, mirror: Path) -> None:
        self.app = create_app(Settings(mirror=str(mirror), requests_per_minute=10**6, streams_each=1))
        self.loop = asyncio.new_event_loop()
        self._life = self.app.router.lifespan_context(self.app)
        self.loop.run_until_complete(self._life.__aenter__())
        self.at = self.loop.run_until_complete(self.app.state.hub.at())

    def close(self) -> None:
        self.loop.run_until_complete(self._life.__aexit__(None, None, None))
        self.loop.close()

    def ask(self, query: Asked, headers: Asked) -> tuple[int, bytes]:
        return self.loop.run_until_complete(asyncio.wait_for(self._ask(query, headers), 30))

    async def _ask(self, query: Asked, headers: Asked) -> tuple[int, bytes]:
        status, body, left = 0, bytearray(), asyncio.Event()
        written = "&".join(f"{name}={quote(value.encode(errors='replace'))}" for name, value in query.items())
        scope: dict[str, Any] = {
            "type": "http", "method": "GET", "path": "/v1/events", "raw_path": b"/v1/events", "root_path": "",
            "query_string": written.encode(), "scheme": "http", "http_version": "1.1",
            "client": ("192.0.2.1", 1), "server": ("market.test", 80),
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }  # fmt: skip

        async def send(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            body.extend(message.get("body", b""))
            if b"event: ready" in body:
                left.set()

        async def receive() -> Message:
            await left.wait()
            return {"type": "http.disconnect"}

        await self.app(scope, receive, send)
        return status, bytes(body)


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    made = Door(filled(tmp_path_factory.mktemp("events") / "mirror.db", OFFERS))
    yield made
    made.close()


@settings(max_examples=80, deadline=None)
@given(FILTERS, PLACES, PLACES, st.booleans(), st.booleans())
def test_a_stream_or_an_error(
    door: Door, filter: str, since: str, last: str, begun: bool, back: bool
) -> None:
    book = door.at.rpartition("-")[0]
    since, last = (one.replace("{at}", door.at).replace("{book}", book) for one in (since, last))
    query = {"filter": filter} | ({"since": since} if begun else {})
    headers = {"last-event-id": sendable(last)} if back else {}
    status, body = door.ask(query, headers)
    assert len(door.app.state.hub) == 0 and not door.app.state.hub._groups
    if status != 200:
        assert status == 400 and set(json.loads(body)["error"]) >= {"code", "message"}
        return
    events = [one for one in body.decode().split("\n\n") if "event: " in one]
    for one in events:
        name, at, data = one.split("\n")
        assert name.removeprefix("event: ") in EVENTS and at.startswith(f"id: {book}-")
        assert isinstance(json.loads(data.removeprefix("data: ")), dict)
    assert sum(one.startswith("event: ready\n") for one in events) == 1


def sendable(text: str) -> str:
    """What a header can hold of it."""
    return "".join(one for one in text if one.isascii() and one.isprintable())
