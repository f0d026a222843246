"""What `qubix why` says: reasons in groups, and the least change in the words of a job file."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest

from protocol.control_market import MAX_REASONS, ReasonGroup, WhyView
from protocol.errors import CapacityTaken, PeerRefused, PeerUnreachable, QubixError
from protocol.jobspec import parse
from protocol.query import parse_filter
from protocol.signing import NodeKey
from protocol.units import PeerKey, Qu, UnixMs
from qubixd.demand import Barred, Demand, Seen, fits, is_named
from qubixd.hiring import demand_of
from qubixd.why import explain
from qubixd.wire_libp2p import peer_id_of
from tests.support.market_values import card, entry

JOB = "name: j\nresources: {{image: a, gpu: '{gpu}', cpus: 4, memory: 8GB, disk: 10GB}}\nrun: x\n{extra}"
A100 = "NVIDIA A100-SXM4-40GB"


def wanted(gpu: str = "RTX4090:24GB:1", extra: str = "max_price: 12000", **changes: object) -> Demand:
    made = demand_of(parse(JOB.format(gpu=gpu, extra=extra)), None, "")
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]  # fields of a Demand


def key(number: int) -> NodeKey:
    return NodeKey(hashlib.sha256(str(number).encode()).digest())


def seen(number: int, barred: Barred | None = None, values: object = None, **changes: object) -> Seen:
    usual: dict[str, object] = {"name": f"p{number}", "gpus": (card(number=number),)}
    return Seen(entry(key(number), **(usual | changes)), values or {}, barred)  # type: ignore[arg-type]  # of entry


def why(demand: Demand, *some: Seen, answers: dict[PeerKey, QubixError | None] | None = None) -> WhyView:
    return explain("j", demand, some, answers or {}, UnixMs(7))


def group(view: WhyView, code: str) -> ReasonGroup:
    return next(one for one in view.groups if one.code == code)


def test_the_price_to_raise_it_to_and_how_many_it_would_bring() -> None:
    some = [seen(n, price=price) for n, price in enumerate((12_500, 12_600, 12_700, 12_800, 90_000))]
    view = why(wanted(), *some)
    assert (view.job, view.at_ms, view.known, view.fitting) == ("j", 7, 5, 0)
    assert [(g.code, g.title, g.count) for g in view.groups] == [("price", "price above your limit", 5)]
    assert view.groups[0].providers[0].sentence == "12,500 QU per hour all in"
    assert [(c.sentence, c.providers, c.fields) for c in view.changes] == [
        ("raise max_price to 12,500", 1, {"max_price": "12500"}),
        ("raise max_price to 12,700", 3, {"max_price": "12700"}),
    ]


def test_the_least_change_comes_first_whatever_it_is_of() -> None:
    view = why(wanted("RTX4090:40GB:1"), seen(1), seen(2), seen(3, price=15_000), seen(4, gpus=()))
    assert [(c.sentence, c.providers) for c in view.changes] == [
        ("24 GB of GPU memory instead of 40 GB", 2),
        ("24 GB of GPU memory instead of 40 GB, and raise max_price to 15,000", 3),
    ]
    assert view.changes[0].fields == {"gpu": "RTX4090:24GB:1"}
    assert [(g.code, g.count) for g in view.groups] == [("gpu_vram", 3), ("price", 1), ("gpu_none", 1)]


REASONS = {
    "gpu_none": (seen(1, gpus=()), "a machine without GPU"),
    "gpu_busy": (seen(1, gpus=(), gpu_class="RTX_4090"), "all its RTX_4090 cards are rented"),
    "gpu_model": (seen(1, gpus=(card(A100),)), A100),
    "gpu_vram": (seen(1, gpus=(card(vram_mib=12_282),)), "12 GB"),
    "gpu_count": (seen(1), "1 free"),
    "cpus": (seen(1, sizes=(2_500, 32_768, 102_400)), "2.5 CPUs free"),
    "memory": (seen(1, sizes=(8_000, 4_000, 102_400)), "4,000 MB of memory free"),
    "disk": (seen(1, sizes=(8_000, 32_768, 1_024)), "1 GB of disk free"),
    "price": (seen(1, price=12_001), "12,001 QU per hour all in"),
    "filter.score": (seen(1, values={"score": 0.25}), "score is 0.25, asked for score>=0.5"),
    "filter.rtt": (seen(1, values={"score": 0.9}), "rtt is not known, asked for rtt<=50"),
    "denied": (seen(1, Barred("denied", "you have denied it")), "you have denied it"),
    "backed_off": (seen(1, Barred("backed_off", "it failed", 90)), "it failed"),
}


@pytest.mark.parametrize("code", REASONS)
def test_every_reason_has_a_group_and_a_sentence(code: str) -> None:
    one, sentence = REASONS[code]
    demand = wanted("RTX4090:24GB:2" if code == "gpu_count" else "RTX4090:24GB:1")
    if code.startswith("filter."):
        demand = dataclasses.replace(demand, conditions=parse_filter("score>=0.5 rtt<=50").conditions)
    found = group(why(demand, one), code)
    assert found.count == 1 and found.providers[0].sentence == sentence
    assert found.providers[0].peer_id == peer_id_of(one.entry.provider)


def test_what_a_condition_looked_at_is_said_as_people_write_it() -> None:
    one = seen(1, values={"rtt": 61.4321, "region": "euwest"}, region="eu-west")
    conditions = parse_filter("rtt<=50 region=us").conditions
    found = why(dataclasses.replace(wanted(), conditions=conditions), one)
    said = {entry.code: entry.providers[0].sentence for entry in found.groups}
    assert said["filter.rtt"] == "rtt is 61.43 ms, asked for rtt<=50"
    assert said["filter.region"] == "region is eu-west, asked for region=us"


def test_what_an_image_needs_is_no_matter_of_less() -> None:
    """Offers that say nothing of their processor are asked; a driver without CUDA is none."""
    demand = wanted()
    wish = dataclasses.replace(demand.wish, arch="arm64", cuda=12_040)
    machines = (("amd64", 12_040), ("arm64", 12_020), ("", 12_060), ("", 0))
    some = [seen(number, arch=arch, cuda=cuda) for number, (arch, cuda) in enumerate(machines)]
    view = why(dataclasses.replace(demand, wish=wish), *some)
    said = {found.code: [each.sentence for each in found.providers] for found in view.groups}
    assert said.pop("arch") == ["its processor is amd64, the image is for arm64"]
    assert sorted(said.pop("cuda")) == [
        "its driver supports CUDA 12.2, the image needs CUDA 12.4",
        "its driver supports no CUDA, the image needs CUDA 12.4",
    ]
    assert set(said) == {"fits"} and view.fitting == 1 and not view.changes


def test_fewer_cards_are_counted_in_words() -> None:
    view = why(wanted("RTX4090:24GB:2"), seen(1))
    assert view.changes[0].sentence == "1 GPU instead of 2"


def test_a_card_of_24_gb_fits_although_its_driver_reports_less() -> None:
    assert fits(seen(1, gpus=(card(vram_mib=24_564),)), wanted("RTX4090:24GB:1"))
    assert not fits(seen(1, gpus=(card(vram_mib=20_470),)), wanted("RTX4090:24GB:1"))


def test_what_else_may_be_changed_is_said_in_words() -> None:
    demand = dataclasses.replace(
        wanted("RTX4090:24GB:2"), conditions=parse_filter("score>=0.5 region=eu").conditions, provider="zoe"
    )
    barred = Barred("backed_off", "it failed", 90)
    one = seen(1, barred, values={"score": 0.25, "region": "us"}, sizes=(2_500, 32_768, 102_400))
    (change,) = why(demand, one).changes
    assert change.fields == {
        "gpu": "RTX4090:24GB:1",
        "cpus": "2.5",
        "score>=0.5": "score>=0.25",
        "region=eu": "",
        "provider": "",
        "wait": "90",
    }
    assert "2.5 CPUs instead of 4" in change.sentence and "leave out region=eu" in change.sentence
    assert "score>=0.25 instead of score>=0.5" in change.sentence and "wait 90 s" in change.sentence


def test_a_relaxed_condition_can_be_written_into_a_job_file() -> None:
    demand = dataclasses.replace(wanted(), conditions=parse_filter("score>=0.5 rtt<=50 cpus>=9").conditions)
    one = seen(1, values={"score": 2.3e-06, "rtt": 61.238, "cpus": 8})
    (change,) = why(demand, one).changes
    assert list(change.fields.values()) == ["score>=0", "rtt<=61.24", "cpus>=8"]
    again = dataclasses.replace(demand, conditions=parse_filter(" ".join(change.fields.values())).conditions)
    assert fits(one, again)


@pytest.mark.parametrize("gpu", ["RTX4090:40GB:2", "A100:2", "40GB:1", "8"])
def test_the_suggested_gpu_is_what_a_job_file_takes(gpu: str) -> None:
    some = [seen(1, gpus=(card(number=1), card(number=2, vram_mib=12_000)))]
    demand = wanted(gpu if not gpu.startswith("40GB") else f"RTX:{gpu}")
    (change,) = why(demand, *some).changes
    again = wanted(change.fields["gpu"])
    assert fits(some[0], again) and again.wish.gpu_count <= demand.wish.gpu_count


def test_answers_to_real_questions_are_groups_too() -> None:
    some = [seen(number) for number in range(4)]
    who = [one.entry.provider for one in some]
    answers: dict[PeerKey, QubixError | None] = {
        who[0]: PeerRefused(CapacityTaken.code, "somebody else took that capacity first"),
        who[1]: PeerUnreachable("it did not answer"),
        who[2]: None,
    }
    view = why(wanted(), *some, answers=answers)
    assert (view.asked, view.agreed, view.fitting) == (3, 1, 4)
    assert group(view, CapacityTaken.code).providers[0].sentence == "somebody else took that capacity first"
    assert group(view, PeerUnreachable.code).title == "could not be reached"
    assert group(view, "fits").count == 2 and view.changes == []


def test_many_are_counted_and_the_nearest_told_by_name() -> None:
    some = [seen(number, price=20_000 + number) for number in range(MAX_REASONS + 10)]
    found = group(why(wanted(), *reversed(some)), "price")
    assert found.count == MAX_REASONS + 10
    assert [one.name for one in found.providers] == [f"p{number}" for number in range(MAX_REASONS)]


def test_a_provider_is_named_by_the_ends_of_its_peer_id() -> None:
    one = seen(1).entry
    peer_id = peer_id_of(one.provider)
    for said in ("", "p", "p1", peer_id, peer_id[:20], peer_id[-8:], f"…{peer_id[-8:]}"):
        assert is_named(one, said)
    for said in ("p12", peer_id[-5:], "zoe", Qu.__name__):
        assert not is_named(one, said)
