"""The wizard: every use leads to a command that `qubix` takes, and that says what was chosen."""

from __future__ import annotations

import asyncio
import re
import shlex
from html import unescape
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import jobspec
from protocol.catalogue import GPUS, USE_CASES
from protocol.job_draft import Draft
from protocol.query import gpu_key
from tests.support.web_client import client_of
from tests.support.web_html import Page, read
from tests.support.web_mirror import filled
from tui import cli, one_line, run
from web.commands import command, words_of
from web.plan import NO_GPU, OWN, connections, plan_of
from web.settings import Settings
from web.suit import CARD_MODELS, needs, suited


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(tmp_path_factory.mktemp("mirror") / "mirror.db", 150)


def got(mirror: Path, *paths: str, language: str = "en") -> list[httpx.Response]:
    async def ask() -> list[httpx.Response]:
        async with client_of(Settings(mirror=str(mirror), requests_per_minute=10_000)) as client:
            return [await client.get(path, headers={"accept-language": language}) for path in paths]

    return asyncio.run(ask())


def page(mirror: Path, path: str) -> Page:
    (answer,) = got(mirror, path)
    found = read(answer.text)
    assert (answer.status_code, found.wrong) == (200, [])
    return found


def job_of(line: str) -> jobspec.Job:
    """What `qubix` makes of a command line, as a person's shell hands it over."""
    program, *words = shlex.split(line)
    assert program == "qubix"
    options = cli.parsed(words)
    run.conditions(options)
    return run.asked_job(options)[1]


def shown_command(answer: httpx.Response) -> str:
    """As it is copied: the text of its element."""
    return unescape(re.sub("</?span[^>]*>", "", answer.text.split("<code>", 1)[1].split("</code>", 1)[0]))


# --- commands -------------------------------------------------------------------------------------


def test_every_plan_is_a_command_and_a_job_file_that_say_the_same() -> None:
    for use in USE_CASES.values():
        cards = [key for key, model in CARD_MODELS.items() if suited(model, use).cards]
        for gpu in cards[:1] if use.min_vram_gib else [NO_GPU, "4090"]:
            for way in (*connections(use), OWN):
                said = {"use": use.name, "gpu": gpu, "connect": way, "hours": "1.5", "budget": "90000",
                        "region": "EU-West", "internet": "yes"}  # fmt: skip
                plan = plan_of(said)
                assert plan and plan.step == 4, (said, plan and plan.faults)
                typed, filed = job_of(plan.command()), jobspec.parse(plan.job_file())
                assert (typed.wish, typed.template, typed.max_seconds) == (filed.wish, filed.template, 5_400)
                assert (typed.budget, filed.budget) == (90_000, 90_000)
                assert str(filed.choice.where) == "region=euwest" and "--region euwest" in plan.command()


