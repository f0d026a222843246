"""/start: from what somebody wants to do to the command that hires a machine for it, in four steps.

Every step is a page with an address of its own, which says all that was chosen before; forms use GET.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response

from protocol.catalogue import USE_CASES
from protocol.errors import NotFound
from protocol.query import SortKey
from protocol.templates import TEMPLATES, Template
from web.asked import Asked
from web.pages.render import page
from web.plan import NO_GPU, OWN, USUAL_COMMAND, Plan, connections, plan_of
from web.store import Store
from web.suit import CARD_MODELS, Advice, advise, room, suited
from web.views import RegionView

router = APIRouter()

SHOWN: Final = 6
CHEAPEST: Final = 3
MAX_REGIONS: Final = 30
BY_PRICE: Final = (SortKey("price"),)


@router.get("/start")
async def start(request: Request, store: Asked) -> Response:
    plan = plan_of(request.query_params)
    if plan is None:
        groups: dict[str, list[object]] = {}
        for use in USE_CASES.values():
            groups.setdefault(use.group_title, []).append(use)
        return page(request, "start.html", step=1, plan=None, groups=groups)
    steps = {2: _which_gpu, 3: _how, 4: _command}
    return await steps[plan.step](request, store, plan)


@router.get("/start/job.yaml")
async def job_file(request: Request) -> Response:
    """The job file of a plan, to be saved."""
    plan = plan_of(request.query_params)
    if plan is None or plan.step != 4:
        raise NotFound("there is no job file before all steps are done; begin at /start")
    headers = {"content-disposition": 'attachment; filename="job.yaml"'}
    return Response(plan.job_file(), headers=headers, media_type="application/yaml")


async def _which_gpu(request: Request, store: Store, plan: Plan) -> Response:
    use = plan.use
    found = await advise(store, use, plan.machine) if use.min_vram_gib else []
    without = (
        None if use.min_vram_gib else await store.offers(room(plan.machine), BY_PRICE, limit=1, count=True)
    )
    shown = found if "all" in request.query_params else _shown(found)
    by_speed = sorted((suited(model, use) for model in CARD_MODELS.values()), key=lambda one: -one.speed)
    return page(
        request,
        "start_gpu.html",
        step=2,
        plan=plan,
        found=shown,
        more=len(found) - len(shown),
        marks=_marks(found),
        cheapest=min(found, key=lambda one: one.qu_per_hour, default=None),
        without=without,
        no_gpu=NO_GPU,
        would_fit=[one for one in by_speed if one.cards and not one.model.listed_only][:SHOWN],
    )


def _shown(found: list[Advice]) -> list[Advice]:
    """The best, and among them those that are the best in one thing."""
    marks = _marks(found)
    marked = [one for one in found if marks[one.suited.key]]
    others = [one for one in found if one not in marked]
    return sorted(marked + others[: SHOWN - len(marked)], key=found.index)


def _marks(found: list[Advice]) -> dict[str, list[str]]:
    """What is said of a model at a glance, by its key."""
    if not found:
        return {}
    best = {
        "value": found[0],
        "fast": max(found, key=lambda one: one.suited.speed),
        "cheap": min(found, key=lambda one: one.qu_per_hour),
    }
    return {one.suited.key: [name for name, best_of in best.items() if best_of is one] for one in found}


async def _how(request: Request, store: Store, plan: Plan) -> Response:
    cheapest = await store.offers(plan.where, BY_PRICE, limit=1, count=True)
    regions = await _regions(store, plan)
    return page(
        request,
        "start_how.html",
        step=3,
        plan=plan,
        templates=[TEMPLATES[name] for name in connections(plan.use)],
        own=OWN,
        usual_command=USUAL_COMMAND[bool(plan.chosen)],
        regions=regions,
        places=await store.places([one.region for one in regions]),
        offers=cheapest,
        said=dict(request.query_params),
    )


async def _regions(store: Store, plan: Plan) -> list[RegionView]:
    key = plan.chosen.key if plan.chosen else ""
    return [one for one in await store.regions(room(plan.machine, plan.cards, key)) if one.region][
        :MAX_REGIONS
    ]


async def _command(request: Request, store: Store, plan: Plan) -> Response:
    return page(
        request,
        "start_run.html",
        step=4,
        plan=plan,
        command_line=plan.command(),
        job_yaml=plan.job_file(),
        job_address="/start/job.yaml?" + urlencode(plan.address()),
        back="/start?" + urlencode(plan.address() | {"connect": ""}),
        offers=await store.offers(plan.where, BY_PRICE, limit=CHEAPEST, count=True),
        then=_then(plan.template),
    )


def _then(template: Template | None) -> str:
    """How one gets to what a template serves: the verb of qubix."""
    kinds = [port.kind for port in template.ports] if template else []
    if "game" in kinds:
        return "forward"
    if kinds and kinds[0] in ("http", "https"):
        return "open"
    return "ssh" if "ssh" in kinds else ""
