"""Arguments and environment of the web."""

from __future__ import annotations

import psycopg
import psycopg.conninfo
import pytest

from protocol.errors import ConfigInvalid
from web.postgres import reason_of
from web.settings import Settings, read, shown_url

SECRET = "postgresql://reader:hunter2@db.example:5432/market?password=hunter3"


def test_flags_beat_the_environment_which_beats_what_is_built_in() -> None:
    environment = {
        "QUBIX_WEB_MIRROR": "/data/mirror.db",
        "QUBIX_WEB_PORT": "9",
        "QUBIX_WEB_BEHIND_PROXY": "2",
    }
    found = read(["--port", "7", "--workers", "3"], environment)
    assert found == Settings(mirror="/data/mirror.db", port=7, workers=3, behind_proxy=2)
    assert read(["--mirror", SECRET], {}) == Settings(mirror=SECRET)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "which mirror"),
        (["--mirror", "m", "--port", "65536"], "port is a number from 0 to 65535"),
        (["--mirror", "m", "--port", "²"], "port is a number"),
        (["--mirror", "m", "--workers", "0"], "workers is a number from 1"),
        (["--mirror", "m", "--publish", "other.db"], "--publish takes"),
    ],
)
def test_what_cannot_be_is_said(arguments: list[str], sentence: str) -> None:
    with pytest.raises(ConfigInvalid, match=sentence):
        read(arguments, {})


def test_a_switch_in_the_environment_is_yes_or_no() -> None:
    with pytest.raises(ConfigInvalid, match="QUBIX_WEB_JSON is yes or no"):
        read(["--mirror", "m"], {"QUBIX_WEB_JSON": "1"})


def test_passwords_are_not_shown() -> None:
    assert shown_url(SECRET) == "postgresql://db.example:5432/market"
    assert "hunter" not in repr(Settings(mirror=SECRET, publish=SECRET))


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://u:hunt?er2@h/db",
        "postgresql://u:hunt/er2@h/db",
        "postgresql://u:hunt@er2@h/db",
        "postgresql://u:hunt#er2@h/db",
        "postgresql://u:hunt er2@h/db",
        "postgresql://u:hunter%zz@h/db",
        "postgresql://u:hunter2@[::1/db",
    ],
)
def test_an_address_that_may_be_misread_is_refused_and_never_shown(address: str) -> None:
    assert "hunt" not in shown_url(address) and "er2" not in shown_url(address)
    for arguments in (["--mirror", address], ["--mirror", "m", "--publish", address]):
        with pytest.raises(ConfigInvalid, match="%40") as refused:
            read(arguments, {})
        assert "hunt" not in str(refused.value)


def test_the_driver_does_not_quote_an_address() -> None:
    with pytest.raises(psycopg.Error) as raised:
        psycopg.conninfo.conninfo_to_dict("postgresql://u:hunter2@[::1/db")
    assert "hunter2" in str(raised.value) and "hunter2" not in reason_of(raised.value)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql:///market?host=/run/postgresql&user=qubix",
        "postgres://u:a%40b@[::1]:5432,db.example:5433/market?sslmode=require",
        "postgresql://db.example",
    ],
)
def test_addresses_as_people_write_them(address: str) -> None:
    assert read(["--mirror", address], {}).mirror == address
    assert "%40" not in shown_url(address) and "..." not in shown_url(address)


@pytest.mark.parametrize("address", ["9464", ":9464", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536"])
def test_metrics_need_a_whole_address(address: str) -> None:
    with pytest.raises(ConfigInvalid, match="HOST:PORT"):
        read(["--mirror", "m", "--metrics", address], {})


def test_metrics_are_off_unless_asked_for() -> None:
    assert read(["--mirror", "m"], {}).metrics == ""
    assert read(["--mirror", "m", "--metrics", "[::1]:9464"], {}).metrics == "[::1]:9464"
