"""Image names: one tag for every spelling, and an estimate that knows what is there."""

from __future__ import annotations

import pytest

from protocol import images


@pytest.mark.parametrize(
    "spelling",
    [
        "python",
        "python:latest",
        "docker.io/python",
        "docker.io/library/python:latest",
        "index.docker.io/python",
    ],
)
def test_every_spelling_of_a_name_has_one_tag(spelling: str) -> None:
    assert images.image_tag(spelling) == images.image_tag("python:latest")


@pytest.mark.parametrize(
    "other", ["python:3.12", "me/python", "registry.example:5000/python", f"python@sha256:{'a' * 64}"]
)
def test_another_image_has_another_tag(other: str) -> None:
    assert images.image_tag(other) != images.image_tag("python")


def test_a_port_is_no_tag_and_a_digest_needs_none() -> None:
    assert images.full_name("host:5000/app") == "host:5000/app:latest"
    assert images.full_name("app@sha256:ab") == "app@sha256:ab"


def test_a_layer_is_known_by_the_beginning_of_its_digest() -> None:
    assert images.layer_tag("sha256:" + "ab" * 32) == b"\xab" * 8


def test_what_is_there_starts_sooner_and_a_fast_line_helps() -> None:
    there = {images.image_tag("python:3.12")}
    cached = images.start_seconds(there, 0, "docker.io/library/python:3.12")
    slow, fast = (images.start_seconds(there, speed, "other") for speed in (0, 100))
    assert cached == images.READY_SECONDS < fast < slow
    assert images.is_there(there, "python:3.12") and not images.is_there(there, "python")
