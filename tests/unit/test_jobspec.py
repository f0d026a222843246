"""The job file: good ones, and for every mistake the exact line, field and words."""

from __future__ import annotations

import pytest

from protocol import jobspec
from protocol.errors import JobFileInvalid
from protocol.jobspec import Job, parse
from protocol.messages import Wish
from protocol.query import SortKey
from protocol.units import Qu, Seconds

FULL = """\
name: wordcount
resources:
  gpu: RTX4090:24GB:2
  cpus: 2.5
  memory: 4GB
  disk: 1.5T
  image: ghcr.io/some-one/thing:3.12@sha256
file_mounts:
  /workspace/data.txt: ./data.txt
  more/b.bin: /abs/b.bin
outputs: [result.json, "logs/*.txt"]
envs: {LEVEL: 3, WORDS: "a b"}
secrets: [TOKEN]
setup: pip install it
run: |
  python count.py
max_price: 900000
max_hours: 1.5
num_nodes: 1
"""
LEAST = "resources: {image: a}\nrun: x\n"


def test_everything() -> None:
    assert parse(FULL) == Job(
        name="wordcount",
        image="ghcr.io/some-one/thing:3.12@sha256",
        wish=Wish("RTX4090", 2, 24 * 1_024, 2_500, 4_096, 1_536 * 1_024),
        script="pip install it\npython count.py\n",
        envs={"LEVEL": "3", "WORDS": "a b"},
        secrets=("TOKEN",),
        file_mounts={"data.txt": "./data.txt", "more/b.bin": "/abs/b.bin"},
        outputs=("result.json", "logs/*.txt"),
        max_price_qu_per_hour=Qu(900_000),
        max_seconds=Seconds(5_400),
    )


def test_the_least() -> None:
    job = parse(LEAST)
    assert job == Job(
        name="job",
        image="a",
        wish=Wish("", 0, 0, 1_000, 1_024, 1_024),
        script="x",
        envs={},
        secrets=(),
        file_mounts={},
        outputs=(),
        max_price_qu_per_hour=None,
        max_seconds=Seconds(3_600),
    )


@pytest.mark.parametrize(
    ("gpu", "model", "count", "vram_mib"),
    [
        ("RTX4090", "RTX4090", 1, 0),
        ("2", "", 2, 0),
        ("RTX4090:3", "RTX4090", 3, 0),
        ("RTX4090:24GB+", "RTX4090", 1, 24_576),
        ("A100 80.x:80G:8", "A100 80.x", 8, 81_920),
        ("3:16GB", "", 3, 16_384),
    ],
)
def test_ways_to_ask_for_a_gpu(gpu: str, model: str, count: int, vram_mib: int) -> None:
    wish = parse(f"resources: {{image: a, gpu: '{gpu}'}}\nrun: x").wish
    assert (wish.gpu_model, wish.gpu_count, wish.gpu_vram_mib) == (model, count, vram_mib)


@pytest.mark.parametrize(
    ("size", "mib"),
    [("1", 1_024), ("512MB", 512), ("512 mib", 512), ("1048576b", 1), ("2048K", 2), ("4+", 4_096)],
)
def test_ways_to_write_a_size(size: str, mib: int) -> None:
    assert parse(f"resources: {{image: a, memory: '{size}'}}\nrun: x").wish.memory_mib == mib


