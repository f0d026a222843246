"""Image names: one tag for every spelling; what an offer says of images, and estimates that know what is
there."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from protocol import images
from protocol.images import LocalImage, estimated_start_s, image_tag, tags_of
from protocol.messages import Offer
from tests.support.deals import offer as any_offer


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
    assert image_tag(spelling) == image_tag("python:latest")


@pytest.mark.parametrize(
    "other", ["python:3.12", "me/python", "registry.example:5000/python", f"python@sha256:{'a' * 64}"]
)
def test_another_image_has_another_tag(other: str) -> None:
    assert image_tag(other) != image_tag("python")


def test_a_port_is_no_tag_and_a_digest_needs_none() -> None:
    assert images.full_name("host:5000/app") == "host:5000/app:latest"
    assert images.full_name("app@sha256:ab") == "app@sha256:ab"


def test_a_layer_is_known_by_the_beginning_of_its_digest() -> None:
    assert images.layer_tag("sha256:" + "ab" * 32) == b"\xab" * 8


# What an offer says ----------------------------------------------------------------------------


def layer(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()[:8]


def image(name: str, *layers: int, mib: int = 1_000) -> LocalImage:
    return LocalImage((name,), tuple(map(layer, layers)), mib)


def test_names_come_first_and_shared_layers_once() -> None:
    said = tags_of([image("new", 1, 2), image("old", 1, 3)])
    assert said == (image_tag("new"), image_tag("old"), layer(1), layer(2), layer(3))
    assert tags_of([]) == ()


def test_an_offer_has_room_for_the_newest_only() -> None:
    many = [image(f"name-{n}", *range(100 * n, 100 * n + 5)) for n in range(60)]
    said = tags_of(many)
    assert len(said) == images.MAX_TAGS == len(set(said))
    assert said[: images.MAX_NAME_TAGS] == tuple(image_tag(f"name-{n}") for n in range(images.MAX_NAME_TAGS))
    assert said[images.MAX_NAME_TAGS :][:6] == (*map(layer, range(5)), layer(100))


# Estimates -------------------------------------------------------------------------------------


def offer(*tags: bytes, pace: int = 0, runner: str = "docker") -> Offer:
    return replace(any_offer(), layers=tags, pull_mib_per_s=pace, runner=runner)


def test_what_is_there_starts_at_once() -> None:
    there = offer(image_tag("python:3.12"))
    assert estimated_start_s(there, "docker.io/library/python:3.12") == images.READY_SECONDS
    assert estimated_start_s(there, "python") > images.READY_SECONDS
    assert images.is_there(there.layers, "python:3.12") and not images.is_there(there.layers, "python")


def test_a_runner_without_images_starts_at_once() -> None:
    assert estimated_start_s(offer(runner="process"), "any") == images.READY_SECONDS


def test_an_unknown_image_is_a_usual_one_fetched_at_the_provider_s_pace() -> None:
    assert estimated_start_s(offer(), "any") == 5 + 308  # 3,072 MiB at 10 MiB/s
    assert estimated_start_s(offer(pace=100), "any") == 5 + 31


def test_a_known_image_counts_what_is_lacking() -> None:
    known = image("mine", 1, 2, 3, 4, mib=5_000)  # 2,000 MiB on the way
    assert estimated_start_s(offer(pace=10), "mine", known) == 5 + 200
    assert estimated_start_s(offer(layer(1), layer(2), pace=10), "mine", known) == 5 + 100
    assert estimated_start_s(offer(*map(layer, (1, 2, 3, 4)), pace=10), "mine", known) == 5


def test_a_layer_above_a_gap_does_not_help() -> None:
    known = image("mine", 1, 2, 3, 4, mib=5_000)
    assert estimated_start_s(offer(*map(layer, (2, 3, 4)), pace=10), "mine", known) == 5 + 200


def test_an_image_without_layers_is_fetched_whole() -> None:
    assert estimated_start_s(offer(pace=10), "mine", LocalImage(("mine",), (), 500)) == 5 + 20
