"""What runs jobs on a provider's machine: the engine, its runtime, and whether jobs may have the Internet.

Asked once, when the daemon starts. What somebody has set and cannot be had ends the start; what `auto` cannot
have is done without, and said.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from protocol.errors import ConfigInvalid, EngineUnreachable, InternetUnavailable
from qubixd.config import Config
from qubixd.runner import Runner
from qubixd.runner.docker import DockerRunner
from qubixd.runner.docker_engine import Client, DockerEngine
from qubixd.runner.fence import FenceLimits
from qubixd.runner.own_image import ensure_image
from qubixd.runner.process import ProcessRunner
from qubixd.runner.runtimes import AUTO, Runtime, choose, installed, prove

log = logging.getLogger("qubix.engine")

NO_INTERNET: Final = "provider.no_internet"
NO_SANDBOX: Final = "provider.no_sandbox"
NO_GPUS: Final = "provider.no_gpus"
NO_TOOLKIT: Final = "could not select device driver"
"""What the engine says where nothing can hand NVIDIA's cards to a container."""


@dataclass(frozen=True)
class Choice:
    runner: Runner
    internet: bool = False
    hands_gpus: bool = True
    """False: a container could not be given a card, so none may be offered."""
    remarks: tuple[tuple[str, str], ...] = ()
    """(code, sentence) of what this machine could offer and does not."""


def docker_of(config: Config, runtime: str = "") -> DockerRunner:
    """Connects at its first call."""
    if config.docker_host:
        os.environ["DOCKER_HOST"] = config.docker_host
    limits = FenceLimits(bytes_per_second=config.egress_mbit * 125_000, forbidden=config.egress_forbid)
    return DockerRunner(config.root / "runner", runtime=runtime, fence_limits=limits)


async def choose_engine(config: Config, *, gpus: Sequence[str]) -> Choice:
    """For a provider that sells these cards (UUIDs) or none. EngineUnreachable, ConfigInvalid,
    InternetUnavailable."""
    if config.runner in ("auto", "docker"):
        try:
            await docker_of(config).check()
        except EngineUnreachable:
            if config.runner == "docker" or config.docker_host:
                raise
        else:
            return await _docker(config, gpus=gpus)
    check_process_runner(config)
    process = ProcessRunner(config.root / "runner")
    await process.check()
    log.warning("no Docker engine answers: jobs run as plain processes, for a trial on this machine only")
    return Choice(process)


def check_process_runner(config: Config) -> None:
    """The process runner isolates nothing: only this very machine may be its caller."""
    if config.provider and not config.on_loopback:
        raise ConfigInvalid(
            f"without Docker jobs run as plain processes, which is for a trial on this machine only; "
            f"listen on 127.0.0.1 instead of {config.listen_host}, or start Docker"
        )


async def _docker(config: Config, *, gpus: Sequence[str]) -> Choice:
    engine = DockerEngine(limiter_tokens=1)
    runtimes = installed(await engine.call(lambda client: client.info()))
    runtime = choose(config.runtime, runtimes, gpus=bool(gpus))
    remarks = []
    if runtime.name and (why := await engine.call(lambda client: _prove(client, config, runtime))):
        sentence = f"the engine's runtime {runtime.name} does not run here: {why}"
        if config.runtime != AUTO:
            raise ConfigInvalid(f"{sentence}; choose another with --runtime")
        remarks.append((NO_SANDBOX, f"{sentence}; jobs share this machine's kernel"))
        runtime = choose("runc", runtimes, gpus=bool(gpus))
    without_card = await engine.call(lambda client: _prove(client, config, runtime, gpus[0])) if gpus else ""
    hands_gpus = NO_TOOLKIT not in without_card
    if without_card:
        consequence = (
            "jobs with one may fail"
            if hands_gpus
            else "no GPU is offered; install NVIDIA's container toolkit"
        )
        remarks.append(
            (NO_GPUS, f"a first container could not be given a GPU: {without_card}; {consequence}")
        )
    runner = docker_of(config, runtime.name)
    why_not = await _no_internet(config, runtime, runner, engine)
    if why_not:
        remarks.append((NO_INTERNET, why_not))
    for _, sentence in remarks:
        log.warning("%s", sentence)
    return Choice(runner, config.egress != "none" and not why_not, hands_gpus, tuple(remarks))


def _prove(client: Client, config: Config, runtime: Runtime, gpu_uuid: str = "") -> str:
    try:
        image = ensure_image(client, config.root / "runner" / "fence")
    except InternetUnavailable as error:
        return str(error)
    return prove(client, runtime, image, gpu_uuid)


async def _no_internet(config: Config, runtime: Runtime, runner: DockerRunner, engine: DockerEngine) -> str:
    """Why jobs get no Internet although nobody has forbidden it; "" if they get it."""
    if config.egress == "none":
        return ""
    why = ""
    if not runtime.fenced:
        why = f"the runtime {runtime.name} keeps a network of its own, which cannot be fenced"
    else:
        try:
            await engine.call(runner.fences.prepare)
        except InternetUnavailable as error:
            why = str(error)
    if why and config.egress == "internet":
        raise InternetUnavailable(f"{why}; start with --egress none")
    return f"jobs get no Internet here: {why}" if why else ""
