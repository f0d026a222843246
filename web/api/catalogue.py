"""/v1/catalogue and /v1/use-cases: what is known of GPUs and of what they are rented for."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Path, Query, Request, Response

from protocol.catalogue import GPUS, MARKETS, USE_CASES, use_case
from protocol.errors import NotFound, UsageError
from web.api import shapes
from web.api.answers import (
    CHECK,
    AskedAnswers,
    FilterText,
    described,
    filter_of,
    plain,
)
from web.api.views import gpu_of, offer_of, use_of
from web.asked import Asked

router = APIRouter(tags=["Use cases"])

STANDARD_DISK_GIB: Final = 10
"""As everywhere where nobody says how much is needed."""
CATALOGUE: Final = shapes.Catalogue(list(MARKETS), [gpu_of(one) for one in GPUS.values()])
USES: Final = shapes.UseCases([use_of(one) for one in USE_CASES.values()])


@router.get("/catalogue", **described(shapes.Catalogue, "Known GPUs"))
async def catalogue() -> Response:
    """Their figures with the source of each, and suggested prices."""
    return plain(CATALOGUE)


@router.get("/use-cases", **described(shapes.UseCases, "What machines are rented for"))
async def use_cases() -> Response:
    """With what each needs, and how much of its speed hangs on what."""
    return plain(USES)


@router.get(
    "/use-cases/{name}/recommendation",
    **described(shapes.Recommendation, "The best offers for a use", missing=True),
)
async def recommendation(
    request: Request,
    store: Asked,
    answers: AskedAnswers,
    name: Annotated[
        str, Path(max_length=100, description="Its name or one of its words.", examples=["llama-3-8b"])
    ],
    filter: FilterText = "",
    limit: Annotated[int, Query(ge=1, le=50, description="At most.")] = 10,
    disk: Annotated[int, Query(ge=1, le=100_000, description="GiB that are rented.")] = STANDARD_DISK_GIB,
) -> Response:
    """Most speed for a QU first, all in, with the reasons: the order of `qubix market --for`. It may be ten
    seconds old."""
    where = filter_of(filter)
    try:
        use = use_case(name)
    except UsageError as error:
        raise NotFound(str(error)) from error

    async def make() -> shapes.Recommendation:
        best = await store.recommend(use, where, limit, disk * 1_024)
        found = [
            shapes.Recommended(
                offer_of(one.offer), one.gpus, one.ranked.candidate.qu_per_hour,
                one.ranked.speed, one.ranked.reasons, one.ranked.above_next,
            )
            for one in best.found
        ]  # fmt: skip
        return shapes.Recommendation(use_of(use), found, best.total, CHECK)

    return await answers.give_lately(request, make)
