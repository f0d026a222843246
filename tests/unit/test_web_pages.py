"""The first page and the market: read as strictly as can be, in both languages, with hostile offers."""

from __future__ import annotations

import asyncio
import gzip
import random
import re
import sqlite3
import time
from collections.abc import Callable, Coroutine
from contextlib import closing
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from ledger.mirror_schema import OFFER_COLUMNS
from protocol.signing import NodeKey
from protocol.units import Qu
from tests.support.web_client import client_of
from tests.support.web_html import Page, read
from tests.support.web_mirror import filled, insert, offer_of, row_of
from web import assets
from web.settings import Settings

T = TypeVar("T")
Ask = Callable[[httpx.AsyncClient], Coroutine[Any, Any, T]]

PAGES = (
    "/",
    "/?gpu=4090&span=quarter",
    "/market",
    "/market?filter=vram%3E%3D24&sort=-score",
    "/nothing-here",
)
HOSTILE = (
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "\u202etxt.exe\u2066 reversed",
    "x" * 4_096,
    "{{ 7 * 7 }} {% raw %} %(name)s",
    "a" + "\u0301" * 20,
    "\u05e9\u05dc\u05d5\u05dd",
)


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(tmp_path_factory.mktemp("mirror") / "mirror.db", 120)


def asked(mirror: Path, ask: Ask[T], limit: int = 10_000) -> T:
    async def run() -> T:
        async with client_of(Settings(mirror=str(mirror), requests_per_minute=limit)) as client:
            return await ask(client)

    return asyncio.run(run())


def got(mirror: Path, *paths: str, **headers: str) -> list[httpx.Response]:
    async def ask(client: httpx.AsyncClient) -> list[httpx.Response]:
        return [await client.get(path, headers=headers) for path in paths]

    return asked(mirror, ask)


def page(mirror: Path, path: str) -> Page:
    (answer,) = got(mirror, path)
    found = read(answer.text)
    assert not found.wrong
    return found


def peers(found: Page) -> list[str]:
    return [row["data-peer"] for row in found.all("tr") if "data-peer" in row]


# --- every page -----------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["en", "pt"])
def test_every_page_is_whole_in_every_language(mirror: Path, language: str) -> None:
    for path, answer in zip(PAGES, got(mirror, *PAGES, **{"accept-language": language}), strict=True):
        found = read(answer.text)
        assert (path, found.wrong) == (path, [])
        assert found.language == language
        assert {"/market", "/gpus", "/start", "/network", "/docs", "/"} <= set(found.links)
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert "cookie" in answer.headers["vary"]


def test_language_and_colours_are_remembered(mirror: Path) -> None:
    async def ask(client: httpx.AsyncClient) -> tuple[httpx.Response, ...]:
        first = await client.get("/market?lang=pt&filter=vram%3E%3D24")
        turned = await client.get("/market?theme=dark&filter=vram%3E%3D24")
        return first, turned, await client.get("/market", headers={"accept-language": "en"})

    first, turned, later = asked(mirror, ask)
    assert 'lang="pt"' in first.text and "httponly" in first.headers["set-cookie"].lower()
    assert (turned.status_code, turned.headers["location"]) == (303, "/market?filter=vram%3E%3D24")
    assert '<html lang="pt" data-theme="dark">' in later.text


def test_a_switch_leads_to_no_other_host(mirror: Path) -> None:
    for answer in got(mirror, "/?theme=dark", "//evil.example/?theme=dark"):
        assert not answer.headers.get("location", "/").startswith("//")
    (lost,) = got(mirror, "//evil.example/x")
    assert all(not link.startswith("//") for link in read(lost.text).links)


def test_an_unknown_language_or_theme_changes_nothing(mirror: Path) -> None:
    (answer,) = got(mirror, "/?lang=xx&theme=purple", cookie="lang=../etc; theme=<b>")
    assert answer.status_code == 200 and '<html lang="en">' in answer.text


# --- the first page -------------------------------------------------------------------------------


