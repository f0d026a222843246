"""The catalogue against its own rules: figures in range, classes as machines name them, a source for
each figure, the required prices; and that people find what they mean."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Final

import pytest

from protocol import catalogue
from protocol.catalogue import GPUS, MARKETS, USE_CASES, GpuModel, UseCase, use_case
from protocol.errors import UsageError
from qubixd.hardware import GIB, class_of
from tests.support import gpu_page

CARDS: Final = {name: model for name, model in GPUS.items() if name != catalogue.CPU_CLASS}
REQUIRED: Final = {
    "RTX_3080": (5, 6),
    "RTX_4080": (8, 9),
    "RTX_4090": (10, 13),
    "A100_40GB": (35, 52),
    "A100_80GB": (35, 52),
    "H100_80GB": (78, 80),
    "H100_PCIE_80GB": (78, 80),
    "H100_NVL_94GB": (78, 80),
}
ANCHORS: Final = ("RTX_3080", "RTX_4080", "RTX_4090", "A100_80GB", "H100_80GB")
PRECISIONS: Final = {"fp32", "fp16", "bf16", "fp8", "int8"}
MATTERS: Final = {"bandwidth", "fp16", "fp32", "vram", "cpu", "memory"}


def each(things: dict[str, GpuModel] | dict[str, UseCase]) -> Callable[..., object]:
    return pytest.mark.parametrize("name", things)


@each(CARDS)
def test_figures_are_those_of_a_card(name: str) -> None:
    model = CARDS[name]
    assert 6 <= model.vram_gib <= 512
    assert 100 <= model.bandwidth_gb_s <= 20_000
    assert {"fp32", "fp16"} <= model.tflops.keys() <= PRECISIONS
    assert all(1 <= figure <= 20_000 for figure in model.tflops.values())
    assert model.tflops["fp32"] < model.tflops["fp16"] <= model.tflops.get("fp8", math.inf)
    assert model.tflops.get("bf16", model.tflops["fp16"]) == model.tflops["fp16"]


@each(CARDS)
def test_every_figure_has_a_source_with_an_address(name: str) -> None:
    model = CARDS[name]
    assert model.sources.keys() == {"vram_gib", "bandwidth_gb_s", "credits_per_hour", *model.tflops}
    for source in model.sources.values():
        assert re.search(r", (https://www\.|https://[a-z.]+/|docs/)\S+$", source), source


@each(CARDS)
def test_a_machine_with_that_card_names_the_same_class(name: str) -> None:
    model = CARDS[name]
    assert {class_of(said, int(model.vram_gib * GIB)) for said in model.nvml} <= {name}
    assert model.listed_only == (not model.nvml)


def test_no_name_is_given_to_two_classes() -> None:
    said = [name for model in CARDS.values() for name in model.nvml]
    assert len(said) == len(set(said)) and 25 <= len(CARDS) <= 45


# Markets and prices ----------------------------------------------------------------------------


def test_every_class_is_in_one_market() -> None:
    assert {model.market for model in GPUS.values()} | {catalogue.OTHER} == set(MARKETS)
    assert len(MARKETS) == len(set(MARKETS)) <= 16
    assert all(re.fullmatch(r"[A-Z0-9_]+", market) for market in MARKETS)
    assert catalogue.market_of("RTX_4090") == catalogue.market_of("RTX_4080")
    assert catalogue.market_of("CPU") == "CPU"
    assert catalogue.market_of("never/heard of") == catalogue.market_of("") == catalogue.OTHER


def test_the_required_prices() -> None:
    given = {name for name, model in CARDS.items() if "Required" in model.sources["credits_per_hour"]}
    assert given == REQUIRED.keys()
    assert {name: CARDS[name].credits_per_hour for name in given} == REQUIRED


@each({name: model for name, model in CARDS.items() if name not in REQUIRED})
def test_the_other_prices_follow_the_stated_rule(name: str) -> None:
    middle = interpolated(size(CARDS[name]))
    low, high = CARDS[name].credits_per_hour
    assert (low, high) == (max(1, math.floor(middle * 0.9)), math.ceil(middle * 1.1))


def size(model: GpuModel) -> float:
    return math.log(model.vram_gib * model.bandwidth_gb_s * model.tflops["fp16"]) / 3


def interpolated(at: float) -> float:
    points = [(size(CARDS[name]), math.log(sum(CARDS[name].credits_per_hour) / 2)) for name in ANCHORS]
    inner = sum(at >= x for x, _ in points[1:-1])
    (x0, y0), (x1, y1) = points[inner : inner + 2]
    return math.exp(y0 + (y1 - y0) * (at - x0) / (x1 - x0))


@pytest.mark.parametrize("name", GPUS)
def test_suggested_price_is_within_its_range_whatever_a_credit_is(name: str) -> None:
    low, high = GPUS[name].credits_per_hour
    for qu_per_credit in (1, 7, 1_000_000):
        price = catalogue.suggested_price(name, qu_per_credit)
        assert low * qu_per_credit <= price <= high * qu_per_credit
        assert catalogue.suggested_range(name, qu_per_credit) == (low * qu_per_credit, high * qu_per_credit)


def test_price_of_a_cpu_and_of_an_unknown_gpu() -> None:
    assert 0 < catalogue.suggested_price("CPU", 1) < catalogue.suggested_price("RTX_9999", 1)
    assert catalogue.suggested_price("RTX_9999", 1) == min(
        catalogue.suggested_price(name, 1) for name in CARDS
    )
    assert catalogue.suggested_price("CPU", 0) == 1


# Use cases -------------------------------------------------------------------------------------


@each(dict(USE_CASES))
def test_a_use_case_makes_sense(name: str) -> None:
    use = USE_CASES[name]
    assert 0 <= use.min_vram_gib <= use.recommended_vram_gib
    speeds = {figure: weight for figure, weight in use.weights.items() if figure != "vram"}
    assert math.isclose(sum(speeds.values()), 1) and use.weights.keys() <= MATTERS
    assert ("vram" in use.weights) == (use.min_vram_gib > 0)
    assert use.enough.keys() <= use.weights.keys() - {"vram"}
    assert use.enough.keys() >= use.weights.keys() & {"cpu", "memory"}
    assert use.why.endswith(".") and len(use.why) <= 110
    assert re.search(r", (https|docs/)", use.source)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("stable diffusion", "sdxl"),
        ("Stable Diffusion 1.5", "stable-diffusion-1.5"),
        ("SD1.5", "stable-diffusion-1.5"),
        ("SDXL", "sdxl"),
        ("flux", "flux"),
        ("llama", "llama-8b"),
        ("LLaMA 70B", "llama-70b"),
        ("llama-70b-fp16", "llama-70b-fp16"),
        ("blender", "blender"),
        ("cinema4d", "cinema-4d"),
        ("Cyberpunk", "cyberpunk-2077"),
        ("GTA V", "gta-v"),
        ("gta5", "gta-v"),
        ("CS2", "cs2"),
        ("counter-strike", "cs2"),
        ("pytorch", "pytorch"),
        ("docker", "docker"),
        ("Unreal", "unreal"),
    ],
)
def test_people_find_what_they_mean(words: str, name: str) -> None:
    assert use_case(words).name == name


def test_no_name_means_two_use_cases() -> None:
    for use in USE_CASES.values():
        for said in (use.name, use.title, *use.words):
            assert use_case(said) is use, said


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("stable difusion", "no use case known here; did you mean sdxl"),
        ("diffusion", "fits several use cases; did you mean sdxl, stable-diffusion-1.5?"),
        ("llama 9b", "did you mean llama-8b"),
        ("weather forecast", "known are cyberpunk-2077"),
        ("", "known are"),
        ("!?" * 500, "known are"),
    ],
)
def test_what_is_not_found_is_said_with_the_nearest(words: str, hint: str) -> None:
    with pytest.raises(UsageError, match=re.escape(hint)):
        use_case(words)


def test_connections_are_those_of_their_group() -> None:
    said = {use.group: use.connection for use in USE_CASES.values()}
    assert said == {
        "gaming": "Moonlight (or Parsec)",
        "rendering": "VNC or RDP (or SSH with X11)",
        "ai": "Jupyter Lab (or SSH)",
        "development": "VSCode Remote (or SSH)",
    }


def test_the_page_in_the_docs_is_the_catalogue() -> None:
    assert gpu_page.PAGE.read_text() == gpu_page.page(), "python -m tests.support.gpu_page writes it anew"
