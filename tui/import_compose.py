"""A service of a docker-compose file as a job file. Pure.

A job is one container on somebody else's machine: it writes below /workspace only, nobody but its caller
reaches it, and its image's own entry point is not used. What has no place in that is left out and said so.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any, Final

from protocol.errors import JobFileInvalid
from protocol.job_draft import Draft
from tui import import_gpu
from tui.import_file import (
    Imported,
    Notes,
    Variables,
    filled,
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

SOURCE: Final = "docker-compose file"
TAKEN: Final = frozenset(
    {
        *("image", "command", "entrypoint", "environment", "ports", "expose", "volumes", "working_dir"),
        *("deploy", "gpus", "runtime", "mem_limit", "mem_reservation", "cpus", "restart", "healthcheck"),
        *("container_name", "network_mode"),
    }
)
ISOLATED: Final = "a job has no more rights on the provider's machine than any other job"
ALONE: Final = "a job is one container and meets no other"
ITS_OWN: Final = "the provider's machine decides this"
LEFT_OUT: Final[Mapping[str, str]] = {
    "build": "a job runs an image that the provider can fetch; build and push it, then name it",
    "extends": "other files are not followed; `docker compose config` writes one file with everything in it",
    "env_file": "its variables may be secret; name them in `secrets`, or put them into `envs` yourself",
    **dict.fromkeys(("depends_on", "links", "external_links", "networks", "volumes_from"), ALONE),
    **dict.fromkeys(("hostname", "domainname", "extra_hosts", "dns", "dns_search", "mac_address"), ALONE),
    **dict.fromkeys(("privileged", "cap_add", "devices", "security_opt", "userns_mode"), ISOLATED),
    **dict.fromkeys(("pid", "ipc", "cgroup", "cgroup_parent", "sysctls", "group_add", "user"), ISOLATED),
    **dict.fromkeys(("shm_size", "tmpfs", "ulimits", "init", "cap_drop", "read_only"), ITS_OWN),
    **dict.fromkeys(("logging", "oom_score_adj", "pids_limit", "stop_signal", "stop_grace_period"), ITS_OWN),
    "secrets": "files of secrets are not carried; name variables in the job file's `secrets`",
    "configs": "name such files in the job file's `file_mounts`",
    "platform": "the image itself says for which processor it is",
    "scale": "a job runs once; run it again for another",
}
SILENT: Final = frozenset(
    {"labels", "annotations", "profiles", "pull_policy", "stdin_open", "tty", "attach", "develop"}
)
"""What changes nothing about what runs."""
SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([bkmgt]?)(?:i?b)?", re.IGNORECASE | re.ASCII)
RESTARTS: Final = {
    "no": ("", ""),
    "": ("", ""),
    "none": ("", ""),
    "on-failure": ("on_failure", ""),
    "always": ("always", ""),
    "any": ("always", ""),
    "unless-stopped": ("always", ""),
}


def from_compose(
    text: str, given: Mapping[str, str], *, service: str = "", image: str = "", command: str = ""
) -> Imported:
    """The job of one service; `image` and `command` take the place of its own. JobFileInvalid.

    `given` holds values for the file's `${VARIABLES}`. Without `service` it is the only one, or the only
    one with a GPU.
    """
    return _Service(mapping(read(text).get("services"), "services"), given, service).job(image, command)


def _chosen(services: dict[str, Any], wanted: str) -> str:
    names = ", ".join(services)
    if not services:
        raise JobFileInvalid("services: there is none to import")
    if wanted and wanted not in services:
        raise JobFileInvalid(f"services: there is no {wanted!r}; there are {names}")
    if wanted or len(services) == 1:
        return wanted or names
    with_gpu = [name for name, one in services.items() if isinstance(one, dict) and _wants_gpu(one)]
    if len(with_gpu) != 1:
        raise JobFileInvalid(f"services: a job is one container; choose with --service one of {names}")
    return with_gpu[0]


def _wants_gpu(service: dict[str, Any]) -> bool:
    return "gpus" in service or service.get("runtime") == "nvidia" or "devices" in _reserved(service)


def _reserved(service: dict[str, Any]) -> dict[str, Any]:
    found: Any = service
    for key in ("deploy", "resources", "reservations"):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


class _Service:
    """One service on its way to a job."""

    def __init__(self, services: dict[str, Any], given: Mapping[str, str], wanted: str) -> None:
        self.name = _chosen(services, wanted)
        self.at = f"services.{self.name}"
        self.has = mapping(services[self.name], self.at)
        self.given, self.notes = given, Notes()
        for other in services:
            if other != self.name:
                why = f"{ALONE}; `--service {other}` makes a job of it"
                self.notes.left_out(f"services.{other}", why)

    def job(self, image: str, command: str) -> Imported:
        self._say_what_is_left_out()
        mounts = self._mounts()
        script = self._script(command, mounts)
        variables = self._variables(mounts)
        restart, restarts = self._restart()
        draft = Draft(
            name=job_name(self._text("container_name") or self.name),
            image=image or self._image(),
            setup=mounts.setup,
            command=script,
            gpu=self._gpu(),
            cpus=self._cpus(),
            memory=self._memory(),
            internet=self._internet(),
            ports=self._ports(),
            envs=variables.lines(),
            secrets=tuple(variables.secrets),
            files=mounts.files,
            ready=mounts.moved(self._ready()),
            restart=restart,
            restarts=restarts,
        )
        return Imported(SOURCE, draft, tuple(self.notes.all))

    def _text(self, key: str) -> str:
        return self._filled(self.has.get(key), f"{self.at}.{key}")

    def _filled(self, value: Any, where: str) -> str:
        return filled(scalar(value, where), self.given, where)

    def _say_what_is_left_out(self) -> None:
        for key in self.has:
            if key in LEFT_OUT and self.has[key] not in (None, [], {}, "false"):
                self.notes.left_out(f"{self.at}.{key}", LEFT_OUT[key])
            elif key not in TAKEN | LEFT_OUT.keys() | SILENT and not key.startswith("x-"):
                self.notes.left_out(f"{self.at}.{key}"[:120], "a job file has nothing like it")
        deploy = mapping(self.has.get("deploy"), f"{self.at}.deploy")
        for key in deploy.keys() - {"resources", "restart_policy", "labels"}:
            if not (key == "replicas" and deploy[key] == "1"):
                self.notes.left_out(f"{self.at}.deploy.{key}"[:120], "a job runs once, where it was hired")

    def _image(self) -> str:
        image = self._text("image")
        if not image:
            raise JobFileInvalid(
                f"{self.at}.image: is missing; name one that providers can fetch with --image"
            )
        return image

    def _script(self, command: str, mounts: Mounts) -> str:
        """The command for a shell, in the folder that it expects."""
        words = [*self._words("entrypoint"), *self._words("command")]
        if not command:
            whole_command(words, f"{self.at}.command")
        said = command or shlex.join(mounts.moved(word) for word in words)
        if words and not self.has.get("entrypoint") and not command:
            self.notes.assumed(
                f"{self.at}.command", "is all that runs: the image's own entry point is not used"
            )
        folder = mounts.moved(self._text("working_dir"))
        return f"cd {shlex.quote(folder)}\n{said}" if folder not in ("", "/workspace") else said

    def _words(self, key: str) -> list[str]:
        """A command as a list of words, whichever way it was written."""
        value, where = self.has.get(key), f"{self.at}.{key}"
        if isinstance(value, list):
            return [self._filled(word, where) for word in value]
        try:
            return shlex.split(self._filled(value, where))
        except ValueError as error:
            raise JobFileInvalid(f"{where}: {str(error).lower()}") from error

    def _variables(self, mounts: Mounts) -> Variables:
        where = f"{self.at}.environment"
        variables = Variables(self.given, self.notes)
        for name, value in pairs(self.has.get("environment"), where):
            variables.take(name, value and mounts.moved(value), where)
        return variables

    def _mounts(self) -> Mounts:
        mounts = Mounts(self.notes)
        for value in sequence(self.has.get("volumes"), f"{self.at}.volumes"):
            where = f"{self.at}.volumes"
            if isinstance(value, dict):
                kind = scalar(value.get("type"), where)
                source, target = (self._filled(value.get(key), where) for key in ("source", "target"))
                mounts.take(source if kind != "tmpfs" else "", target, where, bound=kind == "bind")
            else:
                parts = self._filled(value, where).split(":")
                source, target = (parts[0], parts[1]) if len(parts) > 1 else ("", parts[0])
                mounts.take(source, target, where, bound=source[:1] in (".", "/", "~"))
        return mounts

    def _ports(self) -> tuple[str, ...]:
        ports = Ports(self.notes)
        for key in ("ports", "expose"):
            where = f"{self.at}.{key}"
            for value in sequence(self.has.get(key), where):
                if isinstance(value, dict):
                    target, protocol = (scalar(value.get(name), where) for name in ("target", "protocol"))
                    ports.take(self._filled(target, where), protocol or "tcp", where)
                else:
                    number, _, protocol = self._filled(value, where).partition("/")
                    ports.take(number.rpartition(":")[2], protocol or "tcp", where)
        if ports.found:
            self.notes.changed(
                f"{self.at}.ports", "only you reach them: `qubix forward` brings them to your machine"
            )
        return tuple(ports.found)

    def _internet(self) -> bool:
        if self._text("network_mode") == "none":
            return False
        self.notes.assumed(
            f"{self.at}.networks",
            "the job may reach the Internet; without `internet: true` more providers fit",
        )
        return True

    def _limits(self) -> dict[str, Any]:
        resources = mapping(mapping(self.has.get("deploy"), self.at).get("resources"), f"{self.at}.deploy")
        return mapping(resources.get("limits"), f"{self.at}.deploy.resources.limits")

    def _cpus(self) -> str:
        where = f"{self.at}.deploy.resources"
        said = self._limits().get("cpus") or self.has.get("cpus") or _reserved(self.has).get("cpus")
        return self._filled(said, where)

    def _memory(self) -> str:
        where = f"{self.at}.deploy.resources"
        said = (
            self._limits().get("memory")
            or self.has.get("mem_limit")
            or _reserved(self.has).get("memory")
            or self.has.get("mem_reservation")
        )
        text = self._filled(said, where)
        if text:
            return _size(text, where)
        self.notes.assumed(where, import_gpu.SIZES if _wants_gpu(self.has) else import_gpu.NO_SIZES)
        return import_gpu.MEMORY if _wants_gpu(self.has) else ""

    def _gpu(self) -> str:
        return import_gpu.of_compose(self.has, _reserved(self.has), self.at, self.notes)

    def _restart(self) -> tuple[str, str]:
        policy, _, times = self._text("restart").partition(":")
        deploy = mapping(self.has.get("deploy"), f"{self.at}.deploy")
        if said := mapping(deploy.get("restart_policy"), f"{self.at}.deploy.restart_policy"):
            policy, times = (scalar(said.get(key), self.at) for key in ("condition", "max_attempts"))
            policy = policy or "any"
        if policy not in RESTARTS:
            self.notes.left_out(f"{self.at}.restart", f"{policy[:32]!r} is no way to restart")
        restart = RESTARTS.get(policy, ("", ""))[0]
        return restart, times if restart else ""

    def _ready(self) -> str:
        """The health check as the command that says when the job is ready."""
        where = f"{self.at}.healthcheck"
        check = mapping(self.has.get("healthcheck"), where)
        test = check.get("test")
        if not test or check.get("disable") == "true":
            return ""
        self.notes.changed(where, "is `ready`: billing begins when it first succeeds, later it is not asked")
        if not isinstance(test, list):
            return self._filled(test, where)
        kind, *words = [self._filled(word, where) for word in test]
        return {"CMD": shlex.join(words), "CMD-SHELL": " ".join(words)}.get(kind, "")


def _size(text: str, where: str) -> str:
    """Of compose (b, k, m, g in 1,024s; a number alone is bytes) as a job file's."""
    match = SIZE.fullmatch(text)
    if not match:
        raise JobFileInvalid(f"{where}: {text[:32]!r} is not a size such as 512m or 4gb")
    mib = float(match[1]) * 1024.0 ** ("bkmgt".index(match[2].lower() or "b") - 2)
    return import_gpu.size_of(mib)
