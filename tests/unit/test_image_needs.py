"""What images say that they need, honest or not, and how it compares with a machine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import CudaTooNew, GpuMissing, ImageUnavailable, WrongArchitecture
from protocol.image_needs import (
    Need,
    check,
    cuda_int,
    cuda_of_requirement,
    cuda_words,
    joined,
    need_of,
    plain_arch,
)

OLD_DRIVERS = " brand=tesla,driver>=470,driver<471 brand=geforce,driver>=535,driver<536"


@pytest.mark.parametrize(
    ("text", "cuda"),
    [
        ("cuda>=12.4", 12_040),
        ("cuda>=12.4" + OLD_DRIVERS, 12_040),
        ("brand=tesla,cuda>=11.0 cuda>=12.1", 12_010),
        ("cuda>=12.1,cuda<13 cuda>=12.6", 12_010),
        ("cuda>=11.8,cuda>=12.0", 12_000),
        ("cuda>12.1", 12_020),
        ("cuda=9", 9_000),
        ("cuda<=12.1", 0),
        ("brand=tesla,driver>=470", 0),
        ("cuda>=latest", 0),
        ("", 0),
        (",,, ,", 0),
    ],
)
def test_the_least_cuda_of_a_requirement(text: str, cuda: int) -> None:
    assert cuda_of_requirement(text) == cuda


@pytest.mark.parametrize(
    ("version", "cuda"),
    [("12.4", 12_040), ("12.4.1", 12_040), ("12", 12_000), ("11.8.0", 11_080), (" 12.6 ", 12_060)]
    + [(wrong, 0) for wrong in ("", "12.4-rc1", "-1", "12.", "twelve", "1" * 50, "٣.٢")],
)
def test_a_version_counts_as_drivers_count(version: str, cuda: int) -> None:
    assert cuda_int(version) == cuda


@given(st.integers(1, 999), st.integers(0, 99))
def test_versions_come_back_as_they_were(major: int, minor: int) -> None:
    assert cuda_words(cuda_int(f"{major}.{minor}")) == f"{major}.{minor}"


def test_the_label_goes_before_the_requirement_and_that_before_the_version() -> None:
    env = ["PATH=/bin", "NVIDIA_REQUIRE_CUDA=cuda>=12.2" + OLD_DRIVERS, "CUDA_VERSION=12.4.1"]
    assert need_of("amd64", env, {"qubix.cuda": "12.1"}) == Need("amd64", 12_010)
    assert need_of("amd64", env, {"qubix.cuda": "any"}) == Need("amd64", 12_020)
    assert need_of("aarch64", env[2:], {}) == Need("arm64", 12_040)
    assert need_of("", [], {}) == Need()


@given(
    st.text(max_size=80),
    st.lists(st.text(max_size=60) | st.builds("NVIDIA_REQUIRE_CUDA={}".format, st.text("cuda>=.,0 19"))),
    st.dictionaries(st.just("qubix.cuda"), st.text(max_size=40)),
)
def test_no_config_is_too_strange_to_be_read(arch: str, env: list[str], labels: dict[str, str]) -> None:
    need = need_of(arch, env, labels)
    assert 0 <= need.cuda < 1_000_000 and len(need.arch) <= 64


def test_a_huge_environment_is_read_to_a_limit() -> None:
    assert need_of("amd64", ["A=b"] * 1_000 + ["CUDA_VERSION=12.4"], {}).cuda == 0
    assert need_of("amd64", ["NVIDIA_REQUIRE_CUDA=" + " " * 9_000 + "cuda>=12.4"], {}).cuda == 0


# Against a machine -----------------------------------------------------------------------------

MACHINE = Need("amd64", 12_020)


@pytest.mark.parametrize("need", [Need(), Need("amd64"), Need("x86_64", 12_020), Need("", 11_080)])
def test_what_a_machine_has_is_enough(need: Need) -> None:
    check(need, MACHINE, gpus=1)


def test_another_architecture() -> None:
    with pytest.raises(WrongArchitecture, match=r"for arm64 processors .* has amd64") as caught:
        check(Need("arm64"), MACHINE, gpus=0)
    assert caught.value.code == "image.wrong_architecture" and isinstance(caught.value, ImageUnavailable)
    check(Need("arm64"), Need(), gpus=0)  # nothing is known of the machine


def test_a_newer_cuda_names_both_versions() -> None:
    with pytest.raises(CudaTooNew, match=r"CUDA 12\.4 or newer, and this machine's supports 12\.2"):
        check(Need("amd64", 12_040), MACHINE, gpus=1)


def test_no_driver_at_all() -> None:
    with pytest.raises(GpuMissing, match="no NVIDIA driver"):
        check(Need("", 12_040), Need("amd64"), gpus=1)


def test_without_a_gpu_an_image_with_cuda_is_any_image() -> None:
    check(Need("amd64", 12_040), Need("amd64"), gpus=0)


def test_the_caller_s_word_adds_to_the_image_s() -> None:
    assert joined(Need("amd64", 11_080), Need("arm64", 12_040)) == Need("amd64", 12_040)
    assert joined(Need(), Need("arm64", 12_040)) == Need("arm64", 12_040)
    assert plain_arch("AARCH64") == "arm64"
