"""Which runtime of the Docker engine runs jobs: the choice, and whether the chosen one runs here. See
docs/isolation.md for what each is worth."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from docker.errors import APIError

from protocol.errors import ConfigInvalid
from qubixd.runner.docker_config import gpu_request
from qubixd.runner.docker_engine import Client

AUTO: Final = "auto"
PLAIN: Final = "runc"
PLAIN_NAME: Final = "docker"
"""What offers say where jobs use the host's kernel."""
ALIKE: Final = (PLAIN, "crun", "nvidia")
"""Runtimes whose jobs use the host's kernel, and so the filter in it."""
SANDBOXES: Final = {"runsc": "runsc", "gvisor": "runsc", "kata": "kata", "kata-runtime": "kata"}
"""Names under which runtimes with a kernel of their own are usually registered, and how offers call them; the
first that is installed is taken by AUTO."""
MAX_NAME_CHARS: Final = 32
HIDDEN: Final = "io.containerd."
"""Every engine lists its own inner names; nobody means them."""


@dataclass(frozen=True)
class Runtime:
    """One of the engine's runtimes."""

    name: str
    """As the engine calls it; "" for the engine's own choice."""
    offered: str
    """What offers and terms say, e.g. "docker+runsc"."""
    fenced: bool
    """The fence's filter holds for it. A runtime that brings its own network puts packets on the line behind
    the filter's back, so jobs get no Internet there."""


def installed(info: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The runtimes in the engine's answer to `info`, with their arguments."""
    runtimes: Mapping[str, Mapping[str, Any]] = info.get("Runtimes") or {}
    return {
        name: tuple(each.get("runtimeArgs") or ())
        for name, each in runtimes.items()
        if not name.startswith(HIDDEN)
    }


def choose(setting: str, runtimes: Mapping[str, Sequence[str]], *, gpus: bool) -> Runtime:
    """The runtime for this daemon's jobs. ConfigInvalid for one that the engine does not have.

    AUTO takes a sandbox where one is installed, because a stranger's job then has no way to the host's kernel
    but through it; not on a machine that sells GPUs, whose drivers a sandbox passes on for few cards only.
    """
    if setting == AUTO:
        found = next((name for name in SANDBOXES if name in runtimes), "")
        return _runtime("" if gpus else found, runtimes)
    name = next((each for each in _names(setting) if each in runtimes), None)
    if name is None and setting != PLAIN:
        known = ", ".join(sorted(runtimes)) or "its own alone"
        raise ConfigInvalid(f"the Docker engine has no runtime {setting!r}; it has {known}")
    return _runtime(name or "", runtimes)


def prove(client: Client, runtime: Runtime, image: str, gpu_uuid: str = "") -> str:
    """Run the fence's program (`image`) once in it, with that card if one is named; "" or why it does not run
    here. Blocks."""
    limits: dict[str, Any] = {"network_mode": "none", "cap_drop": ["ALL"], "runtime": runtime.name or None}
    if gpu_uuid:
        limits["device_requests"] = [gpu_request((gpu_uuid,))]
    host_config = client.create_host_config(**limits)
    made = None
    try:
        made = client.create_container(
            image, [], entrypoint=["/fence"], host_config=host_config, use_config_proxy=False
        )
        client.start(made)
        code = client.wait(made)["StatusCode"]
    except APIError as error:
        return str(error.explanation)
    finally:
        if made is not None:
            client.remove_container(made, v=True, force=True)
    return f"its first program ended with code {code}" if code else ""


def _names(setting: str) -> list[str]:
    """The names a setting may stand for: "kata" is registered as kata-runtime, too."""
    return [setting, *(name for name, kind in SANDBOXES.items() if kind == setting)]


def offered(name: str) -> str:
    """What offers and terms call a runtime of the engine; "" is the engine's own choice."""
    kind = SANDBOXES.get(name, "" if name in ("", *ALIKE) else name)
    return f"{PLAIN_NAME}+{kind[:MAX_NAME_CHARS]}" if kind else PLAIN_NAME


def _runtime(name: str, runtimes: Mapping[str, Sequence[str]]) -> Runtime:
    called = offered(name)
    return Runtime(name, called, called == PLAIN_NAME or _leaves_network_to_host(runtimes[name]))


def _leaves_network_to_host(arguments: Sequence[str]) -> bool:
    """gVisor's setting to use the namespace's own network, in which the filter is."""
    words = " ".join(arguments).replace("=", " ").split()
    pairs = itertools.pairwise(words)
    return any((option.lstrip("-"), value) == ("network", "host") for option, value in pairs)
