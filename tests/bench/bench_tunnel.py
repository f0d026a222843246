"""A tunnel's speed, delay and cost, against raw TCP and `ssh -L` over the same loopback in the same run.

Program of the caller -> near end -> TLS or the wire -> far end -> program of the job: each is a process. The
rounds alternate between the ways and go both directions, and the figure is the median of each round's own
ratio, so that a busy machine hits all alike.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

from tests.bench.tunnel_server import connect, percentile, round_trips
from tests.bench.tunnel_world import Tunnel, ask, client_seconds, job, relay, ssh, tunnel

_MEGABYTES: Final = 256
_SLOW_MEGABYTES: Final = 24
_ROUNDS: Final = 11
_RAW_SHARE: Final = 4
"""Raw TCP gets so many times more, or it would be over before it has begun."""
_IDLE: Final = 200
_IDLE_SECONDS: Final = 30
_PINGS: Final = 100

Figure = dict[str, object]


def _speed(port: int, streams: int, share: int = 1) -> float:
    """MB/s of one round, as much out as in."""
    size = _MEGABYTES * share << 20
    return 2 * size / sum(client_seconds(port, what, size, streams) for what in "GT") / 1e6


def _rounds(ways: dict[str, int], streams: int) -> dict[str, dict[str, float]]:
    """Of each way what `_middle` says."""
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(_ROUNDS + 1):
        for name, port in ways.items():
            speed = _speed(port, streams, _RAW_SHARE if name == "tcp" else 1)
            if number:  # the first round warms up
                speeds[name].append(speed)
    return _middle(speeds)


def _middle(speeds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Median and best MB/s of each way, and how many times as fast the tunnel was in the same round."""
    return {
        name: {
            "mb_per_s": round(statistics.median(each), 1),
            "best": round(max(each), 1),
            "tunnel_ratio": round(
                statistics.median(ours / other for ours, other in zip(speeds["tunnel"], each, strict=True)), 3
            ),
        }
        for name, each in speeds.items()
    }


@cache
def _compared(streams: int) -> dict[str, Any]:
    """All ways in one run, and what ours cost."""
    with ExitStack() as stack:
        to_job = stack.enter_context(job())
        ours = stack.enter_context(tunnel(to_job))
        ways = {
            "tunnel": ours.port,
            "ssh": stack.enter_context(ssh(to_job)),
            "ssh_aes128gcm": stack.enter_context(ssh(to_job, "-c", "aes128-gcm@openssh.com")),
            "tcp": to_job,
        }
        before = ours.usage()
        speeds: dict[str, Any] = _rounds(ways, streams)
        carried = 2 * (_MEGABYTES << 20) * (_ROUNDS + 1)
        return speeds | {"cpu_s_per_gb": _cpu(before, ours.usage(), carried / 1e9)}


def _cpu(before: dict[str, Any], after: dict[str, Any], per: float) -> dict[str, float]:
    return {end: round((after[end]["cpu_s"] - before[end]["cpu_s"]) / per, 2) for end in before}


def _against(detail: dict[str, Any], other: str, reference: str) -> Figure:
    value = detail[other]["tunnel_ratio"]
    return {"value": value, "unit": "ratio", "reference": reference, "detail": detail}


def one_vs_ssh() -> Figure:
    """Speed of one connection through a tunnel as a share of that through `ssh -L` as it comes."""
    return _against(_compared(1), "ssh", "ssh -L")


def ten_vs_ssh() -> Figure:
    """The same of ten at once."""
    return _against(_compared(10), "ssh", "ssh -L")


def vs_ssh_aes128gcm() -> Figure:
    """The same of one, against the fastest cipher that OpenSSH has."""
    return _against(_compared(1), "ssh_aes128gcm", "ssh -L -c aes128-gcm@openssh.com")


def libp2p_vs_tcp() -> Figure:
    """Speed of one connection over a stream of the wire, where there is no other way."""
    with job() as to_job:
        return _slow_vs_tcp(to_job, "wire")


def relayed_vs_tcp() -> Figure:
    """The same through a third node, which encrypts nothing itself but has its own wire to both."""
    with job() as to_job, relay() as address:
        return _slow_vs_tcp(to_job, address)


