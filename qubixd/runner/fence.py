"""Gives a job the Internet and nothing else: a container of our own that holds the job's network.

The fence stands on the engine's usual bridge, alone may manage its own network namespace, fills it with the
rules of fence_rules.py and waits. The job joins that namespace without any right. So no part of the host's
own filter changes, the daemon needs no root, and it works wherever the engine's kernel has nf_tables.

Everything here blocks: for the engine's worker threads.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from docker.errors import APIError, NotFound

from protocol.errors import InternetUnavailable
from protocol.units import LeaseId
from qubixd.runner import docker_config as config
from qubixd.runner import fence_rules
from qubixd.runner.common import LEASE_ID_BYTES
from qubixd.runner.docker_engine import HTTP_CONFLICT, Client, ignoring_ended
from qubixd.runner.fence_networks import networks_in, own_networks
from qubixd.runner.own_image import SMALL, ensure_image

log = logging.getLogger(__name__)

LABEL_FENCE: Final = "qubix.fence"
UP: Final = "up"


@dataclass(frozen=True)
class FenceLimits:
    """What the provider grants each job with Internet."""

    dns: tuple[str, ...] = ("9.9.9.9", "1.1.1.1")
    """Public resolvers: the host's own may be in the private network, where no job gets."""
    bytes_per_second: int = 0
    """Each way; 0 for no limit."""
    forbidden: tuple[str, ...] = ()
    """More addresses and networks that no job may reach."""


class Fences:
    """The fences of one daemon, known by their leases. Any thread may call."""

    def __init__(self, state_dir: Path, home: str, limits: FenceLimits | None = None) -> None:
        """Nothing is contacted yet. `home`: the label of this daemon's containers."""
        self._built = state_dir / "fence"
        self._home = home
        self._limits = limits or FenceLimits()
        self._lock = threading.Lock()
        self._host: frozenset[str] | None = None
        """What the engine's host said of its addresses; asked once."""

    def prepare(self, client: Client) -> None:
        """Make the fence's image and prove one fence. InternetUnavailable says why jobs get no Internet."""
        proof = LeaseId(os.urandom(LEASE_ID_BYTES))
        try:
            self.start(client, proof)
        finally:
            self.remove(client, proof)

    def start(self, client: Client, lease_id: LeaseId) -> str:
        """The name of the lease's fence, once its rules hold; renews those of one that stands already."""
        image, name = self._image(client), config.fence_name(lease_id)
        rules = fence_rules.batch(self._forbidden(), self._limits.bytes_per_second).hex()
        host_config = client.create_host_config(**_host_options(self._limits))
        with _unavailable():
            try:
                client.create_container(
                    host_config=host_config, **_container_options(image, lease_id, self._home, rules)
                )
            except APIError as error:
                if error.status_code != HTTP_CONFLICT:
                    raise
            self._own(client, name)
            client.start(name)
            said = _apply(client, name, rules)
        if said != UP:
            self.remove(client, lease_id)
            raise InternetUnavailable(f"this machine cannot fence a job's network: {said}")
        return name

    def remove(self, client: Client, lease_id: LeaseId) -> None:
        """No error if it is gone or never was."""
        name = config.fence_name(lease_id)
        with suppress(NotFound, InternetUnavailable), ignoring_ended():
            self._own(client, name)
            client.remove_container(name, v=True, force=True)

    def leases(self, client: Client) -> frozenset[LeaseId]:
        """Every lease that has a fence of this daemon here."""
        filters = {"label": [LABEL_FENCE, f"{config.LABEL_HOME}={self._home}"]}
        found = client.containers(all=True, filters=filters)
        leases = (config.lease_of(each["Labels"], LABEL_FENCE) for each in found)
        return frozenset(lease for lease in leases if lease is not None)

    def _own(self, client: Client, name: str) -> None:
        labels = client.inspect_container(name)["Config"]["Labels"] or {}
        if labels.get(config.LABEL_HOME) != self._home:
            raise InternetUnavailable(f"the container {name} on this Docker engine is not this daemon's")

    def _image(self, client: Client) -> str:
        with self._lock, _unavailable():
            image = ensure_image(client, self._built)
            if self._host is None:
                self._host = networks_in(_said_by_host(client, image))
            return image

    def _forbidden(self) -> frozenset[str]:
        """The engine's host as it was, and this machine as it is now: mostly the same one."""
        return (self._host or frozenset()) | own_networks() | frozenset(self._limits.forbidden)


# The engine's side --------------------------------------------------------------------------------


def _host_options(limits: FenceLimits) -> dict[str, Any]:
    """Arguments of the SDK's `create_host_config`. One right, over the fence's own network alone."""
    return {
        **SMALL,
        "network_mode": "bridge",
        "cap_add": ["NET_ADMIN"],
        "dns": list(limits.dns),  # the job gets the files of names with the network
        "dns_search": ["."],
    }


def _container_options(image: str, lease_id: LeaseId, home: str, rules: str) -> dict[str, Any]:
    return {
        "image": image,
        "name": config.fence_name(lease_id),
        "entrypoint": ["/fence", "hold", rules],
        "command": [],
        "user": "0:0",
        "hostname": config.HOSTNAME,
        "labels": {config.LABEL_HOME: home, LABEL_FENCE: lease_id.hex()},
        "use_config_proxy": False,
    }


def _apply(client: Client, name: str, rules: str) -> str:
    """What the program said of the rules: UP, or why they do not hold."""
    try:
        asked = client.exec_create(name, ["/fence", "apply", rules])
        said: str = client.exec_start(asked["Id"]).decode(errors="replace").strip()
    except APIError as error:
        said = str(error.explanation)
    # Where the first program found that the rules do not hold it ends, and the second with it.
    first: str = client.logs(name, tail=1).decode(errors="replace").strip()
    return said if UP in (said, first) else _in_words(first or said)


def _in_words(said: str) -> str:
    """The program knows errors by number."""
    return re.sub(r"errno +(\d+)", lambda found: os.strerror(int(found[1])), said)


def _said_by_host(client: Client, image: str) -> str:
    """The tables of networks of the engine's host, which need not be the machine this runs on."""
    host_config = client.create_host_config(**SMALL, network_mode="host", userns_mode="host")
    made = client.create_container(
        image, [], entrypoint=["/fence", "networks"], host_config=host_config, use_config_proxy=False
    )
    try:
        client.start(made)
        code = client.wait(made)["StatusCode"]
        said: str = client.logs(made).decode(errors="replace")
    finally:
        client.remove_container(made, v=True, force=True)
    if code:
        raise InternetUnavailable(f"the engine's host does not tell its networks: {said.strip()[:200]}")
    return said


@contextmanager
def _unavailable() -> Iterator[None]:
    """An engine that answers, and refuses."""
    try:
        yield
    except APIError as error:
        raise InternetUnavailable(f"the Docker engine refused the fence: {error.explanation}") from error
