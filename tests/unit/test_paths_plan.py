"""Which ways are tried, in which order; which addresses may be dialled; how a race between ways ends."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Sequence

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from protocol.errors import MessageInvalid, PeerUnreachable
from protocol.paths import PathKind
from qubixd.link.carriers import StreamCarrier
from qubixd.paths.endpoints import MAX_DIALLED, Endpoint, dialable, from_multiaddress, is_public, parse
from qubixd.paths.plan import DIAL_PATIENCE, Side, Step, Way, plan, source_port
from qubixd.paths.race import race
from qubixd.paths.surroundings import nat_of

PUBLIC = Endpoint("11.0.0.7", 4001)
OTHER = Endpoint("11.0.0.8", 443)
NEAR = Endpoint("192.168.1.9", 4001)
HOME = (ipaddress.ip_network("192.168.1.0/24"),)


def ways(steps: Sequence[Step]) -> list[Way]:
    return [step.way for step in steps]


def test_an_open_peer_is_dialled_first_and_the_wire_is_last() -> None:
    steps = plan(Side(nat="cone"), Side((PUBLIC, OTHER), "none"), PathKind.WIRE)
    assert ways(steps) == [Way.DIAL, Way.DIAL, Way.PUNCH, Way.PUNCH, Way.WIRE]
    assert [step.end for step in steps[:2]] == [PUBLIC, OTHER]


def test_who_is_easier_to_reach_is_dialled_back() -> None:
    assert ways(plan(Side((PUBLIC,), "none"), Side(nat="cone"), PathKind.WIRE))[0] is Way.DIAL_BACK


@pytest.mark.parametrize(
    "mine, theirs", [("symmetric", "cone"), ("cone", "symmetric"), ("symmetric", "symmetric")]
)
def test_a_symmetric_router_goes_straight_to_the_relay(mine: str, theirs: str) -> None:
    steps = plan(Side(nat=mine), Side(nat=theirs), PathKind.RELAYED)
    assert steps == (Step(Way.WIRE, PathKind.RELAYED),)


def test_two_routers_that_show_one_port_are_punched() -> None:
    steps = plan(Side(nat="cone"), Side(nat="cone"), PathKind.RELAYED)
    assert ways(steps) == [Way.PUNCH, Way.PUNCH, Way.WIRE]
    assert [step.attempt for step in steps[:2]] == [0, 1]


def test_two_nodes_in_the_open_have_nothing_to_punch() -> None:
    assert Way.PUNCH not in ways(plan(Side((PUBLIC,), "none"), Side((OTHER,), "none"), PathKind.WIRE))


def test_only_what_is_better_is_tried() -> None:
    me, peer = Side((PUBLIC,), "cone"), Side((OTHER,), "cone")
    for than, worst in (
        (PathKind.RELAYED, Way.WIRE),
        (PathKind.WIRE, Way.PUNCH),
        (PathKind.PUNCHED, Way.DIAL_BACK),
    ):
        assert plan(me, peer, PathKind.WIRE, than)[-1].way is worst
    assert plan(me, peer, PathKind.WIRE, PathKind.DIRECT) == ()
    assert Way.WIRE not in ways(plan(me, peer, PathKind.RELAYED, PathKind.RELAYED))


def test_without_a_wire_there_is_only_dialling() -> None:
    assert ways(plan(Side((PUBLIC,), "cone"), Side((OTHER,), "cone"), None)) == [Way.DIAL]


def test_what_a_firewall_seems_to_let_out_is_dialled_first() -> None:
    campus = Side(ports=(443,))
    assert [step.end for step in plan(campus, Side((PUBLIC, NEAR, OTHER)), None)] == [NEAR, OTHER, PUBLIC]


def test_the_punch_leaves_from_the_port_that_the_other_side_can_dial() -> None:
    assert [source_port((443,), attempt) for attempt in (0, 1)] == [443, 0]
    assert [source_port((), attempt) for attempt in (0, 1)] == [0, 443]


def test_somebody_who_waits_gets_the_wire_before_a_punch_has_failed() -> None:
    hurried, patient = (
        plan(Side(nat="cone"), Side(nat="cone"), PathKind.RELAYED, hurry=hurry) for hurry in (True, False)
    )
    assert sum(step.patience for step in hurried) < sum(step.patience for step in patient)


# Addresses


def test_addresses_are_read_as_they_are_written() -> None:
    for end in (PUBLIC, Endpoint("2001:db8::1", 1)):
        assert parse(str(end)) == end
        assert from_multiaddress(end.multiaddress + "/p2p/12D3") == end
    assert parse("[::ffff:11.0.0.7]:4001") == PUBLIC


@pytest.mark.parametrize(
    "text", ["", "1.2.3.4", "1.2.3.4:0", "1.2.3.4:65536", "host:1", "1.2.3.4:1²", "1.2.3.4:-1"]
)
def test_nothing_else_is_an_address(text: str) -> None:
    with pytest.raises(MessageInvalid):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/ip4/1.2.3.4/udp/1",
        "/dns4/a/tcp/1",
        "/ip4/11.0.0.7/tcp/1/p2p/a/p2p-circuit/p2p/b",
        "/ip4/x/tcp/1",
    ],
)
def test_other_multiaddresses_are_no_place_to_dial(text: str) -> None:
    assert from_multiaddress(text) is None


@pytest.mark.parametrize(
    "ip", ["10.1.1.1", "127.0.0.1", "100.64.0.1", "169.254.1.1", "::1", "fe80::1", "fd00::1"]
)
def test_private_addresses_are_not_public(ip: str) -> None:
    assert not is_public(ip)


def named(*ends: Endpoint) -> list[str]:
    return [end.multiaddress for end in ends]


def test_private_addresses_are_dialled_in_the_own_network_only() -> None:
    far = Endpoint("10.9.9.9", 22)
    assert dialable(named(PUBLIC, far, NEAR), "11.0.0.7", HOME) == (NEAR, PUBLIC)
    assert dialable(named(far), "10.9.9.9", ()) == (far,), "its bytes come from there"


def test_nobody_elsewhere_makes_us_dial_ourselves() -> None:
    ours = [Endpoint("127.0.0.1", 22), Endpoint("192.168.1.2", 22), Endpoint("::1", 22)]
    for remote in ("11.0.0.7", "192.168.1.9", None):
        assert dialable(named(*ours), remote, HOME, ["192.168.1.2", "127.0.0.1", "::1"]) == ()
    for remote in ("127.0.0.1", "192.168.1.2"):
        assert set(dialable(named(*ours), remote, HOME, ["192.168.1.2"])) == set(ours)


def test_a_few_addresses_are_dialled_and_no_broadcast() -> None:
    many = [Endpoint(f"11.0.1.{n}", 4001) for n in range(20)]
    assert len(dialable(named(*many), None, ())) == MAX_DIALLED
    assert dialable(named(Endpoint("224.0.0.1", 1), Endpoint("255.255.255.255", 1)), None, ()) == ()


# What a look around says


def test_the_kind_of_router() -> None:
    a, b = Endpoint("11.0.0.7", 5000), Endpoint("11.0.0.7", 5001)
    assert nat_of((a, a), frozenset()) == "cone"
    assert nat_of((a, b), frozenset()) == "symmetric"
    assert nat_of((a,), frozenset()) == ""
    assert nat_of((), frozenset()) == ""
    assert nat_of((a,), frozenset({"11.0.0.7"})) == "none"


# The race


class FakeCarrier(StreamCarrier):
    """To nowhere; it notes that it was closed."""

    def __init__(self) -> None:
        super().__init__(memory_stream_pair()[0], PathKind.DIRECT, "")
        self.closed = False

    async def aclose(self) -> None:
        self.closed = True


STEPS = tuple(
    Step(Way.DIAL, PathKind.DIRECT, DIAL_PATIENCE, Endpoint("11.0.0.7", port)) for port in (1, 2, 3)
)


def after(
    seconds: dict[int, float | None], began: dict[int, float]
) -> Callable[[Step], Awaitable[FakeCarrier]]:
    """Port -> when its step succeeds; None: it fails at once."""

    async def attempt(step: Step) -> FakeCarrier:
        assert step.end is not None
        began[step.end.port] = trio.current_time()
        wait = seconds[step.end.port]
        if wait is None:
            raise PeerUnreachable(f"no {step.end.port}")
        await trio.sleep(wait)
        return FakeCarrier()

    return attempt


async def test_a_step_that_hangs_holds_up_nothing(autojump_clock: MockClock) -> None:
    began: dict[int, float] = {}
    start = trio.current_time()
    await race(STEPS, after({1: 9.0, 2: 1.0, 3: 9.0}, began))
    assert [began[port] - start for port in (1, 2, 3)] == pytest.approx([0, DIAL_PATIENCE, 2 * DIAL_PATIENCE])
    assert trio.current_time() - start == pytest.approx(DIAL_PATIENCE + 1.0)


async def test_after_a_failure_the_next_begins_at_once(autojump_clock: MockClock) -> None:
    began: dict[int, float] = {}
    start = trio.current_time()
    await race(STEPS, after({1: None, 2: None, 3: 0.1}, began))
    assert began[3] == start


async def test_when_all_fail_each_says_why(autojump_clock: MockClock) -> None:
    with pytest.raises(PeerUnreachable, match=r"no 1.*no 2.*no 3"):
        await race(STEPS, after({1: None, 2: None, 3: None}, {}))
    with pytest.raises(PeerUnreachable, match="nothing to try"):
        await race((), after({}, {}))


async def test_a_carrier_that_comes_too_late_is_closed() -> None:
    made: list[FakeCarrier] = []
    both = trio.Event()

    async def attempt(step: Step) -> FakeCarrier:
        with trio.CancelScope(shield=True):
            if step.end == STEPS[1].end:
                both.set()
            await both.wait()
        made.append(FakeCarrier())
        return made[-1]

    won = await race(STEPS[:2], attempt)
    kept = next(carrier for carrier in made if carrier == won)
    assert [carrier.closed for carrier in made] == [carrier is not kept for carrier in made]
    assert len(made) == 2
