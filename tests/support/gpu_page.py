"""docs/gpus.md from the catalogue: `python -m tests.support.gpu_page` writes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from protocol.catalogue import CPU_CLASS, GPUS, USE_CASES, GpuModel, UseCase

PAGE: Final = Path(__file__).parents[2] / "docs" / "gpus.md"
FIGURES: Final = ("fp32", "fp16", "fp8", "int8")
OWN_WORDS: Final = ", docs/gpus.md"
"""How a source ends that is this page itself."""

HEAD: Final = """# GPUs and use cases

What the GPUs that the catalogue knows can do, and which of them suits a use. Written by
`python -m tests.support.gpu_page` from `protocol/catalogue.toml`; a test holds the two together.

## GPUs

Figures are the vendors', of the card in general and not of one maker's board. Memory in GB, its bandwidth in
GB/s. TFLOPS (int8: TOPS) are dense, without the sparsity that doubles a datasheet's number: fp32 of the
shaders, the others of the tensor cores with sums kept in FP32. BF16 is as fast as FP16, except on those that
have none: {no_bf16}. A blank is a figure that the sources do not give. Numbers under
*sources* lead to the list below; the first is for all that is not named after it.

Prices are suggestions in credits of 0.20 USD an hour; `--qu-per-credit` says what a credit is in QU (1 unless
set), and `qubix offer` shows the range for a machine. *Required* ones are the product's own. The others
follow a rule of ours: a card's size is the cube root of memory x bandwidth x FP16, the middle price is read
off the line through the required prices (RTX 3080, 4080, 4090, A100 80 GB, H100 SXM) in double logarithms,
and the range is a tenth to each side, rounded outwards. A machine without a GPU: 1 credit. A GPU that is not
listed: the lowest range of any. Providers ask what they like.
"""
USES: Final = """
## Use cases

How machines are ordered for one: [The market](market.md#use-cases). *GB* is the least memory and the
recommended one. Weights add up to 1, `vram` beside them; they are our own judgement.
"""
SOURCES: Final = """
## Sources
"""


def page() -> str:
    """The whole page."""
    cards = [model for name, model in GPUS.items() if name != CPU_CLASS]
    said = [source for model in cards for source in model.sources.values()]
    numbers = {source: place for place, source in enumerate(dict.fromkeys(_not_ours(said)), 1)}
    for use in USE_CASES.values():
        for source in _not_ours([use.source]):
            numbers.setdefault(source, len(numbers) + 1)
    no_bf16 = ", ".join(model.title for model in cards if "bf16" not in model.tflops)
    return "\n".join(
        (
            HEAD.format(no_bf16=no_bf16),
            _row("Class", "Card", "GB", "GB/s", *FIGURES, "credits", "set by", "sources"),
            _row(*["---"] * 11),
            *(_gpu_row(model, numbers) for model in cards),
            *(("", *(f"- {name}: {note}." for name, note in _notes(cards)))),
            USES,
            _row("Name", "For", "GB", "weighs", "connect with", "because", "also", "source"),
            _row(*["---"] * 8),
            *(_use_row(use, numbers) for use in USE_CASES.values()),
            SOURCES,
            *(f"{number}. {source}" for source, number in numbers.items()),
            "",
        )
    )


def _gpu_row(model: GpuModel, numbers: Mapping[str, int]) -> str:
    low, high = model.credits_per_hour
    set_by = "required" if "Required" in model.sources["credits_per_hour"] else "rule"
    figures = (f"{model.tflops[one]:g}" if one in model.tflops else "" for one in FIGURES)
    size = (f"{model.vram_gib:g}", f"{model.bandwidth_gb_s:g}")
    return _row(
        f"`{model.name}`", model.title, *size, *figures, f"{low}-{high}", set_by, _refs(model, numbers)
    )


def _refs(model: GpuModel, numbers: Mapping[str, int]) -> str:
    usual = model.sources["vram_gib"]
    others: dict[int, list[str]] = {}
    for figure in ("bandwidth_gb_s", *FIGURES):
        source = model.sources.get(figure, usual)
        if source != usual:
            others.setdefault(numbers[source], []).append(figure)
    return "; ".join((str(numbers[usual]), *(f"{', '.join(names)} {n}" for n, names in others.items())))


def _notes(cards: Iterable[GpuModel]) -> Iterable[tuple[str, str]]:
    for model in cards:
        if model.note:
            yield model.title, model.note
    listed = [model.title for model in cards if model.listed_only]
    yield " and ".join(listed), "listed only; engines hand NVIDIA's cards to containers only"


def _use_row(use: UseCase, numbers: Mapping[str, int]) -> str:
    gib = f"{use.min_vram_gib:g} / {use.recommended_vram_gib:g}"
    weighs = ", ".join(f"{figure} {weight:g}" for figure, weight in use.weights.items())
    also = ", ".join(use.words)
    source = str(numbers[use.source]) if use.source in numbers else use.source.removesuffix(OWN_WORDS)
    return _row(f"`{use.name}`", use.title, gib, weighs, use.connection, use.why, also, source)


def _not_ours(sources: Iterable[str]) -> Iterable[str]:
    return (source for source in sources if not source.endswith(OWN_WORDS))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    PAGE.write_text(page())
