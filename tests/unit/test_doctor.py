"""The doctor's judgement: each state of the world is called by its name, with what would change it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from protocol.control_doctor import Facts, Level
from protocol.control_provider import HindranceView
from qubixd.doctor_rules import judge, outlook

ROOT = Path(__file__).parents[2]
HOME = {"own_ips": ["192.168.1.10"], "outside_ips": ["203.0.113.7"], "listening": ["192.168.1.10:4001"]}


def facts(**changes: Any) -> Facts:
    """A caller on a rented machine, with whom all is well."""
    body: dict[str, Any] = {
        "provider": False,
        "relay": False,
        "listening": ["203.0.113.7:443", "127.0.0.1:443"],
        "announced": [],
        "own_ips": ["203.0.113.7"],
        "outside_ips": ["203.0.113.7"],
        "reachable": True,
        "reached_at": ["203.0.113.7:443"],
        "nat": "none",
        "only_ports": [],
        "low_ports": True,
        "ipv6": False,
        "peers": 3,
        "relayed_peers": 0,
        "relays": [],
        "directories": [],
        "offers": 4,
        "chain": "node://203.0.113.1:21841",
        "chain_error": "",
        "waiting": "",
        "tick": 17,
        "balance": 1_000,
        "runner": "docker",
        "hindrances": [],
        "clock_ahead_seconds": 0.2,
    }
    return Facts(**body | changes)


def at_home(**changes: Any) -> Facts:
    return facts(**{**HOME, "reachable": False, "reached_at": [], "nat": "cone", **changes})


def codes(found: Facts, level: Level) -> set[str]:
    return {one.code for one in judge(found) if one.level is level}


def change(found: Facts, code: str) -> str:
    (sentence,) = [one.change for one in judge(found) if one.code == code]
    return sentence


def test_where_all_is_well_nothing_is_to_be_changed() -> None:
    found = judge(facts(provider=True))
    assert {one.level for one in found} == {Level.GOOD} and not any(one.change for one in found)
    assert {"net.reachable", "chain.answers", "clock.right", "provider.ready"} <= {one.code for one in found}


@pytest.mark.parametrize(
    ("found", "level", "code"),
    [
        (facts(peers=0), Level.BAD, "net.no_peers"),
        (facts(listening=["127.0.0.1:4001"], reachable=None, provider=True), Level.BAD, "net.loopback_only"),
        (facts(listening=["[::1]:4001"], reachable=None), Level.NOTE, "net.loopback_only"),
        (facts(listening=["127.0.0.1:4001"], reachable=None, relay=True), Level.BAD, "net.loopback_only"),
        (facts(reachable=None, reached_at=[]), Level.NOTE, "net.reach_unknown"),
        (facts(reachable=False, reached_at=[]), Level.NOTE, "net.closed"),
        (at_home(), Level.NOTE, "net.behind_router"),
        (at_home(), Level.GOOD, "net.cone"),
        (at_home(), Level.NOTE, "net.no_relay"),
        (at_home(provider=True), Level.BAD, "net.no_relay"),
        (at_home(relays=["12D3KooWRelayRelay"]), Level.GOOD, "net.relayed"),
        (at_home(nat="symmetric"), Level.NOTE, "net.symmetric"),
        (at_home(own_ips=["100.70.1.2"]), Level.NOTE, "net.shared_address"),
        (at_home(only_ports=[443]), Level.NOTE, "net.only_ports"),
        (at_home(only_ports=[443]), Level.NOTE, "net.behind_firewall"),
        (at_home(ipv6=True), Level.NOTE, "net.ipv6_unused"),
        (facts(reached_at=["203.0.113.7:4001"]), Level.NOTE, "net.no_443"),
        (facts(chain_error="connection refused"), Level.BAD, "chain.unreachable"),
        (facts(waiting="its tick is not past yet"), Level.BAD, "chain.waiting"),
        (facts(balance=0), Level.NOTE, "wallet.empty"),
        (facts(clock_ahead_seconds=-9.0), Level.NOTE, "clock.wrong"),
        (facts(clock_ahead_seconds=3_600.0), Level.BAD, "clock.wrong"),
    ],
)
def test_each_trouble_has_its_name(found: Facts, level: Level, code: str) -> None:
    assert code in codes(found, level)


def test_neighbours_do_not_make_it_reachable() -> None:
    """Not one on this machine, nor one in this network; those outside have not tried."""
    for at in ("127.0.0.1:4001", "192.168.1.10:4001"):
        found = at_home(listening=[at], reachable=True, reached_at=[at])
        said = {one.code for one in judge(found)}
        assert "net.reachable" not in said and "net.no_443" not in said
        assert ("net.reachable_nearby" in said) == at.startswith("192")
        assert ("net.loopback_only" in said) == at.startswith("127")
        assert [one.path for one in outlook(found)] == [one.path for one in outlook(at_home())]


@pytest.mark.parametrize("closes", [True, False])
def test_why_a_provider_takes_no_jobs_is_said_in_its_own_words(closes: bool) -> None:
    hindrance = HindranceView("provider.engine_away", "the engine is away", closes)
    found = judge(facts(provider=True, hindrances=[hindrance]))
    (said,) = [one for one in found if one.code == "provider.engine_away"]
    assert said.level is (Level.BAD if closes else Level.NOTE) and said.sentence == "The engine is away."
    assert closes != any(one.code == "provider.ready" for one in found)


def test_the_worst_comes_first() -> None:
    levels = [one.level for one in judge(at_home(peers=0, nat="symmetric"))]
    assert levels == sorted(levels, key=[Level.BAD, Level.NOTE, Level.GOOD].index)
    assert set(levels) == set(Level)


def test_what_to_change_names_this_machine_and_its_port() -> None:
    assert "TCP port 4001 at your router to 192.168.1.10" in change(at_home(), "net.behind_router")
    both = at_home(listening=["192.168.1.10:443", "192.168.1.10:4100"])
    assert "port 4100" in change(both, "net.behind_router")
    assert "4001/tcp" in change(facts(listening=["203.0.113.7:4001"], reachable=False), "net.closed")
    local = facts(listening=["127.0.0.1:9"], reachable=None)
    assert "--listen 0.0.0.0:4001" in change(local, "net.loopback_only")
    passed_on = {"reachable": True, "reached_at": ["203.0.113.7:4001"]}
    assert "forward TCP port 443" in change(at_home(**passed_on), "net.no_443")
    assert "forward" not in change(facts(reached_at=["203.0.113.7:4001"]), "net.no_443")
    poor = facts(reached_at=["203.0.113.7:4001"], low_ports=False)
    assert "ip_unprivileged_port_start=443" in change(poor, "net.no_443")


def test_behind_a_router_one_is_not_told_to_open_what_is_open() -> None:
    """A forwarded port: reachable in spite of the router, so neither it nor a relay is spoken of."""
    found = {one.code for one in judge(at_home(reachable=True, reached_at=["203.0.113.7:443"]))}
    assert not found & {"net.behind_router", "net.no_relay", "net.cone", "net.symmetric", "net.closed"}


@pytest.mark.parametrize(
    ("found", "paths"),
    [
        (facts(), ["direct"] * 4),
        (facts(peers=0), [""] * 4),
        (at_home(), ["direct", "punched", "relayed", "punched"]),
        (at_home(nat=""), ["direct", "punched", "relayed", "punched"]),
        (at_home(nat="symmetric"), ["direct", "relayed", "relayed", "relayed"]),
        (at_home(only_ports=[443]), ["direct", "punched", "relayed", "punched"]),
        (facts(reached_at=["203.0.113.7:4001"]), ["direct", "direct", "direct", "punched"]),
    ],
)
def test_the_outlook_is_what_the_paths_would_try(found: Facts, paths: list[str]) -> None:
    assert [one.path for one in outlook(found)] == paths


def test_every_finding_is_described() -> None:
    rules = (ROOT / "qubixd" / "doctor_rules.py").read_text()
    known = set(re.findall(r'"((?:net|chain|wallet|clock|provider)\.\w+)"', rules))
    described = set(re.findall(r"^\| `([a-z]+\.\w+)` \|", (ROOT / "docs" / "doctor.md").read_text(), re.M))
    assert known == described and len(known) > 20