def test_home_tells_what_is_there(mirror: Path) -> None:
    found = page(mirror, "/")
    assert len(found.all("svg", class_="plot")) == 1
    assert len(found.all("svg", class_="spark")) == 7
    assert len(found.all("table")) == 2 and len(found.all("pre")) == 2
    assert [figure["data-live"] for figure in found.all("b", data_live="free_gpus")] == ["free_gpus"]


def test_a_chart_is_of_the_gpu_in_the_address(mirror: Path) -> None:
    plot = page(mirror, "/?gpu=3090&span=quarter").all("svg", class_="plot")[0]
    assert plot["aria-label"].startswith("Price of RTX 3090. From ")
    assert page(mirror, "/?gpu=unheard-of&span=never").all("svg", class_="plot")


def test_an_empty_market_is_no_trouble(tmp_path: Path) -> None:
    empty = filled(tmp_path / "mirror.db", 0)
    with closing(sqlite3.connect(empty)) as db, db:
        for table in ("candles", "stats"):
            db.execute(f"DELETE FROM {table}")
    assert "Nobody offers a GPU" in page(empty, "/").text
    assert "There are no offers yet" in page(empty, "/market").text


def test_a_mirror_that_stands_still_and_play_money_are_told(tmp_path: Path) -> None:
    old = filled(tmp_path / "mirror.db", 10, now_ms=time.time_ns() // 1_000_000 - 3_600_000)
    with closing(sqlite3.connect(old)) as db, db:
        db.execute("UPDATE meta SET value = 'devnet' WHERE key = 'network'")
    home, *live, guide = (read(one.text) for one in got(old, "/", "/market", "/gpus", "/start", "/docs/faq"))
    for found in (home, *live):
        assert "This mirror stands still." in found.text and found.all("body")[0].get("data-stale") == ""
    assert "This mirror" not in guide.text
    assert "Play money: this is the network devnet" in home.text and "/docs/limits" in home.links
    with closing(sqlite3.connect(old)) as db, db:
        db.execute("UPDATE meta SET value = ? WHERE key = 'updated_ms'", (str(time.time_ns() // 1_000_000),))
        db.execute("UPDATE meta SET value = 'mainnet' WHERE key = 'network'")
    home = page(old, "/")
    assert "stands still" not in home.text and "Play money" not in home.text
    with closing(sqlite3.connect(old)) as db, db:
        db.execute("UPDATE meta SET value = 0 WHERE key = 'updated_ms'")
    assert "This mirror is being filled." in page(old, "/").text


# --- the market -----------------------------------------------------------------------------------


def test_machines_with_and_without_gpus_are_kinds_of_the_same_filter(mirror: Path) -> None:
    found = page(mirror, "/market?filter=gpus%3E%3D1+region%3Deu-west+cpus%3E%3D8")
    for part in ("gpus%3E%3D1+region%3Deuwest+cpus%3E%3D8", "gpu%3Dcpu+region%3Deuwest+cpus%3E%3D8"):
        assert f"/market?filter={part}" in found.links
    without = page(mirror, "/market?filter=gpu%3Dcpu")
    rows = without.all("tr", role="row")[1:]
    assert rows and without.text.count("no GPU") >= len(rows)
    assert {f"/providers/{row['data-peer']}#hire-title" for row in rows} <= set(without.links)


def test_pages_follow_each_other_to_the_end(mirror: Path) -> None:
    seen: list[str] = []

    async def walk(client: httpx.AsyncClient) -> int:
        path = "/market?sort=-vram,price&filter=price%3E%3D1"
        while path:
            found = read((await client.get(path)).text)
            assert not found.wrong
            seen.extend(peers(found))
            path = next((link["href"] for link in found.all("a", rel="next")), "")
        return int((await client.get("/v1/offers?limit=500")).json()["total"]["number"])

    assert asked(mirror, walk) == len(seen) == len(set(seen)) > 100


def test_a_form_becomes_a_filter_in_the_address(mirror: Path) -> None:
    form = "/market?gpu=4090&vram=24&price=&region=&rest=cpus%3E%3D8&rest=name!%3Drig&sort=-score"
    (answer,) = got(mirror, form)
    assert answer.status_code == 303
    said = parse_qs(urlsplit(answer.headers["location"]).query)
    assert said == {"filter": ["gpu=4090 vram>=24 cpus>=8 name!=rig"], "sort": ["-score"]}
    found = page(mirror, answer.headers["location"])
    assert found.all("input", name="vram")[0]["value"] == "24"
    assert [one["value"] for one in found.all("input", name="rest")] == ["cpus>=8", "name!=rig"]
    assert any("selected" in one and one["value"] == "4090" for one in found.all("option"))


def test_every_link_keeps_the_filter(mirror: Path) -> None:
    found = page(mirror, "/market?filter=vram%3E%3D8+internet%3Dyes&sort=-ram")
    sorts = [link for link in found.links if link.startswith("/market?") and "sort=" in link]
    assert sorts and all("vram%3E%3D8" in link for link in sorts if "sort=-ram" not in link)
    (head,) = [one for one in found.all("th") if "aria-sort" in one]
    assert head["aria-sort"] == "descending"
    events = found.all("table", class_="offers")[0]["data-events"]
    assert parse_qs(urlsplit(events).query)["filter"] == ["vram>=8 internet=yes"]


def test_what_cannot_be_read_is_shown_under_its_character(mirror: Path) -> None:
    (answer,) = got(mirror, "/market?filter=vram%3E%3D24+pricy%3C5")
    assert answer.status_code == 400
    found = read(answer.text)
    assert not found.wrong and "did you mean price?" in found.text
    pointer = unescape(re.search(r"<pre[^>]*><code>(.*?)</code>", answer.text, re.S)[1])  # type: ignore[index]  # it is there
    text, mark = re.sub("</?mark>", "", pointer).split("\n")
    assert text[mark.index("^") :] == "pricy<5"
    assert found.all("input", name="filter")[0]["value"] == "vram>=24 pricy<5"


@pytest.mark.parametrize(
    "query", ["filter=" + "x" * 5_000, "sort=nothing", "sort=name", "filter=%00%FF%E2%80%AE"]
)
def test_nonsense_is_answered_in_kind(mirror: Path, query: str) -> None:
    (answer,) = got(mirror, f"/market?{query}")
    assert answer.status_code == 400 and not read(answer.text).wrong


def test_a_cursor_of_another_list_begins_anew(mirror: Path) -> None:
    (answer,) = got(mirror, "/market?filter=vram%3E%3D8&after=bm9uc2Vuc2U")
    assert (answer.status_code, answer.headers["location"]) == (303, "/market?filter=vram%3E%3D8&sort=price")


def test_nothing_found_says_what_to_leave_away(mirror: Path) -> None:
    found = page(mirror, "/market?filter=gpus%3E%3D99+vram%3E%3D8")
    assert "No offer meets all of this" in found.text
    assert "/market?filter=vram%3E%3D8" in found.links


# --- strangers ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = filled(tmp_path_factory.mktemp("hostile") / "mirror.db", 20)
    now, lots = time.time_ns() // 1_000_000, random.Random(3)
    rows = []
    for number, text in enumerate(HOSTILE):
        key = NodeKey(lots.randbytes(32))
        offer = replace(offer_of(number, lots, now), price_qu_per_hour=Qu(1))
        row = list(row_of(offer, key, 1_000 + number, now_ms=now))
        for column in ("label", "region_label", "gpu_label"):
            row[OFFER_COLUMNS.index(column)] = text if number % 2 else text * 60  # up to 4 KB
        row[OFFER_COLUMNS.index("gpu")] = f"hostile{number}漢字"  # letters and digits, as from name_key
        row[OFFER_COLUMNS.index("first_seen_ms")] = now + number
        rows.append(tuple(row))
    with closing(sqlite3.connect(path)) as db, db:
        insert(db, "offers", OFFER_COLUMNS, rows)
    return path


@pytest.mark.parametrize("path", ["/", "/market", "/market?filter=region%3D%27%3Ci%3E1%27"])
def test_hostile_text_stays_text(hostile: Path, path: str) -> None:
    (answer,) = got(hostile, path)
    found = read(answer.text)
    assert not found.wrong
    assert not re.search(r"<(script>|img|i>)", answer.text)
    assert not set(answer.text) & set("\u202e\u2066\u200b")
    assert "x" * 70 not in answer.text
    for address in (link for link in found.links if link.startswith("/gpus/hostile")):
        assert re.fullmatch(r"/gpus/[\w%.~-]+", address)


def test_hostile_names_are_there_to_be_seen(hostile: Path) -> None:
    text = page(hostile, "/market").text
    assert "<script>alert(1)</script>"[:20] in text and "\\u202etxt.exe" in text and "{{ 7 * 7 }}" in text


# --- trouble --------------------------------------------------------------------------------------


def test_a_mirror_that_is_gone_is_said_kindly(tmp_path: Path) -> None:
    pages = got(tmp_path / "mirror.db", "/", "/market", "/v1/offers")
    assert [answer.status_code for answer in pages] == [503, 503, 503]
    assert all(answer.headers["retry-after"] for answer in pages)
    assert "The mirror is not there" in read(pages[0].text).text and str(tmp_path) not in pages[0].text
    assert not read(pages[1].text).wrong
    assert pages[2].json()["error"]["code"] == "mirror.unavailable"


def test_who_asks_too_often_reads_a_page_and_keeps_its_style(mirror: Path) -> None:
    async def ask(client: httpx.AsyncClient) -> tuple[httpx.Response, ...]:
        await client.get("/")
        refused = await client.get("/")
        return refused, await client.get(assets.asset("site.css")), await client.get("/v1/offers")

    refused, style, program = asked(mirror, ask, limit=1)
    assert (refused.status_code, style.status_code, program.status_code) == (429, 200, 429)
    assert "Too many requests" in read(refused.text).title and int(refused.headers["retry-after"]) > 0
    assert not read(refused.text).wrong and "error" in program.json()


def test_a_mistake_of_ours_is_a_page_too(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("web.pages.home._watched", broken)

    async def ask(client: httpx.AsyncClient) -> httpx.Response:
        transport = client._transport
        assert isinstance(transport, httpx.ASGITransport)
        transport.raise_app_exceptions = False
        return await client.get("/")

    answer = asked(mirror, ask)
    assert answer.status_code == 500 and "Something broke here" in read(answer.text).title
    assert "content-security-policy" in answer.headers and "ZeroDivision" not in answer.text


# --- files ----------------------------------------------------------------------------------------


def test_files_are_kept_for_ever_under_what_they_hold(mirror: Path) -> None:
    path = assets.asset("site.css")
    plain, packed, other = got(mirror, path, path, "/static/000000000000/site.css")
    assert plain.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert plain.headers["content-type"] == "text/css; charset=utf-8"
    assert packed.text == (assets.FOLDER / "site.css").read_text()
    assert other.status_code == 404
    (bare,) = got(mirror, path, **{"accept-encoding": "identity"})
    assert "content-encoding" not in bare.headers and bare.content == packed.content


def test_files_of_a_page_are_there(mirror: Path) -> None:
    for path in ("/", "/market"):
        found = page(mirror, path)
        files = [one for one in found.resources if one.startswith(assets.PREFIX)]
        assert {answer.status_code for answer in got(mirror, *files)} == {200} and len(files) >= 3


def test_scripts_are_small_and_reach_for_nothing_foreign() -> None:
    scripts = [file.read_text() for file in assets.FOLDER.glob("*.js")]
    assert sum(map(len, scripts)) < 10_000
    for text in [*scripts, *(file.read_text() for file in assets.FOLDER.glob("*.css"))]:
        assert not re.search(r"https?://|@import|innerHTML|insertAdjacentHTML|eval\(|document\.write", text)


def test_a_page_is_packed_for_who_takes_it(mirror: Path) -> None:
    async def ask(client: httpx.AsyncClient) -> tuple[bytes, str]:
        async with client.stream("GET", "/", headers={"accept-encoding": "gzip"}) as answer:
            return b"".join([part async for part in answer.aiter_raw()]), answer.headers["content-encoding"]

    packed, encoding = asked(mirror, ask)
    assert encoding == "gzip" and len(packed) < 20_000 and b"</html>" in gzip.decompress(packed)
