"""The web as a process that strangers reach: signatures checked by the script that it hands out, readers that
do not read, and the metrics' own door."""

from __future__ import annotations

import base64
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.all_in import sold_mib
from protocol.signing import NodeKey
from protocol.units import UnixMs
from tests.support.web_mirror import filled, offer_of
from tests.support.web_process import Web, web_process
from web import verify
from web.api.views import offer_of as offer_of_view
from web.identity import identity_of, peer_id_of
from web.metrics import Meter, exposed
from web.search import OFFER_SQL
from web.views import OfferView

OFFERS = 2_000
PATIENCE_S = 60


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return filled(tmp_path / "mirror.db", OFFERS)


def checked(web: Web, script: Path, *peer_id: str) -> tuple[int, str]:
    command = [sys.executable, "-I", str(script), web.url, *peer_id]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    return done.returncode, done.stdout + done.stderr


def until_at(web: Web, change: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not httpx.get(f"{web.url}v1/offers?limit=1").json()["at"].endswith(f"-{change}"):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_script_that_it_hands_out_finds_who_lies(tmp_path: Path) -> None:
    mirror = filled(tmp_path / "mirror.db", 15)
    with web_process(str(mirror)) as web:
        script = tmp_path / "fetched.py"
        script.write_bytes(httpx.get(f"{web.url}verify.py").raise_for_status().content)
        offers = httpx.get(f"{web.url}v1/offers?sort=price").json()["offers"]
        code, said = checked(web, script)
        assert code == 0 and "15 of 15 offers are signed" in said
        dear, cheap = offers[-1]["peer_id"], offers[0]["peer_id"]
        assert checked(web, script, cheap)[0] == 0
        with closing(sqlite3.connect(mirror)) as db, db:
            db.execute("UPDATE offers SET price = price + 1 WHERE peer_id = ?", (cheap,))
            db.execute("UPDATE meta SET value = '1000' WHERE key = 'change'")
        until_at(web, 1_000)
        code, said = checked(web, script, cheap)
        assert code == 1 and "WRONG" in said and "price_qu_per_hour" in said
        assert checked(web, script, dear)[0] == 0
        assert checked(web, script, "nonsense")[0] == 1
        assert checked(web, script)[0] == 1


def test_the_script_refuses_what_others_signed() -> None:
    mine, other = NodeKey(bytes(32)), NodeKey(bytes([1]) * 32)
    raw = mine.sign(offer_of(1, Random(1), UnixMs(1_000)))
    assert verify.signed_offer(raw, mine.public)["price_qu_per_hour"] > 0
    for forged in (
        raw[:-1] + bytes([raw[-1] ^ 1]),
        raw[:60] + bytes([raw[60] ^ 1]) + raw[61:],
        raw + b"\0",
        b"",
    ):
        with pytest.raises(verify.Wrong):
            verify.signed_offer(forged, mine.public)
    with pytest.raises(verify.Wrong, match="somebody else"):
        verify.signed_offer(raw, other.public)
    shown = {"signed": base64.b64encode(raw).decode(), "peer_id": mine.public.hex()}
    with pytest.raises(verify.Wrong, match="over"):
        verify.check(shown, 1e15)


@given(st.integers(0, 2**32 - 1), st.binary(min_size=32, max_size=32))
def test_the_script_counts_as_we_do(vram_mib: int, key: bytes) -> None:
    assert verify.sold_gb(vram_mib) * 1_024 == sold_mib(vram_mib)
    assert identity_of(key).startswith(verify.wallet_of(key))
    assert verify.key_of(peer_id_of(key)) == key == verify.key_of(key.hex())
    for text in (peer_id_of(key)[1:], "1" + peer_id_of(key), peer_id_of(key)[:-1], ""):
        with pytest.raises(verify.Wrong):
            verify.key_of(text)


def test_nothing_that_is_shown_can_differ_from_what_was_signed(tmp_path: Path) -> None:
    """But what an indexer says for itself."""
    with closing(sqlite3.connect(filled(tmp_path / "mirror.db", 40))) as db:
        rows = db.execute(f"SELECT {OFFER_SQL} FROM offers WHERE live = 1").fetchall()
    own = {"market", "live", "most_gpus", "first_seen_ms", "seen_ms", "score", "reliability"}
    for row in rows:
        shown = msgspec.json.decode(msgspec.json.encode(offer_of_view(OfferView(*row))))
        now_ms = shown["issued_ms"]
        verify.check(shown, now_ms)
        for field, value in shown.items():
            if field not in own:
                other = not value if isinstance(value, bool) else f"A{value}" if value == str(value) else 7.25
                with pytest.raises((verify.Wrong, ValueError)):
                    verify.check(shown | {field: other}, now_ms)


def lines(stream: Iterator[str]) -> Iterator[tuple[str, str]]:
    """(event, id)"""
    event = ""
    for line in stream:
        if line.startswith("event: "):
            event = line[7:]
        elif line.startswith("id: "):
            yield event, line[4:]


def renew(db: sqlite3.Connection, change: int) -> int:
    """Every offer changes; the newest change."""
    with db:
        db.execute("UPDATE offers SET change = change + ?", (OFFERS,))
        db.execute("UPDATE meta SET value = ? WHERE key = 'change'", (str(change + OFFERS),))
    return change + OFFERS


def test_a_reader_that_does_not_read_is_cut_off(path: Path) -> None:
    """Others hear everything meanwhile, and it frees its place."""
    with (
        closing(sqlite3.connect(path)) as db,
        web_process(str(path), "--streams-each", "2") as web,
        httpx.Client(timeout=PATIENCE_S) as client,
        client.stream("GET", f"{web.url}v1/events?filter=price<0") as quick,
        socket.socket() as slow,
    ):
        heard = lines(quick.iter_lines())
        assert next(heard)[0] == "ready"
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        slow.connect(("127.0.0.1", urlsplit(web.url).port))
        slow.sendall(b"GET /v1/events HTTP/1.1\r\nhost: market.test\r\n\r\n")
        assert httpx.get(f"{web.url}v1/events").status_code == 503  # both places are taken
        change, asked = OFFERS, 503
        deadline = time.monotonic() + PATIENCE_S
        while asked == 503 and time.monotonic() < deadline:
            change = renew(db, change)
            time.sleep(0.5)  # looks come once a second
            asked = _places(web.url)
        assert asked == 200
        slow.settimeout(PATIENCE_S)
        read = bytearray()
        while some := slow.recv(1 << 20):
            read += some
        assert len(read) > 100_000 and not read.endswith(b"0\r\n\r\n")  # in the middle
        first = {at for _, at in (next(heard) for _ in range(OFFERS))}
        assert len(first) == OFFERS  # each said to be gone, once


def _places(url: str) -> int:
    """The status of one more stream, which is left at once."""
    with httpx.stream("GET", f"{url}v1/events") as answer:
        return answer.status_code


def test_open_streams_do_not_keep_it_from_ending(path: Path) -> None:
    command = [sys.executable, "-m", "web", "--mirror", str(path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as web:
        assert web.stdout is not None and web.stderr is not None
        url = web.stdout.readline().rpartition(" ")[2].strip()
        with httpx.stream("GET", f"{url}v1/events", timeout=PATIENCE_S) as stream:
            heard = lines(stream.iter_lines())
            assert next(heard)[0] == "ready"
            web.terminate()
            with pytest.raises((httpx.RemoteProtocolError, StopIteration)):
                next(heard)
        assert web.wait(PATIENCE_S) in (0, -signal.SIGTERM)
        assert "Traceback" not in web.stderr.read()


def test_metrics_have_a_door_of_their_own(path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with web_process(str(path), "--metrics", f"127.0.0.1:{port}") as web:
        httpx.get(f"{web.url}v1/offers/{'0' * 64}")
        httpx.get(f"{web.url}v1/offers")
        httpx.get(f"{web.url}made-up-by-strangers")
        told = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        assert httpx.get(f"{web.url}metrics").status_code == 404
    assert 'qubix_web_answers_total{route="/v1/offers",status="200"} 1.0' in told
    assert 'qubix_web_answers_total{route="/v1/offers/{peer_id}",status="404"} 1.0' in told
    assert "made-up" not in told
    assert "qubix_web_mirror_readable 1.0" in told and "qubix_web_streams 0.0" in told


def test_processes_beside_each_other_take_ports_beside_each_other() -> None:
    with exposed(Meter(), "127.0.0.1:0", 1) as first:
        port = int(first.rpartition(":")[2])
        with exposed(Meter(), first, 2) as second:
            assert int(second.rpartition(":")[2]) == port + 1
            for address in (first, second):
                assert "process_cpu_seconds_total" in httpx.get(f"http://{address}/metrics").text
