"""`qubix images` as far as it needs no engine; what it builds is used in integration/test_template_images."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path

import pytest

from protocol.errors import EngineUnreachable, UsageError
from protocol.templates import TEMPLATES
from tui import cli, images, show


class Engine:
    """Answers what `here` asks of an engine, with what a real one says of an image without a name."""

    def images(self) -> list[dict[str, object]]:
        return [{"RepoTags": [TEMPLATES["ssh"].cpu_image, "mine:1"]}, {"RepoTags": None}]


def test_the_table_says_what_is_here(capsys: pytest.CaptureFixture[str]) -> None:
    present = images.here(Engine())  # type: ignore[arg-type]  # as much of a client as is asked
    assert [name for name, there in present.items() if there] == [TEMPLATES["ssh"].cpu_image]
    assert len(present) == 2 * len(TEMPLATES)
    show.console(sys.stdout).print(images.screen(present))
    said = capsys.readouterr().out
    assert all(name in said for name in TEMPLATES) and said.count("here") == 1
    assert "JUPYTER_TOKEN" in said


def test_an_image_stands_on_one_that_is_built_first() -> None:
    assert images.base_of("vscode", cpu=True) == TEMPLATES["ssh"].cpu_image
    assert images.base_of("vscode", cpu=False) == TEMPLATES["ssh"].image
    assert images.base_of("base", cpu=True).startswith("debian:12")


@pytest.mark.parametrize("words", [["images"], ["images", "all"]])
def test_without_an_engine_it_says_so(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    assert cli.main([*words, "--json"]) == EngineUnreachable.exit_code
    assert json.loads(capsys.readouterr().out)["error"]["code"] == EngineUnreachable.code


def test_a_person_sees_the_list_without_an_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    assert cli.main(["images"]) == 0
    said = capsys.readouterr()
    assert all(name in said.out for name in TEMPLATES) and "not built" not in said.out
    assert "No Docker engine answers" in said.err


@pytest.mark.docker
@pytest.mark.parametrize("words", [["jupiter"], ["base", "--gpu", "--base", "debian:12"]])
def test_words_that_make_no_sense(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["images", *words]) == UsageError.exit_code
    assert "usage.error" in capsys.readouterr().err


@pytest.mark.docker
def test_what_is_here_is_asked_of_the_engine(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["images", "--json"]) == 0
    with closing(images.engine()) as client:
        assert json.loads(capsys.readouterr().out).keys() == images.here(client).keys()
