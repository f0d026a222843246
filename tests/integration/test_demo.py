"""`qubix demo` from end to end: real chain, real daemons, real job, every sum checked from outside."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import psutil
import pytest

from tui import demo_image, demo_job

pytestmark = pytest.mark.timeout(300)  # many processes, on a machine that may be slow

KEYS = {
    *("ok", "runner", "lease_id", "state", "deposit", "paid", "provider_received", "fee", "refunded"),
    *("vouchers", "exit_code", "output_sha256", "seconds"),
}
SECONDS = {"discover", "quote", "fund", "provision", "run", "settle", "total"}
NO_ENGINE = "unix:///nonexistent/docker.sock"


@pytest.fixture
def temp() -> Iterator[Path]:
    """A temporary directory with a short name: the path of a unix socket may have about 100 characters."""
    with tempfile.TemporaryDirectory(prefix="q-") as name:
        yield Path(name)


@contextmanager
def demo(temp: Path, *words: str, docker_host: str | None = None) -> Iterator[subprocess.Popen[str]]:
    """A running `qubix demo --json` whose temporary files lie in `temp`."""
    env = os.environ | {"TMPDIR": str(temp), "QUBIX_CHAIN": "nonsense"}
    env |= {"DOCKER_HOST": docker_host} if docker_host else {}
    command = [sys.executable, "-m", "tui.cli", "demo", "--json", *words]
    with subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()


def check(process: subprocess.Popen[str], temp: Path, runner: str) -> str:
    """Every promise of the demo's last line; what it showed to a person."""
    out, err = process.communicate(timeout=250)
    assert process.returncode == 0, err
    assert out.count("\n") == 1
    report: dict[str, Any] = json.loads(out)
    assert report.keys() == KEYS and report["seconds"].keys() == SECONDS
    assert (report["ok"], report["runner"], report["state"], report["exit_code"]) == (True, runner, "done", 0)
    assert report["fee"] == report["paid"] * 500 // 10_000 > 0
    assert report["provider_received"] == report["paid"] - report["fee"]
    assert report["deposit"] == report["paid"] + report["refunded"] == 30_000
    assert report["vouchers"] > 3
    demo_job.write_data(temp / "data.csv")
    expected = demo_job.expected_result(temp / "data.csv")
    assert report["output_sha256"] == hashlib.sha256(expected).hexdigest()
    *parts, total = report["seconds"].values()
    assert sum(parts) <= total
    assert "What happened to the money" in err and f"{report['refunded']:,} QU" in err
    assert "│ wrote result.csv" in err, "the job's log is followed live"
    assert not list(temp.glob("qubix-demo-*"))
    return err


@pytest.mark.slow
def test_as_a_process_where_no_engine_answers(temp: Path) -> None:
    with demo(temp, docker_host=NO_ENGINE) as process:
        said = check(process, temp, "process")
    assert "without a container" in said and "no Docker engine answers" in said


@contextmanager
def devnet() -> Iterator[dict[str, Any]]:
    """What a running `qubix devnet` of three nodes said when it was ready."""
    command = [sys.executable, "-m", "tui.cli", "devnet", "--nodes", "3", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.terminate()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["node", "rpc"])
def test_on_a_chain_that_others_run(temp: Path, scheme: str) -> None:
    """The same balance sheet; only what was paid has left the wallet that was lent for it."""
    with devnet() as net:
        chain = "node://" + ",".join(net["nodes"]) if scheme == "node" else "rpc+" + net["rpc"]
        place = ("--chain", chain, "--contract-index", str(net["contract_index"]))
        seed = ("--wallet-seed-file", net["seed_file"])
        with demo(temp, "--runner", "process", *place, *seed) as process:
            said = check(process, temp, "process")
    assert "a private Qubic network" not in said
    assert "1,000 QU sent to the provider's new wallet" in said
    assert "went from the provider's wallet back to yours" in said


@pytest.mark.parametrize(
    "words", [("--chain", "node://127.0.0.1:1"), ("--contract-index", "28"), ("--wallet-seed-file", "x")]
)
def test_half_of_a_chain_is_refused(temp: Path, words: tuple[str, str]) -> None:
    with demo(temp, *words) as process:
        out, _ = process.communicate(timeout=250)
    assert process.returncode == 2
    assert "give all of --chain" in json.loads(out)["error"]["message"]


@pytest.mark.slow
def test_a_chain_on_which_the_wallet_is_empty(temp: Path) -> None:
    seed = temp / "empty.seed"
    seed.touch(mode=0o600)
    seed.write_text("a" * 54 + "z")
    with devnet() as net:
        place = ("--chain", f"node://{net['nodes'][0]}", "--contract-index", str(net["contract_index"]))
        words = ("--runner", "process", *place, "--wallet-seed-file", str(seed))
        with demo(temp, *words) as process:
            out, err = process.communicate(timeout=250)
    assert process.returncode == 6, err
    assert json.loads(out)["error"]["code"] == "wallet.payment_failed"


@pytest.mark.slow
@pytest.mark.docker
def test_in_a_container(temp: Path, docker_engine: docker.DockerClient) -> None:
    before = {one.id for one in docker_engine.containers.list(all=True)}
    with demo(temp) as process:
        check(process, temp, "docker")
    left = [one for one in docker_engine.containers.list(all=True) if one.id not in before]
    assert not [one for one in left if demo_image.REPOSITORY in str(one.attrs["Config"]["Image"])]


def test_a_container_without_an_engine_is_refused(temp: Path) -> None:
    with demo(temp, "--runner", "docker", docker_host=NO_ENGINE) as process:
        out, _ = process.communicate(timeout=250)
    assert process.returncode == 5
    assert json.loads(out)["error"]["code"] == "runner.engine_unreachable"
    assert not list(temp.glob("qubix-demo-*"))


@pytest.mark.slow
def test_a_provider_that_dies_is_told_with_its_log(temp: Path) -> None:
    with demo(temp, "--runner", "process") as process:
        wait_for_line(process, "│ gpu-0")
        children = psutil.Process(process.pid).children()
        [provider] = [child for child in children if "--provider" in child.cmdline()]
        provider.kill()
        out, err = process.communicate(timeout=250)
    assert process.returncode == 5
    assert "the provider was killed by signal 9" in json.loads(out)["error"]["message"]
    assert "last lines of the provider's log" in err
    assert gone(children)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_behind(temp: Path, number: signal.Signals) -> None:
    with demo(temp, "--runner", "process") as process:
        wait_for_line(process, "│ gpu-0")
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        out, err = process.communicate(timeout=250)
    assert process.returncode == 130
    assert (out, "Stopped" in err) == ("", True)
    assert len(children) >= 3 and gone(children)
    assert not list(temp.glob("qubix-demo-*"))


def wait_for_line(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    raise AssertionError(f"the demo ended without saying {text!r}")


def gone(children: list[psutil.Process]) -> bool:
    """Have all of them ended? Those that are only just ending get a moment."""
    return not psutil.wait_procs(children, timeout=60)[1]


@pytest.mark.docker
def test_an_image_without_busybox_works_too(
    docker_engine: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The programs of this machine with their libraries; importing runs the smoke test inside."""
    monkeypatch.setattr(demo_image, "_busybox", lambda: None)
    monkeypatch.setattr(demo_image, "REPOSITORY", "qubix-test-demo")
    name = demo_image.ensure_image()
    try:
        assert demo_image.ensure_image() == name, "the content names the image: it is not imported twice"
    finally:
        docker_engine.images.remove(name)


def test_equal_programs_make_equal_images() -> None:
    first = demo_image.image_tar()
    assert demo_image.image_tar() == first
