"""From the mirror's rows to the answers of /v1. Pure."""

from __future__ import annotations

import msgspec

from protocol.catalogue import GpuModel
from protocol.catalogue import UseCase as KnownUse
from web.api import shapes
from web.identity import BYTES, identity_of, peer_id_of, transaction_hash
from web.views import HOUR_MS, Candle, ModelView, OfferView, RegionView, ScoreView, SettlementView, StatView


def offer_of(view: OfferView) -> shapes.Offer:
    return shapes.Offer(
        peer_id=view.peer_id,
        wallet=identity_of(view.provider_id) if len(view.provider_id) == BYTES else "",
        name=view.label,
        region=view.region_label,
        gpu=view.gpu_label,
        gpus=view.gpus,
        vram_gb=view.vram,
        price_qu_per_hour=view.price,
        storage_qu_per_tib_hour=view.storage,
        ram_gb=view.ram / 1_024,
        cpus=view.cpus / 1_000,
        disk_gb=view.disk / 1_024,
        cuda=view.cuda / 10,
        market=view.market,
        runner=view.runner,
        runtime=view.runtime,
        arch=view.arch,
        internet=view.internet == "yes",
        sequence=view.sequence,
        issued_ms=view.issued * 1_000,
        expires_ms=view.expires_ms,
        closes_ms=view.closes_ms or None,
        live=bool(view.live),
        most_gpus=view.most_gpus,
        first_seen_ms=view.first_seen_ms,
        seen_ms=view.seen_ms,
        score=_share(view.score),
        reliability=_share(view.reliability),
        signed=view.record,
    )


def _share(steps: int | None) -> float | None:
    return None if steps is None else steps / 1_000_000


def score_of(view: ScoreView) -> shapes.Score:
    return shapes.Score(
        score=view.score,
        performance=view.performance,
        reliability=view.reliability,
        efficiency=view.efficiency,
        confidence=view.confidence,
        newcomer=view.newcomer,
        reasons=list(view.reasons),
        evidence=msgspec.Raw(view.evidence.encode()),
        at_ms=view.at_ms,
    )


def candle_of(view: Candle) -> shapes.Candle:
    return shapes.Candle(
        view.start_ms, view.open, view.high, view.low, view.close, view.cheapest, view.offers, view.gpus
    )


def model_of(view: ModelView) -> shapes.Model:
    return shapes.Model(
        view.gpu, view.label, view.offers, view.gpus, view.most_gpus, view.cheapest, view.vram
    )


def region_of(view: RegionView) -> shapes.Region:
    return shapes.Region(view.region, view.offers, view.gpus, view.cheapest)


def hour_of(view: StatView) -> shapes.Hour:
    counted = (view.offers, view.providers, view.gpus, view.free_gpus, view.peers)
    return shapes.Hour(view.hour * HOUR_MS, *counted, view.settled_qu, view.leases)


def settlement_of(view: SettlementView) -> shapes.Settlement:
    return shapes.Settlement(
        lease_id=view.lease_id.hex(),
        provider=peer_id_of(view.provider),
        gpu=view.gpu,
        paid_qu=view.paid_qu,
        seconds=view.seconds,
        outcome=view.outcome,
        proof=view.proof,
        open_tick=view.open_tick,
        close_tick=view.close_tick or None,
        transaction=transaction_hash(view.transaction) or None,
        ended_ms=view.ended_ms,
    )


def gpu_of(model: GpuModel) -> shapes.Gpu:
    return shapes.Gpu(
        name=model.name,
        title=model.title,
        market=model.market,
        vram_gb=model.vram_gib,
        bandwidth_gb_s=model.bandwidth_gb_s,
        tflops=dict(model.tflops),
        credits_per_hour=model.credits_per_hour,
        sources=dict(model.sources),
        note=model.note,
    )


def use_of(use: KnownUse) -> shapes.UseCase:
    return shapes.UseCase(
        name=use.name,
        title=use.title,
        words=list(use.words),
        group=use.group_title,
        min_vram_gb=use.min_vram_gib,
        recommended_vram_gb=use.recommended_vram_gib,
        splits=use.splits,
        weights=dict(use.weights),
        connection=use.connection,
        why=use.why,
        source=use.source,
    )
