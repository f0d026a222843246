"""Sizes and limits: what is asked fits what was rented, and what the limits are against does not fit them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from protocol.catalogue import CPU_CLASS, GPUS, GpuModel
from protocol.messages import Gpu, Wish
from qubixd.proof import plan as plans
from qubixd.proof.band import ANY_CARD, DOT4_CLASSES, FOREIGN, MIB, band_of, peak, provable
from qubixd.proof.plan import NotProvable, Plan, cpu_plan, gpu_plan, light_plan, plan_of
from tests.support.lease_plan import make_terms

PROVABLE = [
    model for model in GPUS.values() if model.name != CPU_CLASS and not model.name.startswith(FOREIGN)
]


def card(model: GpuModel, digest: int = 1) -> Gpu:
    """As its driver calls it, with the memory that a card with error correction reports."""
    return Gpu(model.nvml[0], int(model.vram_gib * 1_024 * 0.9375), bytes([digest]) * 32)


def names(model: GpuModel) -> str:
    return model.name


@pytest.mark.parametrize("model", PROVABLE, ids=names)
def test_the_card_has_room_for_what_is_asked(model: GpuModel) -> None:
    """Everything that cuda.c reserves, and half a GiB for the driver, in what such a card reports."""
    plan = gpu_plan([card(model)])
    n, stripe, rows, passes = plan.shape.n, plan.shape.stripe_rows, plan.shape.rows, plan.shape.passes
    reserved = n * n + stripe * n * 5 + stripe * n // 256 * 32 + 8 * n
    reserved += rows * (n + 64 + 4 * passes + 4) + plan.shape.stripes * 32
    assert rows >= 2 * n
    assert reserved + plans.DRIVER_BYTES <= card(model).vram_mib * MIB
    assert plan.kept_bytes >= 0.75 * model.vram_gib * 2**30 - 700 * MIB, "most of the memory is used"


@pytest.mark.parametrize("model", PROVABLE, ids=names)
def test_the_limits_leave_the_honest_room_and_the_cheat_none(model: GpuModel) -> None:
    """A card that lacks a third of the memory has to compute it again in every pass. Even at the full speed
    of its datasheet that takes longer than the passes may."""
    plan = gpu_plan([card(model)])
    assert band_of(card(model).model, card(model).vram_mib).known
    honest = plan.shape.passes * plan.kept_bytes / (model.bandwidth_gb_s * 1e9)
    assert plan.passes_s > 3 * honest
    again = plan.shape.passes / 3 * plan.operations / full_speed(model)
    assert again > plan.passes_s + 0.5, "the limit with the largest allowance for the line"


def full_speed(model: GpuModel) -> float:
    """By the datasheet, of whatever instructions: a cheater writes its own kernels."""
    best = 1e12 * model.tflops.get("int8", 2 * model.tflops["fp16"])
    return best if model.name.startswith(DOT4_CLASSES) else peak(model)


@pytest.mark.parametrize("model", [m for m in PROVABLE if "int8" in m.tflops and m.name != "T4"], ids=names)
def test_the_rule_for_missing_figures_fits_those_that_are_there(model: GpuModel) -> None:
    without = replace(model, tflops={"fp16": model.tflops["fp16"]})
    assert peak(without) == pytest.approx(peak(model), rel=0.02)


@pytest.mark.parametrize("model", PROVABLE, ids=names)
def test_a_proof_ends_within_the_provider_s_patience(model: GpuModel) -> None:
    plan = gpu_plan([card(model)])
    assert plan.work_s + plan.passes_s < 120


def test_the_false_accept_bound() -> None:
    assert cpu_plan(1_000, 1_024).false_accept <= 1e-6
    assert gpu_plan([card(GPUS["RTX_4090"])]).false_accept <= 1e-6


def test_several_cards_are_asked_what_the_smallest_and_slowest_can() -> None:
    both = gpu_plan([card(GPUS["RTX_4090"]), card(GPUS["T4"], 2)])
    slow = gpu_plan([card(GPUS["T4"])])
    assert both.shape == slow.shape and both.work_s == slow.work_s and both.devices == 2
    assert both.digests == {bytes([1]) * 32, bytes([2]) * 32}


def test_a_model_that_nobody_knows_is_held_to_what_any_card_reaches() -> None:
    assert band_of("Some Future Card", 24_000) == ANY_CARD


def test_cards_without_a_figure_for_int8_have_it_from_fp16() -> None:
    assert peak(GPUS["RTX_3060"]) == 4e12 * 25.4
    assert peak(GPUS["RTX_A4000"]) == 2e12 * 76.7
    assert peak(GPUS["RTX_4000_ADA"]) == 2e12 * 81.9
    assert peak(GPUS["T4"]) == 4e12 * 8.1, "its kernels use dp4a, not the tensor cores"


def test_amd_s_cards_are_not_provable_yet() -> None:
    assert not provable("MI300X", 196_608)
    with pytest.raises(NotProvable):
        gpu_plan([Gpu("MI300X", 196_608, bytes(32))])


@pytest.mark.parametrize("cpu_millis", [10, 250, 1_000, 1_500, 4_000, 64_000, 1_000_000])
@pytest.mark.parametrize("memory_mib", [4, 16, 64, 1_024, 65_536])
def test_a_processor_s_proof_keeps_to_a_quarter_of_its_memory(cpu_millis: int, memory_mib: int) -> None:
    plan = cpu_plan(cpu_millis, memory_mib)
    n, threads = plan.shape.n, plan.shape.threads
    taken = 2 * n * n + threads * plan.shape.stripe_rows * n * 6 + plan.kept_bytes
    assert taken <= max(memory_mib, 4) * MIB / 4
    assert n % 256 == 0 and plan.shape.rows >= 2 * n
    assert (plan.solo is not None) == (cpu_millis >= 2_000 and threads >= 2)
    assert plan.solo is None or plan.solo.cores <= threads


def test_a_processor_s_time_grows_with_work_not_with_cores() -> None:
    one, many = cpu_plan(1_000, 65_536), cpu_plan(16_000, 65_536)
    assert many.operations == pytest.approx(16 * one.operations, rel=0.05)
    assert many.work_s == pytest.approx(one.work_s, rel=0.05)


def leased(gpu_count: int = 0, vram_mib: int = 0) -> Plan:
    digests = tuple(bytes([at + 1]) * 32 for at in range(gpu_count))
    wish = Wish("", gpu_count, vram_mib, 1_000, 1_024, 1_024)
    return plan_of(make_terms(wish=wish, gpu_digests=digests), [card(GPUS["L4"])])


def test_a_lease_s_plan() -> None:
    assert not leased().cuda
    one = leased(gpu_count=1)
    assert one.cuda and one.devices == 1 and one.shape == gpu_plan([card(GPUS["L4"])]).shape
    two = leased(gpu_count=2, vram_mib=8_192)
    assert two.devices == 2 and two.kept_bytes < one.kept_bytes, (
        "the unknown one counts as what was asked for"
    )


def test_the_light_plan_asks_little_of_the_same_devices() -> None:
    terms = make_terms(wish=Wish("", 1, 0, 1_000, 1_024, 1_024), gpu_digests=(bytes([1]) * 32,))
    light = light_plan(terms, [card(GPUS["L4"])])
    assert light.cuda and light.digests == {bytes([1]) * 32} and light.least_memory > 0
    assert light.kept_bytes <= MIB and light.false_accept <= 1e-6
    assert light_plan(make_terms(), []).kept_bytes < MIB
    assert light.shape.rows >= 2 * light.shape.n


def test_a_card_of_which_nothing_is_known_but_that_it_is_small() -> None:
    plan = gpu_plan([Gpu("", 1_024, bytes(32))])
    assert plan.shape.rows >= 2 * plan.shape.n and plan.work_s < 60
