"""One frozen Config from flags, environment and file: flags beat `QUBIX_*` beat the TOML file."""

from __future__ import annotations

import argparse
import ipaddress
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from protocol.catalogue import MARKETS
from protocol.codec import convert
from protocol.errors import ConfigInvalid, MessageInvalid
from protocol.units import MAX_QU
from qubixd.quotes import MAX_INTERVAL_SECONDS

RUNNERS: Final = ("auto", "docker", "process")
EGRESS: Final = ("auto", "none", "internet")
MDNS: Final = ("auto", "on", "off")
WORDS: Final = (("runner", RUNNERS), ("egress", EGRESS), ("mdns", MDNS))
YES: Final = ("1", "true", "yes", "on")
NO: Final = ("0", "false", "no", "off")
MAX_QU_PER_CREDIT: Final = 1_000_000_000_000
"""With it the dearest suggestion is still an amount that can be paid."""
NUMBER_RANGES: Final = (
    ("contract_index", 1, 2**32 - 1),
    ("price", 0, MAX_QU),
    ("qu_per_credit", 1, MAX_QU_PER_CREDIT),
    ("storage_price", 0, MAX_QU),
    ("relay_price", 0, MAX_QU),
    ("interval", 1, MAX_INTERVAL_SECONDS),
    ("unpaid_intervals", 1, 100),
    ("egress_mbit", 0, 1_000_000),
    ("image_percent", 0, 100),
    ("image_days", 0, 3_650),
)
MAX_WORD_CHARS: Final = 64
"""Of what travels in offers and terms."""


@dataclass(frozen=True)
class Config:
    """Everything the daemon is told from outside. Money in QU, times in seconds."""

    data_dir: str = ""
    listen: tuple[str, ...] = ("127.0.0.1:0",)
    """HOST:PORT of each place where others find this node; port 0 takes a free one. Only the first one must
    be had."""
    announce: tuple[str, ...] = ()
    """Addresses to tell others instead of those listened at, as /ip4/203.0.113.7/tcp/4001."""
    bootstrap: tuple[str, ...] = ()
    chain: str = ""
    """node://HOST:PORT[,HOST:PORT...], or rpc+http://HOST:PORT or rpc+https://HOST or several of them with
    commas between; see docs/chains.md."""
    contract_index: int = 0
    network: str = "devnet"
    """Name of the Qubic network; part of every lease's terms."""
    provider: bool = False
    price: int | None = None
    """QU per hour of each GPU, or of a machine without; without it a suggested price of its model."""
    qu_per_credit: int = 1
    """QU for 0.20 USD, the credit in which prices are suggested."""
    storage_price: int = 0
    """QU per hour and TiB of rented disk."""
    relay_price: int = 0
    """QU per hour for relaying without limits; 0: it is not for rent."""
    runner: str = "auto"
    docker_host: str = ""
    runtime: str = "auto"
    """What separates a container from this machine: runc, runsc (gVisor), kata or another of the engine's
    runtimes, or auto, a sandbox where one is installed; see docs/isolation.md."""
    egress: str = "auto"
    """Whether jobs may have the Internet: internet, none, or auto (if their network can be fenced here)."""
    egress_forbid: tuple[str, ...] = ()
    """IPv4 addresses and networks that no job may reach, beside those that the fence knows itself."""
    egress_mbit: int = 0
    """Mbit/s that each job may send, and receive; 0 for as much as there is."""
    image_percent: int = 20
    """Of the disk, how much the images may take that jobs brought; above it the longest unused go."""
    image_days: int = 14
    """After so many days unused such an image goes anyway; 0 for never."""
    image_keep: tuple[str, ...] = ()
    """Names of images that stay."""
    metrics: str = ""
    """HOST:PORT where Prometheus can read; empty for nowhere."""
    metrics_open: bool = False
    """The metrics may be read from other machines."""
    name: str = ""
    region: str = ""
    wallet_seed_file: str = ""
    passphrase_file: str = ""
    interval: int = 5
    """Seconds between vouchers, as a caller."""
    unpaid_intervals: int = 3
    """As a provider: how many intervals may run unpaid."""
    control_group: str = ""
    """Members of this group of the system may use the node as its owner does; empty for nobody else."""
    one_pending_per_source: bool = False
    """Send this wallet's transactions one after the other, for networks that keep only the newest."""
    directory: bool = False
    """Keep a book for others and take their heartbeats."""
    mirror: bool = False
    """Keep a copy of the market that everybody on this machine may read, as directories do."""
    mirror_dir: str = ""
    """Where that copy lies; empty: in the data directory, which only its owner can enter."""
    use_directory: tuple[str, ...] = ()
    """Addresses of directories to turn to before all others."""
    markets: tuple[str, ...] = ()
    """Which markets (catalogue.MARKETS) this node wants to know; none means all."""
    relay: bool = False
    """Join others that cannot reach each other."""
    use_relay: tuple[str, ...] = ()
    """Addresses of relays through which this node is always reached; without any it looks for some where
    nobody can dial it."""
    mdns: str = "auto"
    """Find other nodes in the local network: on, off, or auto (on unless it listens on loopback only)."""
    json: bool = False

    @property
    def root(self) -> Path:
        return Path(self.data_dir)

    @property
    def control_socket(self) -> Path:
        return self.root / "control.sock"

    @property
    def listen_host(self) -> str:
        return self.listen[0].rpartition(":")[0]

    @property
    def listen_port(self) -> int:
        return int(self.listen[0].rpartition(":")[2])

    @property
    def also_listen(self) -> tuple[tuple[str, int], ...]:
        """Host and port of the further places."""
        further = (place.rpartition(":") for place in self.listen[1:])
        return tuple((host, int(port)) for host, _, port in further)

    @property
    def on_loopback(self) -> bool:
        """Only this very machine can reach the node."""
        return all(is_loopback(place.rpartition(":")[0]) for place in self.listen)


