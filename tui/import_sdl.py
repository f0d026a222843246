"""A service of an Akash SDL file (deploy.yaml) as a job file. Pure.

The layout read here is Akash's "Stack Definition Language" 2.0 and 2.1: `services`, `profiles.compute`,
`profiles.placement` and `deployment`, which joins a service to a profile of each.
"""

from __future__ import annotations

import re
import shlex
from typing import Any, Final

from protocol.errors import JobFileInvalid
from protocol.job_draft import Draft
from protocol.query import name_key
from tui import import_gpu
from tui.import_file import (
    Imported,
    Notes,
    Variables,
    job_name,
    mapping,
    pairs,
    read,
    scalar,
    sequence,
    whole_command,
)
from tui.import_mounts import Mounts
from tui.import_ports import Ports

SOURCE: Final = "Akash SDL file"
TAKEN: Final = frozenset({"image", "command", "args", "env", "expose", "params"})
LEFT_OUT: Final = {
    "credentials": "a provider fetches public images only; the password stays out of the job file",
    "dependencies": "a job is one container and meets no other",
}
PRICE: Final = "prices in another coin are not carried over; `qubix run --max-price` sets your limit"
REGION: Final = "regions have other names here; `region` in the job file chooses one"
AUDITORS: Final = "nobody signs for machines here: they are proved when hired; see `min_score`"
ALL_WORLD: Final = "only you reach them: `qubix forward` brings them to your machine, nothing is public"
MIB_OF: Final = {
    "": 1 / 1024**2, "k": 1_000 / 1024**2, "m": 1_000**2 / 1024**2, "g": 1_000**3 / 1024**2,
    "t": 1_000**4 / 1024**2, "ki": 1 / 1024, "mi": 1.0, "gi": 1024.0, "ti": 1024.0**2,
}  # fmt: skip
SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?", re.IGNORECASE | re.ASCII)


def is_sdl(found: dict[str, Any]) -> bool:
    return "profiles" in found and "deployment" in found


def from_sdl(text: str, *, service: str = "", image: str = "", command: str = "") -> Imported:
    """The job of one service; `image` and `command` take the place of its own. JobFileInvalid.

    Without `service` it is the only one, or the only one with a GPU.
    """
    return _Service(read(text), service).job(image, command)


