"""Which of the engine's runtimes runs jobs, from what an engine says of itself."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from protocol.errors import ConfigInvalid
from qubixd.runner.runtimes import Runtime, choose, installed

PLAIN: dict[str, Sequence[str]] = {"runc": ()}
GVISOR: dict[str, Sequence[str]] = {**PLAIN, "runsc": ()}
HOST_NETWORK = ("--network=host", "--debug=false")


def test_engine_s_inner_names_are_no_runtimes() -> None:
    said = {
        "Runtimes": {
            "io.containerd.runc.v2": {"path": "runc"},
            "runc": {"path": "runc"},
            "runsc": {"path": "/usr/bin/runsc", "runtimeArgs": ["--network=none"]},
        }
    }
    assert installed(said) == {"runc": (), "runsc": ("--network=none",)}
    assert installed({}) == {}


@pytest.mark.parametrize(
    ("setting", "runtimes", "gpus", "expected"),
    [
        ("auto", PLAIN, False, Runtime("", "docker", True)),
        ("auto", {}, False, Runtime("", "docker", True)),
        ("auto", GVISOR, False, Runtime("runsc", "docker+runsc", False)),
        ("auto", GVISOR, True, Runtime("", "docker", True)),
        ("auto", {**PLAIN, "kata-runtime": ()}, False, Runtime("kata-runtime", "docker+kata", False)),
        ("auto", {**GVISOR, "kata": ()}, False, Runtime("runsc", "docker+runsc", False)),
        ("runc", GVISOR, False, Runtime("runc", "docker", True)),
        ("runc", {}, False, Runtime("", "docker", True)),
        ("runsc", GVISOR, True, Runtime("runsc", "docker+runsc", False)),
        ("runsc", {"runsc": HOST_NETWORK}, False, Runtime("runsc", "docker+runsc", True)),
        ("runsc", {"gvisor": ("-network", "host")}, False, Runtime("gvisor", "docker+runsc", True)),
        ("kata", {"kata-runtime": ()}, False, Runtime("kata-runtime", "docker+kata", False)),
        ("crun", {**PLAIN, "crun": ()}, False, Runtime("crun", "docker", True)),
        ("nvidia", {**PLAIN, "nvidia": ()}, True, Runtime("nvidia", "docker", True)),
        ("odd", {**PLAIN, "odd": ()}, False, Runtime("odd", "docker+odd", False)),
    ],
)
def test_choice(setting: str, runtimes: dict[str, Sequence[str]], gpus: bool, expected: Runtime) -> None:
    assert choose(setting, runtimes, gpus=gpus) == expected


@pytest.mark.parametrize("setting", ["runsc", "kata", "nvidia", "", "docker"])
def test_what_is_not_installed_is_named_with_what_is(setting: str) -> None:
    with pytest.raises(ConfigInvalid, match=r"has no runtime .*; it has crun, runc"):
        choose(setting, {**PLAIN, "crun": ()}, gpus=False)
