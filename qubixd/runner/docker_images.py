"""The images of a Docker engine: which it has, the newest first, how they come, at what pace, and go."""

from __future__ import annotations

import logging
import re
import shutil
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import trio
from docker.errors import APIError
from requests.exceptions import RequestException

from protocol.errors import DiskFull, ImageNotHere, ImageUnavailable
from protocol.image_needs import Need, check, need_of, plain_arch
from protocol.images import MAX_TAGS, LocalImage, full_name, layer_tag, tags_of
from protocol.templates import is_local
from protocol.units import UnixMs
from qubixd.runner import Progress, Stock
from qubixd.runner.common import check_image_name
from qubixd.runner.docker_config import FENCE_REPOSITORY, Info, unix_ms
from qubixd.runner.docker_engine import Client, DockerEngine, LayerShares, image_unavailable
from qubixd.runner.docker_jobs import image_info
from qubixd.runner.image_tidy import Brought, ImageBook, Policy, to_remove

log = logging.getLogger("qubix.images")

MIB: Final = 1 << 20
MAX_IMAGES: Final = 128
"""Looked at, of those built last; each is one call to the engine."""
PULLS_KEPT: Final = 5
LEAST_BYTES: Final = MIB
"""A smaller pull tells more of the way to the registry than of its width."""
MAX_MIB_PER_S: Final = 100_000
NEVER: Final = UnixMs(0)
_SHA256: Final = re.compile(r"sha256:[0-9a-f]{64}")


class Pace:
    """How fast the last pulls were, unpacking included."""

    def __init__(self) -> None:
        self._pulls: deque[tuple[int, float]] = deque(maxlen=PULLS_KEPT)

    def add(self, fetched_bytes: int, seconds: float) -> None:
        if fetched_bytes >= LEAST_BYTES and seconds > 0:
            self._pulls.append((fetched_bytes, seconds))

    @property
    def mib_per_s(self) -> int:
        """At least 1; 0 as long as nothing is known."""
        if not self._pulls:
            return 0
        fetched = sum(size for size, _ in self._pulls)
        seconds = sum(taken for _, taken in self._pulls)
        return min(MAX_MIB_PER_S, max(1, round(fetched / seconds / MIB)))


