"""Renting the same again from the list of instances."""

from __future__ import annotations

import asyncio
from typing import Any

from protocol.control_again import JobFileArgs
from protocol.errors import NotFound
from tests.support.tui_pilot import running_app, text_of, until
from tui.screens.instances_actions import LeaseActions


def test_an_ended_one_is_run_again_and_only_that() -> None:
    received: list[Any] = []

    def asked() -> list[Any]:
        return [one for one in received if isinstance(one, JobFileArgs)]

    async def go() -> None:
        answers = {"job_file": NotFound("it is not kept here")}
        async with running_app((120, 40), area="instances", asked=received, answers=answers) as pilot:
            await until(pilot, lambda: "completed" in text_of(pilot.app.screen))
            screen = pilot.app.screen
            assert isinstance(screen, LeaseActions)
            await pilot.press("g")
            while (lease := screen.lease_chosen()) is None or lease.phase != "done":
                assert not asked()
                await pilot.press("down")
                await pilot.pause()
            await until(pilot, lambda: "Run again" in text_of(screen))
            await pilot.press("g")
            await until(pilot, lambda: asked() == [JobFileArgs(lease.lease_id)])
            await until(pilot, lambda: "is not kept here" in text_of(pilot.app.screen))

    asyncio.run(go())
