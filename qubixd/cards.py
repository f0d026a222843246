"""A provider's GPUs: which of them can be offered at this moment, and what keeps the others away."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final

import trio

from protocol.lease_state import Lease
from protocol.messages import Capacity
from protocol.units import UnixMs
from qubixd.health import Health
from qubixd.machine import Machine
from qubixd.runner import Runner
from qubixd.runner.toolkit import Judgement, judge_toolkit, toolkit_versions
from qubixd.views import holds_capacity

WITHOUT_CONTAINERS: Final = "process"
"""The runner whose jobs have no containers, so that nobody can tell whose process is whose."""


class Cards:
    """None is offered before the first look: a job must not be the one that finds a broken card."""

    def __init__(
        self,
        machine: Machine,
        runner: Runner,
        active: Callable[[], Iterable[Lease]],
        now_ms: Callable[[], UnixMs],
        *,
        handed: bool = True,
    ) -> None:
        """`handed`: the runner can give jobs this machine's cards."""
        self.on_change: list[Callable[[], None]] = []
        """Called when `fit` or `reasons` have become others."""
        self._machine, self._runner, self._active, self._handed = machine, runner, active, handed
        self._toolkit = Judgement(refused=True)
        tenants = None if runner.name == WITHOUT_CONTAINERS else self._tenants
        self.health = Health(self._rented, tenants, now_ms, expected=list(machine.gpu_uuids.values()))
        self.health.on_change.append(self._changed)

    def fit(self) -> Capacity:
        """The machine, less the GPUs that cannot be offered now."""
        whole = self._machine.capacity
        refused = self._toolkit.refused or not self._handed
        return replace(whole, gpus=()) if refused else self.health.fit(whole)

    def reasons(self) -> list[tuple[str, str]]:
        """(code, sentence) of all that is wrong with the GPUs, or with what hands them to jobs."""
        models = {card.uuid: card.model for card in self._machine.gpus}
        found = [(self._toolkit.code, self._toolkit.sentence)] if self._toolkit.code else []
        for uuid, findings in self.health.unfit.items():
            name = f"{models[uuid]} ({uuid})" if uuid in models else uuid
            found += [(finding.code, f"{name} is not offered: {finding.sentence}") for finding in findings]
        return found

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            judgement = await trio.to_thread.run_sync(lambda: judge_toolkit(toolkit_versions()))
            await nursery.start(self.health.run)
            self._toolkit = judgement if self._runner.name != WITHOUT_CONTAINERS else Judgement()
            self._changed()

    def _changed(self) -> None:
        for tell in self.on_change:
            tell()

    def _rented(self) -> frozenset[str]:
        return frozenset().union(*map(self._uuids, self._held()))

    async def _tenants(self) -> Mapping[str, frozenset[str]]:
        held = {lease.lease_id: self._uuids(lease) for lease in self._held()}
        containers = await self._runner.containers()
        return {container: held.get(lease_id, frozenset()) for container, lease_id in containers.items()}

    def _held(self) -> list[Lease]:
        return [lease for lease in self._active() if holds_capacity(lease)]

    def _uuids(self, lease: Lease) -> frozenset[str]:
        known = self._machine.gpu_uuids
        return frozenset(known[digest] for digest in lease.terms.gpu_digests if digest in known)
