"""What the Docker engine is told of a job and what its answers mean. Pure; the engine is in docker.py."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from docker.types import DeviceRequest, LogConfig, Mount, Ulimit

from protocol.units import LeaseId, UnixMs
from qubixd.runner import ExitReason, JobState, RunSpec, seccomp
from qubixd.runner.common import FILE_SIZE_MARGIN_BYTES, LEASE_ID_BYTES, RESERVED_ENV_PREFIXES, prepared
from qubixd.runner.gate import gate_command

FENCE_REPOSITORY: Final = "qubix-fence"
"""Of the images of fences: no job's, and no news to anybody."""
LABEL_LEASE: Final = "qubix.lease"
LABEL_HOME: Final = "qubix.home"
"""Which daemon a container belongs to: several may share one engine."""
LABEL_WORKSPACE: Final = "qubix.workspace"
LABEL_DISK_BYTES: Final = "qubix.disk_bytes"

WORKSPACE: Final = "/workspace"
HOSTNAME: Final = "qubix"
TMP_BYTES: Final = 256 << 20
SMALL_TMPFS_BYTES: Final = 16 << 20
SHM_SHARE: Final = 2
"""/dev/shm may take 1/2 of the job's memory (it counts against it): data loaders need more than 64 MB."""
LOG_FILE_SIZE: Final = "16m"
LOG_FILES: Final = "4"
OPEN_FILES: Final = 4_096
"""The kernel's own default: an engine may not be able to give more than it has itself."""
OOM_SCORE: Final = 500
"""The kernel ends a job before anything of the host."""
GPU_CAPABILITIES: Final = ["gpu", "compute", "utility", "graphics", "video"]

Info = Mapping[str, Any]
"""The engine's answer to `inspect`; Any because it is JSON of the engine's own shape."""


def container_name(lease_id: LeaseId) -> str:
    return f"qubix-{lease_id.hex()}"


def fence_name(lease_id: LeaseId) -> str:
    """The container that holds the network of a job with Internet (fence.py)."""
    return f"qubix-fence-{lease_id.hex()}"


def porter_name(lease_id: LeaseId) -> str:
    """The container that opens a way into a job's network (porter.py)."""
    return f"qubix-porter-{lease_id.hex()}"


def environment(spec: RunSpec, image_env: Iterable[str]) -> list[str]:
    """The engine's Env list. A bare name takes a variable of the image away.

    NVIDIA_VISIBLE_DEVICES is always set: where NVIDIA's runtime is the engine's default, an image that
    asks for "all" (or an old CUDA image that says nothing) would be given every GPU of the machine.
    """
    names = {entry.partition("=")[0] for entry in image_env}
    removed = sorted(name for name in names if name.startswith(RESERVED_ENV_PREFIXES))
    fixed = {"NVIDIA_VISIBLE_DEVICES": ",".join(spec.gpu_uuids) or "void", "TINI_KILL_PROCESS_GROUP": "1"}
    settings = {"HOME": WORKSPACE, **spec.env, **fixed}
    return [*(name for name in removed if name not in settings), *(f"{k}={v}" for k, v in settings.items())]


def tmpfs(image_volumes: Iterable[str]) -> dict[str, str]:
    """Small filesystems in memory. Also over every volume the image declares: the engine would make a
    writable directory on the host's disk of it, outside the job's disk limit."""
    small = f"rw,nosuid,nodev,size={SMALL_TMPFS_BYTES},mode=1777"
    mounts = {path: small for path in image_volumes if path.rstrip("/") != WORKSPACE}
    return {**mounts, "/tmp": f"rw,nosuid,nodev,exec,size={TMP_BYTES},mode=1777", "/run": small}


def network_options(spec: RunSpec) -> dict[str, Any]:
    """The fence's network, or none. Without one the engine would still write the host's own resolvers and
    domains, which are the provider's business, into the job's files."""
    if spec.internet:
        return {"network_mode": f"container:{fence_name(spec.lease_id)}"}
    return {"network_mode": "none", "dns": ["127.0.0.1"], "dns_search": ["."]}


def gpu_request(gpu_uuids: Iterable[str]) -> DeviceRequest:
    """These cards and no others."""
    return DeviceRequest(device_ids=list(gpu_uuids), capabilities=[GPU_CAPABILITIES])


