"""The control API's verb `compare`: a job file beside the job of that name that goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from protocol import jobspec, messages
from protocol.control_compare import CompareArgs, CompareView, FieldChange
from protocol.errors import MessageInvalid
from protocol.jobspec import Job
from protocol.lease_state import ACTIVE, Lease, Phase, Role
from protocol.messages import MAX_ORDER_BYTES, JobOrder, Terms, Wish
from protocol.ports import Port
from qubixd.lease_desk import Emit, shown
from qubixd.node import Node

GOES_ON: Final = ACTIVE - {Phase.STOPPING, Phase.SETTLING}


async def compare(node: Node, args: CompareArgs, emit: Emit) -> CompareView:
    job = jobspec.parse(args.job_yaml)
    if not Path(args.base_dir).is_absolute() or "\0" in args.base_dir:
        raise MessageInvalid("base_dir must be an absolute path")
    ours = [one for one in await node.all_leases() if one.role is Role.CALLER and one.name == job.name]
    going_on = sorted((one for one in ours if one.phase in GOES_ON), key=_begin, reverse=True)
    if not going_on:
        return CompareView([], [])
    wanted = await _order_of(node, job, Path(args.base_dir))
    changes = await node.files.in_thread(lambda: list(_changes(node, going_on[0], job, wanted)))
    return CompareView([shown(node, one) for one in going_on], changes)


def _begin(lease: Lease) -> int:
    return lease.opened_at


async def _order_of(node: Node, job: Job, folder: Path) -> JobOrder:
    """What would be ordered now; its input files are packed for their digest."""
    submission = await node.files.submit(job, folder, {})
    try:
        order: JobOrder = messages.decode(submission.order, MAX_ORDER_BYTES)
        return order
    finally:
        await node.files.discard(submission)


def _changes(node: Node, lease: Lease, job: Job, wanted: JobOrder) -> Iterator[FieldChange]:
    kept = node.files.order(lease.lease_id)
    before = order_words(kept) | terms_words(lease.terms)
    after = order_words(wanted) | job_words(job)
    before["ports"] = _ports(node.files.access(lease.lease_id, node.parts.key).ports)
    after["ports"] = _ports(job.ports)
    for field in after:
        if before[field] != after[field]:
            yield FieldChange(field, before[field], after[field])


def order_words(order: JobOrder) -> dict[str, str]:
    """Field of the job file -> what an order says of it, for people."""
    return {
        "resources.image": order.image,
        "run": order.script,
        "envs": "\n".join(f"{name}={value}" for name, value in sorted(order.envs.items())),
        "file_mounts": f"{order.inputs_bytes} bytes, sha256 {order.inputs_sha256.hex()[:16]}",
        "outputs": ", ".join(order.outputs),
        "ready": order.ready,
        "restart": f"{order.restart}, {order.restarts} times" if order.restarts else order.restart,
    }


def terms_words(terms: Terms) -> dict[str, str]:
    return _wish_words(terms.wish) | _limits(
        terms.max_seconds, terms.budget, terms.ready_seconds, terms.idle_seconds
    )


def job_words(job: Job) -> dict[str, str]:
    return _wish_words(job.wish) | _limits(
        job.max_seconds, job.budget, job.life.ready_seconds, job.life.idle_seconds
    )


def _wish_words(wish: Wish) -> dict[str, str]:
    gpu = f"{wish.gpu_model or 'any'}:{wish.gpu_vram_mib}MB:{wish.gpu_count}" if wish.gpu_count else ""
    return {
        "resources.gpu": gpu,
        "resources.cpus": f"{wish.cpu_millis / 1_000:g}",
        "resources.memory": f"{wish.memory_mib}MB",
        "resources.disk": f"{wish.disk_mib}MB",
        "resources.internet": "true" if wish.internet else "false",
    }


def _limits(max_seconds: int, budget: int, ready_seconds: int, idle_seconds: int) -> dict[str, str]:
    return {
        "max_hours": f"{max_seconds / 3_600:g}",
        "budget": f"{budget} QU" if budget else "",
        "ready_within": f"{ready_seconds}s",
        "idle_stop": f"{idle_seconds}s" if idle_seconds else "",
    }


def _ports(ports: tuple[Port, ...]) -> str:
    return ", ".join(f"{one.name} {one.port}/{one.protocol} {one.kind} {one.path}".strip() for one in ports)
