"""The ports of a job file: what may be written, what each line of it means, and what is wrong."""

from __future__ import annotations

import re

import pytest

from protocol import jobspec
from protocol.errors import JobFileInvalid
from protocol.ports import MAX_PORTS, Port
from protocol.templates import TEMPLATES

HEAD = "resources: {image: x}\nrun: y\n"


def ports(text: str) -> tuple[Port, ...]:
    return jobspec.parse(HEAD + text).ports


def test_numbers_and_short_words_are_ports_with_the_usual_names() -> None:
    assert ports('ports: [8888, "47998", 47998/udp]') == (
        Port("8888", 8888),
        Port("47998", 47998),
        Port("47998/udp", 47998, protocol="udp"),
    )


def test_a_described_port() -> None:
    described = "[{name: board, port: 6006, path: '/?key={KEY}'}, {port: 22, kind: ssh}]"
    board, shell = ports(f"secrets: [KEY]\nports: {described}")
    assert board == Port("board", 6006, "http", "/?key={KEY}") and board.variables == {"KEY"}
    assert board.filled({"KEY": "a b&c"}) == "/?key=a%20b%26c" and board.filled({}) == "/?key="
    assert shell == Port("22", 22, "ssh")


def test_nothing_said_is_no_port_and_other_ports_may_share_a_number() -> None:
    assert ports("") == ()
    assert len(ports("ports: [{name: a, port: 9, protocol: udp, kind: game}, 9]")) == 2


def test_those_of_a_template_join_but_the_file_goes_before() -> None:
    own = jobspec.parse("template: desktop\nports: [{name: screen, port: 6080, kind: http}, 7000]").ports
    assert [one.name for one in own] == ["screen", "7000", "vnc"]
    named = jobspec.parse("template: jupyter\nports: [{name: jupyter, port: 9999, kind: http}]").ports
    assert named == (Port("jupyter", 9999, "http"),)


def test_some_ports_are_only_in_the_image_for_gpus() -> None:
    assert [one.name for one in jobspec.parse("template: vscode").ports] == ["ssh"]
    with_gpu = jobspec.parse("template: vscode\nresources: {gpu: 1}")
    assert with_gpu.ports == TEMPLATES["vscode"].ports and with_gpu.ports[1].variables == {"PASSWORD"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("8888", "line 3, ports: must be a list"),
        ("[0]", "ports[0]: must be a port from 1 to 65535, not 0"),
        ("[65536/udp]", "must be a port from 1 to 65535, not 65536"),
        ("[http]", "must be a port such as 8888 or 47998/udp"),
        ('["\\uff18"]', "must be a port such as"),
        ("[8/sctp]", "must be a port such as"),
        ("[[8]]", "ports[0]: must be text"),
        ("[8, '8/tcp']", "ports[1]: a second port is called '8'"),
        ("[{port: 8, name: a}, 8]", "ports[1]: tcp port 8 is given twice"),
        ("[{name: a}]", "ports[0]: needs `port`"),
        ("[{port: 8, to: 9}]", "ports[0].to: is not a field of a port; known here: kind, name, path"),
        ("[{port: 1.5}]", "ports[0].port: must be a whole number"),
        ("[{port: 8, name: 8}]", "ports[0].name: must be a letter, then"),
        ("[{port: 8, kind: ftp}]", "ports[0].kind: must be one of http, https, ssh"),
        ("[{port: 8, protocol: tls}]", "ports[0].protocol: must be one of tcp, udp"),
        ("[{port: 8, protocol: udp, kind: ssh}]", "must be tcp: ssh is not spoken over udp"),
        ("[{port: 8, kind: vnc, path: /}]", "ports[0].path: is only for a port of the kind http or https"),
        ("[{port: 8, path: vnc.html}]", "must begin with `/`"),
        ("[{port: 8, path: '/a b'}]", "have no spaces"),
        ("[{port: 8, path: '/{TOKEN}'}]", "speaks of {TOKEN}, which is neither in `envs` nor in `secrets`"),
        (str(list(range(1, MAX_PORTS + 2))), f"has {MAX_PORTS + 1} entries; at most {MAX_PORTS} are taken"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, words: str) -> None:
    with pytest.raises(JobFileInvalid, match=re.escape(words)):
        ports(f"ports: {text}")
