"""The pages of a GPU, a provider, the network and of verifying: whole, bilingual, kind where it is gone."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections.abc import Callable, Coroutine
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from ledger.mirror_schema import OFFER_COLUMNS
from protocol.query import provider_key
from protocol.signing import NodeKey, verify
from tests.support.web_client import client_of
from tests.support.web_html import Page
from tests.support.web_html import read as read_strictly
from tests.support.web_mirror import filled, insert, offer_of, peer_id, row_of
from web.pages.history import WEEK_MS, together
from web.pages.prices import change_of
from web.pages.providers import EXPLORER, presence
from web.settings import Settings
from web.views import DAY_MS, HOUR_MS, Candle

T = TypeVar("T")
Ask = Callable[[httpx.AsyncClient], Coroutine[Any, Any, T]]
HOSTILE = ("<script>alert(1)</script>", "\u202etxt.exe\u2066 x", "{{ 7 * 7 }} %(name)s", "x" * 48, "'\"><b>")
SETTLED_QU, DIGEST = 123_456, bytes(range(32))


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One provider has everything that can be known of one."""
    path = filled(tmp_path_factory.mktemp("mirror") / "mirror.db", 120)
    with closing(sqlite3.connect(path)) as db, db:
        (best,) = db.execute("SELECT peer FROM offers WHERE live = 1 AND gpus = 2 ORDER BY change").fetchone()
        db.execute("UPDATE settlements SET provider = ? WHERE lease_id IN (SELECT lease_id FROM settlements"
                   " WHERE proof = 'ticket' ORDER BY ended_ms DESC LIMIT 30)", (best,))  # fmt: skip
        newest = "(SELECT max(ended_ms) FROM settlements WHERE provider = ?)"
        db.execute(f"UPDATE settlements SET paid_qu = ?, transaction_digest = ? WHERE ended_ms = {newest}",
                   (SETTLED_QU, DIGEST, best))  # fmt: skip
        (other,) = db.execute("SELECT peer FROM scores WHERE peer != ?", (best,)).fetchone()
        db.execute("DELETE FROM scores WHERE peer = ?", (best,))
        reasons = '["3 callers have paid it", "leases that failed by its fault: 1 of 4 known here"]'
        evidence = '{"leases": [{}, {}], "counters": {"volume": 9000, "completed": 7, "disputes_lost": 0}}'
        db.execute("UPDATE scores SET peer = ?, reasons = ?, evidence = ? WHERE peer = ?",
                   (best, reasons, evidence, other))  # fmt: skip
    return path


def best(mirror: Path) -> str:
    with closing(sqlite3.connect(mirror)) as db:
        (peer,) = db.execute("SELECT peer FROM scores WHERE evidence LIKE '%9000%'").fetchone()
    return peer_id(peer)


def read(text: str) -> Page:
    """Transactions may be looked up elsewhere, in an explorer of Qubic; nothing else leads out."""
    found = read_strictly(text)
    found.wrong = [one for one in found.wrong if not one.startswith(f"foreign: {EXPLORER}")]
    return found


def got(mirror: Path, *paths: str, **headers: str) -> list[httpx.Response]:
    async def run() -> list[httpx.Response]:
        async with client_of(Settings(mirror=str(mirror), requests_per_minute=10_000)) as client:
            return [await client.get(path, headers=headers) for path in paths]

    return asyncio.run(run())


def page(mirror: Path, path: str, status: int = 200, language: str = "en") -> Page:
    (answer,) = got(mirror, path, **{"accept-language": language})
    assert answer.status_code == status
    found = read(answer.text)
    assert not found.wrong
    return found


@pytest.mark.parametrize("language", ["en", "pt"])
def test_every_page_is_whole_in_every_language(mirror: Path, language: str) -> None:
    one = best(mirror)
    paths = [
        "/gpus?sort=price", "/gpus/RTX_4090", "/gpus/RTX_4090?span=hours",
        "/gpus/RTX_4090?span=weeks",
        "/gpus/MI300X", f"/providers/{one}", f"/providers/{one}?span=hours", "/network", "/network?span=day",
        "/network?span=year", "/verify", f"/verify?provider={one}", "/verify?provider=me",
    ]  # fmt: skip
    for path, answer in zip(paths, got(mirror, *paths, **{"accept-language": language}), strict=True):
        found = read(answer.text)
        assert (path, answer.status_code, found.wrong) == (path, 200, [])
        assert found.language == language


# --- GPUs -----------------------------------------------------------------------------------------


