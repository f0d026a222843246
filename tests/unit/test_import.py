"""docker-compose and Akash SDL files as job files: what is carried over, left out and refused."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import jobspec
from protocol.errors import JobFileInvalid
from protocol.job_draft import job_yaml
from protocol.jobspec import Job
from protocol.ports import Port
from tests.support.views import HOSTILE
from tui import cli
from tui.import_compose import from_compose
from tui.import_file import Imported
from tui.import_sdl import from_sdl

FILES = Path(__file__).parents[1] / "support" / "imports"
COMPOSE = (FILES / "train.compose.yml").read_text()
SDL = (FILES / "llm.sdl.yaml").read_text()


def compose(service: dict[str, Any], **more: Any) -> Imported:
    whole = {"image": "python:3.12", "command": "python main.py", **service}
    return from_compose(yaml.safe_dump({"services": {"one": whole}}), {}, **more)


def job_of(found: Imported) -> Job:
    return jobspec.parse(job_yaml(found.draft))


def said(found: Imported, kind: str) -> dict[str, str]:
    return {note.where: note.why for note in found.notes if note.kind == kind}


# --- whole files ----------------------------------------------------------------------------------


def test_a_training_service_becomes_a_job() -> None:
    found = from_compose(COMPOSE, {})
    job = job_of(found)
    assert (job.name, job.image) == ("seg_trainer", "pytorch/pytorch:2.4.1-cuda12.4-cudnn9-runtime")
    assert job.script == (
        "mkdir -p /workspace/checkpoints\ncd /workspace/app\n"
        "python /workspace/app/train.py --data /workspace/data/images --epochs 40 --note 'costs $5'"
    )
    assert (job.wish.gpu_count, job.wish.cpu_millis, job.wish.memory_mib) == (2, 8_000, 48 * 1_024)
    assert job.wish.internet
    assert job.envs == {"LOG_LEVEL": "info", "TZ": "UTC", "DATA_DIR": "/workspace/data"}
    assert job.secrets == ("HF_TOKEN", "WANDB_API_KEY")
    assert job.file_mounts == {"app": "./src", "data": "./data", "configs": "./configs"}
    assert {port.name for port in job.ports} == {"6006", "8000", "8001", "8002", "5004/udp"}
    assert job.life.ready == "curl -f http://localhost:6006/"
    assert (job.life.restart, job.life.restarts) == ("always", 10)


def test_what_a_job_has_no_place_for_is_said() -> None:
    left_out = said(from_compose(COMPOSE, {}), "left out")
    assert {where.removeprefix("services.") for where in left_out} == {
        "db",
        "board",
        "trainer.logging",
        "trainer.build",
        "trainer.shm_size",
        "trainer.depends_on",
        "trainer.volumes /var/run/docker.sock",
        "trainer.environment.DATABASE_URL",
        "trainer.environment.NVIDIA_VISIBLE_DEVICES",
    }
    assert "--set DB_PASSWORD=VALUE" in left_out["services.trainer.environment.DATABASE_URL"]


def test_no_secret_of_the_file_s_environment_gets_into_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("DB_PASSWORD", "pg_secret")
    assert "_secret" not in job_yaml(from_compose(COMPOSE, {}).draft)
    assert "not-for-the-job-file" not in job_yaml(from_sdl(SDL).draft)


def test_another_service_of_the_same_file() -> None:
    job = job_of(from_compose(COMPOSE, {"DB_PASSWORD": "x"}, service="db", command="postgres"))
    assert (job.image, job.script) == ("postgres:16", "mkdir -p /workspace/data\npostgres")
    assert job.envs == {"POSTGRES_PASSWORD": "x"}


def test_an_akash_service_becomes_a_job() -> None:
    job = job_of(from_sdl(SDL))
    assert (job.name, job.image) == ("llm", "vllm/vllm-openai:v0.6.3")
    assert job.script.endswith("\nbash -c 'vllm serve $MODEL --max-model-len 8192 --port 8000'")
    assert (job.wish.cpu_millis, job.wish.memory_mib) == (7_500, 30 * 1_024)
    assert job.wish.disk_mib == 20 * 1_024 + 95_368, "100G are 95,368 MiB, rounded up"
    assert (job.wish.gpu_count, job.wish.gpu_model) == (1, "")
    assert [str(one) for one in job.choice.where.conditions] == ["gpu in (4090, a6000)", "vram>=24"]
    assert job.envs == {"MODEL": "mistralai/Mistral-7B-Instruct-v0.3", "PRICE": "$5"}
    assert job.secrets == ("HF_TOKEN",)
    assert job.ports == (Port("8000", 8000), Port("9000/udp", 9000, protocol="udp"))
    assert job.life.restart == "always"


def test_what_akash_has_and_a_job_has_not_is_said() -> None:
    assert said(from_sdl(SDL), "left out").keys() == {
        "services.web",
        "endpoints",
        "services.llm.credentials",
        "services.llm.expose.accept",
        "services.llm.expose.http_options",
        "profiles.compute of llm.gpu.interface",
        "profiles.placement.anywhere.attributes",
        "profiles.placement.anywhere.signedBy",
        "profiles.placement.anywhere.pricing",
        "deployment.llm.anywhere.count",
    }


# --- single fields ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "script"),
    [
        ({"command": ["python", "-c", "print('a b')"]}, "python -c 'print('\"'\"'a b'\"'\"')'"),
        ({"command": "a; b"}, "'a;' b"),
        ({"entrypoint": "/run.sh --fast", "command": ["x y"]}, "/run.sh --fast 'x y'"),
        ({"entrypoint": ["sh", "-c", "echo $$HOME"], "command": None}, "sh -c 'echo $HOME'"),
        ({"working_dir": "/srv/it is"}, "cd '/srv/it is'\npython main.py"),
        ({"working_dir": "/workspace"}, "python main.py"),
        (
            {"volumes": [".:/code"], "command": "python /code/x.py /codebase"},
            "python /workspace/code/x.py /codebase",
        ),
        ({"volumes": [".:/"], "command": "ls /"}, "ls /"),
    ],
)
def test_commands(changes: dict[str, Any], script: str) -> None:
    assert job_of(compose(changes)).script == script


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 0),
        ({"gpus": "all"}, 1),
        ({"gpus": 4}, 4),
        ({"gpus": [{"driver": "nvidia", "device_ids": ["0", "3"]}]}, 2),
        ({"runtime": "nvidia"}, 1),
        ({"deploy": {"resources": {"reservations": {"devices": [{"capabilities": ["tpu"]}]}}}}, 0),
    ],
)
def test_gpus(changes: dict[str, Any], count: int) -> None:
    found = compose(changes)
    assert job_of(found).wish.gpu_count == count
    assert any("any model" in why for why in said(found, "assumed").values()) == bool(count)


@pytest.mark.parametrize(
    ("size", "mib"),
    [("512m", 512), ("1.5gb", 1_536), (1_073_741_824, 1_024), ("2g", 2_048), ("3GiB", 3_072), ("900k", 1)],
)
def test_memory(size: Any, mib: int) -> None:
    assert job_of(compose({"mem_limit": size})).wish.memory_mib == mib


@pytest.mark.parametrize(
    ("restart", "life"),
    [
        ("no", ("never", 0)),
        ("on-failure:3", ("on_failure", 3)),
        ("on-failure", ("on_failure", 10)),
        ("unless-stopped", ("always", 10)),
    ],
)
def test_restarts(restart: str, life: tuple[str, int]) -> None:
    found = job_of(compose({"restart": restart})).life
    assert (found.restart, found.restarts) == life


def test_two_folders_of_one_name_get_two_places() -> None:
    found = compose(
        {"volumes": ["./a:/one/data", "./b:/two/data", "c:/three/data"], "command": "ls /two/data"}
    )
    job = job_of(found)
    assert job.file_mounts == {"data": "./a", "two/data/1": "./b"}
    assert job.script.splitlines() == ["mkdir -p /workspace/three/data/2", "ls /workspace/two/data/1"]


@pytest.mark.parametrize(
    ("text", "given", "value"),
    [
        ("${A:-b}", {}, "b"),
        ("${A:-b}", {"A": ""}, "b"),
        ("${A-b}", {"A": ""}, ""),
        ("${A:-b}", {"A": "c"}, "c"),
        ("$A-$$A", {"A": "c"}, "c-$A"),
        ("${A:+on}", {"A": "c"}, "on"),
        ("${A:+on}", {}, ""),
    ],
)
def test_variables_of_the_file(text: str, given: dict[str, str], value: str) -> None:
    whole = {"image": "a", "command": "b", "environment": {"X": text}}
    assert job_of(from_compose(yaml.safe_dump({"services": {"one": whole}}), given)).envs == {"X": value}


def test_numbers_that_no_machine_has() -> None:
    """Of thousands of digits: Python itself refuses to read such."""
    many = "9" * 5_000
    assert job_of(compose({"gpus": many})).wish.gpu_count == 16
    with pytest.raises(JobFileInvalid, match="memory"):
        job_of(compose({"mem_limit": many}))
    with pytest.raises(JobFileInvalid, match="cpus"):
        job_of(from_sdl(SDL.replace("7500m", f"{many}m")))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must be a mapping"),
        ("[1]", "must be a mapping"),
        ("a: [1", "line 1"),
        ("services: {}", "there is none"),
        ("services: {a: {image: x}}", "services.a.command: is missing"),
        ("services: {a: {image: x, command: [--port, '1']}}", "the program's name first"),
        ("services: {a: {command: x}}", "services.a.image: is missing"),
        ("services: {a: {build: .}, b: {build: .}}", "--service one of a, b"),
        ("services: {a: {image: 'x:${TAG}', command: y}}", "--set TAG=VALUE"),
        ('services: {a: {image: x, command: "it\'s"}}', "services.a.command: no closing quotation"),
        ("services: {a: {image: x, command: y, mem_limit: lots}}", "'lots' is not a size"),
        ("services: {a: {image: x, command: y, volumes: 5}}", "services.a.volumes: must be a list"),
        ("services: {a: {image: 'x y', command: y}}", "image"),
        ("services: {a: {image: x, command: y, environment: {A: [1]}}}", "environment.A: must be text"),
        ("a: &a [*a]", "aliases"),
        ("a: " + "[" * 30, "nested"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, words: str) -> None:
    with pytest.raises(JobFileInvalid, match="(?s).*" + words.replace("$", "\\$")):
        job_yaml(from_compose(text, {}).draft)


def test_aliases_do_not_make_a_small_file_huge() -> None:
    lines = ["a0: &a0 {x: y}"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(JobFileInvalid, match="more than 20000 values"):
        from_compose("\n".join(lines), {})


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(0, 99), st.text(max_size=12), st.just("${X:-1}"))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = (
    "environment",
    "ports",
    "expose",
    "volumes",
    "deploy",
    "gpus",
    "mem_limit",
    "cpus",
    "restart",
    "entrypoint",
)
SERVICES = st.dictionaries(st.sampled_from((*KEYS, "healthcheck", "working_dir", "container_name")), VALUES)


@settings(max_examples=150, deadline=None)
@given(SERVICES)
def test_any_service_becomes_a_job_or_a_sentence(service: dict[str, Any]) -> None:
    with contextlib.suppress(JobFileInvalid):
        job_of(compose(service))


SDL_KEYS = st.sampled_from(
    ("cpu", "memory", "storage", "gpu", "units", "size", "attributes", "vendor", "nvidia")
)


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(SDL_KEYS, VALUES), st.dictionaries(st.sampled_from(("env", "expose", "params")), VALUES)
)
def test_any_akash_profile_becomes_a_job_or_a_sentence(
    resources: dict[str, Any], service: dict[str, Any]
) -> None:
    whole = {
        "services": {"a": {"image": "x", "command": "y", **service}},
        "profiles": {"compute": {"p": {"resources": resources}}},
        "deployment": {"a": {"q": {"profile": "p"}}},
    }
    with contextlib.suppress(JobFileInvalid):
        job_of(from_sdl(yaml.safe_dump(whole)))


# --- the command --------------------------------------------------------------------------------------


def test_a_job_file_on_standard_output_and_notes_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    file = FILES / "train.compose.yml"
    assert cli.main(["import", str(file), "--gpu", "A100:80GB", "--hours", "8"]) == 0
    out, err = capsys.readouterr()
    job = jobspec.parse(out)
    assert (job.wish.gpu_model, job.max_seconds) == ("A100", 8 * 3_600)
    assert "# left out: services.trainer.shm_size: " in out
    assert "services.trainer.shm_size" in err and "any model" not in err


def test_files_are_named_from_where_the_job_file_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "in" / "compose.yml").write_text(COMPOSE)
    target = tmp_path / "out" / "job.yaml"
    words = ["import", str(tmp_path / "in" / "compose.yml"), "--output", str(target)]
    assert cli.main(words) == 0
    assert jobspec.parse(target.read_text()).file_mounts["app"] == "../in/src"
    assert f"qubix run {target}" in " ".join(capsys.readouterr().err.split())
    assert cli.main(words) == 2, "a file that is there is never written over"
    assert capsys.readouterr().err.endswith("[job.files_invalid]\n")


def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["import", str(FILES / "llm.sdl.yaml"), "--json"]) == 0
    out, err = capsys.readouterr()
    answer = json.loads(out)
    assert err == "" and jobspec.parse(answer["job_yaml"]).name == "llm"
    assert {"kind", "where", "why"} == answer["notes"][0].keys()


@pytest.mark.parametrize(
    "service", [{HOSTILE: 1}, {"environment": {HOSTILE: 1}}, {"volumes": [f"v:/{HOSTILE}"]}]
)
def test_hostile_names_stay_within_their_comment(
    service: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = {"services": {"one": {"image": "x", "command": "y", **service}}}
    (tmp_path / "c.yml").write_text(yaml.safe_dump(whole))
    assert cli.main(["import", str(tmp_path / "c.yml")]) == 0
    out, err = capsys.readouterr()
    assert jobspec.parse(out).image == "x"
    comments = "\n".join(line for line in out.splitlines() if line.startswith("#"))
    assert all(char == "\n" or char.isprintable() for char in err + comments)


@pytest.mark.parametrize(
    ("text", "words", "code"),
    [
        ("a: 1", [], "[job.invalid]"),
        ("services: {a: {image: x, command: y}}", ["--set", "TAG"], "[usage.error]"),
        ("services: {a: {image: x, command: y}}", ["--gpu", "a:b:c:d"], "[job.invalid]"),
        ("services: {a: {image: x, command: y}}", ["--hours", "soon"], "[job.invalid]"),
    ],
)
def test_bad_words(
    text: str, words: list[str], code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yml").write_text(text)
    assert cli.main(["import", str(tmp_path / "c.yml"), *words]) == 2
    assert capsys.readouterr().err.endswith(f"{code}\n")