class Images:
    """The images of one engine, as one daemon's jobs need them."""

    def __init__(self, engine: DockerEngine, state_dir: Path) -> None:
        self._engine = engine
        self._state_dir = state_dir
        self._book = ImageBook(state_dir / "images.json")
        self._pace = Pace()
        self._wanted: deque[str] = deque(maxlen=MAX_TAGS)
        """Ids of the images that jobs asked for, the last first."""

    async def pull(self, name: str, progress: Progress) -> str:
        """As Runner.pull. WrongArchitecture if the image is not for this engine's processor, before it is
        fetched where its registry tells."""
        check_image_name(name)
        found = await self._engine.call(lambda client: self._find(client, name))
        if found is None:
            found = await self._fetched(name, progress)
        await self._engine.call(lambda client: check_architecture(client, needs(found).arch))
        progress("image ready", 1.0)
        image_id = str(found["Id"])
        with suppress(ValueError):
            self._wanted.remove(image_id)
        self._wanted.appendleft(image_id)
        return image_id

    async def stock(self) -> Stock:
        wanted = tuple(self._wanted)
        tags = await self._engine.call(lambda client: tags_of(newest_images(client, wanted)))
        return Stock(tags, self._pace.mib_per_s)

    async def image(self, name: str) -> LocalImage | None:
        check_image_name(name)
        found = await self._engine.call(lambda client: image_info(client, name))
        return None if found is None else local_image(found)

    async def tidy(self, policy: Policy, now: UnixMs) -> list[str]:
        """Remove what the policy lets go; the names, or ids, of what was removed. EngineUnreachable."""
        return await self._engine.call_blocking(lambda client: self._tidy(client, policy, now))

    def brought(self) -> list[Brought]:
        """What jobs brought and is still here. Blocks."""
        return self._book.all()

    # Coming ------------------------------------------------------------------------------------

    def _find(self, client: Client, name: str) -> Info | None:
        with self._book.lock:
            found = image_info(client, name)
            if found is not None:
                self._book.use(found["Id"], now_ms(), name)
        return found

    async def _fetched(self, name: str, progress: Progress) -> Info:
        if is_local(name):
            raise ImageNotHere(f"the image {name} is built where it is used, and it has not been built here")
        await self._engine.call(lambda client: check_at_registry(client, name))
        before = await self._engine.call(lambda client: self._expect(client, name))
        try:
            await self._fetch(name, progress)
        except (ImageUnavailable, DiskFull):
            await self._engine.call(lambda client: self._book.no_more_expect(name))
            raise
        return await self._engine.call(lambda client: self._noted(client, name, before))

    def _expect(self, client: Client, name: str) -> frozenset[str]:
        self._book.expect(name, now_ms())
        return image_ids(client)

    def _noted(self, client: Client, name: str, before: frozenset[str]) -> Info:
        found = image_info(client, name)
        if found is None:
            raise ImageUnavailable(f"the engine pulled {name} but does not have it")
        if found["Id"] in before:  # it was here, and has a name more
            self._book.no_more_expect(name)
        else:
            self._book.bring(found["Id"], name, int(found.get("Size") or 0), now_ms())
        return found

    async def _fetch(self, name: str, progress: Progress) -> None:
        shares, began = LayerShares(), trio.current_time()
        stream = await self._engine.call(lambda client: _open_pull(client, name))
        while (event := await self._engine.next(stream)) is not None:
            if "error" in event:
                raise image_unavailable(name, str(event["error"]))
            progress("pulling the image", shares.add(event))
        self._pace.add(shares.total_bytes, trio.current_time() - began)

    # Going (in a worker thread) ----------------------------------------------------------------

    def _tidy(self, client: Client, policy: Policy, now: UnixMs) -> list[str]:
        for name in self._book.overdue(now):
            self._find_out(client, name, now)
        present, in_use = image_ids(client), used_images(client)
        for one in self._book.all():
            if one.image_id not in present:
                self._book.forget(one.image_id)
            elif one.image_id in in_use:
                self._book.use(one.image_id, now)
        brought = self._book.all()
        gone = to_remove(brought, in_use, policy, disk_bytes(client, self._state_dir), now)
        by_id = {one.image_id: one for one in brought}
        return [_said(by_id[one]) for one in gone if self._remove(client, by_id[one])]

    def _find_out(self, client: Client, name: str, now: UnixMs) -> None:
        """Of a pull that was cut off: the image is the job's if it has come and has no other name."""
        info = image_info(client, name)
        if info is not None and [full_name(tag) for tag in info.get("RepoTags") or ()] == [full_name(name)]:
            self._book.bring(info["Id"], name, int(info.get("Size") or 0), now)
        self._book.no_more_expect(name)

    def _remove(self, client: Client, one: Brought) -> bool:
        with self._book.lock:
            if one not in self._book.all():
                return False  # a job has asked for it meanwhile
            info = image_info(client, one.image_id)
            if info is None or _has_other_names(info, one):
                self._book.forget(one.image_id)
                return False
            try:
                client.remove_image(one.image_id)
            except APIError as error:  # in use after all, or others stand on it
                log.info("%s stays: %s", _said(one), error.explanation)
                return False
            self._book.forget(one.image_id)
        log.info("removed %s, which no job has used for a while", _said(one))
        return True


def newest_images(client: Client, wanted: Sequence[str]) -> list[LocalImage]:
    """The images that have a name: those that jobs `wanted` (ids, the last first), then the others, the one
    named or made last first. An engine does not tell when it fetched an image."""
    places = {image_id: place for place, image_id in enumerate(wanted)}
    named = [each for each in client.images() if _is_news(each)]
    named.sort(key=lambda each: places.get(each["Id"], len(places)))
    found = [image_info(client, each["Id"]) for each in named[:MAX_IMAGES]]
    infos = sorted((info for info in found if info), key=_made_at, reverse=True)
    infos.sort(key=lambda info: places.get(info["Id"], len(places)))
    return [local_image(info) for info in infos]


