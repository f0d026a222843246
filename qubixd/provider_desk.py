"""The control API's verb `provider`: earnings, shop, machine and jobs of this machine as it is now."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import psutil
import trio

from protocol import catalogue
from protocol.control_provider import (
    GpuView,
    HindranceView,
    JobView,
    MachineView,
    ProviderArgs,
    ProviderView,
    RunnerView,
    ShareView,
    ShopView,
)
from protocol.errors import ChainDisagrees, ChainUnreachable, ConfigInvalid
from protocol.lease_state import TERMINAL, Lease
from protocol.messages import Capacity
from protocol.score import Score
from protocol.units import net_of
from qubixd import schedule_desk
from qubixd.earnings import owed
from qubixd.hardware import Gpu, cpu
from qubixd.health import Health
from qubixd.machine import digest_of
from qubixd.node import Node
from qubixd.runner.docker import DockerRunner
from qubixd.shop import set_open
from qubixd.views import cuda_words, holds_capacity, words_of
from qubixd.wire_libp2p import peer_id_of

Emit = Callable[[object], Awaitable[None]]
MIB: Final = 1 << 20
FRESH_SECONDS: Final = 10.0
"""A sample that is older says nothing of now."""
LOOK_SECONDS: Final = 0.1
"""The processor's use is that of so long."""
ANSWER_SECONDS: Final = 2.0
"""The screen does not wait longer for the chain or for scores."""


def check_is_provider(node: Node) -> None:
    """ConfigInvalid unless this node offers its machine."""
    if not node.config.provider:
        raise ConfigInvalid("this daemon offers nothing; start it with `qubix up --provider`")


async def provider(node: Node, args: ProviderArgs, emit: Emit) -> ProviderView:
    check_is_provider(node)
    if args.pause is not None:
        await set_open(node.parts.store, node.shop, not args.pause)
        await node.offers.publish()
    parts, now = node.parts, node.parts.now_ms()
    active = node.leases.active()
    score = await _score(node)
    return ProviderView(
        at_ms=now,
        peer_id=peer_id_of(parts.key.public),
        identity=parts.wallet.identity,
        balance=await _balance(node),
        network=node.config.network,
        addresses=list(parts.wire.addresses),
        shop=_shop(node),
        earnings=node.provider.earnings.view(active, now),
        machine=await trio.to_thread.run_sync(_machine, node, node.provider.house().free),
        runner=await trio.to_thread.run_sync(_runner, node),
        jobs=[_job(node, lease) for lease in active if holds_capacity(lease)],
        ended=[_job(node, lease) for lease in node.provider.earnings.ended()],
        score=score.g if score else None,
        confidence=score.confidence if score else 0.0,
        newcomer=score is None or score.confidence == 0,
    )


async def _balance(node: Node) -> int | None:
    with trio.move_on_after(ANSWER_SECONDS), suppress(ChainUnreachable, ChainDisagrees):
        return (await node.parts.chain.balance(node.parts.wallet.public_key)).amount
    return None


async def _score(node: Node) -> Score | None:
    own = node.parts.key.public
    with trio.move_on_after(ANSWER_SECONDS):
        await node.receipts.scores([own])
    return node.receipts.cached(own)


def _shop(node: Node) -> ShopView:
    hindrances = node.provider.hindrances()
    config, market, now = node.config, node.parts.machine.gpu_class, node.parts.now_ms()
    low, high = catalogue.suggested_range(market, config.qu_per_credit)
    return ShopView(
        open=not any(one.closes for one in hindrances),
        paused=not node.shop.open_for_business,
        hindrances=[HindranceView(one.code, one.sentence, one.closes) for one in hindrances],
        name=config.name,
        region=config.region,
        gpu_class=market,
        price_qu_per_hour=node.shop.hours(now).price,
        usual_price_qu_per_hour=node.shop.price_qu_per_hour,
        schedule=schedule_desk.view(node.shop.schedule, node.shop.price_qu_per_hour, now),
        storage_qu_per_tib_hour=config.storage_price,
        suggested_low_qu_per_hour=low,
        suggested_high_qu_per_hour=high,
    )