def host_options(spec: RunSpec, image_volumes: Iterable[str], runtime: str = "") -> dict[str, Any]:
    """Arguments of the SDK's `create_host_config`: every limit of a job. `runtime`: "" for its own."""
    file_size = spec.disk_bytes + FILE_SIZE_MARGIN_BYTES
    return {
        "mounts": [Mount(WORKSPACE, str(spec.workspace.resolve()), type="bind", propagation="rprivate")],
        "tmpfs": tmpfs(image_volumes),
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true", f"seccomp={seccomp.profile()}"],
        **network_options(spec),
        "ipc_mode": "private",
        "cgroupns": "private",
        "shm_size": spec.memory_bytes // SHM_SHARE,
        "pids_limit": spec.pids_max,
        "mem_limit": spec.memory_bytes,
        "memswap_limit": spec.memory_bytes,
        "nano_cpus": spec.cpu_millis * 1_000_000,
        "oom_score_adj": OOM_SCORE,
        "ulimits": [
            Ulimit(name="nofile", soft=OPEN_FILES, hard=OPEN_FILES),
            Ulimit(name="core", soft=0, hard=0),
            Ulimit(name="fsize", soft=file_size, hard=file_size),
        ],
        "log_config": LogConfig(
            type=LogConfig.types.JSON, config={"max-size": LOG_FILE_SIZE, "max-file": LOG_FILES}
        ),
        "restart_policy": {"Name": "no"},
        "runtime": runtime or None,
        "init": True,
        "device_requests": [gpu_request(spec.gpu_uuids)] if spec.gpu_uuids else [],
    }


def container_options(spec: RunSpec, image: Info, user: str, home: str) -> dict[str, Any]:
    """Arguments of the SDK's `create_container`, less the host's part. `image`: its inspect answer."""
    config = image.get("Config") or {}
    return {
        "image": spec.image,
        "name": container_name(spec.lease_id),
        "entrypoint": gate_command(prepared(spec.script)),  # replaces the image's own
        "command": [],
        "environment": environment(spec, config.get("Env") or ()),
        "working_dir": WORKSPACE,
        "hostname": None if spec.internet else HOSTNAME,  # comes with the fence's network
        "user": user,
        "stop_signal": "SIGTERM",  # also when the engine itself shuts down
        "healthcheck": {"test": ["NONE"]},
        "labels": {
            LABEL_LEASE: spec.lease_id.hex(),
            LABEL_HOME: home,
            LABEL_WORKSPACE: str(spec.workspace.resolve()),
            LABEL_DISK_BYTES: str(spec.disk_bytes),
        },
        "stdin_open": True,  # for the gate
        "detach": True,  # else the SDK closes standard input with the first connection to it
        "use_config_proxy": False,  # the provider's own proxy settings may hold a password
    }


def disk_bytes_of(info: Info) -> int:
    return int(info["Config"]["Labels"][LABEL_DISK_BYTES])


def is_fenced(info: Info) -> bool:
    """Whether the job's network is that of a fence."""
    return str(info["HostConfig"]["NetworkMode"]).startswith("container:")


def job_state(info: Info | None) -> JobState:
    """A container that was created and never started counts as absent: `start` will start it."""
    status = "created" if info is None else info["State"]["Status"]
    if status in ("created", "removing"):
        return JobState.ABSENT
    if status == "paused":
        return JobState.PAUSED
    return JobState.EXITED if status in ("exited", "dead") else JobState.RUNNING


def exit_reason(state: Info) -> ExitReason:
    """Why a container ended that we did not end; LOST if the engine never saw its end."""
    if unix_ms(state["FinishedAt"]) < 0:  # not "before it started": a short job's start is noted late
        return ExitReason.LOST
    return ExitReason.OUT_OF_MEMORY if state["OOMKilled"] and state["ExitCode"] else ExitReason.EXITED


def run_of(info: Info) -> str:
    """Which run of the job this is: a restart begins another."""
    return str(info["State"]["StartedAt"])


def started_at(info: Info) -> UnixMs:
    return unix_ms(run_of(info))


def workspace_of(info: Info) -> Path:
    return Path(info["Config"]["Labels"][LABEL_WORKSPACE])


def unix_ms(text: str) -> UnixMs:
    """Milliseconds of the engine's time, e.g. "2026-01-31T12:00:00.123456789Z"; "never" is below zero."""
    return UnixMs(int(moment(text).timestamp() * 1000))


def moment(text: str) -> datetime:
    """The same, to the microsecond."""
    return datetime.fromisoformat(text)


def lease_of(labels: Mapping[str, str], label: str = LABEL_LEASE) -> LeaseId | None:
    """The lease a container was made for, None if its label is not one."""
    try:
        value = bytes.fromhex(labels.get(label, ""))
    except ValueError:
        return None
    return LeaseId(value) if len(value) == LEASE_ID_BYTES else None