def test_a_gpu_has_one_address_however_it_is_spelled(mirror: Path) -> None:
    spellings = ("4090", "rtx-4090", "NVIDIA%20GeForce%20RTX%204090", "RTX4090?span=hours")
    for answer in got(mirror, *(f"/gpus/{name}" for name in spellings)):
        assert answer.status_code == 308
        assert answer.headers["location"].startswith("/gpus/RTX_4090")
    (cpu,) = got(mirror, "/gpus/CPU")
    assert cpu.headers["location"] == "/market?filter=gpu%3Dcpu"


def test_a_gpu_shows_what_it_costs_where_it_is_and_what_for(mirror: Path) -> None:
    found = page(mirror, "/gpus/RTX_4090")
    assert len(found.all("svg", class_="plot")) == 1
    assert any(link.startswith("/providers/12D3KooW") for link in found.links)
    assert "/start?use=sdxl&gpu=4090" in found.links
    assert "1,008 GB/s" in found.text and "eu" in found.text


def test_a_gpu_that_nobody_offers_says_what_to_do(mirror: Path) -> None:
    found = page(mirror, "/gpus/MI300X")
    assert "Nobody offers this model now" in found.text and "/start" in found.links


def test_unknown_things_are_friendly_pages(mirror: Path) -> None:
    gpus = ("nothing-like-it", "%20", "%E2%80%AE", "x" * 100, "a/b", "..%2f..%2fetc")
    providers = ("nobody", "12D3KooW", "%00", "x" * 500, peer_id(bytes(32)))
    paths = [*(f"/gpus/{name}" for name in gpus), *(f"/providers/{name}" for name in providers)]
    first = got(mirror, *paths)
    last = got(
        mirror, *(answer.headers.get("location", path) for path, answer in zip(paths, first, strict=True))
    )
    for path, answer in zip(paths, last, strict=True):
        assert (path, answer.status_code) == (path, 404)
        assert "/market" in read(answer.text).links


def test_weeks_begin_on_monday_and_lose_nothing() -> None:
    monday = 20_000 * DAY_MS + (4 - 20_000 % 7) % 7 * DAY_MS
    days = [
        Candle(DAY_MS, monday + day * DAY_MS, 10 + day, 30 + day, 5 - day % 3, 11 + day, 4, day, 2)
        for day in range(9)
    ]
    first, second = together(days, WEEK_MS)
    assert (first.start_ms, first.open, first.close, first.high, first.low) == (monday, 10, 17, 36, 3)
    assert (second.start_ms, second.open, second.close, second.offers) == (monday + WEEK_MS, 17, 19, 8)
    hours = [Candle(HOUR_MS, 0, 1, 2, 1, 2, 1, 1, 1)]
    assert together(hours, HOUR_MS) == tuple(hours) and together([], WEEK_MS) == ()


def test_a_change_of_prices_is_a_part_of_the_first() -> None:
    def candle(before: int, after: int) -> Candle:
        return Candle(HOUR_MS, 0, before, max(before, after), min(before, after), after, 1, 1, 1)

    assert change_of([candle(100, 90), candle(90, 150)]) == 0.5
    assert change_of([candle(0, 90)]) == change_of([]) == 0  # of nothing there is no part


# --- providers ------------------------------------------------------------------------------------


def test_a_provider_is_told_with_evidence(mirror: Path) -> None:
    one = best(mirror)
    found = page(mirror, f"/providers/{one}")
    for said in (
        "3 callers have paid it.",
        "1 of 4 known here",
        "9,000",
        "The signature is right.",
        "123,456",
    ):
        assert said in found.text
    assert [link for link in found.links if link.startswith(EXPLORER)]
    assert len(found.all("rect", class_="day")) == 60
    assert f"--provider {one}" in found.text and f"/verify?provider={one}" in found.links
    assert any("after=" in link for link in found.links), "30 jobs are more than one page"


def test_the_reasons_are_in_the_readers_language(mirror: Path) -> None:
    found = page(mirror, f"/providers/{best(mirror)}", language="pt")
    assert "3 clientes lhe pagaram." in found.text and "9.000" in found.text


def test_the_signed_bytes_are_given_out_as_they_are(mirror: Path) -> None:
    one = best(mirror)
    (answer,) = got(mirror, f"/providers/{one}/offer")
    assert verify(answer.content).signer.hex() == provider_key(one)
    assert "attachment" in answer.headers["content-disposition"]