def is_loopback(host: str) -> bool:
    """A name or address that only this machine can reach."""
    host = host.strip("[]")
    return host in ("localhost", "::1") or host.startswith("127.")


def load(argv: Sequence[str], environ: Mapping[str, str]) -> Config:
    """The Config of one start. ConfigInvalid names the setting and where it came from."""
    flags = {name: value for name, value in vars(parser().parse_args(argv)).items() if value is not None}
    file_path = flags.pop("config", None) or environ.get("QUBIX_CONFIG") or _default_config_file(environ)
    merged = _from_file(file_path) | _from_environment(environ) | flags
    if isinstance(merged.get("listen"), str):  # a file may name one place as a text
        merged["listen"] = merged["listen"].split()
    merged.setdefault("data_dir", _default_data_dir(environ))
    try:
        config: Config = convert(merged, Config, "settings")
    except MessageInvalid as error:
        raise ConfigInvalid(f"a setting has the wrong kind of value: {error}") from error
    return _checked(config)


class _Parser(argparse.ArgumentParser):
    """Reports mistakes as ConfigInvalid instead of printing and exiting on its own."""

    def error(self, message: str) -> NoReturn:
        raise ConfigInvalid(f"{message}; `{self.prog} --help` shows all options")


def parser() -> argparse.ArgumentParser:
    """The daemon's command line; every option is also a key of the TOML file and a QUBIX_ variable."""
    p = _Parser(
        prog="qubixd",
        description="The qubix daemon: one for callers and providers.",
        epilog="Every option is also a key of the TOML file (~/.config/qubix/config.toml) and a QUBIX_ "
        "variable, with `_` for `-`. Options beat variables, variables beat the file.",
        allow_abbrev=False,
    )
    p.add_argument("--config", metavar="FILE", help="TOML file with any of these settings")
    p.add_argument("--data-dir", metavar="DIR", help="where this node keeps its ledger, keys and jobs")
    text = "address to listen on, several times for more (default 127.0.0.1:0)"
    p.add_argument("--listen", metavar="HOST:PORT", action="append", help=text)
    p.add_argument(
        "--announce",
        metavar="MULTIADDR",
        action="append",
        help="tell others this instead, as /ip4/.../tcp/...",
    )
    p.add_argument("--bootstrap", metavar="MULTIADDR", action="append", help="a node to meet others through")
    p.add_argument("--chain", metavar="URL", help="node://HOST:PORT[,HOST:PORT...] or rpc+https://HOST")
    p.add_argument("--contract-index", type=int, metavar="N", help="index of the escrow contract")
    p.add_argument("--network", metavar="NAME", help="name of the Qubic network (default devnet)")
    p.add_argument("--provider", action="store_true", default=None, help="offer this machine")
    p.add_argument("--price", type=int, metavar="QU", help="QU per hour and GPU, or machine without one")
    p.add_argument("--qu-per-credit", type=int, metavar="QU", help="QU for 0.20 USD, to suggest a price (1)")
    p.add_argument("--storage-price", type=int, metavar="QU", help="and of 1 TiB of disk beside it (0)")
    p.add_argument(
        "--relay", action="store_true", default=None, help="join others that cannot reach each other"
    )
    p.add_argument(
        "--use-relay", metavar="MULTIADDR", action="append", help="be reached through this relay, always"
    )
    text = "QU per hour of a rented relay; 0 = not for rent (0)"
    p.add_argument("--relay-price", type=int, metavar="QU", help=text)
    p.add_argument("--runner", metavar="NAME", help="auto, docker or process (process: loopback trial only)")
    p.add_argument("--docker-host", metavar="URL", help="Docker engine to use instead of the default")
    p.add_argument(
        "--runtime", metavar="NAME", help="what holds a container: auto, runc, runsc, kata or another"
    )
    p.add_argument("--egress", metavar="WHAT", help="Internet for jobs: auto, none or internet")
    p.add_argument(
        "--egress-forbid", metavar="NETWORK", action="append", help="what no job may reach, as 203.0.113.0/24"
    )
    p.add_argument("--egress-mbit", type=int, metavar="N", help="Mbit/s each way and job (0 = no limit)")
    p.add_argument(
        "--image-percent",
        type=int,
        metavar="N",
        help="of the disk in per cent, what images may take that jobs brought (20)",
    )
    p.add_argument(
        "--image-days", type=int, metavar="N", help="days until such an image goes unused; 0 = never (14)"
    )
    p.add_argument("--image-keep", metavar="IMAGE", action="append", help="such an image that stays")
    p.add_argument("--metrics", metavar="HOST:PORT", help="answer Prometheus there (nowhere)")
    text = "let other machines read the metrics, too"
    p.add_argument("--metrics-open", action="store_true", default=None, help=text)
    p.add_argument("--name", metavar="NAME", help="name shown in the market")
    p.add_argument("--region", metavar="REGION", help="region shown in the market")
    p.add_argument("--wallet-seed-file", metavar="FILE", help="import this 55-letter seed on first start")
    p.add_argument("--passphrase-file", metavar="FILE", help="passphrase that opens the keystore")
    p.add_argument(
        "--interval", type=int, metavar="SECONDS", help="as a caller: how often to sign a voucher (default 5)"
    )
    p.add_argument(
        "--unpaid-intervals", type=int, metavar="N", help="as a provider: intervals a job may run unpaid (3)"
    )
    p.add_argument(
        "--one-pending-per-source",
        action="store_true",
        default=None,
        help="never have two transactions of this wallet under way",
    )
    p.add_argument(
        "--directory", action="store_true", default=None, help="keep a book of offers for others, too"
    )
    p.add_argument(
        "--mirror", action="store_true", default=None, help="copy the market for web pages, as directories do"
    )
    text = "where that copy lies, for users who may not enter the data directory"
    p.add_argument("--mirror-dir", metavar="DIR", help=text)
    p.add_argument(
        "--use-directory", metavar="MULTIADDR", action="append", help="a directory to prefer to all others"
    )
    p.add_argument(
        "--markets", metavar="MARKET", action="append", help=f"know this market only: {', '.join(MARKETS)}"
    )
    p.add_argument("--control-group", metavar="GROUP", help="a group of users who may use this node, too")
    p.add_argument("--mdns", metavar="WHEN", help="find nodes in the local network: on, off, auto (default)")
    p.add_argument("--json", action="store_true", default=None, help="print one JSON line when ready")
    return p


