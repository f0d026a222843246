"""A job put together from words: the file it becomes, and every mistake under the field's own name."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import jobspec
from protocol.errors import JobFileInvalid
from protocol.job_draft import (
    CPU_IMAGE,
    FIELDS,
    GPU_TEMPLATE,
    Draft,
    command_line,
    faults,
    files_named,
    job_yaml,
)
from protocol.messages import Wish

FULL = Draft(
    name="train",
    gpu="RTX4090:24GB:2",
    cpus="2.5",
    memory="4GB",
    disk="20GB",
    image="python:3.12",
    setup="pip install torch",
    command="python train.py\necho done",
    hours="1.5",
    budget="1,000,000",
    max_price="900_000",
    idle_stop="30m",
    restart="on_failure",
    ready="test -s x",
    internet=True,
    ports=("8888/http", "47998/udp"),
    envs=("LEVEL=3", "URL=a=b"),
    secrets=("TOKEN",),
    files=("train.py", "./data/", "/etc/hosts:hosts.txt"),
    outputs=("result.json",),
)


def test_every_field_arrives() -> None:
    job = jobspec.parse(job_yaml(FULL))
    assert (job.name, job.image, job.template) == ("train", "python:3.12", "")
    assert job.wish == Wish("RTX4090", 2, 24 * 1_024, 2_500, 4_096, 20 * 1_024, internet=True)
    assert job.script == "pip install torch\npython train.py\necho done"
    assert (job.max_seconds, job.budget, job.max_price_qu_per_hour) == (5_400, 1_000_000, 900_000)
    assert (job.life.idle_seconds, job.life.restart, job.life.ready) == (1_800, "on_failure", "test -s x")
    assert [(one.port, one.protocol, one.kind) for one in job.ports] == [
        (8888, "tcp", "http"),
        (47998, "udp", "other"),
    ]
    assert (job.envs, job.secrets) == ({"LEVEL": "3", "URL": "a=b"}, ("TOKEN",))
    assert job.file_mounts == {"train.py": "train.py", "data": "./data/", "hosts.txt": "/etc/hosts"}
    assert job.outputs == ("result.json",)


def test_every_field_of_a_draft_has_its_place_in_the_file() -> None:
    assert set(FIELDS) == {field.name for field in fields(Draft)}


def test_the_file_is_one_a_person_would_write() -> None:
    draft = Draft(gpu="RTX4090", hours="2", command=command_line(["python", "train.py"]), files=("train.py",))
    assert job_yaml(draft) == (
        "resources:\n  gpu: RTX4090\ntemplate: pytorch\nrun: python train.py\nmax_hours: '2'\n"
        "file_mounts:\n  train.py: train.py\n"
    )


def test_without_image_or_template_there_is_a_usual_one() -> None:
    assert jobspec.parse(job_yaml(Draft(gpu="1", command="x"))).template == GPU_TEMPLATE
    assert jobspec.parse(job_yaml(Draft(command="x"))).image == CPU_IMAGE
    assert jobspec.parse(job_yaml(Draft(template="jupyter"))).script == "qubix-jupyter"


def test_words_of_a_command_line_are_quoted_and_a_single_one_is_a_line() -> None:
    assert command_line(["python", "-c", "print('a b')"]) == """python -c 'print('"'"'a b'"'"')'"""
    assert command_line(["cd lib && make"]) == "cd lib && make"


def test_files_come_along_that_a_command_names_below_here() -> None:
    words = ["python", "train.py", "--data", "sets/a", "../b", "/etc/hosts", "-x", "train.py", "a//b", "~/c"]
    assert files_named(words, lambda word: word != "python") == ("train.py", "sets/a")


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"name": "a b"}, "letters, digits"),
        ({"gpu": "RTX4090:24GB:99"}, "count outside 1 to 16"),
        ({"gpu": "RTX/4090"}, "is not a GPU model"),
        ({"cpus": "many"}, "must be a number"),
        ({"memory": "4 bananas"}, "is not a size"),
        ({"disk": "0"}, "outside 1MB"),
        ({"image": "a b"}, "is not an image name"),
        ({"template": "nope"}, "is no template; known are"),
        ({"hours": "two"}, "must be a number"),
        ({"hours": "0"}, "must be between"),
        ({"budget": "1.5"}, "whole QU"),
        ({"budget": "0"}, "at least 1 QU"),
        ({"max_price": "-1"}, "must be between"),
        ({"idle_stop": "1s"}, "must be between 60 s"),
        ({"restart": "maybe"}, "must be one of"),
        ({"ports": ("70000",)}, "must be a port"),
        ({"ports": ("80", "80")}, "a second port"),
        ({"ports": ("x/http",)}, "must be a number"),
        ({"envs": ("A",)}, "must be NAME=VALUE"),
        ({"envs": ("1A=x",)}, "is not a variable name"),
        ({"secrets": ("a-b",)}, "must be the name"),
        ({"files": ("/etc/hosts",)}, "lies elsewhere"),
        ({"files": ("../x",)}, "lies elsewhere"),
        ({"files": ("a:b", "c:b")}, "a second file"),
        ({"outputs": ("../x",)}, "must name something inside"),
        ({"command": "a\0b"}, "no program can be given"),
        ({"command": "\ud800"}, "no program can be given"),
        ({"command": " "}, "is empty"),
    ],
)
def test_a_mistake_is_told_under_its_field(wrong: dict[str, object], problem: str) -> None:
    ((field, _),) = wrong.items()
    draft = Draft(**{"image": "a", "command": "x", **wrong})  # type: ignore[arg-type]  # fields by name
    assert list(faults(draft)) == [field]
    assert problem in faults(draft)[field]
    with pytest.raises(JobFileInvalid) as caught:
        job_yaml(draft)
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")


def test_one_mistake_does_not_hide_another() -> None:
    assert list(faults(Draft(image="a b", hours="x", budget="y", command="z"))) == [
        "image",
        "hours",
        "budget",
    ]


def test_a_draft_that_does_nothing_lacks_its_command() -> None:
    assert faults(Draft(image="a")) == {"command": "is missing; it says what the job does"}
    assert faults(Draft(template="base")) == {"command": "is missing; it says what the job does"}
    assert faults(FULL) == {}


texts = st.text(max_size=20)
several = st.lists(texts, max_size=3).map(tuple)


@given(
    st.builds(
        Draft,
        **{f.name: several if f.default == () else texts for f in fields(Draft) if f.name != "internet"},
    )
)
def test_whatever_is_typed_becomes_a_job_or_a_named_field(draft: Draft) -> None:
    found = faults(draft)
    assert set(found) <= set(FIELDS)
    if found:
        with pytest.raises(JobFileInvalid):
            job_yaml(draft)
    else:
        jobspec.parse(job_yaml(draft))
