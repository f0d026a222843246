"""Programs beside a job as `Inside` has them: their standard output and nothing else of what they say."""

from __future__ import annotations

from collections.abc import Sequence

from qubixd.runner import OUTPUT
from qubixd.runner.docker_engine import DockerEngine
from qubixd.runner.docker_program import DockerProgram, open_program


class DockerInside:
    """One program; see `Inside`."""

    def __init__(self, program: DockerProgram) -> None:
        self._program = program
        self._ready = bytearray()
        self.send_all = program.send_all
        self.send_eof = program.send_eof
        self.exit_code = program.exit_code
        self.aclose = program.aclose

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        while not self._ready:
            part = await self._program.receive_some()
            if part is None:
                return b""
            self._ready += part[1] if part[0] == OUTPUT else b""
        size = len(self._ready) if max_bytes is None else max_bytes
        chunk = bytes(self._ready[:size])
        del self._ready[:size]
        return chunk


async def open_inside(engine: DockerEngine, container: str, command: Sequence[str]) -> DockerInside:
    """Begin a program. StartFailed if it cannot be found, EngineUnreachable."""
    return DockerInside(await open_program(engine, container, command, quiet=True))
