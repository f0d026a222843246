"""Which images may go: only those that jobs brought, and the longest unused first. The engine's part is in
docker_images.py.

What was on a machine before, what somebody there has given a name of his own, what a container uses and what
the settings keep is never touched. An image counts with its whole size, layers it shares with others
included, so that less may be freed than was counted, never more.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from protocol.images import full_name
from protocol.units import UnixMs
from qubixd.runner.common import write_atomic

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
LEAST_IDLE_MS: Final = 2 * HOUR_MS
"""A lease has its image some time before it has a container."""
MAX_NAMES: Final = 16


@dataclass(frozen=True)
class Policy:
    """What jobs' images may take."""

    share: float = 0.2
    """Of the engine's disk, all together."""
    idle_days: float = 14
    """Unused for longer than that, an image goes anyway."""
    keep: tuple[str, ...] = ()
    """Names of images that stay."""


@dataclass(frozen=True)
class Brought:
    """An image that came for a job."""

    image_id: str
    names: tuple[str, ...]
    """By which jobs asked for it."""
    size: int
    """Bytes, unpacked."""
    used: UnixMs
    """When a job last asked for it or had a container of it."""


def to_remove(
    images: Iterable[Brought], in_use: Collection[str], policy: Policy, disk_bytes: int, now: UnixMs
) -> list[str]:
    """Ids of the images to remove, in that order."""
    brought = sorted(images, key=lambda one: (one.used, one.image_id))
    kept = {full_name(name) for name in policy.keep}
    free = [
        one
        for one in brought
        if one.image_id not in in_use
        and now - one.used >= LEAST_IDLE_MS
        and not kept.intersection(map(full_name, one.names))
    ]
    excess = sum(one.size for one in brought) - int(policy.share * disk_bytes)
    gone = []
    for one in free:
        if excess > 0 or now - one.used > policy.idle_days * DAY_MS:
            gone.append(one.image_id)
            excess -= one.size
    return gone


class ImageBook:
    """The images that jobs brought, kept in one file. Everything here blocks: for worker threads.

    A pull is noted before it begins: of one whose end this daemon did not see the name is known.
    """

    def __init__(self, path: Path) -> None:
        """The file is read at the first use; one that cannot be read means that nothing was brought."""
        self.lock = threading.RLock()
        """Held while an image is looked up for a job, and while one is removed."""
        self._path = path
        self._images: dict[str, Brought] | None = None
        self._expected: dict[str, UnixMs] = {}

    def expect(self, name: str, now: UnixMs) -> None:
        """A pull of this name begins, of which there is no image here."""
        with self.lock:
            self._loaded()
            self._expected[name] = now
            self._save()

    def overdue(self, now: UnixMs) -> list[str]:
        """Names whose pull began long ago and of whose end nobody was told."""
        with self.lock:
            self._loaded()
            return [name for name, began in self._expected.items() if now - began >= LEAST_IDLE_MS]

    def no_more_expect(self, name: str) -> None:
        with self.lock:
            self._loaded()
            if self._expected.pop(name, None) is not None:
                self._save()

    def all(self) -> list[Brought]:
        with self.lock:
            return list(self._loaded().values())

    def bring(self, image_id: str, name: str, size: int, now: UnixMs) -> None:
        """A job's pull has fetched it."""
        with self.lock:
            self._loaded()[image_id] = Brought(image_id, (name,), size, now)
            self._expected.pop(name, None)
            self._save()

    def use(self, image_id: str, now: UnixMs, name: str = "") -> None:
        """A job wants it, or has it in use. Nothing happens if no job brought it."""
        with self.lock:
            one = self._loaded().get(image_id)
            if one is None:
                return
            names = tuple(dict.fromkeys((*one.names, *([name] if name else []))))[:MAX_NAMES]
            self._loaded()[image_id] = replace(one, names=names, used=max(now, one.used))
            self._save()

    def forget(self, image_id: str) -> None:
        with self.lock:
            if self._loaded().pop(image_id, None):
                self._save()

    def _loaded(self) -> dict[str, Brought]:
        if self._images is None:
            self._images, self._expected = _read(self._path)
        return self._images

    def _save(self) -> None:
        """What cannot be written is known until the daemon ends; the image then stays."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            kept = {"brought": [asdict(one) for one in self.all()], "expected": self._expected}
            write_atomic(self._path, json.dumps(kept).encode())
        except OSError:
            return


def _read(path: Path) -> tuple[dict[str, Brought], dict[str, UnixMs]]:
    try:
        kept = json.loads(path.read_bytes())
        brought = map(_brought, kept["brought"])
        expected = {str(name): UnixMs(int(began)) for name, began in kept["expected"].items()}
        return {one.image_id: one for one in brought}, expected
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}, {}


def _brought(one: dict[str, Any]) -> Brought:
    return Brought(
        str(one["image_id"]), tuple(map(str, one["names"])), int(one["size"]), UnixMs(int(one["used"]))
    )
