"""/v1 as programs meet it: errors with their place, ETags, cursors, limits, hostile requests and text."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from escrow_bridge import qubic
from ledger.mirror_schema import OFFER_COLUMNS
from protocol import signing
from protocol.signing import NodeKey
from protocol.units import UnixMs
from qubixd.wire_libp2p import peer_id_of
from tests.support.web_client import serving
from tests.support.web_html import read
from tests.support.web_mirror import filled, insert, offer_of, row_of
from web import identity
from web.app import create_app
from web.live import Hub
from web.settings import Settings

OFFERS = 120
Play = Callable[[httpx.AsyncClient, Hub], Awaitable[None]]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(tmp_path_factory.mktemp("api") / "mirror.db", OFFERS)


def play(path: Path, turn: Play, **settings: object) -> None:
    async def run() -> None:
        app = create_app(Settings(str(path), **{"requests_per_minute": 10**6, **settings}))  # type: ignore[arg-type]  # any of them
        async with serving(app) as client:
            await turn(client, app.state.hub)

    asyncio.run(run())


# --- errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "code", "parameter", "position"),
    [
        ({"filter": "gpu=A100 prize<=50"}, "query.invalid", "filter", 9),
        ({"filter": "price<="}, "query.invalid", "filter", 7),
        ({"filter": "x" * 1_001}, "usage.error", "filter", None),
        ({"sort": "price,colour"}, "query.invalid", "sort", 6),
        ({"after": "x"}, "query.invalid", "after", 0),
        ({"limit": "0"}, "usage.error", "limit", None),
        ({"limit": "501"}, "usage.error", "limit", None),
        ({"limit": "9" * 5_000}, "usage.error", "limit", None),
        ({"limit": "1e2"}, "usage.error", "limit", None),
        ({"limit": "٣"}, "usage.error", "limit", None),
        ({"count": "maybe"}, "usage.error", "count", None),
        ({"colour": "red"}, "usage.error", None, None),
    ],
)
def test_what_is_wrong_and_where(
    path: Path, asked: dict[str, str], code: str, parameter: str | None, position: int | None
) -> None:
    async def turn(client: httpx.AsyncClient, hub: Hub) -> None:
        answer = await client.get("/v1/offers", params=asked)
        error = answer.json()["error"]
        assert answer.status_code == 400 and list(answer.json()) == ["error"]
        assert (error["code"], error.get("parameter"), error.get("position")) == (code, parameter, position)
        assert "\n" not in error["message"] and len(error["message"]) < 400

    play(path, turn)


def test_every_error_has_one_shape(path: Path) -> None:
    async def turn(client: httpx.AsyncClient, hub: Hub) -> None:
        for method, where, status in (
            ("GET", "/v1/nothing", 404),
            ("GET", "/v1/offers/" + "0" * 64, 404),
            ("GET", "/v1/offers/12D3KooW" + "1" * 44, 404),
            ("GET", "/v1/offers/%00", 400),
            ("GET", "/v1/prices/%F0%9F%92%A9", 404),
            ("GET", "/v1/use-cases/nothing/recommendation", 404),
            ("GET", "/v1/settlements?provider=nobody", 404),
            ("GET", "/v1/offers?limit=1&limit=2", 400),
            ("GET", "/v1/events?since=x", 400),
            ("POST", "/v1/offers", 405),
            ("DELETE", "/v1/events", 405),
        ):
            answer = await client.request(method, where)
            assert answer.status_code == status, where
            assert set(answer.json()) == {"error"} and {"code", "message"} <= set(answer.json()["error"])
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["cache-control"] == "no-store"

    play(path, turn)


def test_no_path_is_taken_for_a_query(path: Path) -> None:
    """What is remembered is given to whoever asks the same, and to nobody else."""

    async def turn(client: httpx.AsyncClient, hub: Hub) -> None:
        for path, gpu in (("/v1/prices/a%3Fspan=day", "aspanday"), ("/v1/prices/a?span=day", "a")):
            assert (await client.get(path)).json()["subject"] == gpu

    play(path, turn)


def test_a_mistake_of_ours_is_said_without_its_details(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    async def turn(client: httpx.AsyncClient, hub: Hub) -> None:
        monkeypatch.setattr("web.store.Store.live", broken)
        client._transport.raise_app_exceptions = False  # type: ignore[attr-defined]  # as a server does
        answer = await client.get("/v1/stats")
        assert answer.status_code == 500 and "secret" not in answer.text
        assert answer.json()["error"]["code"] == "internal.error"

    play(path, turn)


# --- answers ----------------------------------------------------------------------------------------


def test_an_etag_lasts_until_the_mirror_changes(tmp_path: Path) -> None:
    path = filled(tmp_path / "mirror.db", 30)

    async def turn(client: httpx.AsyncClient, hub: Hub) -> None:
        first = await client.get("/v1/offers")
        known = {"if-none-match": f'"other", {first.headers["etag"]}'}
        again = await client.get("/v1/offers", headers=known)
        assert (again.status_code, again.content) == (304, b"") and again.headers["etag"]
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("UPDATE offers SET price = 1, change = 31 WHERE change = 3")
            db.execute("UPDATE meta SET value = '31' WHERE key = 'change'")
        await hub.look()
        changed = await client.get("/v1/offers", headers=known)
        assert changed.status_code == 200 and changed.headers["etag"] != first.headers["etag"]
        assert changed.json()["offers"][0]["price_qu_per_hour"] == 1
        assert changed.json()["at"].endswith("-31")

    play(path, turn)


def test_what_hangs_on_the_clock_has_no_etag(path: Path) -> None:
    async def turn(client: httpx.AsyncClient, hub: Hub) -> None:
        assert "etag" not in (await client.get("/v1/offers", params={"filter": "age<5min"})).headers

    play(path, turn)


def test_all_offers_page_by_page(path: Path) -> None:
    async def turn(client: httpx.AsyncClient, hub: Hub) -> None:
        seen: list[str] = []
        after: str | None = ""
        while after is not None:
            asked = {"sort": "-vram,price", "limit": "17", "after": after}
            page = (await client.get("/v1/offers", params=asked)).json()
            assert page["total"] == {"number": OFFERS - 2, "exact": True}
            seen += [one["peer_id"] for one in page["offers"]]
            after = page["next"]
        assert len(set(seen)) == len(seen) == OFFERS - 2
        assert (await client.get("/v1/offers?count=no")).json()["total"] is None

    play(path, turn)


def test_offers_carry_what_was_signed_and_spell_it_as_others_do(path: Path) -> None:
    async def turn(client: httpx.AsyncClient, hub: Hub) -> None:
        for one in (await client.get("/v1/offers?limit=20")).json()["offers"]:
            signed = signing.verify(base64.b64decode(one["signed"]))
            assert peer_id_of(signed.signer) == one["peer_id"] == identity.peer_id_of(signed.signer)
            assert one["wallet"] == qubic.identity_of(signed.message.qubic_id)
            assert one["price_qu_per_hour"] == signed.message.price_qu_per_hour

    play(path, turn)


def test_an_offer_a_provider_and_their_history(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        sold, digest = db.execute(
            "SELECT provider, transaction_digest FROM settlements WHERE close_tick > 0 AND provider IN"
            " (SELECT peer FROM scores) AND provider IN (SELECT subject FROM candles)"
            " ORDER BY ended_ms DESC LIMIT 1"
        ).fetchone()
    name = identity.peer_id_of(sold)

    async def turn(client: httpx.AsyncClient, hub: Hub) -> None:
        provider = (await client.get(f"/v1/providers/{name}")).json()
        assert provider["offer"] == (await client.get(f"/v1/offers/{sold.hex()}")).json()["offer"]
        assert set(provider["score"]["evidence"]) and provider["score"]["reasons"]
        assert provider["days"] and provider["prices"]
        told = (await client.get(f"/v1/settlements?provider={name}")).json()["settlements"]
        assert {one["provider"] for one in told} == {name}
        hashes = [one["transaction"] for one in told if one["transaction"]]
        assert qubic.identity_of(digest).lower() in hashes
        days = (await client.get(f"/v1/providers/{name}/prices?span=day&limit=7")).json()["candles"]
        assert len(days) == 7 and days == sorted(days, key=lambda one: int(one["start_ms"]))
        gpu = (await client.get("/v1/prices/NVIDIA GeForce RTX 4090?limit=24")).json()
        assert gpu["subject"] == "4090" and len(gpu["candles"]) == 24

    play(path, turn)


def test_hostile_text_is_passed_on_as_text(tmp_path: Path) -> None:
    path = filled(tmp_path / "mirror.db", 5)
    hostile = ["<script>alert(1)</script>", "\u202eevil", "\u2400\x1b[2J", "n" * 4_096, "\U0001f4a9", '"}]']
    now, lots = UnixMs(time.time_ns() // 10**6), random.Random(1)
    rows = []
    for number, name in enumerate(hostile):
        row = list(row_of(offer_of(number, lots, now), NodeKey(bytes([number + 1] * 32)), 100 + number))
        row[9] = row[10] = row[11] = name
        rows.append(row)
    with closing(sqlite3.connect(path)) as db, db:
        insert(db, "offers", OFFER_COLUMNS, [tuple(row) for row in rows])

    async def turn(client: httpx.AsyncClient, hub: Hub) -> None:
        answer = await client.get("/v1/offers", params={"limit": 500})
        names = {one["name"] for one in json.loads(answer.content)["offers"]}
        assert names >= set(hostile)
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"
        for where in ("/v1/models", "/v1/regions", "/v1/stats", "/v1/use-cases/llama-8b/recommendation"):
            assert (await client.get(where)).status_code == 200

    play(path, turn)


# --- limits, reading elsewhere ----------------------------------------------------------------------


def test_fifty_a_minute_and_who_is_counted(path: Path) -> None:
    async def turn(client: httpx.AsyncClient, hub: Hub) -> None:
        for left in (2, 1, 0):
            headers = (
                await client.get("/v1/network", headers={"x-forwarded-for": "6.6.6.6, 192.0.2.1"})
            ).headers
            assert (headers["ratelimit-limit"], headers["ratelimit-remaining"]) == ("3", str(left))
            assert 0 < int(headers["ratelimit-reset"]) <= 60
        refused = await client.get("/v1/offers", headers={"x-forwarded-for": "7.7.7.7, 192.0.2.1"})
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "web.too_many_requests"
        assert 0 < int(refused.headers["retry-after"]) <= 120
        assert refused.headers["access-control-allow-origin"] == "*"
        assert "retry-after" in refused.headers["access-control-expose-headers"]
        other = await client.get("/v1/network", headers={"x-forwarded-for": "192.0.2.1, 192.0.2.2"})
        assert other.status_code == 200
        for where in ("/healthz", "/readyz"):
            assert (await client.get(where, headers={"x-forwarded-for": "192.0.2.1"})).status_code == 200

    play(path, turn, requests_per_minute=3, behind_proxy=1)


def test_streams_have_an_end_of_room_too(path: Path) -> None:
    async def turn(client: httpx.AsyncClient, hub: Hub) -> None:
        answer = await client.get("/v1/events")
        assert answer.status_code == 503 and int(answer.headers["retry-after"]) > 0
        assert "streams are open" in answer.json()["error"]["message"]

    play(path, turn, streams=0)


def test_the_reference_is_a_page_like_the_others(path: Path) -> None:
    async def turn(client: httpx.AsyncClient, hub: Hub) -> None:
        described = (await client.get("/v1/openapi.json")).json()
        page = await client.get("/v1/docs")
        assert page.headers["content-type"].startswith("text/html")
        assert read(page.text).wrong == [] and all(one.startswith("/") for one in read(page.text).resources)
        assert "http://" not in page.text and "https://" not in page.text
        turned = await client.get("/v1/docs?lang=pt&theme=dark", follow_redirects=True)
        assert turned.status_code == 200 and 'lang="pt"' in (await client.get("/v1/docs?lang=pt")).text
        for where, methods in described["paths"].items():
            assert f"<code>GET {where}</code>" in page.text
            told = methods["get"]
            assert told["summary"] and told["description"] and told["tags"], where
            assert {"400", "429", "503"} <= set(told["responses"]) and "422" not in told["responses"]
        for name in described["components"]["schemas"]:
            assert f'id="{name}"' in page.text

    play(path, turn)


def test_metrics_are_not_where_the_public_asks(path: Path) -> None:
    async def turn(client: httpx.AsyncClient, hub: Hub) -> None:
        assert (await client.get("/metrics")).status_code == 404

    play(path, turn)