def markdown_table() -> str:
    """All settings with defaults and meaning, for docs/provider.md."""
    lines = ["| Setting | Preset | Meaning |", "|---|---|---|"]
    for action in parser()._actions:
        field = Config.__dataclass_fields__.get(action.dest)
        if field is not None and action.dest != "json":
            preset, meaning = _words_of(field.default), str(action.help)
            said_presets = (
                f" (default {_plain(field.default)})",
                f" ({field.default})",
                " (nowhere)",
                " (default)",
            )
            for said in said_presets:
                meaning = meaning.removesuffix(said)
            lines.append(f"| `{action.option_strings[0]}` | {preset} | {meaning} |")
    return "\n".join(lines) + "\n"


def _plain(value: object) -> object:
    return " ".join(value) if isinstance(value, tuple) else value


def _words_of(preset: object) -> str:
    if isinstance(preset, bool):
        return "on" if preset else "off"
    value = _plain(preset)
    return f"`{value}`" if value or (value == 0 and isinstance(value, int)) else ""


def _from_file(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        with open(path, "rb") as file:
            settings = tomllib.load(file)
    except OSError as error:
        raise ConfigInvalid(f"the configuration file {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"the configuration file {path} is not TOML: {error}") from error
    unknown = set(settings) - set(Config.__dataclass_fields__)
    if unknown:
        raise ConfigInvalid(f"{path} has a setting that does not exist: {min(unknown)}")
    return settings


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name, field in Config.__dataclass_fields__.items():
        text = environ.get(f"QUBIX_{name.upper()}")
        if text is not None:
            settings[name] = _parse(name, text, str(field.type))
    return settings


def _parse(name: str, text: str, kind: str) -> object:
    if kind.startswith("tuple"):
        return tuple(text.split())
    if kind == "bool":
        if text.lower() not in YES + NO:
            raise ConfigInvalid(f"QUBIX_{name.upper()} must be one of {', '.join(YES + NO)}, not {text!r}")
        return text.lower() in YES
    if kind.startswith("int"):
        try:
            return int(text)
        except ValueError as error:
            raise ConfigInvalid(f"QUBIX_{name.upper()} must be a whole number, not {text!r}") from error
    return text


def _checked(config: Config) -> Config:
    for place in config.listen or ("",):
        _check_address("listen", place)
    if config.metrics:
        _check_address("metrics", config.metrics)
    if config.metrics and not config.metrics_open and not is_loopback(config.metrics.rpartition(":")[0]):
        raise ConfigInvalid(
            f"--metrics {config.metrics} would tell others what this node does; "
            "name a loopback address such as 127.0.0.1:9464, or say --metrics-open as well"
        )
    for name, words in WORDS:
        if getattr(config, name) not in words:
            raise ConfigInvalid(f"{name} must be one of {', '.join(words)}, not {getattr(config, name)!r}")
    if strange := set(config.markets) - set(MARKETS):
        raise ConfigInvalid(f"there is no market {min(strange)!r}; the markets are {', '.join(MARKETS)}")
    for network in config.egress_forbid:
        _check_network(network)
    if not config.chain:
        raise ConfigInvalid(
            "no chain is set: name a Qubic node with --chain node://HOST:PORT and the contract with "
            "--contract-index, or try everything at once with `qubix demo`"
        )
    if config.contract_index < 1:
        raise ConfigInvalid("no escrow contract is set: name its index with --contract-index N")
    for name, low, high in NUMBER_RANGES:
        value = getattr(config, name)
        if value is not None and not low <= value <= high:
            raise ConfigInvalid(f"{name} must be between {low} and {high}")
    for name in ("name", "region", "network"):
        if len(getattr(config, name)) > MAX_WORD_CHARS:
            raise ConfigInvalid(f"{name} must have at most {MAX_WORD_CHARS} characters")
    return config


def _check_network(value: str) -> None:
    try:
        ipaddress.IPv4Network(value, strict=False)
    except ValueError as error:
        raise ConfigInvalid(f"egress_forbid must be IPv4 addresses or networks, not {value!r}") from error


def _check_address(name: str, value: str) -> None:
    host, _, port = value.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise ConfigInvalid(f"{name} must be HOST:PORT, not {value!r}")


def _default_data_dir(environ: Mapping[str, str]) -> str:
    base = environ.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local", "share")
    return os.path.join(base, "qubix")


def _default_config_file(environ: Mapping[str, str]) -> str | None:
    base = environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    path = os.path.join(base, "qubix", "config.toml")
    return path if os.path.exists(path) else None
