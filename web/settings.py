"""Arguments -> frozen Settings. Flags beat QUBIX_WEB_* in the environment beat what is built in."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from protocol.errors import ConfigInvalid

DATABASE_SCHEMES: Final = ("postgresql://", "postgres://")
_ENCODED: Final = r"(?:[^\s/?#@%\[\]]|%[0-9a-fA-F]{2})*"
_HOSTS: Final = r"(?:[^\s/?#@%\[\]]|%[0-9a-fA-F]{2}|\[[0-9a-fA-F:.]+\])*"
_DATABASE: Final = re.compile(
    rf"postgres(?:ql)?://(?:{_ENCODED}@)?(?P<where>{_HOSTS}(?:/{_ENCODED})?)(?:\?[^\s#@]*)?"
)
"""The user, the password, the hosts and the name of a database are told apart without a doubt."""
PREFIX: Final = "QUBIX_WEB_"
MAX_WORKERS: Final = 256


@dataclass(frozen=True)
class Settings:
    """Of one web process. Processes that share the work have nothing in common but the mirror."""

    mirror: str
    """A path to mirror.db, or postgresql://..."""
    publish: str = ""
    """Where to copy the mirror to; nothing is served then."""
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    behind_proxy: int = 0
    """Requests come through so many proxies that we trust: X-Forwarded-For is read from its right end."""
    metrics: str = ""
    """HOST:PORT where Prometheus may look: another door than that of the public. The first free port of the
    next ones if several processes share the work, each of which has its own figures."""
    streams: int = 2_000
    """Open at a time, in each process; each takes a socket."""
    streams_each: int = 10
    """Of one address."""
    requests_per_minute: int = 50
    """Of one address, in each process (L6)."""
    json: bool = False
    """Where the market is, and what went wrong, is said as JSON on standard output."""

    def __repr__(self) -> str:  # addresses of databases carry passwords
        return f"Settings(mirror={shown_url(self.mirror)!r}, host={self.host!r}, port={self.port})"


def is_database(url: str) -> bool:
    """Is it an address of a PostgreSQL server rather than a file's path?"""
    return url.startswith(DATABASE_SCHEMES)


def shown_url(url: str) -> str:
    """A mirror's address without what may be secret in it: of a database, its hosts and name."""
    if not is_database(url):
        return url
    scheme = url.partition("://")[0]
    found = _DATABASE.fullmatch(url)
    return f"{scheme}://{found['where'] if found else '...'}"


def read(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """ConfigInvalid says which setting cannot be; SystemExit after --help or for an unknown flag."""
    given = vars(_parser().parse_args(arguments))
    texts = {name: environment.get(PREFIX + name.upper()) for name in given}
    chosen = {name: texts[name] if value is None else value for name, value in given.items()}
    return Settings(
        mirror=_mirror(chosen["mirror"]),
        publish=_publish(chosen["publish"] or ""),
        host=chosen["host"] or Settings.host,
        port=_number("port", chosen["port"], Settings.port, 0, 65_535),
        workers=_number("workers", chosen["workers"], Settings.workers, 1, MAX_WORKERS),
        behind_proxy=_number("behind_proxy", chosen["behind_proxy"], Settings.behind_proxy, 0, 16),
        metrics=_address(chosen["metrics"] or ""),
        streams=_number("streams", chosen["streams"], Settings.streams, 0, 10**6),
        streams_each=_number("streams_each", chosen["streams_each"], Settings.streams_each, 0, 10**6),
        requests_per_minute=_number(
            "requests_per_minute", chosen["requests_per_minute"], Settings.requests_per_minute, 1, 10**6
        ),
        json=_yes("json", chosen["json"]),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m web",
        description="Shows the market that a node mirrors: pages for people, /v1 for programs. ",
        epilog=f"Each setting may also stand in the environment, as {PREFIX}MIRROR; a password does so best.",
    )
    say = parser.add_argument
    say("--mirror", metavar="PATH|URL", help="mirror.db of a node with --mirror, or postgresql://...")
    say(
        "--publish",
        metavar="URL",
        help="copy the mirror into this PostgreSQL and keep it fresh; serve nothing",
    )
    say("--host", help="address to listen on (127.0.0.1)")
    say("--port", help="0 takes a free one (8080)")
    say("--workers", metavar="N", help="processes that share the port (1)")
    say("--behind-proxy", metavar="N", help="so many proxies in front name who asks (0)")
    say("--metrics", metavar="HOST:PORT", help="where Prometheus may look; never where the public does")
    say("--streams", metavar="N", help="live streams open at a time, in each process (2000)")
    say("--streams-each", metavar="N", help="live streams of one address (10)")
    say("--json", action="store_const", const="yes", help="say where it is, or what is wrong, in JSON")
    say("--requests-per-minute", metavar="N", help="of one address and process (50)")
    return parser


def _mirror(text: str | None) -> str:
    if not text:
        raise ConfigInvalid(
            "say which mirror to show: --mirror PATH of a node's mirror.db, or a postgresql:// URL"
        )
    return _database("--mirror", text) if is_database(text) else str(Path(text).expanduser().absolute())


def _publish(text: str) -> str:
    if text and not is_database(text):
        raise ConfigInvalid("--publish takes the address of a PostgreSQL: postgresql://user@host/database")
    return _database("--publish", text) if text else ""


def _database(name: str, url: str) -> str:
    """What its driver would complain about it would quote, with the password."""
    if not _DATABASE.fullmatch(url):
        raise ConfigInvalid(
            f"{name} is no address of a PostgreSQL; it looks like postgresql://user:password@host:5432/database,"
            " and what is neither a letter nor a digit in a password is written as %40, for instance"
        )
    return url


def _number(name: str, text: str | None, default: int, least: int, most: int) -> int:
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or not least <= int(text) <= most:
        raise ConfigInvalid(f"{name.replace('_', ' ')} is a number from {least} to {most}, not {text[:40]!r}")
    return int(text)


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if text and not (host and port.isascii() and port.isdigit() and int(port) <= 65_535):
        raise ConfigInvalid(f"--metrics takes HOST:PORT, such as 127.0.0.1:9464, not {text[:40]!r}")
    return text


def _yes(name: str, text: str | None) -> bool:
    if (text or "no") not in ("yes", "no"):
        raise ConfigInvalid(f"{PREFIX}{name.upper()} is yes or no")
    return text == "yes"