class _Service:
    def __init__(self, found: dict[str, Any], wanted: str) -> None:
        self.notes = Notes()
        profiles = mapping(found.get("profiles"), "profiles")
        self._compute = mapping(profiles.get("compute"), "profiles.compute")
        self._placement = mapping(profiles.get("placement"), "profiles.placement")
        self._deployment = mapping(found.get("deployment"), "deployment")
        services = mapping(found.get("services"), "services")
        self.name = self._chosen(services, wanted)
        self.at = f"services.{self.name}"
        self.has = mapping(services[self.name], self.at)
        for other in services.keys() - {self.name}:
            self.notes.left_out(
                f"services.{other}", f"a job is one container; `--service {other}` makes a job of it"
            )
        if "endpoints" in found:
            self.notes.left_out("endpoints", "a job has no address of its own; `qubix forward` leads there")

    def _chosen(self, services: dict[str, Any], wanted: str) -> str:
        names = ", ".join(services)
        if not services:
            raise JobFileInvalid("services: there is none to import")
        if wanted and wanted not in services:
            raise JobFileInvalid(f"services: there is no {wanted!r}; there are {names}")
        if wanted or len(services) == 1:
            return wanted or names
        with_gpu = [name for name in services if "gpu" in self._resources(name)]
        if len(with_gpu) != 1:
            raise JobFileInvalid(f"services: a job is one container; choose with --service one of {names}")
        return with_gpu[0]

    def _resources(self, service: str) -> dict[str, Any]:
        """What `deployment` gives a service, by way of the profile it names there."""
        for placed in mapping(self._deployment.get(service), f"deployment.{service}").values():
            profile = scalar(mapping(placed, f"deployment.{service}").get("profile"), f"deployment.{service}")
            where = f"profiles.compute.{profile}"
            return mapping(mapping(self._compute.get(profile), where).get("resources"), f"{where}.resources")
        return {}

    def job(self, image: str, command: str) -> Imported:
        for key in self.has.keys() - TAKEN:
            why = LEFT_OUT.get(key, "a job file has nothing like it")
            self.notes.left_out(f"{self.at}.{key}"[:120], why)
        resources, where = self._resources(self.name), f"profiles.compute of {self.name}"
        mounts = self._mounts()
        variables = self._variables(mounts)
        gpu, filter = self._gpu(resources, where)
        draft = Draft(
            name=job_name(self.name),
            image=image or self._image(),
            setup=mounts.setup,
            command=mounts.moved(command or self._command()),
            gpu=gpu,
            filter=filter,
            cpus=self._cpus(resources, where),
            memory=self._memory(resources, where, with_gpu=bool(gpu)),
            disk=self._disk(resources, where),
            internet=True,
            ports=self._ports(),
            envs=variables.lines(),
            secrets=tuple(variables.secrets),
            restart="always",
        )
        why = "the job may reach the Internet; without `internet: true` more providers fit"
        self.notes.assumed(self.at, why)
        self.notes.assumed(f"deployment.{self.name}", "it is begun again whenever it ends, as it was there")
        self._say_what_placement_wanted()
        return Imported(SOURCE, draft, tuple(self.notes.all))

    def _image(self) -> str:
        image = scalar(self.has.get("image"), f"{self.at}.image")
        if not image:
            raise JobFileInvalid(
                f"{self.at}.image: is missing; name one that providers can fetch with --image"
            )
        return image

    def _command(self) -> str:
        """`command` and `args` as one line for a shell."""
        words: list[str] = []
        for key in ("command", "args"):
            value, where = self.has.get(key), f"{self.at}.{key}"
            if isinstance(value, list):
                words += [scalar(word, where) for word in value]
            else:
                words += shlex.split(_balanced(scalar(value, where), where))
        whole_command(words, f"{self.at}.{'command' if self.has.get('command') or not words else 'args'}")
        return shlex.join(words)

    def _mounts(self) -> Mounts:
        """The volumes of `params.storage`: empty folders in the workspace."""
        mounts, where = Mounts(self.notes), f"{self.at}.params"
        storage = mapping(mapping(self.has.get("params"), where).get("storage"), f"{where}.storage")
        for name, one in storage.items():
            target = scalar(mapping(one, f"{where}.storage.{name}").get("mount"), f"{where}.storage.{name}")
            mounts.take("", target, f"{where}.storage.{name}", bound=False)
        return mounts

    def _variables(self, mounts: Mounts) -> Variables:
        """Akash fills nothing in: a `$` there is a `$`."""
        variables = Variables({}, self.notes)
        for name, value in pairs(self.has.get("env"), f"{self.at}.env"):
            variables.take(name, mounts.moved(value) if value else None, f"{self.at}.env", fill=False)
        return variables

    def _ports(self) -> tuple[str, ...]:
        ports, where = Ports(self.notes), f"{self.at}.expose"
        for value in sequence(self.has.get("expose"), where):
            one = mapping(value, where)
            port, protocol = (scalar(one.get(key), where) for key in ("port", "proto"))
            ports.take(port, protocol or "tcp", where)
            for key in one.keys() & {"accept", "http_options"}:
                self.notes.left_out(f"{where}.{key}", "nothing stands before a job and answers for it")
        if ports.found:
            self.notes.changed(where, ALL_WORLD)
        return tuple(ports.found)

    def _cpus(self, resources: dict[str, Any], where: str) -> str:
        units = scalar(mapping(resources.get("cpu"), f"{where}.cpu").get("units"), f"{where}.cpu.units")
        if units.endswith("m") and units[:-1].isascii() and units[:-1].isdigit():
            return f"{float(units[:-1]) / 1_000:g}"
        return units

    def _memory(self, resources: dict[str, Any], where: str, *, with_gpu: bool) -> str:
        size = scalar(mapping(resources.get("memory"), f"{where}.memory").get("size"), f"{where}.memory.size")
        if size:
            return import_gpu.size_of(_mib(size, f"{where}.memory.size"))
        self.notes.assumed(where, import_gpu.SIZES if with_gpu else import_gpu.NO_SIZES)
        return import_gpu.MEMORY if with_gpu else ""

    def _disk(self, resources: dict[str, Any], where: str) -> str:
        """All volumes together: they all lie in the workspace."""
        given, total = resources.get("storage"), 0.0
        for one in given if isinstance(given, list) else [given]:
            volume = mapping(one, f"{where}.storage")
            size = scalar(volume.get("size"), f"{where}.storage.size")
            total += _mib(size, f"{where}.storage.size") if size else 0
        return import_gpu.size_of(total) if total else ""

    def _gpu(self, resources: dict[str, Any], where: str) -> tuple[str, str]:
        """For `gpu`, and a condition where several models will do."""
        gpu, where = mapping(resources.get("gpu"), f"{where}.gpu"), f"{where}.gpu"
        units = scalar(gpu.get("units"), f"{where}.units") or ("1" if gpu else "0")
        if units == "0":
            return "", ""
        vendors = mapping(mapping(gpu.get("attributes"), where).get("vendor"), f"{where}.attributes.vendor")
        for vendor in vendors.keys() - {"nvidia"}:
            self.notes.left_out(f"{where}.attributes.vendor.{vendor}"[:120], "its models are not looked for")
        cards = [mapping(card, where) for card in sequence(vendors.get("nvidia"), where)]
        if any("interface" in card for card in cards):
            self.notes.left_out(f"{where}.interface", "how a card is plugged in is not asked")
        models = [model for card in cards if (model := scalar(card.get("model"), where))]
        sizes = [_mib(ram, where) for card in cards if (ram := scalar(card.get("ram"), where))]
        least = f":{import_gpu.size_of(min(sizes))}" if sizes else ""
        if len(models) == 1:
            return f"{models[0]}{least}:{units}", ""
        if not models:
            self.notes.assumed(where, import_gpu.ANY_MODEL)
            return units, f"vram>={least[1:]}" if least else ""
        return units, f"gpu in ({', '.join(map(_key, models))})" + (f" vram>={least[1:]}" if least else "")

    def _say_what_placement_wanted(self) -> None:
        placed = mapping(self._deployment.get(self.name), f"deployment.{self.name}")
        for name, one in placed.items():
            place = mapping(self._placement.get(name), f"profiles.placement.{name}")
            for key, why in (("pricing", PRICE), ("attributes", REGION), ("signedBy", AUDITORS)):
                if place.get(key):
                    self.notes.left_out(f"profiles.placement.{name}.{key}"[:120], why)
            count = scalar(mapping(one, f"deployment.{self.name}").get("count"), f"deployment.{self.name}")
            if count not in ("", "1"):
                self.notes.left_out(f"deployment.{self.name}.{name}.count"[:120], "a job runs once")


def _key(model: str) -> str:
    try:
        return name_key(model)
    except ValueError as error:
        raise JobFileInvalid(f"gpu: {model[:32]!r} is no model") from error


def _balanced(text: str, where: str) -> str:
    try:
        shlex.split(text)
    except ValueError as error:
        raise JobFileInvalid(f"{where}: {str(error).lower()}") from error
    return text


def _mib(text: str, where: str) -> float:
    match = SIZE.fullmatch(text)
    if not match:
        raise JobFileInvalid(f"{where}: {text[:32]!r} is not a size such as 512Mi or 4Gi")
    return float(match[1]) * MIB_OF[(match[2] or "").lower()]
