"""Folders of an imported container as files of a job, which all lie in /workspace. Pure.

mounts.take("./src", "/app", "services.web.volumes", bound=True)
mounts.settle()
mounts.files            ("./src:app",)
mounts.moved("/app/x")  "/workspace/app/x"
"""

from __future__ import annotations

import re
import shlex
from typing import Final

from protocol.jobspec import WORKSPACE
from tui.import_file import Notes

SYSTEM: Final = ("/dev", "/proc", "/sys", "/run", "/var/run", "/etc", "/tmp/.X11-unix", "/usr/share/zoneinfo")
"""Folders that are parts of the machine a container runs on, not somebody's data."""
ONE_WAY: Final = "what the job changes there does not come back by itself: name it in `outputs`"
VOLUME: Final = "it is empty at first and no volume outlives a job: `outputs` bring you what is in it"


class Mounts:
    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._placed: dict[str, str] = {}
        """Place inside the workspace -> place here."""
        self._moves: dict[str, str] = {}
        """Place in the container -> where it is in the job."""
        self._empty: list[str] = []
        """Folders that the job makes for itself."""

    @property
    def files(self) -> tuple[str, ...]:
        """As a draft has them."""
        return tuple(f"{here}:{inside}" for inside, here in self._placed.items())

    def take(self, source: str, target: str, where: str, *, bound: bool) -> None:
        """A folder or file here (`bound`), or a volume, that the container sees at `target`."""
        place = f"{where} {target}"[:120]
        if not target.startswith("/") or not target.isprintable():
            self._notes.left_out(place, "is no place in a container")
        elif not bound or not source:
            self._volume(target, place)
        elif any(source == one or source.startswith(f"{one}/") for one in SYSTEM):
            self._notes.left_out(place, f"{source[:64]} is part of the machine that a container runs on")
        elif ":" in source:
            self._notes.left_out(place, "has a name that a job file cannot carry")
        else:
            inside = self._inside(target)
            self._placed[inside] = source
            self._notes.changed("file_mounts", ONE_WAY)
            self._move(target, f"{WORKSPACE}{inside}", place)

    @property
    def setup(self) -> str:
        """What makes the folders that the container would find."""
        return f"mkdir -p {shlex.join(self._empty)}" if self._empty else ""

    def moved(self, text: str) -> str:
        """A text with the container's places in it, as it is in the job."""
        if not self._moves:
            return text
        longest_first = sorted(self._moves, key=len, reverse=True)
        places = "|".join(map(re.escape, longest_first))
        return re.sub(rf"(?<![\w./-])(?:{places})(?![\w.-])", lambda found: self._moves[found[0]], text)

    def _inside(self, target: str) -> str:
        """Where it lies in the workspace: under its own name, or its whole path if another has that name."""
        within = (target + "/").startswith(WORKSPACE)
        parts = [part for part in target.removeprefix(WORKSPACE[:-1] if within else "").split("/") if part]
        parts = [part for part in parts if part not in (".", "..")] or ["files"]
        short = "/".join(parts if within else parts[-1:])
        taken = {*self._placed, *(place.removeprefix(WORKSPACE) for place in self._empty)}
        return short if short not in taken else "/".join([*parts, str(len(taken))])

    def _move(self, target: str, place: str, where: str) -> None:
        plain = target.rstrip("/")
        if plain and plain != place:
            self._moves[plain] = place
            self._notes.changed(where, f"is {place} in the job: mend files that name the old place")

    def _volume(self, target: str, where: str) -> None:
        inside = self._inside(target)
        place = f"{WORKSPACE}{inside}"
        self._empty.append(place)
        self._moves[target.rstrip("/")] = place
        self._notes.changed(where, f"is {place} in the job; {VOLUME}")
