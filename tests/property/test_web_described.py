"""The public API against its own description: schemathesis makes requests that fit it and requests that do
not, and holds every answer against what was promised.

/v1/events never ends, so it is played by tests/unit/test_web_live.py.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.python import asgi

from protocol.query import FIELDS, Field
from tests.support.web_mirror import filled
from web.api.openapi import describe
from web.app import create_app
from web.settings import Settings

OFFERS = 60
ENDLESS = "/v1/events"
BOUNDED = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)

logging.getLogger("hypothesis").setLevel(logging.ERROR)


def conditions(field: Field) -> st.SearchStrategy[str]:
    if field.units is None:
        return st.sampled_from((field.example, field.example.replace("=", "!=")))
    operators = st.sampled_from((">=", "<=", "<", ">", "=", "!="))
    units = st.sampled_from(("", *field.units))
    numbers = st.integers(0, 10**9)
    return st.builds(lambda op, number, unit: f"{field.name}{op}{number}{unit}", operators, numbers, units)


NAMED = [one for one in FIELDS.values() if one.name != "provider"]  # its example is cut
SORTED = [f"{sign}{one.name}" for one in FIELDS.values() if one.units is not None for sign in ("", "-")]
FILTERS = st.lists(st.sampled_from(NAMED).flatmap(conditions), max_size=4).map(" and ".join)

schemathesis.openapi.format("market-filter", FILTERS)
schemathesis.openapi.format("market-sort", st.lists(st.sampled_from(SORTED), max_size=4).map(",".join))
schemathesis.openapi.format("market-cursor", st.just(""))


PATHS = [path for path in describe(create_app(Settings(mirror="/nowhere")))["paths"] if path != ENDLESS]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    path = filled(tmp_path_factory.mktemp("described") / "mirror.db", OFFERS)
    app = create_app(Settings(mirror=str(path), requests_per_minute=10**6))
    yield schemathesis.openapi.from_asgi("/v1/openapi.json", app)
    asgi.shutdown_lifespans()


@pytest.mark.parametrize("fits", [True, False], ids=["fitting", "not fitting"])
@pytest.mark.parametrize("path", PATHS)
def test_every_answer_is_as_described(api: Any, path: str, fits: bool) -> None:
    operation = api[path]["GET"]
    mode = GenerationMode.POSITIVE if fits else GenerationMode.NEGATIVE

    @BOUNDED
    @given(operation.as_strategy(generation_mode=mode))
    def play(case: Any) -> None:
        case.call_and_validate()

    if fits or operation.path_parameters or operation.query:
        play()


def test_what_is_known_is_as_described(api: Any) -> None:
    """Names that chance does not hit."""
    told = api["/v1/settlements"]["GET"].Case().call_and_validate().json()["settlements"]
    sold = {one["provider"] for one in told}
    peers = [one["peer_id"] for one in api["/v1/offers"]["GET"].Case().call_and_validate().json()["offers"]]
    with_leases = next(peer for peer in peers if peer in sold)
    names = {"peer_id": with_leases, "gpu": "RTX 4090", "name": "llama-8b"}
    asked = 0
    for path in PATHS:
        parameters = {name: value for name, value in names.items() if f"{{{name}}}" in path}
        if parameters:
            assert api[path]["GET"].Case(path_parameters=parameters).call_and_validate().status_code == 200
            asked += 1
    assert asked == len([path for path in PATHS if "{" in path])
