"""What follows from the wizard's choices: words for GPUs, environments, ways in, about what it costs."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from protocol import jobspec
from protocol.catalogue import GPUS, USE_CASES
from protocol.control_access import PortView
from protocol.control_market import MarketView
from protocol.job_draft import Draft, faults, job_yaml
from protocol.templates import TEMPLATES
from tests.support.tui_launch import MARKET, OFFERS
from tests.support.views import HOSTILE, offer
from tui.screens.launch_plan import OWN, Plan, environments, gpu_words, of_offer, suggestions
from tui.ways import way_of, ways_of


@pytest.mark.parametrize("name", [name for name, model in GPUS.items() if model.nvml])
def test_what_a_job_asks_for_is_in_the_name_of_every_card_of_a_class(name: str) -> None:
    wanted = jobspec.parse(job_yaml(Draft(gpu=gpu_words(name, 1), image="a", command="x"))).wish
    plain = ["".join(filter(str.isalnum, one.casefold())) for one in (wanted.gpu_model, *GPUS[name].nvml)]
    assert all(plain[0] in card for card in plain[1:])
    assert wanted.gpu_vram_mib <= GPUS[name].vram_gib * 1_024


@pytest.mark.parametrize(("gpu_class", "words"), [("GPU", "2"), ("", "2"), (HOSTILE, "2"), ("CPU", "")])
def test_a_class_that_says_nothing_is_a_count(gpu_class: str, words: str) -> None:
    assert gpu_words(gpu_class, 2) == words
    assert not faults(Draft(gpu=words, image="a", command="x"))


def test_offers_are_grouped_in_the_order_of_the_market() -> None:
    found = suggestions(MARKET, USE_CASES["llama-8b"])
    assert [(one.title, one.offers, one.qu_per_hour) for one in found] == [
        ("GeForce RTX 4090", 1, 1_200_000),
        ("2 x GeForce RTX 4090", 1, 1_250_000),
        ("2 x A100 80 GB", 1, 9_200_000),
        ("no GPU", 1, 100_000),
    ]
    assert [one.offers for one in suggestions(MARKET, USE_CASES["gta-v"])] == [2, 1, 1], "one card each"
    assert suggestions(MarketView([]), None) == []


@pytest.mark.parametrize("use", [OWN, *USE_CASES])
def test_every_use_case_leads_to_a_good_job(use: str) -> None:
    """With a command where its environment has no program of its own."""
    plan = Plan().for_use(use).with_gpu(suggestions(MARKET, None)[0])
    draft = plan.draft if TEMPLATES.get(plan.draft.template) else replace(plan.draft, command="x")
    assert faults(draft) == {}
    assert plan.ways()
    assert environments(use)[0][1] == plan.draft.template


def test_a_pick_in_the_market_is_for_that_provider() -> None:
    plan = of_offer(OFFERS[2])
    assert (plan.draft.gpu, plan.provider, plan.qu_per_hour) == ("A100:80GB:1", OFFERS[2].peer_id, 9_200_000)
    assert of_offer(offer(gpus=0)).draft.gpu == ""


def test_another_use_case_forgets_the_environment_of_the_last() -> None:
    plan = Plan().for_use("llama-8b")
    assert plan.for_use("llama-8b") is plan
    assert plan.for_use(OWN).draft.template == "" and plan.for_use(OWN).draft.image
    assert plan.for_use("gta-v").draft.template in ("desktop", "moonlight")


@pytest.mark.parametrize(
    ("hours", "most"), [("2", 200), ("", 100), ("0.001", 1), ("x", 0), ("nan", 0), ("-1", 0), ("1e9", 0)]
)
def test_about_what_it_may_cost(hours: str, most: int) -> None:
    assert Plan(draft=Draft(hours=hours), qu_per_hour=100).most() == most
    assert math.isfinite(most)


def test_ways_of_every_template() -> None:
    first = {name: ways_of(one.ports_for(1))[0] for name, one in TEMPLATES.items()}
    lines = {name: way.line("3fa9c1" + "0" * 58) for name, way in first.items()}
    assert lines == {
        "pytorch": "qubix open 3fa9c100 8888",
        "jupyter": "qubix open 3fa9c100 8888",
        "desktop": "qubix open 3fa9c100 6080",
        "moonlight": "qubix forward 3fa9c100",
        "vscode": "qubix open 3fa9c100 8080",
        "ssh": "qubix ssh 3fa9c100",
        "base": "qubix attach 3fa9c100",
    }


def test_ports_without_a_kind_are_no_ways_and_a_shell_always_is_one() -> None:
    ways = ways_of([PortView("a", 1, "tcp", "other"), PortView("b", 2, "udp", "other")])
    assert [way.key for way in ways] == ["shell", "results"]
    assert way_of(ways, "results").key == "results" and way_of(ways, "gone").key == "shell"