@settings(max_examples=12, deadline=None)
@given(st.text(max_size=40), st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_whatever_an_address_says_the_command_is_one(line: str, region: str, hours: str, memory: str) -> None:
    said = {"use": "sdxl", "gpu": "4090", "connect": OWN, "run": line, "region": region, "hours": hours,
            "memory": memory}  # fmt: skip
    plan = plan_of(said)
    assert plan is not None
    if plan.step == 4:
        job = job_of(plan.command())
        assert job.wish == jobspec.parse(plan.job_file()).wish
        assert "\n" not in plan.command()


@pytest.mark.parametrize(
    "line", ["python train.py --lr 1e-3", "a && b | c > d", "echo 'it is'", "it's", "x; rm -rf ~"]
)
def test_a_command_of_ones_own_arrives_as_it_was_typed(line: str) -> None:
    assert (
        job_of(command(Draft(command=line))).script
        == job_of(shlex.join(["qubix", "run", "--", *words_of(line)])).script
    )
    plan = plan_of({"use": "pytorch", "gpu": "4090", "connect": OWN, "run": line})
    assert plan is not None
    assert jobspec.parse(plan.job_file()).script.endswith(f"{line}\n") or line in plan.job_file()
    assert job_of(plan.command()).script == jobspec.parse(plan.job_file()).script


def test_a_providers_command_is_one_too() -> None:
    words = shlex.split(command(Draft(gpu="1", hours="1", command="nvidia-smi"), "12D3KooWx"))
    options = cli.parsed(words[1:])
    assert options.provider == "12D3KooWx" and "nvidia-smi" in one_line.job_file(options, Path())


# --- what suits -----------------------------------------------------------------------------------


def test_more_cards_are_taken_only_where_the_work_can_be_shared() -> None:
    model = GPUS["RTX_4090"]
    assert suited(model, USE_CASES["llama-70b"]).cards == 2
    assert suited(model, USE_CASES["llama-70b-fp16"]).cards == 8
    assert suited(GPUS["RTX_3080"], USE_CASES["flux"]).cards == 0
    assert suited(model, USE_CASES["sdxl"]).speed == pytest.approx(1)
    for use in USE_CASES.values():
        machine = needs(use)
        assert machine.cpus >= 1 and machine.memory_gib >= 8 and machine.disk_gib >= 20


def test_what_cannot_be_is_marked_at_its_field(mirror: Path) -> None:
    bad = [
        ("hours", "abc"), ("hours", "0"), ("hours", "1e9"), ("hours", "nan"), ("budget", "-5"),
        ("budget", "x"),
        ("cpus", "0"), ("memory", "1.5"), ("disk", "99999999999"), ("cpus", "\u0663"),
    ]  # fmt: skip
    given = {"use": "sdxl", "gpu": "4090", "connect": "pytorch"}
    answers = got(mirror, *("/start?" + urlencode(given | {field: text}) for field, text in bad))
    for (field, text), answer in zip(bad, answers, strict=True):
        found = read(answer.text)
        assert found.all("input", name=field)[0].get("aria-invalid") == "true", (field, text)
        assert not found.wrong and not found.all("code")


# --- pages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["en", "pt"])
def test_all_steps_are_whole_in_every_language(mirror: Path, language: str) -> None:
    steps = [
        "sdxl&all=1", "nonsense", "sdxl&gpu=nonsense", "docker&gpu=none", "sdxl&gpu=4090",
        "sdxl&gpu=4090&connect=pytorch&budget=1000", "cs2&gpu=3060&connect=moonlight",
        "cuda&gpu=T4&connect=vscode", "docker&gpu=none&connect=command", "llama-70b", "docker", "cs2",
    ]  # fmt: skip
    paths = ["/start", *(f"/start?use={step}" for step in steps)]
    for path, answer in zip(paths, got(mirror, *paths, language=language), strict=True):
        found = read(answer.text)
        assert (path, answer.status_code, found.wrong) == (path, 200, [])
        assert found.language == language


def test_one_gets_from_a_use_to_a_command_by_links_and_a_form(mirror: Path) -> None:
    first = page(mirror, "/start")
    second = page(mirror, next(link for link in first.links if "use=sdxl" in link))
    chosen = next(link for link in second.links if "gpu=" in link)
    third = page(mirror, chosen)
    (form,) = third.all("form")
    assert (form["action"], form["method"]) == ("/start", "get")
    fields = {one["name"]: one["value"] for one in third.all("input", type="hidden")}
    fields |= {
        one["name"]: one.get("value", "") for one in third.all("input") if one.get("type", "text") == "text"
    }
    fields["connect"] = next(one["value"] for one in third.all("input", type="radio") if "checked" in one)
    (answer,) = got(mirror, "/start?" + urlencode(fields | {"hours": "3", "region": ""}))
    line = shown_command(answer)
    job = job_of(line)
    assert job.max_seconds == 3 * 3_600 and job.template == "pytorch"
    assert gpu_key(job.wish.gpu_model) in chosen
    (file,) = got(mirror, next(link for link in read(answer.text).links if "job.yaml" in link))
    assert jobspec.parse(file.text).wish == job.wish and "attachment" in file.headers["content-disposition"]


def test_only_machines_with_room_are_advised(mirror: Path) -> None:
    found = page(mirror, "/start?use=flux")
    assert "4090" in "".join(found.links) and "gpu=3080" not in "".join(found.links)


def test_a_market_without_such_machines_says_what_would_do(tmp_path: Path) -> None:
    empty = filled(tmp_path / "mirror.db", 0)
    found = page(empty, "/start?use=llama-405b")
    assert "Nobody offers a machine with room" in found.text
    assert any("gpu=" in link for link in found.links)
    run_page = page(empty, "/start?use=llama-405b&gpu=h200&connect=command")
    assert "Nobody at this moment" in run_page.text and "qubix why" in run_page.text


def test_hostile_words_in_an_address_stay_text(mirror: Path) -> None:
    bad = "<script>alert(1)</script>'\" \u202e"
    query = {"use": "sdxl", "gpu": "4090", "connect": OWN, "run": bad, "region": bad, "hours": "1"}
    wrong = query | {"hours": bad, "budget": bad, "cpus": bad}
    for said in (query, wrong):
        (answer,) = got(mirror, "/start?" + urlencode(said))
        assert (answer.status_code, read(answer.text).wrong) == (200, [])
        assert "<script>alert" not in answer.text


def test_there_is_no_job_file_of_half_a_plan(mirror: Path) -> None:
    for answer in got(mirror, "/start/job.yaml", "/start/job.yaml?use=sdxl&gpu=4090"):
        assert answer.status_code == 404 and "/market" in read(answer.text).links