def _runner(node: Node) -> RunnerView:
    """Reads a file at the first time: for a thread."""
    says = node.provider.engine_says
    runner = node.parts.runner
    images = runner.brought_images() if isinstance(runner, DockerRunner) else []
    return RunnerView(
        runner=runner.name if runner else "",
        answers=not says,
        sentence=says,
        internet=node.parts.internet,
        images=len(images),
        images_mib=sum(one.size for one in images) // MIB,
    )


def _machine(node: Node, free: Capacity) -> MachineView:
    """Asks the system: for a thread."""
    offered = node.parts.machine.capacity
    memory, disk = psutil.virtual_memory(), shutil.disk_usage(node.config.root)
    cpus = psutil.cpu_count() or 1
    used = round(psutil.cpu_percent(LOOK_SECONDS) * cpus * 10)
    return MachineView(
        cpu_model=cpu.model(),
        arch=cpu.arch(),
        cpu_millis=_share(cpus * 1_000, offered.cpu_millis, free.cpu_millis, used),
        memory_mib=_share(
            memory.total // MIB,
            offered.memory_mib,
            free.memory_mib,
            (memory.total - memory.available) // MIB,
        ),
        disk_mib=_share(disk.total // MIB, offered.disk_mib, free.disk_mib, disk.used // MIB),
        gpus=_gpus(node),
    )


def _share(total: int, offered: int, free: int, used: int) -> ShareView:
    return ShareView(total=total, offered=offered, taken=max(0, offered - free), used=used)


def _gpus(node: Node) -> list[GpuView]:
    holders = {
        digest: lease.lease_id.hex()
        for lease in node.leases.active()
        if holds_capacity(lease)
        for digest in lease.terms.gpu_digests
    }
    health = node.provider.cards.health if node.provider.cards else None
    return [gpu_view(card, health, holders.get(digest_of(card.uuid), "")) for card in node.parts.machine.gpus]


def gpu_view(card: Gpu, health: Health | None, lease_id: str) -> GpuView:
    sample = health.samples.get(card.uuid) if health else None
    wrong = health.unfit.get(card.uuid, ()) if health else ()
    use = sample.use_ratio if sample else None
    return GpuView(
        digest=digest_of(card.uuid).hex(),
        uuid=card.uuid,
        model=card.model,
        vram_mib=card.vram_bytes // MIB,
        driver=card.driver_version,
        cuda=cuda_words(card.cuda),
        pcie=_pcie(card),
        use_permille=None if use is None else round(use * 1_000),
        memory_used_mib=sample.memory_used // MIB if sample else None,
        temperature_c=sample.temperature_c if sample else None,
        power_mw=sample.power_mw if sample else None,
        health=wrong[0].code if wrong else "ok",
        sentence="; ".join(one.sentence for one in wrong),
        lease_id=lease_id,
    )


def _pcie(card: Gpu) -> str:
    link = f", gen {card.pcie.generation_most} x{card.pcie.width_most}" if card.pcie else ""
    return f"{card.pci_bus_id}{link}"


def _job(node: Node, lease: Lease) -> JobView:
    ended, wish = lease.phase in TERMINAL, lease.terms.wish
    sample = None if ended else node.metering.meters.latest(lease.lease_id, FRESH_SECONDS)
    uses = [one.use_permille for one in sample.gpus if one.use_permille is not None] if sample else []
    return JobView(
        lease_id=lease.lease_id.hex(),
        name=lease.name,
        phase=lease.phase,
        detail=lease.sentence if ended else words_of(lease),
        reason=lease.reason,
        caller=peer_id_of(lease.terms.caller),
        image=lease.terms.image,
        opened_at_ms=lease.opened_at,
        ended_at_ms=lease.ended_at,
        seconds=lease.seconds,
        price_qu_per_hour=lease.terms.price_qu_per_hour,
        received_qu=net_of(lease.paid) if lease.settled else 0,
        promised_qu=lease.promised,
        owed_qu=0 if lease.settled else owed(lease),
        gpus=[digest.hex() for digest in lease.terms.gpu_digests],
        cpu_millis=wish.cpu_millis,
        memory_mib=wish.memory_mib,
        cpu_use_millis=sample.cpu_millis if sample else None,
        memory_use_mib=sample.memory_mib if sample else None,
        gpu_use_permille=sum(uses) // len(uses) if uses else None,
        frozen=lease.frozen and not ended,
    )
