"""What the doctor concludes from the facts: pure, so that every conclusion can be tested.

`judge` says what works and what to change, `outlook` which way leads from here to each sort of place.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from protocol.control_doctor import Facts, FindingView, Level, OutlookView
from protocol.paths import PathKind
from qubixd.paths.endpoints import Endpoint, is_public, parse
from qubixd.paths.plan import CONE, OPEN, SYMMETRIC, Side, plan

OPEN_PORT: Final = 443
"""What the strictest firewalls let out."""
USUAL_PORT: Final = 4001
CLOCK_NOTE_SECONDS: Final = 5.0
CLOCK_BAD_SECONDS: Final = 45.0
"""Offers and vouchers are dated; docs/market.md says by how much clocks may differ."""
SHARED: Final = ipaddress.ip_network("100.64.0.0/10")
"""What Internet providers give to customers who share one outer address (RFC 6598)."""
ORDER: Final = (Level.BAD, Level.NOTE, Level.GOOD)


def judge(facts: Facts) -> list[FindingView]:
    """All findings, the worst first."""
    rules = (_peers, _listening, _reach, _nat, _firewall, _relays, _door, _six, _chain, _money, _jobs, _clock)
    nearby = [end for end in facts.reached_at if not is_public(parse(end).ip)]
    facts = _sober(facts)
    found = [*_near(facts, nearby), *(finding for rule in rules for finding in rule(facts))]
    return sorted(found, key=lambda finding: ORDER.index(finding.level))


def _sober(facts: Facts) -> Facts:
    """Whom neighbours reach is not reachable for that: only addresses count that mean the same to all."""
    ends = [end for end in facts.reached_at if is_public(parse(end).ip)]
    reachable = (bool(ends) or None) if facts.reachable else facts.reachable
    return replace(facts, reached_at=ends, reachable=reachable)


# --- the network ------------------------------------------------------------------------------


def _peers(facts: Facts) -> Iterator[FindingView]:
    if facts.peers:
        through = f", {facts.relayed_peers} of them through a relay" if facts.relayed_peers else ""
        shown = "1 other node" if facts.peers == 1 else f"{facts.peers} other nodes"
        yield _good("net.peers", f"This node is connected to {shown}{through}.")
        return
    sentence = "This node is connected to no other node, so it sees no market and nobody sees it."
    yield _bad(
        "net.no_peers",
        sentence,
        "name a node that runs already with `--bootstrap ADDRESS`; behind a strict firewall one that listens "
        f"on port {OPEN_PORT}",
    )


def _listening(facts: Facts) -> Iterator[FindingView]:
    if not _on_loopback_only(facts):
        return
    make = _bad if facts.provider or facts.relay else _note
    where = ", ".join(facts.listening) or "nowhere"
    yield make(
        "net.loopback_only",
        f"This node listens to this very machine only ({where}): no other can open a connection to it.",
        f"start it with `--listen 0.0.0.0:{USUAL_PORT}`",
    )


def _near(facts: Facts, ends: list[str]) -> Iterator[FindingView]:
    near = [end for end in ends if not ipaddress.ip_address(parse(end).ip).is_loopback]
    if near and not facts.reachable:
        where = ", ".join(near)
        yield _good("net.reachable_nearby", f"Others in this network can open connections to it, at {where}.")


def _reach(facts: Facts) -> Iterator[FindingView]:
    if facts.reachable:
        where = ", ".join(facts.reached_at)
        yield _good("net.reachable", f"Others can open connections to this machine, at {where}.")
    elif _on_loopback_only(facts):
        return
    elif facts.reachable is None:
        yield _note(
            "net.reach_unknown", "Whether others can open connections to this machine is not known yet."
        )
    elif facts.nat == OPEN or set(facts.outside_ips) & set(facts.own_ips):
        port = _port(facts)
        yield _note(
            "net.closed",
            "This machine has a public address, but something lets no connection in: a firewall on it, or "
            "of its network.",
            f"let in TCP port {port} (on this machine for example with `ufw allow {port}/tcp`; a rented one "
            "may have rules at its provider, too)",
        )
    else:
        yield _behind(facts)


def _behind(facts: Facts) -> FindingView:
    shared = any(ipaddress.ip_address(ip) in SHARED for ip in facts.own_ips if ":" not in ip)
    if shared:
        return _note(
            "net.shared_address",
            "Your Internet provider gives one public address to many customers, so nobody outside can open a "
            "connection to this machine, whatever your router does.",
            "ask the provider for an address of your own, or IPv6; a relay works meanwhile",
        )
    if facts.only_ports:
        return _note(
            "net.behind_firewall",
            "A firewall lets no connection in to this machine.",
            "whoever runs this network would have to let in and forward "
            f"TCP port {_port(facts)} to {_own_ip(facts)}; a relay works without",
        )
    return _note(
        "net.behind_router",
        "Others cannot open connections to this machine: the router before it lets none in.",
        f"forward TCP port {_port(facts)} at your router to {_own_ip(facts)}{_fixed(facts)}",
    )


def _nat(facts: Facts) -> Iterator[FindingView]:
    if facts.reachable:
        return
    if facts.nat == CONE:
        yield _good(
            "net.cone",
            "The router shows one outer port to everybody, so direct connections to others behind a router "
            "work, too: both sides dial at once.",
        )
    elif facts.nat == SYMMETRIC:
        yield _note(
            "net.symmetric",
            "The router shows another outer port to everyone, so no hole can be made through it: with others "
            "who cannot be reached all goes through a relay, slower.",
            f'forward port {_port(facts)}, or set the router\'s NAT to "endpoint-independent" or '
            '"full cone" if it can',
        )


def _firewall(facts: Facts) -> Iterator[FindingView]:
    if not facts.only_ports:
        return
    ports = " and ".join(str(port) for port in facts.only_ports)
    yield _note(
        "net.only_ports",
        f"A firewall lets out TCP connections to port {ports} only.",
        f"name nodes with --bootstrap and --use-relay, and a chain, that are on port {ports}; where they "
        "are, nothing needs to change",
    )


def _relays(facts: Facts) -> Iterator[FindingView]:
    if facts.relays:
        names = ", ".join(f"…{peer[-8:]}" for peer in facts.relays)
        relays = f"{len(facts.relays)} relays" if len(facts.relays) > 1 else "a relay"
        yield _good("net.relayed", f"Others reach this machine through {relays}: {names}.")
    elif facts.reachable is False:
        make = _bad if facts.provider else _note
        yield make(
            "net.no_relay",
            "No relay brings others to this machine, so those who cannot be reached either cannot meet it.",
            "name one with `--use-relay ADDRESS`, or connect to a node that runs with --relay",
        )


def _door(facts: Facts) -> Iterator[FindingView]:
    """For those who can be reached: who is kept out."""
    if not facts.reachable or OPEN_PORT in [parse(end).port for end in facts.reached_at]:
        return
    rights = (
        ""
        if facts.low_ports
        else (f" (this needs `sysctl net.ipv4.ip_unprivileged_port_start={OPEN_PORT}`, or root)")
    )
    behind = not set(facts.outside_ips) & set(facts.own_ips)
    forward = f", and forward TCP port {OPEN_PORT} at the router to {_own_ip(facts)}" if behind else ""
    yield _note(
        "net.no_443",
        f"Whoever is behind a firewall that lets out port {OPEN_PORT} only cannot open a connection to here.",
        f"listen there as well: `--listen 0.0.0.0:{_port(facts)} --listen 0.0.0.0:{OPEN_PORT}`"
        f"{rights}{forward}",
    )


def _six(facts: Facts) -> Iterator[FindingView]:
    listens = any(":" in parse(end).ip for end in facts.listening)
    if facts.ipv6 and not listens and facts.reachable is False:
        yield _note(
            "net.ipv6_unused",
            "This machine has IPv6, where routers rewrite no addresses, and the node does not listen there.",
            f"start it with `--listen [::]:{_port(facts)}` as well, and let that port in",
        )


# --- the rest ---------------------------------------------------------------------------------


def _chain(facts: Facts) -> Iterator[FindingView]:
    if facts.chain_error:
        yield _bad(
            "chain.unreachable",
            f"The chain does not answer at {facts.chain}: {facts.chain_error}.",
            "name a node of it that runs with `--chain`; no lease can be opened or settled without",
        )
    elif facts.waiting:
        yield _bad("chain.waiting", f"Something waits for the chain: {facts.waiting}.")
    else:
        yield _good("chain.answers", f"The chain answers, at tick {facts.tick:,}.")


def _money(facts: Facts) -> Iterator[FindingView]:
    if facts.balance == 0 and not facts.provider:
        yield _note(
            "wallet.empty",
            "The wallet holds no QU, so nothing can be rented.",
            "send some to the identity that `qubix wallet` shows",
        )


def _jobs(facts: Facts) -> Iterator[FindingView]:
    for one in facts.hindrances:
        code, sentence = one.code, f"{_capital(one.sentence)}."
        yield _bad(code, sentence) if one.closes else _note(code, sentence)
    if facts.provider and not any(one.closes for one in facts.hindrances):
        yield _good("provider.ready", f"This machine takes jobs; they run with {facts.runner}.")


def _clock(facts: Facts) -> Iterator[FindingView]:
    ahead = facts.clock_ahead_seconds
    if ahead is None:
        return
    if abs(ahead) < CLOCK_NOTE_SECONDS:
        yield _good("clock.right", "The clock of this machine agrees with the others'.")
        return
    make = _bad if abs(ahead) >= CLOCK_BAD_SECONDS else _note
    way = "ahead of" if ahead > 0 else "behind"
    yield make(
        "clock.wrong",
        f"The clock of this machine is {abs(ahead):,.0f} seconds {way} those of others, who may take what it "
        "signs for old or from the future.",
        "set it by the network, for example with `timedatectl set-ntp true`",
    )


# --- where to from here -----------------------------------------------------------------------

_ELSEWHERE: Final = Endpoint("203.0.113.1", USUAL_PORT)
_ELSEWHERE_OPEN: Final = Endpoint("203.0.113.1", OPEN_PORT)
_PLACES: Final = (
    ("a machine that everybody can reach", Side(ends=(_ELSEWHERE, _ELSEWHERE_OPEN), nat=OPEN)),
    ("one behind a home's router", Side(nat=CONE)),
    ("one behind a router that shows everyone another port", Side(nat=SYMMETRIC)),
    (f"one behind a firewall that lets out port {OPEN_PORT} only", Side(nat=CONE, ports=(OPEN_PORT,))),
)
_WORDS: Final = {
    PathKind.DIRECT: "directly",
    PathKind.PUNCHED: "directly, both sides dialling at once",
    PathKind.WIRE: "over the nodes' own connection, slower than a direct one",
    PathKind.RELAYED: "through a relay, slower",
}


def outlook(facts: Facts) -> list[OutlookView]:
    """The best way from here to machines in each sort of place, as qubixd/paths would try them. Those who
    cannot be reached are taken to have a relay: without one nobody could meet them."""
    facts = _sober(facts)
    ends = tuple(parse(end) for end in facts.reached_at)
    me = Side(ends, facts.nat or (OPEN if facts.reachable else ""), tuple(facts.only_ports))
    if not facts.peers:
        return [OutlookView(whom, "", "no way, while no other node is connected") for whom, _ in _PLACES]
    return [_outlook(me, whom, place) for whom, place in _PLACES]


def _outlook(me: Side, whom: str, place: Side) -> OutlookView:
    # What one cannot get at does not count; they agree on the rest over what can be opened, or by a relay.
    mine = tuple(end for end in me.ends if place.reaches(end))
    theirs = tuple(end for end in place.ends if me.reaches(end))
    wire = PathKind.WIRE if mine or theirs else PathKind.RELAYED
    steps = plan(replace(me, ends=mine), replace(place, ends=theirs), wire)
    best = min((step.kind for step in steps), key=lambda kind: kind.rank)
    return OutlookView(whom, best.value, _WORDS[best])


# --- small things -----------------------------------------------------------------------------


def _on_loopback_only(facts: Facts) -> bool:
    return all(ipaddress.ip_address(parse(end).ip).is_loopback for end in facts.listening)


def _port(facts: Facts) -> int:
    """The one to open: where it listens for others, best not the one that firewalls are known for."""
    ports = sorted({parse(end).port for end in facts.listening}, key=lambda port: port == OPEN_PORT)
    return ports[0] if ports else USUAL_PORT


def _own_ip(facts: Facts) -> str:
    """Of this machine behind its router."""
    near = [ip for ip in facts.own_ips if ":" not in ip and not is_public(ip)]
    return next(iter([*near, *facts.own_ips]), "this machine")


def _fixed(facts: Facts) -> str:
    return f" (start it with `--listen 0.0.0.0:{_port(facts)}`, so that it stays at this port)"


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _good(code: str, sentence: str) -> FindingView:
    return FindingView(code, Level.GOOD, sentence)


def _note(code: str, sentence: str, change: str = "") -> FindingView:
    return FindingView(code, Level.NOTE, sentence, change)


def _bad(code: str, sentence: str, change: str = "") -> FindingView:
    return FindingView(code, Level.BAD, sentence, change)
