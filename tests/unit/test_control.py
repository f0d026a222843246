"""Frames of the control socket: what the daemon takes from a front end, and what it refuses."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgpack
import pytest

from protocol import control
from protocol.codec import convert
from protocol.control import FRAME_HEADER_BYTES, VERBS, RunArgs, pack, read_answer, read_request, to_body
from protocol.errors import MessageInvalid
from tests.support.values import sample


def request(verb: Any = "ps", args: Any = None, **changes: Any) -> bytes:
    data: bytes = msgpack.packb({"id": 1, "verb": verb, "args": {} if args is None else args, **changes})
    return data


def test_a_frame_is_its_length_and_its_map() -> None:
    frame = pack({"id": 7, "ok": {}})
    assert int.from_bytes(frame[:FRAME_HEADER_BYTES], "big") == len(frame) - FRAME_HEADER_BYTES
    assert read_answer(frame[FRAME_HEADER_BYTES:]) == {"id": 7, "ok": {}}


@pytest.mark.parametrize("verb", VERBS)
def test_the_arguments_of_every_verb_arrive_as_they_were_sent(verb: str) -> None:
    args = sample(VERBS[verb])
    asked, got = read_request(request(verb, to_body(args)))
    assert (asked.id, asked.verb, got) == (1, verb, args)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_an_answer_that_travels(verb: str) -> None:
    kinds = [control.ANSWERS[verb], *([control.EVENTS[verb]] if verb in control.EVENTS else [])]
    for kind in kinds:
        value = sample(kind)
        body = msgpack.unpackb(msgpack.packb(to_body(value)))
        assert convert(body, kind, "answer") == value


def test_answers_and_events_are_of_known_verbs() -> None:
    assert set(control.ANSWERS) == set(VERBS) >= set(control.EVENTS)


def test_defaults_need_not_be_sent() -> None:
    assert not read_request(request("ps"))[1].all
    least: dict[str, Any] = {"job_yaml": "", "base_dir": "/", "output_dir": "/out"}
    assert read_request(request("run", least))[1] == RunArgs(**least)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not well-formed"),
        (b"\xc1", "not well-formed"),
        (msgpack.packb([1]), "Expected `object`"),
        (msgpack.packb({"id": 1}), "missing required field `verb`"),
        (request(id=-1), r">= 0.*\$\.id"),
        (request(id="1"), r"got `str`.*\$\.id"),
        (request(id=2**40), r"\$\.id"),
        (request("x" * 33), r"\$\.verb"),
        (request("steal"), "knows no verb 'steal'; known: hello, leave, status"),
        (request("ps", []), r"\$\.args"),
        (request("ps", {"all": 1}), r"arguments of ps: .*got `int`.*\$\.all"),
        (request("stop"), "arguments of stop: .*missing required field `lease`"),
        (request("market", {"limit": 0}), r">= 1.*\$\.limit"),
        (request("offer", {"price_qu_per_hour": -1}), r"\$\.price_qu_per_hour"),
        (request("run", {"job_yaml": "", "base_dir": "", "output_dir": "", "secrets": {"A": 1}}), "secrets"),
    ],
)
def test_bad_requests_are_refused_in_words(data: bytes, words: str) -> None:
    with pytest.raises(MessageInvalid, match=words):
        read_request(data)


@pytest.mark.parametrize("data", [b"", msgpack.packb([]), msgpack.packb({}), msgpack.packb({"id": "1"})])
def test_bad_answers_are_refused(data: bytes) -> None:
    with pytest.raises(MessageInvalid):
        read_answer(data)


def test_secrets_are_nowhere_but_in_run() -> None:
    with_secrets = {
        name
        for name, kind in VERBS.items()
        if any("secret" in field.name for field in dataclasses.fields(kind))
    }
    assert with_secrets == {"run"}
