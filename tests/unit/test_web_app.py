"""What every answer of the web carries, and what strangers are told when something is wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from tests.support.web_client import client_of
from tests.support.web_mirror import filled
from web.settings import Settings

Play = Callable[[httpx.AsyncClient], Awaitable[None]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return filled(tmp_path / "mirror.db", 60)


def play(path: Path, turn: Play) -> None:
    async def run() -> None:
        async with client_of(Settings(mirror=str(path))) as client:
            await turn(client)

    asyncio.run(run())


def test_nothing_foreign_can_run_on_a_page(path: Path) -> None:
    async def turn(client: httpx.AsyncClient) -> None:
        for where in ("/healthz", "/v1/offers", "/nowhere"):
            headers = (await client.get(where)).headers
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"

    play(path, turn)


def test_each_request_has_an_id_of_its_own(path: Path) -> None:
    async def turn(client: httpx.AsyncClient) -> None:
        found = {(await client.get("/healthz")).headers["x-request-id"] for _ in range(5)}
        assert len(found) == 5

    play(path, turn)


def test_only_v1_may_be_read_from_other_pages(path: Path) -> None:
    async def turn(client: httpx.AsyncClient) -> None:
        assert (await client.get("/v1/offers")).headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-origin" not in (await client.get("/healthz")).headers
        asked = await client.options("/v1/offers", headers={"access-control-request-method": "GET"})
        assert asked.status_code == 204
        assert asked.headers["access-control-allow-methods"] == "GET, HEAD, OPTIONS"

    play(path, turn)


def test_strangers_do_not_hear_where_the_mirror_is(tmp_path: Path) -> None:
    async def turn(client: httpx.AsyncClient) -> None:
        assert (await client.get("/healthz")).status_code == 200
        for where in ("/readyz", "/v1/offers"):
            answer = await client.get(where)
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "mirror.unavailable"
            assert "mirror.db" not in answer.text

    play(tmp_path / "mirror.db", turn)


def test_what_cannot_be_asked_is_said_with_its_place(path: Path) -> None:
    async def turn(client: httpx.AsyncClient) -> None:
        answer = await client.get("/v1/offers", params={"filter": "prize<=50"})
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "query.invalid"
        assert "did you mean price" in answer.json()["error"]["message"]

    play(path, turn)


def test_a_mirror_that_is_not_written_any_more_is_not_ready(tmp_path: Path) -> None:
    async def turn(client: httpx.AsyncClient) -> None:
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (503, "stale")

    async def fresh(client: httpx.AsyncClient) -> None:
        assert (await client.get("/readyz")).status_code == 200

    play(filled(tmp_path / "old.db", 5, now_ms=time.time_ns() // 1_000_000 - 120_000), turn)
    play(filled(tmp_path / "new.db", 5), fresh)
