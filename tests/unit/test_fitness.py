"""Ranking by fitness in examples that people can follow, and what it says to them."""

from __future__ import annotations

from pathlib import Path

from protocol.catalogue import GPUS, use_case
from protocol.fitness import Candidate, Ranked, has_room, rank
from protocol.units import Qu


def machine(gpu_class: str, price: int, *, gpus: int = 1) -> Candidate:
    vram_mib = int(GPUS[gpu_class].vram_gib * 1_024)
    return Candidate(gpu_class.encode(), gpu_class, gpus, vram_mib, 16_000, 65_536, Qu(price))


def names(ranked: list[Ranked]) -> list[str]:
    return [one.candidate.gpu_class for one in ranked]


def test_what_has_no_room_is_not_listed() -> None:
    offered = [machine("RTX_3080", 5), machine("RTX_4090", 12), machine("CPU", 1, gpus=0)]
    assert names(rank(offered, use_case("flux"))) == ["RTX_4090"]
    assert names(rank(offered, use_case("docker")))[0] == "CPU"
    assert rank([], use_case("flux")) == []


def test_twice_the_speed_for_less_than_twice_the_price_comes_first() -> None:
    slow, fast = machine("RTX_4080", 10), machine("RTX_4090", 15)
    assert names(rank([slow, fast], use_case("sdxl"))) == ["RTX_4090", "RTX_4080"]
    assert names(rank([slow, machine("RTX_4090", 40)], use_case("sdxl"))) == ["RTX_4080", "RTX_4090"]


def test_more_than_enough_is_not_worth_more() -> None:
    """A card for a game draws no more than the game shows."""
    assert names(rank([machine("RTX_5090", 10), machine("RTX_3070", 9)], use_case("cs2")))[0] == "RTX_3070"


def test_an_example_of_reasons() -> None:
    order = rank([machine("RTX_3080", 7), machine("RTX_4090", 12), machine("L4", 8)], use_case("sdxl"))
    assert [(one.candidate.gpu_class, one.reasons, one.above_next) for one in order] == [
        (
            "RTX_4090",
            "24 GB: room for Stable Diffusion XL with 16 GB to spare; "
            "2.8x the FP16 speed of the cheapest that fits; 12 QU/h",
            "1.6x as fast as the next for 1.5x the price",
        ),
        (
            "L4",
            "24 GB: room for Stable Diffusion XL with 16 GB to spare; "
            "2.0x the FP16 speed of the cheapest that fits; 8 QU/h",
            "1.9x as fast as the next for 1.14x the price",
        ),
        (
            "RTX_3080",
            "10 GB: enough for Stable Diffusion XL, 16 GB would be better; the cheapest that fits; 7 QU/h",
            "",
        ),
    ]


def test_the_example_in_the_docs_is_this_one() -> None:
    text = (Path(__file__).parents[2] / "docs" / "market.md").read_text()
    for one in rank([machine("RTX_3080", 7), machine("RTX_4090", 12), machine("L4", 8)], use_case("sdxl")):
        assert f"| {one.candidate.gpu_class} | {one.reasons} | {one.above_next}".rstrip() in text


def test_bandwidth_is_what_counts_for_a_language_model() -> None:
    offered = [machine("RTX_4080", 9), machine("RTX_3090", 9)]
    assert names(rank(offered, use_case("llama 8b"))) == ["RTX_3090", "RTX_4080"]
    assert names(rank(offered, use_case("blender"))) == ["RTX_4080", "RTX_3090"]


def test_only_what_can_be_split_counts_all_cards() -> None:
    two = machine("RTX_4090", 24, gpus=2)
    assert has_room(two, use_case("llama 70b")) and not has_room(
        machine("RTX_4090", 12), use_case("llama 70b")
    )
    assert rank([two], use_case("llama 70b"))[0].reasons.startswith("48 GB: room for LLaMA 70B")
    assert rank([two], use_case("blender"))[0].reasons.startswith("24 GB: room")


def test_a_card_that_is_not_listed_counts_as_the_slowest() -> None:
    unknown = Candidate(b"?", "RTX_9999", 1, 24_576, 16_000, 65_536, Qu(9))
    order = rank([unknown, machine("L4", 9)], use_case("flux"))
    assert names(order) == ["L4", "RTX_9999"]
    assert "a card that is not listed, taken for the slowest" in order[1].reasons


def test_reasons_in_the_other_cases() -> None:
    def above(first: Candidate, second: Candidate, use: str) -> str:
        return rank([first, second], use_case(use))[0].above_next

    assert above(machine("CPU", 3, gpus=0), machine("RTX_4090", 12), "docker") == (
        "as fast as the next and 75 % cheaper"
    )
    assert above(machine("T4", 3), machine("RTX_4090", 3), "flux") == (
        "3.2x as fast as the next for the same price"
    )
    assert above(machine("RTX_4080", 3), machine("RTX_4090", 9), "blender") == (
        "67 % cheaper than the next and only 39 % slower"
    )
    same = [machine("T4", 3), Candidate(b"b", "T4", 1, 16_384, 16_000, 65_536, Qu(3))]
    assert rank(same, use_case("flux"))[0].above_next == "as fast as the next for the same price"