def _slow_vs_tcp(to_job: int, over: str) -> Figure:
    speeds: dict[str, list[float]] = {"tunnel": [], "tcp": []}
    with tunnel(to_job, over) as ours:
        for _ in range(3):
            size = _SLOW_MEGABYTES << 20
            speeds["tunnel"].append(
                2 * size / sum(client_seconds(ours.port, what, size, 1) for what in "GT") / 1e6
            )
            speeds["tcp"].append(_speed(to_job, 1, _RAW_SHARE))
    return _against(_middle(speeds), "tcp", "raw TCP")


@contextmanager
def _bulk(port: int, streams: int) -> Iterator[None]:
    """So many connections that never stop fetching."""
    with ExitStack() as stack:
        if streams:
            command = (sys.executable, "-m", "tests.bench.tunnel_server", "G", str(port), str(1 << 50))
            child = subprocess.Popen((*command, str(streams)), cwd=Path(__file__).parents[2])
            stack.callback(child.wait)
            stack.callback(child.kill)
            time.sleep(1.5)
        yield


def _summary(samples: list[float]) -> dict[str, float]:
    return {"p50_ms": round(statistics.median(samples), 3), "p99_ms": round(percentile(samples, 0.99), 3)}


def rtt_added_ms_p50() -> Figure:
    """What a tunnel adds to a byte there and back while it is idle. In the detail beside one and ten
    connections at full speed, and a ping of the two daemons over the wire, which stands for control."""
    with job() as to_job, tunnel(to_job) as ours, ssh(to_job) as by_ssh:
        raw = round_trips(to_job, 1_000)
        detail: dict[str, Any] = {"tcp": _summary(raw), "ssh": _summary(round_trips(by_ssh, 1_000))}
        for streams in (0, 1, 10):
            with _bulk(ours.port, streams):
                detail[f"tunnel_beside_{streams}"] = _summary(
                    round_trips(ours.port, 1_000 if not streams else 200)
                )
                pings = ask(ours.near, ping=_PINGS)["ms"]
                detail[f"control_ping_beside_{streams}"] = _summary(pings)
        with _bulk(by_ssh, 1):
            detail["ssh_beside_1"] = _summary(round_trips(by_ssh, 200))
    value = detail["tunnel_beside_0"]["p50_ms"] - detail["tcp"]["p50_ms"]
    return {"value": round(value, 3), "unit": "ms", "reference": "raw TCP", "detail": detail}


def idle_200_cpu_share() -> Figure:
    """Of one core, by the ends with 200 open connections that say nothing; the larger of the two."""
    with job() as to_job, tunnel(to_job) as ours, ExitStack() as stack:
        round_trips(ours.port, 10)
        alone = _settled(ours)
        for _ in range(_IDLE):
            sock = stack.enter_context(connect(ours.port, b"E"))
            sock.sendall(b"x")
            sock.recv(1)
        before = _settled(ours)
        time.sleep(_IDLE_SECONDS)
        after = ours.usage()
    shares = {
        end: (after[end]["cpu_s"] - before[end]["cpu_s"]) / (after[end]["at_s"] - before[end]["at_s"])
        for end in before
    }
    detail = {
        "cpu_share": {end: round(share, 4) for end, share in shares.items()},
        "memory_mb": {end: round(before[end]["rss_mb"] - alone[end]["rss_mb"], 1) for end in before},
        "tasks": {end: before[end]["tasks"] - alone[end]["tasks"] for end in before},
        "seconds": _IDLE_SECONDS,
    }
    return {
        "value": round(max(shares.values()), 4),
        "unit": "share",
        "reference": "one core",
        "detail": detail,
    }


def _settled(ours: Tunnel) -> dict[str, dict[str, float]]:
    """What both use, once they have collected their garbage."""
    time.sleep(1)
    return {"near": ask(ours.near, collect=True), "far": ask(ours.far, collect=True)}


BENCHES: Final[dict[str, Callable[[], Figure]]] = {
    "tunnel.one_vs_ssh": one_vs_ssh,
    "tunnel.ten_vs_ssh": ten_vs_ssh,
    "tunnel.vs_ssh_aes128gcm": vs_ssh_aes128gcm,
    "tunnel.libp2p_vs_tcp": libp2p_vs_tcp,
    "tunnel.relayed_vs_tcp": relayed_vs_tcp,
    "tunnel.rtt_added_ms_p50": rtt_added_ms_p50,
    "tunnel.idle_200_cpu_share": idle_200_cpu_share,
}
