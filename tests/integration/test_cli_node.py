"""The command line as a person uses it: two daemons in the background, one job between them."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import string
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tui.processes import end, module_command, start

pytestmark = pytest.mark.timeout(300)  # many processes, on a machine that may be slow

JOB = """name: shout
resources: {image: none, memory: 64MB, disk: 64MB}
file_mounts: {/workspace/data.txt: ./data.txt}
outputs: [loud.txt]
secrets: [WORD]
max_hours: 0.02
run: |
  tr a-z A-Z < data.txt > loud.txt
  echo "shouted $(wc -c < loud.txt) bytes, secret of ${#WORD}"
"""


@dataclass(frozen=True)
class Person:
    """Someone with a data directory who types commands in a folder."""

    home: Path
    folder: Path

    def types(self, *words: str) -> subprocess.CompletedProcess[str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith("QUBIX_")}
        env |= {"QUBIX_DATA_DIR": str(self.home), "XDG_CONFIG_HOME": str(self.folder), "WORD": "s3cret"}
        command = [sys.executable, "-m", "tui.cli", *words]
        return subprocess.run(
            command, env=env, cwd=self.folder, capture_output=True, text=True, timeout=250, check=False
        )

    def starts(self, *words: str) -> subprocess.Popen[str]:
        """A command that goes on until it is told to end; its standard output can be read."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("QUBIX_")}
        env |= {"QUBIX_DATA_DIR": str(self.home), "XDG_CONFIG_HOME": str(self.folder)}
        return subprocess.Popen(
            [sys.executable, "-m", "tui.cli", *words], env=env, stdout=subprocess.PIPE, text=True
        )

    def asks(self, *words: str) -> Any:
        """The JSON of a command that works."""
        done = self.types(*words, "--json")
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return json.loads(done.stdout.splitlines()[-1])


@dataclass(frozen=True)
class Market:
    caller: Person
    provider: Person


@pytest.fixture(scope="module")
def market() -> Iterator[Market]:
    """A private network with a provider and a caller on it, both in the background."""
    with tempfile.TemporaryDirectory(prefix="q-") as name:
        root = Path(name)
        seeds = [secret_file(root / f"{who}.seed", seed(number)) for number, who in enumerate(("a", "b"))]
        passphrase = secret_file(root / "passphrase", "correct horse")
        options = [word for one in seeds for word in ("--fund-seed-file", f"{one}=1000000")]
        devnet = module_command("escrow_bridge.devnet", "--tick-seconds", "0.2", "--json", *options)
        network = asyncio.run(start("network", devnet, root / "network.log", 250))
        chain = ["--chain", f"node://{network.ready['nodes'][0]}", "--passphrase-file", str(passphrase)]
        chain += ["--contract-index", str(network.ready["contract_index"]), "--interval", "1"]
        provider, caller = Person(root / "p", root), Person(root / "c", root)
        try:
            rent = ("--provider", "--runner", "process", "--price", "360000", "--name", "alice")
            up = provider.asks("up", "--detach", *chain, *rent, "--wallet-seed-file", str(seeds[0]))
            meet = ("--bootstrap", up["addresses"][0], "--wallet-seed-file", str(seeds[1]))
            caller.asks("up", "--detach", *chain, *meet)
            yield Market(caller, provider)
        finally:
            caller.types("down")
            provider.types("down")
            end([network])


def seed(number: int) -> str:
    return "".join(random.Random(number).choices(string.ascii_lowercase, k=55))


def secret_file(path: Path, content: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(content)
    return path


def offers_of(person: Person) -> Any:
    """The market, once an offer has arrived in it."""
    for _ in range(60):
        offers = person.asks("market")["offers"]
        if offers:
            return offers
    raise AssertionError("no offer arrived")


@pytest.mark.slow
def test_a_job_from_market_to_wallet(market: Market) -> None:
    caller, folder = market.caller, market.caller.folder
    (folder / "job.yaml").write_text(JOB)
    (folder / "data.txt").write_text("quiet words\n")
    [offer] = offers_of(caller)
    assert (offer["name"], offer["price_qu_per_hour"], offer["own"]) == ("alice", 360_000, False)

    lease = caller.asks("run", "job.yaml", "--output", "out")
    assert (lease["phase"], lease["exit_code"], lease["settled"]) == ("done", 0, True)
    assert (folder / "out" / "loud.txt").read_text() == "QUIET WORDS\n"
    assert caller.types("logs", lease["lease_id"][:8]).stdout == "shouted 12 bytes, secret of 6\n"
    assert caller.asks("ps")["leases"] == []
    assert [one["lease_id"] for one in caller.asks("ps", "-a")["leases"]] == [lease["lease_id"]]
    assert caller.asks("wallet")["spent"] == lease["paid"]
    assert market.provider.asks("wallet")["earned"] == lease["paid"] - lease["fee"]


def test_refusals_keep_their_codes(market: Market) -> None:
    caller = market.caller
    offers_of(caller)
    (caller.folder / "dear.yaml").write_text(
        "resources: {image: none, memory: 64MB, disk: 64MB}\nrun: 'true'\n"
    )
    for words, exit_code, code in (
        (("run", "dear.yaml", "--max-price", "359999"), 4, "quote.price_above_limit"),
        (("run", "dear.yaml", "--provider", "nobody"), 3, "market.no_offer"),
        (("logs", "ffffffff"), 3, "lease.unknown"),
        (("stop", "ffffffff"), 3, "lease.unknown"),
        (("offer", "--price", "5"), 2, "config.invalid"),
        (("up", "--detach", "--chain", "nonsense"), 2, "config.invalid"),
    ):
        done = caller.types(*words)
        assert (done.returncode, done.stdout) == (exit_code, ""), (words, done.stderr)
        assert done.stderr.startswith("error: ") and done.stderr.endswith(f"[{code}]\n"), done.stderr


def test_the_price_is_changed_while_the_daemon_runs(market: Market) -> None:
    changed = market.provider.asks("offer", "--price", "360001")["offer"]
    back = market.provider.asks("offer", "--price", "360000")["offer"]
    assert (back["own"], back["withdrawn"], changed["own"]) == (True, False, True)
    assert "alice" in market.provider.types("market").stdout


def test_one_data_directory_has_one_daemon(market: Market) -> None:
    caller = market.caller
    before = caller.asks("status")
    log = caller.home / "daemon.log"
    chain = ("--chain", "node://127.0.0.1:1", "--contract-index", "28")
    done = caller.types("up", "--detach", *chain, "--passphrase-file", str(caller.folder / "passphrase"))
    assert done.returncode == 5, done.stderr
    assert done.stderr.endswith("[daemon.already_running]\n") and "Traceback" not in log.read_text()
    assert caller.asks("status")["peer_id"] == before["peer_id"]


def test_the_market_in_a_browser_needs_no_configuration(market: Market) -> None:
    shown = {one["peer_id"] for one in offers_of(market.caller)}
    with market.caller.starts("web", "--port", "0", "--json") as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        offers = httpx.get(f"{url}v1/offers", timeout=60).raise_for_status().json()["offers"]
        assert {one["peer_id"] for one in offers} == shown and offers[0]["name"] == "alice"
        assert "alice" in httpx.get(f"{url}market", timeout=60).raise_for_status().text
        process.send_signal(signal.SIGINT)
    assert process.returncode == 130
    assert market.caller.asks("web", "--off")["on"] is False
