"""The private network that `qubix up` finds or starts: one for all, a wallet for each."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from escrow_bridge.qubic import Wallet
from protocol import control
from protocol.errors import ConfigInvalid, NotFound
from tests.support import views
from tests.support.control_server import control_server
from tui import private_net
from tui.private_net import PrivateNet

NOBODY = '{"nodes": ["127.0.0.1:1"], "rpc": "http://127.0.0.1:1", "contract_index": 28, "pid": 5}'


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where this user's data lies; whatever network runs at the end is ended."""
    for name in [name for name in os.environ if name.startswith("QUBIX_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    yield tmp_path
    try:
        number = asyncio.run(private_net.end())
    except NotFound:
        return
    os.waitpid(number, 0)


def joined(directory: Path, *, wants_wallet: bool = True) -> PrivateNet:
    return asyncio.run(private_net.join(directory, wants_wallet=wants_wallet))


async def join_many(places: list[Path]) -> list[PrivateNet]:
    return list(await asyncio.gather(*(private_net.join(one, wants_wallet=True) for one in places)))


def test_those_who_come_at_once_meet_on_one_network(home: Path) -> None:
    nets = asyncio.run(join_many([home / str(number) for number in range(4)]))
    assert len({net.chain for net in nets}) == 1
    assert len({net.seed_file for net in nets}) == 4
    assert all(stat.S_IMODE(net.seed_file.stat().st_mode) == 0o600 for net in nets if net.seed_file)


def test_a_node_comes_back_to_its_own_wallet_and_a_network_with_later_ticks(home: Path) -> None:
    first = joined(home / "a")
    began = json.loads((home / "qubix-devnet" / "network.json").read_text())
    os.waitpid(asyncio.run(private_net.end()), 0)
    second = joined(home / "a")
    now = json.loads((home / "qubix-devnet" / "network.json").read_text())
    assert second.seed_file == first.seed_file
    assert began["pid"] != now["pid"]


def test_who_has_a_wallet_gets_none(home: Path) -> None:
    assert joined(home / "a", wants_wallet=False).seed_file is None
    assert "--wallet-seed-file" not in joined(home / "a", wants_wallet=False).options


def test_the_last_wallet_is_the_last(home: Path) -> None:
    for number in range(private_net.WALLETS):
        joined(home / str(number))
    with pytest.raises(ConfigInvalid, match="no wallet left"):
        joined(home / "one-too-many")
    assert joined(home / "3").seed_file  # who has one keeps it


def test_members_that_answer_are_told_to_those_who_come(home: Path) -> None:
    joined(home / "a")
    joined(home / "gone")
    (home / "a").mkdir()
    answer = {"ok": control.to_body(views.STATUS)}
    with control_server(home / "a" / "control.sock", lambda verb, args: [answer]):
        assert joined(home / "b").bootstrap == tuple(views.STATUS.addresses)
        assert joined(home / "a").bootstrap == ()  # not itself


def test_any_wallet_is_given_play_money_where_a_network_runs(home: Path) -> None:
    identity = Wallet("q" * 55).identity
    with pytest.raises(NotFound, match="no private network runs"):
        asyncio.run(private_net.gift(identity))
    joined(home / "a", wants_wallet=False)
    for _ in range(2):
        assert asyncio.run(private_net.gift(identity)) == private_net.WALLET_QU
    with pytest.raises(NotFound, match="gave no play money"):
        asyncio.run(private_net.gift("no identity"))


@pytest.mark.parametrize(
    "rubbish", ["", "[]", "{}", '{"nodes": [], "rpc": 5}', '{"rpc": "http://127.0.0.1:1"}', "\x00"]
)
def test_what_is_left_of_a_network_that_ended_is_no_network(home: Path, rubbish: str) -> None:
    (home / "qubix-devnet").mkdir()
    (home / "qubix-devnet" / "network.json").write_text(rubbish)
    with pytest.raises(NotFound):
        asyncio.run(private_net.end())


def test_a_network_file_that_names_somebody_elses_process_ends_nobody(home: Path) -> None:
    joined(home / "a")
    file = home / "qubix-devnet" / "network.json"
    real = file.read_text()
    file.write_text(json.dumps({**json.loads(real), "pid": os.getpid()}))
    with pytest.raises(NotFound):
        asyncio.run(private_net.end())
    file.write_text(real)


@pytest.mark.parametrize(
    ("environment", "file", "named"),
    [
        ({}, None, False),
        ({"QUBIX_CHAIN": "node://h:1"}, None, True),
        ({}, 'chain = "node://h:1"\n', True),
        ({}, "price = 5\n", False),
        ({}, "not toml", True),
    ],
)
def test_a_chain_is_named_by_environment_or_file(
    home: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], file: str | None, named: bool
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if file is not None:
        (home / "config" / "qubix").mkdir(parents=True)
        (home / "config" / "qubix" / "config.toml").write_text(file)
    assert private_net.no_chain_named(None) is not named
