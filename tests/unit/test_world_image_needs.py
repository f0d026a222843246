"""An image that does not run on the provider's machine costs nobody anything: refused before the quote where
it is known, failed with its code where it shows after the pull; and no failed lease leaves files behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio.testing

from protocol.errors import NoOffer, PeerRefused, StartFailed
from protocol.image_needs import Need
from protocol.images import LocalImage
from protocol.jobspec import parse
from protocol.lease_state import Phase
from protocol.units import UnixMs
from qubixd.runner import Progress, RunSpec
from tests.support.rental import Rental, rental
from tests.support.world_jobs import Engine, job

Clock = trio.testing.MockClock
FOREIGN = LocalImage(("test:1",), (), 10, Need("arm64"))


def with_images(engine: Engine) -> None:
    """The world's engine says that it runs plain processes, which have no images."""
    engine.name = "docker"


async def test_an_image_known_to_be_for_others_is_not_quoted(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        with_images(one.alice.engine)
        one.alice.engine.images["test:1"] = FOREIGN
        with pytest.raises(PeerRefused, match="for arm64 processors and this machine has amd64") as refused:
            await one.rent()
        assert refused.value.refusal_code == "image.wrong_architecture"
        one.check_nothing_sent()
        assert not list(one.alice.up.leases.active())


async def test_an_image_that_is_built_where_it_is_used_must_be_there(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    text = job().replace("'test:1'", "localhost/qubix/base:1-cpu")
    async with rental(tmp_path) as one:
        with_images(one.alice.engine)
        with pytest.raises(PeerRefused, match="is not built here") as refused:
            await one.rent(text)
        assert refused.value.refusal_code == "image.not_here"
        one.check_nothing_sent()


async def test_what_the_job_file_says_keeps_other_machines_away(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with rental(tmp_path) as one:
        with pytest.raises(NoOffer, match="another processor than the image is for"):
            await one.rent(job().replace("cpus: 1", "cpus: 1, arch: arm64"))
        one.check_nothing_sent()


async def test_a_caller_s_own_engine_knows_what_cuda_an_image_needs(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    """Not what processor: the same name may be there for another."""

    async def image_here(name: str) -> LocalImage | None:
        return LocalImage((name,), (), 10, Need("arm64", 12_040)) if name == "test:1" else None

    async with rental(tmp_path) as one:
        hiring = one.bob.up.hiring
        hiring = replace(hiring, chooser=replace(hiring.chooser, image_here=image_here))
        for text, cuda in ((job(), 0), (job().replace("cpus: 1", "gpu: 1"), 12_040)):
            wish = (await hiring._with_need(parse(text))).wish
            assert (wish.arch, wish.cuda) == ("", cuda)
        newer = job().replace("cpus: 1", "gpu: 1, cuda: 12.6")
        assert (await hiring._with_need(parse(newer))).wish.cuda == 12_060
        other = job().replace("cpus: 1", "gpu: 1").replace("test:1", "other:1")
        assert (await hiring._with_need(parse(other))).wish.cuda == 0


# Nothing is left behind -------------------------------------------------------------------------


def comes_for_others(engine: Engine) -> None:
    pull = engine.pull

    async def brings(image: str, progress: Progress) -> str:
        with_images(engine)
        return await pull(image, progress)

    engine.pull = brings  # type: ignore[method-assign]  # of this one engine
    engine.arriving["test:1"] = FOREIGN


def does_not_come(engine: Engine) -> None:
    engine.missing_images.add("test:1")


def does_not_start(engine: Engine) -> None:
    async def start(spec: RunSpec) -> UnixMs:
        assert spec.workspace.is_dir()
        raise StartFailed("the image test:1 has no /bin/sh, which runs a job's script")

    engine.start = start  # type: ignore[method-assign]  # of this one engine


WAYS: dict[Callable[[Engine], None], tuple[str, str]] = {
    comes_for_others: ("image.wrong_architecture", "for arm64 processors"),
    does_not_come: ("runner.image_unavailable", "there is no image"),
    does_not_start: ("runner.start_failed", "no /bin/sh"),
}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_a_job_that_cannot_begin_costs_nothing_and_leaves_nothing(
    way: Callable[[Engine], None], tmp_path: Path, autojump_clock: Clock
) -> None:
    code, words = WAYS[way]
    async with rental(tmp_path) as one:
        way(one.alice.engine)
        (tmp_path / "secret.txt").write_text("input")
        await one.rent(job(extra="file_mounts: {input.txt: secret.txt}"))
        served, paid = await one.ended()
        for lease in (served, paid):
            assert (lease.phase, lease.reason, lease.seconds) == (Phase.FAILED, code, 0)
            assert words in lease.sentence
        one.check_books(served, paid)
        assert paid.paid == 0 and paid.refunded == paid.terms.deposit
        assert left_of(one) == []
        assert not one.alice.engine.jobs


def left_of(one: Rental) -> list[str]:
    """Of the caller's files on the provider's disk."""
    folder = one.alice.up.files.folder(one.lease_id)
    private = ("workspace", "inputs.tar", "secrets")
    return [name for name in private if (folder / name).exists()]
