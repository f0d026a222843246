"""What it takes to get into a job: its named ports, and the values that let its caller in.

Where a template needs a token or a password that nobody has given, one is made here. What the ports of a
job speak of is kept beside the lease, sealed for this node's own key, so that `qubix open` finds it after a
restart; it goes with the lease's other secrets, and nothing else of them is kept.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgpack
import msgspec

from protocol.codec import convert, unpack
from protocol.control_access import AccessView, PortView
from protocol.errors import JobFileInvalid, JobNotRunning, UsageError
from protocol.jobspec import Job
from protocol.lease_state import TERMINAL, Lease, Role
from protocol.ports import Port

LETTERS: Final = string.ascii_letters + string.digits
TOKEN_CHARS: Final = 32
PASSWORD_CHARS: Final = 24
VNC_CHARS: Final = 8
"""VNC takes no more; only who rents the machine can try one."""
SSH_PUBLIC_KEY: Final = "SSH_PUBLIC_KEY"
SSH_HOST_KEY: Final = "SSH_HOST_KEY"
HOST_PUBLIC: Final = "SSH_HOST_KEY.pub"
"""Of the server's key only the public half is kept."""


@dataclass(frozen=True)
class Access:
    ports: tuple[Port, ...] = ()
    values: dict[str, str] = field(default_factory=dict, repr=False)
    """Those that its ports need, by the names of their variables."""


def with_made(job: Job, given: Mapping[str, str]) -> dict[str, str]:
    """The values of all secrets of a job. JobFileInvalid for one that is neither given nor can be made."""
    made = job.makes
    values = {}
    for name in job.secrets:
        values[name] = given[name] if name in given else make(made.get(name, ""))
        if not values[name] and name not in given:
            raise JobFileInvalid(f"secrets: {name} has no value; set it in the environment and run again")
    if unasked := sorted(given.keys() - values.keys()):
        raise JobFileInvalid(f"secrets: the job file does not speak of {', '.join(unasked)[:200]}")
    return values


def make(kind: str) -> str:
    """A value of one of templates.MAKES; empty for one that is not made here."""
    match kind:
        case "token":
            return letters(TOKEN_CHARS)
        case "password":
            return letters(PASSWORD_CHARS)
        case "vnc_password":
            return letters(VNC_CHARS)
        case "ssh_host_key":
            return host_key()
    return ""


def letters(count: int) -> str:
    return "".join(secrets.choice(LETTERS) for _ in range(count))


def host_key() -> str:
    """An Ed25519 key as OpenSSH writes it."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    data = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption())
    return data.decode()


def public_half(private: str) -> str:
    """`ssh-ed25519 AAAA...` of an unlocked private key; empty if it is none, as when a person gave it."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization as form

    try:
        key = form.load_ssh_private_key(private.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return ""
    return key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH).decode()


def access_of(job: Job, values: Mapping[str, str]) -> Access:
    """What to keep of a job: `values` are those of its secrets."""
    known = {**job.envs, **values}
    needed = {name for port in job.ports for name in port.variables}
    if any(port.kind == "ssh" for port in job.ports):
        needed.add(SSH_PUBLIC_KEY)
    kept = {name: known[name] for name in sorted(needed & known.keys())}
    if SSH_HOST_KEY in known and (public := public_half(known[SSH_HOST_KEY])):
        kept[HOST_PUBLIC] = public
    return Access(job.ports, kept)


def encode(access: Access) -> bytes:
    packed: bytes = msgpack.packb(msgspec.to_builtins(access))
    return packed


def decode(data: bytes) -> Access:
    """MessageInvalid unless `encode` has made it."""
    found: Access = convert(unpack(data, "access"), Access, "access")
    return found


def check_ours(lease: Lease) -> None:
    """UsageError unless this node has rented the machine, JobNotRunning unless the lease goes on."""
    if lease.role is Role.PROVIDER:
        raise UsageError("only who rented the machine gets into this job")
    if lease.phase in TERMINAL:
        raise JobNotRunning(f"the lease has ended, its job is no more: {lease.sentence or lease.reason}")


def access_view(lease: Lease, access: Access) -> AccessView:
    return AccessView(
        lease_id=lease.lease_id.hex(),
        name=lease.name,
        phase=lease.phase,
        ports=[_port_view(port, access.values) for port in access.ports],
        public_keys=access.values.get(SSH_PUBLIC_KEY, ""),
        host_key=access.values.get(HOST_PUBLIC, ""),
    )


def _port_view(port: Port, values: Mapping[str, str]) -> PortView:
    return PortView(
        name=port.name,
        port=port.port,
        protocol=port.protocol,
        kind=port.kind,
        path=port.filled(values),
        password=values.get(port.login, "") if port.login else "",
    )