def _is_news(listed: Info) -> bool:
    """Whether an image of the engine's list has a name and is not a fence."""
    names = (*(listed.get("RepoTags") or ()), *(listed.get("RepoDigests") or ()))
    return bool(names) and not any(name.startswith(f"{FENCE_REPOSITORY}:") for name in names)


def local_image(info: Info) -> LocalImage:
    """What the engine says of an image, in our words."""
    layers = (info.get("RootFS") or {}).get("Layers") or ()
    names = (*(info.get("RepoTags") or ()), *(info.get("RepoDigests") or ()))
    return LocalImage(
        names=tuple(name for name in names if "<none>" not in name),
        layers=tuple(layer_tag(digest) for digest in layers if _SHA256.fullmatch(digest)),
        mib=-(-int(info.get("Size") or 0) // MIB),
        need=needs(info),
    )


def needs(info: Info) -> Need:
    """What an image asks of a machine."""
    config = info.get("Config") or {}
    return need_of(str(info.get("Architecture") or ""), config.get("Env") or (), config.get("Labels") or {})


def _made_at(info: Info) -> UnixMs:
    """NEVER where an engine tells the time in a way of its own."""
    times = ((info.get("Metadata") or {}).get("LastTagTime"), info.get("Created"))
    with suppress(ValueError):
        return max((unix_ms(at) for at in times if at), default=NEVER)
    return NEVER


def image_ids(client: Client) -> frozenset[str]:
    """Of all images, those without a name too."""
    return frozenset(str(each["Id"]) for each in client.images())


def used_images(client: Client) -> frozenset[str]:
    """Ids of the images of all containers, ended ones too."""
    return frozenset(str(each["ImageID"]) for each in client.containers(all=True))


def disk_bytes(client: Client, here: Path) -> int:
    """Size of the disk where the engine keeps images; of this daemon's own if the engine is elsewhere."""
    root = Path(str(client.info().get("DockerRootDir") or ""))
    with suppress(OSError):
        return shutil.disk_usage(root).total
    return shutil.disk_usage(next(path for path in (here, *here.parents) if path.exists())).total


def check_architecture(client: Client, arch: str) -> None:
    """WrongArchitecture unless the engine's machine runs programs for it."""
    check(Need(arch), Need(plain_arch(str(client.version().get("Arch") or ""))), gpus=0)


def check_at_registry(client: Client, name: str) -> None:
    """WrongArchitecture if the registry says that it has the image for other processors only. Whatever else
    it says, or that it does not answer, shows when the image is fetched."""
    try:
        # Anonymous, as the pull.
        told = client.inspect_distribution(name, auth_config={})
    except (APIError, RequestException):
        return
    offered = [plain_arch(str(one.get("architecture") or "")) for one in told.get("Platforms") or ()]
    here = plain_arch(str(client.version().get("Arch") or ""))
    if offered and here not in offered and all(offered):
        check(Need(offered[0]), Need(here), gpus=0)


def _open_pull(client: Client, image: str) -> Iterator[dict[str, Any]]:
    """Anonymous: an image a stranger names must not be fetched with the provider's own credentials."""
    try:
        stream: Iterator[dict[str, Any]] = client.pull(image, stream=True, decode=True, auth_config={})
    except APIError as error:
        raise image_unavailable(image, str(error.explanation)) from error
    return stream


def _has_other_names(info: Info, one: Brought) -> bool:
    """Somebody here has named it since, so it is not ours any more."""
    ours = set(map(full_name, one.names))
    return any(full_name(tag) not in ours for tag in info.get("RepoTags") or ())


def _said(one: Brought) -> str:
    return one.names[0] if one.names else one.image_id


def now_ms() -> UnixMs:
    return UnixMs(time.time_ns() // 1_000_000)