TOP_KNOWN = (
    "budget, envs, file_mounts, filter, idle_stop, max_hours, max_price, max_rtt, min_reliability, "
    "min_score, name, num_nodes, order_by, outputs, ports, proof, ready, ready_within, region, resources, "
    "restart, restarts, run, secrets, setup, template"
)
OUTSIDE = "must name something inside /workspace, without `..`, `.` or a `/` at the end"
UNPRINTABLE = "contains a character that no program can be given (NUL or half of a pair)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the job file is empty"),
        ("# nothing\n", "line 1: the job file is empty"),
        ("just words", "line 1, job file: must be a mapping of `key: value` lines"),
        ("\n- a\n", "line 2, job file: must be a mapping of `key: value` lines"),
        ("run: [x", "line 1: this is not YAML: expected ',' or ']', but got '<stream end>'"),
        ("run: x\n  oops: 1\n", "line 2: this is not YAML: mapping values are not allowed here"),
        ("a: 1\n---\nb: 2\n", "line 2: this is not YAML: but found another document"),
        ("\x00", "the job file is not YAML text"),
        ("\ud800", "the job file is not YAML text"),
        ('run: "\\UFFFFFFFF"', "the job file is not YAML text"),
        ("%YAML 1." + "9" * 5_000 + "\n---\na: b", "the job file is not YAML text"),
        ("a: &x b\nrun: *x", "line 2: YAML aliases (*name) are not allowed in a job file"),
        ("a:\n  " + "[" * 50, "line 2: lists and mappings are nested more than 8 deep"),
        ("[" * 50_000, "line 1: lists and mappings are nested more than 8 deep"),
        ("resources: {image: a}\n", "line 1, run: is missing; it says what the job does"),
        ("run: x", "line 1, resources.image: is missing; name the container image to run"),
        (LEAST + "rn: y", f"line 3, rn: is not a field of a job file; known here: {TOP_KNOWN}"),
        (
            "resources:\n  image: a\n  gpu_s:\n    - 1\nrun: x",
            "line 3, resources.gpu_s: is not a field of a job file; "
            "known here: arch, cpus, cuda, disk, gpu, image, internet, memory",
        ),
        (LEAST + "run: y", "line 3, run: is given twice"),
        (LEAST + "min_score: good", "line 3, min_score: must be a number, such as 0.5"),
        (LEAST + "max_rtt: 5 lightyears", "line 3, max_rtt: must be a number, such as 50ms"),
        (LEAST + "min_score: '0.5'' or 1'", "line 3, min_score: must be a number, such as 0.5"),
        (LEAST + "region: '-'", "line 3, region: a name has at least one letter or digit"),
        (LEAST + "region: []", "line 3, region: is an empty list; name a region or leave it out"),
        (LEAST + "region: [eu, '']", "line 3, region[1]: a name has at least one letter or digit"),
        (
            LEAST + "filter: vram>>24",
            "line 3, filter: a value is missing, such as vram>=24\n  vram>>24\n       ^",
        ),
        (LEAST + "order_by: region", "line 3, order_by: region is a name; sort by a number\n  region\n  ^"),
        (LEAST + "envs:\n  A: 1\n  A: 2", "line 5, envs.A: is given twice"),
        ("resources: {image: a}\nrun:", "line 2, run: must be text"),
        ("resources: {image: a}\nrun: [x]", "line 2, run: must be text"),
        ("resources: {image: a}\nrun: ' '", "line 2, run: is empty"),
        ('resources: {image: a}\nrun: "a\\0b"', f"line 2, run: {UNPRINTABLE}"),
        ('resources: {image: a}\nrun: "\\uD800"', f"line 2, run: {UNPRINTABLE}"),
        (
            f"resources: {{image: a}}\nsetup: {'s' * 40_000}\nrun: {'r' * 40_000}",
            "line 3, run: and `setup` are together longer than 65536 characters",
        ),
        ("resources: {image: a}\nrun: " + "r" * 65_537, "line 2, run: is longer than 65536 characters"),
        ("x" * 262_145, "the job file is larger than 262144 bytes"),
        ("é" * 131_073, "the job file is larger than 262144 bytes"),
        (LEAST + "name: -x", "line 3, name: must be 1 to 63 letters, digits, '.', '_' or '-'"),
        (LEAST + "name: \u017f", "line 3, name: must be 1 to 63 letters, digits, '.', '_' or '-'"),
        (
            "resources: {image: a b}\nrun: x",
            "line 1, resources.image: is not an image name such as `python:3.12`",
        ),
        (
            "resources: {image: -rm}\nrun: x",
            "line 1, resources.image: is not an image name such as `python:3.12`",
        ),
        (
            "resources:\n  image: a\n  cpus: many\nrun: x",
            "line 3, resources.cpus: must be a number, not 'many'",
        ),
        (
            "resources: {image: a, cpus: 0}\nrun: x",
            "line 1, resources.cpus: must be between 0.001 and 1024, not 0",
        ),
        (
            "resources: {image: a, cpus: nan}\nrun: x",
            "line 1, resources.cpus: must be between 0.001 and 1024, not nan",
        ),
        (
            "resources: {image: a, memory: lots}\nrun: x",
            "line 1, resources.memory: 'lots' is not a size such as 512MB or 4GB",
        ),
        (
            "resources: {image: a, memory: 4\u212a}\nrun: x",
            "line 1, resources.memory: '4\u212a' is not a size such as 512MB or 4GB",
        ),
        ("resources: {image: a, disk: 1K}\nrun: x", "line 1, resources.disk: '1K' is outside 1MB to 2048TB"),
        ("resources: {image: a, gpu: '²'}\nrun: x", "line 1, resources.gpu: '²' is not a GPU model"),
        (
            "resources: {image: a, gpu: 'A:²'}\nrun: x",
            "line 1, resources.gpu: '²' is not a size such as 512MB or 4GB",
        ),
        (
            "resources: {image: a, gpu: 'A:17'}\nrun: x",
            "line 1, resources.gpu: asks for a count outside 1 to 16",
        ),
        (
            "resources: {image: a, gpu: 'A:1:2:3'}\nrun: x",
            "line 1, resources.gpu: must be model[:memory][:count], such as RTX4090:24GB:1",
        ),
        (LEAST + "envs:\n  1A: x", "line 4, envs.1A: is not a variable name"),
        (LEAST + "envs: [A]", "line 3, envs: must be a mapping of `key: value` lines"),
        (LEAST + "envs:\n  A:", "line 4, envs.A: must be text"),
        (
            LEAST + "envs: {" + ", ".join(f"A{i}: x" for i in range(257)) + "}",
            "line 3, envs: has 257 entries; at most 256 are taken",
        ),
        (
            LEAST + "secrets:\n- OK\n- no=w",
            "line 5, secrets[1]: must be the name of an environment variable; "
            "its value is read when you run the job",
        ),
        (LEAST + "secrets: TOKEN", "line 3, secrets: must be a list"),
        (LEAST + "outputs:\n- ../x", f"line 4, outputs[0]: '../x' {OUTSIDE}"),
        (LEAST + "outputs: [a/]", f"line 3, outputs[0]: 'a/' {OUTSIDE}"),
        (LEAST + "outputs: [.]", f"line 3, outputs[0]: '.' {OUTSIDE}"),
        (
            LEAST + "outputs: [" + ", ".join(["a"] * 65) + "]",
            "line 3, outputs: has 65 entries; at most 64 are taken",
        ),
        (
            LEAST + "file_mounts:\n  /etc/passwd: a",
            f"line 4, file_mounts./etc/passwd: '/etc/passwd' {OUTSIDE}",
        ),
        (LEAST + "file_mounts:\n  a/../../b: a", f"line 4, file_mounts.a/../../b: 'a/../../b' {OUTSIDE}"),
        (
            LEAST + "file_mounts:\n  a: x\n  /workspace/a: y",
            "line 5, file_mounts./workspace/a: a second file is put at 'a'",
        ),
        (LEAST + "max_price: -1", "line 3, max_price: must be between 0 and 1e+15, not -1"),
        (LEAST + "max_price: 0.5", "line 3, max_price: must be whole QU"),
        (LEAST + "max_price: 1e16", "line 3, max_price: must be between 0 and 1e+15, not 1e16"),
        (LEAST + "max_hours: 9000", "line 3, max_hours: must be between 0.000277778 and 8760, not 9000"),
        (LEAST + "max_hours: inf", "line 3, max_hours: must be between 0.000277778 and 8760, not inf"),
        (
            LEAST + "num_nodes: 2",
            "line 3, num_nodes: must be 1; jobs on several machines are not offered yet",
        ),
        (LEAST + "? [a]\n: b", "line 3, job file: must be text"),
        (LEAST + "<<: {a: b}", f"line 3, <<: is not a field of a job file; known here: {TOP_KNOWN}"),
    ],
)
def test_a_mistake_names_line_and_field(text: str, message: str) -> None:
    with pytest.raises(JobFileInvalid) as caught:
        parse(text)
    assert str(caught.value) == message


def test_what_the_docstring_shows_is_a_job_file() -> None:
    shown = (jobspec.__doc__ or "").split("\n\n")[1]
    assert parse("\n".join(line[4:] for line in shown.splitlines())).wish.gpu_model == "RTX4090"


def test_whom_to_hire() -> None:
    text = LEAST + "min_score: 0.5\nmin_reliability: 98%\nmax_rtt: 50ms\nregion: [EU-West, us]\n"
    choice = parse(text + "filter: vram>=24 and cpus>=8\norder_by: rtt,-score\n").choice
    assert str(choice.where) == (
        "vram>=24 cpus>=8 score>=0.5 reliability>=0.98 rtt<=50 region in (euwest, us)"
    )
    assert choice.order == (SortKey("rtt"), SortKey("score", descending=True))
    assert str(parse(LEAST + "region: eu").choice.where) == "region=eu"
    assert parse(LEAST).choice == jobspec.Choice()