def test_a_provider_that_is_gone_was_last_seen(tmp_path: Path) -> None:
    mirror = filled(tmp_path / "mirror.db", 60)
    with closing(sqlite3.connect(mirror)) as db, db:
        (ended,) = db.execute("SELECT peer FROM offers WHERE live = 0").fetchone()
        (gone,) = db.execute("SELECT o.peer FROM offers o JOIN days USING (peer) WHERE live = 1").fetchone()
        db.execute("DELETE FROM offers WHERE peer = ?", (gone,))
    for peer in (ended, gone):
        found = page(mirror, f"/providers/{peer_id(peer)}")
        assert "This provider has no offer now." in found.text and "last seen" in found.text
        assert "qubix run" not in found.text
    for answer in got(mirror, f"/providers/{peer_id(gone)}/offer", f"/providers/{peer_id(ended)}/offer"):
        assert answer.status_code == 404
    assert "knows no live offer" in page(mirror, f"/verify?provider={peer_id(gone)}").text


def test_bytes_that_were_not_signed_so_are_not_called_right(tmp_path: Path) -> None:
    mirror = filled(tmp_path / "mirror.db", 20)
    with closing(sqlite3.connect(mirror)) as db, db:
        peer, record = db.execute("SELECT peer, record FROM offers WHERE live = 1").fetchone()
        db.execute(
            "UPDATE offers SET record = ? WHERE peer = ?", (record[:-1] + bytes([record[-1] ^ 1]), peer)
        )
    for path in (f"/providers/{peer_id(peer)}", f"/verify?provider={peer_id(peer)}"):
        text = page(mirror, path).text
        assert "The signature is wrong" in text and "The signature is right" not in text


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    mirror, lots, now = filled(tmp_path / "mirror.db", 0), random.Random(3), time.time_ns() // 1_000_000
    rows = []
    for number, name in enumerate(HOSTILE):
        offer = replace(offer_of(number, lots, now), name=name, region=name, gpu_class=name, runner=name[:9])
        rows.append(row_of(offer, NodeKey(bytes([number + 1]) * 32), number + 1, now_ms=now))
    with closing(sqlite3.connect(mirror)) as db, db:
        insert(db, "offers", OFFER_COLUMNS, rows)
    paths = [
        "/gpus",
        "/network",
        *(f"/providers/{row[1]}" for row in rows),
        *(f"/verify?provider={row[1]}" for row in rows),
    ]
    with closing(sqlite3.connect(mirror)) as db:
        paths += [f"/gpus/{gpu}" for (gpu,) in db.execute("SELECT gpu FROM offers")]
    for path, answer in zip(paths, got(mirror, *paths), strict=True):
        found = read(answer.text)
        assert (path, answer.status_code, found.wrong) == (path, 200, [])
        assert (
            "\u202e" not in answer.text
            and "<script>alert" not in answer.text
            and "'\"><b>" not in answer.text
        )
        assert all(link.startswith(("/", "#", EXPLORER)) for link in found.links)


def test_presence_counts_from_the_first_hour_to_this_one() -> None:
    noon = 20_000 * DAY_MS + 12 * HOUR_MS
    assert presence((), noon) == 0
    assert presence(((20_000, 0b1_1111 << 8),), noon) == 1
    assert presence(((20_000, 0b1_0001 << 8),), noon) == pytest.approx(2 / 5)
    assert presence(((19_999, 1 << 23), (20_000, 1 << 12)), noon) == pytest.approx(2 / 14)


# --- the network ----------------------------------------------------------------------------------


def test_the_network_tells_its_settlements_and_its_age(mirror: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(mirror)) as db, db:
        db.execute("UPDATE meta SET value = ? WHERE key = 'updated_ms'", (str(time.time_ns() // 1_000_000),))
    found = page(mirror, "/network")
    assert len(found.all("svg", class_="plot")) == 4 and "23,456,789" in found.text
    assert "stands still" not in found.text
    (older,) = [link for link in found.links if "after=" in link]
    assert page(mirror, older).text != found.text
    old = filled(tmp_path / "mirror.db", 10, now_ms=time.time_ns() // 1_000_000 - 600_000)
    assert "This mirror stands still." in page(old, "/network").text


def test_an_empty_network_is_no_trouble(tmp_path: Path) -> None:
    mirror = filled(tmp_path / "mirror.db", 0)
    with closing(sqlite3.connect(mirror)) as db, db:
        db.execute("DELETE FROM stats")
    text = page(mirror, "/network").text
    assert "Nothing has been noted yet" in text and "No lease has ended yet" in text
    assert page(mirror, "/gpus").text and page(mirror, "/start?use=sdxl").text


def test_a_bad_cursor_is_said(mirror: Path) -> None:
    for path in ("/network?after=zzz", f"/providers/{best(mirror)}?after=%00"):
        assert "/market" in page(mirror, path, 400).links
