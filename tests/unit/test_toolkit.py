"""Which versions of NVIDIA's toolkit and of runc are refused or warned of, by what the programs print."""

from __future__ import annotations

from pathlib import Path

import pytest

from qubixd.runner.toolkit import (
    TOOLKIT_ESCAPES,
    UNKNOWN,
    UNSAFE,
    judge_runc,
    judge_toolkit,
    toolkit_versions,
    version_in,
)

CTK = "NVIDIA Container Toolkit CLI version 1.17.8\ncommit: f202b80a9b9d0db00d9b1d73c0128c8962c55f4d\n"
CLI = "cli-version: 1.19.1\nlib-version: 1.19.1\nbuild date: 2026-05-22T00:00+00:00\n"
RUNTIME = "NVIDIA Container Runtime version 1.19.1\ncommit: abc\nspec: 1.2.1\n\nrunc version 1.1.5\n"


def install(directory: Path, **programs: str) -> None:
    for name, said in programs.items():
        program = directory / name.replace("_", "-")
        program.write_text(f"#!/bin/sh\n[ \"$1\" = --version ] && cat <<'END'\n{said}END\n")
        program.chmod(0o755)


def test_the_oldest_program_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, nvidia_ctk=CTK, nvidia_container_cli=CLI, nvidia_container_runtime=RUNTIME)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    versions = toolkit_versions()
    assert versions == {
        "nvidia-ctk": (1, 17, 8),
        "nvidia-container-cli": (1, 19, 1),
        "nvidia-container-runtime": (1, 19, 1),
    }
    judged = judge_toolkit(versions)
    assert judged.refused and judged.code == UNSAFE
    assert "nvidia-ctk 1.17.8" in judged.sentence and "CVE-2026-24260" in judged.sentence
    assert "CVE-2025-23266" not in judged.sentence and "1.19.1 or newer" in judged.sentence


def test_a_toolkit_that_says_nothing_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, nvidia_ctk="what?\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    judged = judge_toolkit(toolkit_versions())
    assert not judged.refused and judged.code == UNKNOWN
    assert "without it no job gets a GPU" in judged.sentence


@pytest.mark.parametrize(("fixed", "name"), TOOLKIT_ESCAPES)
def test_each_escape_counts_until_it_is_repaired(fixed: tuple[int, ...], name: str) -> None:
    before = (*fixed[:2], fixed[2] - 1)
    assert name in judge_toolkit({"nvidia-ctk": before}).sentence
    assert name not in judge_toolkit({"nvidia-ctk": fixed}).sentence


@pytest.mark.parametrize("version", [(1, 19, 1), (1, 20, 0), (2, 0, 0)])
def test_new_toolkits_are_fine(version: tuple[int, ...]) -> None:
    assert judge_toolkit({"nvidia-ctk": version}) == judge_toolkit({"nvidia-ctk": (9, 9, 9)})
    assert not judge_toolkit({"nvidia-ctk": version}).code


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("1.1.5", "CVE-2024-21626, CVE-2025-31133"),
        ("1.1.5+ds1-1+deb12u1", "distribution may have repaired"),
        ("1.1.12", "CVE-2025-31133"),
        ("1.2.7", "CVE-2025-31133"),
        ("1.3.2", "CVE-2025-31133"),
    ],
)
def test_an_old_runc_is_worth_a_sentence(version: str, words: str) -> None:
    judged = judge_runc({"Components": [{"Name": "Engine"}, {"Name": "runc", "Version": version}]})
    assert words in judged.sentence and not judged.refused
    assert ("distribution" in judged.sentence) == ("deb12" in version)


@pytest.mark.parametrize("version", ["1.2.8", "1.2.9", "1.3.3", "1.4.0", "v1.3.4", "unknown", ""])
def test_a_repaired_or_unknown_runc_is_not(version: str) -> None:
    assert not judge_runc({"Components": [{"Name": "runc", "Version": version}]}).code
    assert not judge_runc({}).code


def test_words_without_a_version() -> None:
    assert version_in("") == version_in("version x.y.z") == ()
