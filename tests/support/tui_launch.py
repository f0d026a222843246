"""Canned answers for the wizard, and a daemon that comes and goes while it asks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from textual.pilot import Pilot

from protocol import control
from protocol.control import ConfirmArgs, QuoteView, RunArgs, RunEvent
from protocol.control_access import AccessView, PortView
from protocol.control_market import MarketArgs, MarketView, OfferView
from protocol.errors import QubixError
from tests.support import tui_views, views
from tests.support.control_server import Reply, control_server
from tests.support.tui_pilot import canned, short_folder, until
from tui.app import QubixApp


def _offer(number: int, gpu_class: str, gpus: int, vram_gib: int, price: int, **more: Any) -> OfferView:
    why = ["1,008 GB/s of memory bandwidth decide here", "24 GB are enough for it"]
    return views.offer(
        peer_id=f"12D3KooWProvider{number}",
        name=f"provider-{number}",
        gpu_class=gpu_class,
        gpus=gpus,
        vram_mib=vram_gib * 1_024,
        all_in_qu_per_hour=price,
        **{"reasons": why, **more},
    )


OFFERS = [
    _offer(1, "RTX_4090", 1, 24, 1_200_000, rtt_ms=31.4),
    _offer(2, "RTX_4090", 2, 24, 1_250_000, score=None),
    _offer(3, "A100_80GB", 2, 80, 9_200_000),
    _offer(4, "CPU", 0, 0, 100_000, reasons=[]),
    _offer(5, "RTX_3080", 1, 10, 600_000, own=True),
    _offer(6, "RTX_3080", 1, 10, 600_000, withdrawn=True),
    _offer(7, "RTX_3080", 1, 10, 600_000, not_hired="denied"),
]
MARKET = MarketView(OFFERS, len(OFFERS), len(OFFERS), 4)
QUOTE = QuoteView("t0", "provider-1", 1_200_000, 7_200, 10, 2_400_000, 6_667, 2.0, 1_190_000, 10_000, 60_000)
ASKING = [
    RunEvent("packing", "packing the input files", None),
    RunEvent("quoting", "asking provider-1: 1,200,000 QU/h all in, image is there", None),
]
QUOTED = [*ASKING, RunEvent("quoted", "you can lose at most 6,667 QU", None, QUOTE)]
LEASE = views.lease(
    phase="funding",
    reason="",
    sentence="",
    name="llama-8b",
    gpu="1 x RTX_4090",
    price_qu_per_hour=1_200_000,
    deposit=2_400_000,
    max_loss_qu=6_667,
    promised=0,
    paid=0,
    refunded=0,
    exit_code=None,
    outputs_sha256="",
    detail="the deposit is being locked in the escrow",
    settled=False,
    ended_at_ms=0,
)
PORTS = [PortView("jupyter", 8_888, "tcp", "http", "/?token=secret")]
ACCESS = AccessView(LEASE.lease_id, "llama-8b", "running", PORTS, "", "")


def market(args: MarketArgs) -> MarketView:
    return MARKET


ANSWERS: dict[str, Any] = {"market": market, "why": views.WHY, "access": ACCESS}


@dataclass
class FakeDaemon:
    """Each `run` is answered with the next of `runs`: events, then maybe a lease or an error; a None in it
    is the daemon's death, and so is a `confirm` where `dies_at_yes`."""

    runs: list[list[RunEvent | QubixError | None]]
    dies_at_yes: bool = False
    answers: dict[str, Any] = field(default_factory=dict)
    waits: list[RunEvent] = field(default_factory=list)
    """What `wait` tells."""
    received: list[Any] = field(default_factory=list)

    def __call__(self, verb: str, args: Any) -> Iterable[Reply]:
        if verb == "run":
            return self._run(self.runs.pop(0))
        if verb == "confirm":
            return [b""] if self.dies_at_yes else [{"ok": {}}]
        answers = tui_views.ANSWERS | ANSWERS | self.answers
        return canned(answers, tui_views.EVENTS | {"wait": self.waits})(verb, args)

    def _run(self, said: list[RunEvent | QubixError | None]) -> Iterable[Reply]:
        for one in said:
            if one is None:
                yield b""
            elif isinstance(one, QubixError):
                yield {"error": {"code": one.code, "message": str(one), "exit_code": one.exit_code}}
            elif one.lease:
                yield {"ok": control.to_body(one)}
            else:
                yield {"event": control.to_body(one)}

    def asked(self, kind: type) -> list[Any]:
        return [one for one in self.received if isinstance(one, kind)]

    @property
    def wishes(self) -> list[RunArgs]:
        return self.asked(RunArgs)

    @property
    def answered(self) -> list[ConfirmArgs]:
        return self.asked(ConfirmArgs)


@asynccontextmanager
async def wizard(
    daemon: FakeDaemon, size: tuple[int, int] = (80, 24), **how: Any
) -> AsyncIterator[Pilot[int]]:
    """The app with the wizard in front, against a daemon of one's own."""
    with short_folder() as root, control_server(root / "control.sock", daemon, daemon.received):
        app = QubixApp(root)
        async with app.run_test(size=size, notifications=True) as pilot:
            await until(pilot, lambda: app.link.state == "up")
            app.open_page("launch", **how)
            await until(pilot, lambda: pilot.app.screen.query("#launch-steps"))
            yield pilot
