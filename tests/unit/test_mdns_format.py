"""Packets of multicast DNS: ours are read by another implementation (zeroconf, which libp2p brings along)
and the other way round, and nothing that a stranger sends gets further than one kind of error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zeroconf._dns import DNSPointer, DNSQuestion, DNSText
from zeroconf._protocol.incoming import DNSIncoming
from zeroconf._protocol.outgoing import DNSOutgoing

from protocol.errors import MessageInvalid
from qubixd.wire_libp2p.mdns_format import MAX_ADDRESSES, MAX_PACKET_BYTES, Heard, answer, question, read

SERVICE = "_p2p._udp.local."
NAME = "0123456789abcdef" * 2
PEER = "12D3KooWBhV9dp6FPTxaPQfYeqsHGnkJ8r3mV2SJXb7oJqCQZbWp"
ADDRESSES = tuple(f"/ip4/192.168.1.{n}/tcp/4001/p2p/{PEER}" for n in range(1, 4))
PTR, TXT, IN, RESPONSE, QUERY = 12, 16, 1, 0x8400, 0


def test_ours_read_by_ours() -> None:
    assert read(question()) == Heard(asks=True, addresses=())
    assert read(answer(NAME, ADDRESSES)) == Heard(asks=False, addresses=ADDRESSES)
    assert read(answer(NAME, ())) == Heard(asks=False, addresses=())


def test_ours_read_by_zeroconf() -> None:
    asked = DNSIncoming(question())
    assert asked.valid and asked.is_query()
    assert [(q.name, q.type, q.class_) for q in asked.questions] == [(SERVICE, PTR, IN)]
    told = DNSIncoming(answer(NAME, ADDRESSES))
    assert told.valid and told.is_response()
    pointer, text = told.answers()
    assert isinstance(pointer, DNSPointer) and isinstance(text, DNSText)
    assert (pointer.name, pointer.alias, pointer.ttl) == (SERVICE, f"{NAME}.{SERVICE}", 120)
    strings = [b"dnsaddr=" + address.encode() for address in ADDRESSES]
    assert (text.name, text.text) == (pointer.alias, b"".join(bytes([len(s)]) + s for s in strings))


def test_zeroconf_s_read_by_ours() -> None:
    asks = DNSOutgoing(QUERY)
    asks.add_question(DNSQuestion("_ipp._tcp.local.", PTR, IN))
    asks.add_question(DNSQuestion("_P2P._udp.local.", PTR, IN))
    assert read(asks.packets()[0]).asks
    tells = DNSOutgoing(RESPONSE)  # with compressed names
    text = b"".join(bytes([len(s)]) + s for s in (b"dnsaddr=" + ADDRESSES[0].encode(), b"agent=other"))
    tells.add_answer_at_time(DNSPointer(SERVICE, PTR, IN, 120, f"{NAME}.{SERVICE}"), 0)
    tells.add_answer_at_time(DNSText(f"{NAME}.{SERVICE}", TXT, IN, 120, text), 0)
    assert read(tells.packets()[0]) == Heard(asks=False, addresses=ADDRESSES[:1])


def test_what_is_said_of_other_services_is_passed_over() -> None:
    said = DNSOutgoing(RESPONSE)
    text = bytes([len(b"dnsaddr=" + ADDRESSES[0].encode())]) + b"dnsaddr=" + ADDRESSES[0].encode()
    for name in ("printer._ipp._tcp.local.", SERVICE, f"a.b.{SERVICE}"):
        said.add_answer_at_time(DNSText(name, TXT, IN, 120, text), 0)
    said.add_answer_at_time(DNSText(f"{NAME}.{SERVICE}", TXT, IN, 0, text), 0)  # a goodbye
    assert read(said.packets()[0]).addresses == ()


def test_a_query_tells_nothing_and_an_answer_asks_nothing() -> None:
    told = answer(NAME, ADDRESSES)
    assert read(told[:2] + bytes(2) + told[4:]).addresses == ()
    asked = question()
    assert not read(asked[:2] + b"\x84\0" + asked[4:]).asks


def test_at_most_eight_addresses_go_out_and_come_in() -> None:
    many = tuple(f"/ip4/10.0.0.{n}/tcp/1/p2p/{PEER}" for n in range(20))
    assert read(answer(NAME, many)).addresses == many[:MAX_ADDRESSES]
    assert len(answer(NAME, many)) < MAX_PACKET_BYTES
    both = answer(NAME, many)
    doubled = both[:10] + b"\0\2" + both[12:] + both[both.rindex(NAME.encode()) - 1 :]
    assert read(doubled).addresses == many[:MAX_ADDRESSES]


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        question()[:-1],
        answer(NAME, ADDRESSES)[:-1],
        b"\0\0\0\0\xff\xff\0\0\0\0\0\0",  # 65,535 questions
        question()[:12] + b"\xc0\x0c" + bytes(4),  # a name that points to itself
        question()[:12] + b"\xc0\xff" + bytes(4),  # and behind itself
        question()[:12] + b"\x40" + bytes(80),  # an unknown kind of label
        question()[:12] + b"\1a" * 40 + bytes(5),  # a name without end
    ],
)
def test_a_malformed_packet_is_refused(packet: bytes) -> None:
    with pytest.raises(MessageInvalid):
        read(packet)


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """An answer with a few bytes that are others."""
    packet = bytearray(answer(NAME, ADDRESSES))
    for _ in range(draw(st.integers(1, 3))):
        packet[draw(st.integers(0, len(packet) - 1))] = draw(st.integers(0, 255))
    return bytes(packet)


@given(st.binary(max_size=200) | changed())
def test_anything_is_read_or_refused(packet: bytes) -> None:
    try:
        heard = read(packet)
    except MessageInvalid:
        return
    assert len(heard.addresses) <= MAX_ADDRESSES
    assert all(address.isascii() and len(address) <= 255 for address in heard.addresses)
