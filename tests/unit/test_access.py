"""What lets a caller into its job: secrets that are made, and what of them is kept and how."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from ledger.store import inline
from protocol import jobspec
from protocol.errors import JobFileInvalid, JobNotRunning, MessageInvalid, UsageError
from protocol.lease_state import Phase
from protocol.signing import NodeKey
from protocol.units import LeaseId, PeerKey
from qubixd import access
from qubixd.access import Access
from qubixd.jobfiles import JobFiles
from tests.support.lease_play import new_caller, new_provider

LEASE = LeaseId(bytes(32))
OWN, OTHER = NodeKey(bytes(32)), NodeKey(bytes([1]) * 32)


def test_what_nobody_gave_is_made_as_its_program_takes_it() -> None:
    job = jobspec.parse("template: vscode")
    made = access.with_made(job, {"SSH_PUBLIC_KEY": "ssh-ed25519 AAAA me"})
    assert set(made) == {"SSH_PUBLIC_KEY", "SSH_HOST_KEY", "PASSWORD"}
    assert made["SSH_PUBLIC_KEY"] == "ssh-ed25519 AAAA me"
    assert re.fullmatch(r"[A-Za-z0-9]{24}", made["PASSWORD"])
    token = access.with_made(jobspec.parse("template: jupyter"), {})["JUPYTER_TOKEN"]
    assert re.fullmatch(r"[A-Za-z0-9]{32}", token)
    assert re.fullmatch(
        r"[A-Za-z0-9]{8}", access.with_made(jobspec.parse("template: desktop"), {})["VNC_PASSWORD"]
    )
    assert access.with_made(jobspec.parse("template: jupyter"), {})["JUPYTER_TOKEN"] != token


def test_what_is_given_is_kept_and_what_is_not_wanted_refused() -> None:
    job = jobspec.parse("template: jupyter\nsecrets: [API]")
    assert access.with_made(job, {"API": "", "JUPYTER_TOKEN": "x" * 16}) == {
        "API": "",
        "JUPYTER_TOKEN": "x" * 16,
    }
    with pytest.raises(JobFileInvalid, match="API has no value"):
        access.with_made(job, {})
    with pytest.raises(JobFileInvalid, match="does not speak of OTHER"):
        access.with_made(job, {"API": "a", "OTHER": "b"})
    with pytest.raises(JobFileInvalid, match="SSH_PUBLIC_KEY has no value"):
        access.with_made(jobspec.parse("template: ssh"), {})


def test_a_host_key_is_one_that_openssh_reads(tmp_path: Path) -> None:
    private = access.host_key()
    file = tmp_path / "key"
    file.touch(mode=0o600)
    file.write_text(private)
    said = subprocess.run(["ssh-keygen", "-yf", file], capture_output=True, text=True, check=True).stdout
    assert said.split()[:2] == access.public_half(private).split()
    assert access.public_half("no key") == ""


def test_of_all_secrets_only_those_that_let_in_are_kept() -> None:
    text = "template: ssh\nenvs: {PLACE: here}\nsecrets: [API]\nports: [{port: 80, path: '/{PLACE}'}]"
    job = jobspec.parse(text)
    values = access.with_made(job, {"API": "private", "SSH_PUBLIC_KEY": "ssh-ed25519 AAAA"})
    kept = access.access_of(job, values)
    assert set(kept.values) == {"PLACE", "SSH_PUBLIC_KEY", "SSH_HOST_KEY.pub"}
    assert kept.values["SSH_HOST_KEY.pub"] == access.public_half(values["SSH_HOST_KEY"])
    assert "private" not in repr(kept) and "here" not in repr(kept)
    assert access.decode(access.encode(kept)) == kept


async def test_it_lies_sealed_beside_its_lease(tmp_path: Path) -> None:
    files = JobFiles(tmp_path, inline)
    job = jobspec.parse("template: jupyter")
    values = access.with_made(job, {})
    submission = await files.submit(job, tmp_path, values)
    assert values["JUPYTER_TOKEN"] not in repr(submission)
    await files.keep(LEASE, submission, PeerKey(OTHER.public), PeerKey(OWN.public))
    assert files.access(LEASE, OWN).values == values
    assert files.path(LEASE, "access").stat().st_mode & 0o777 == 0o600
    token = values["JUPYTER_TOKEN"].encode()
    assert not any(token in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    with pytest.raises(MessageInvalid, match="not sealed for this node"):
        files.access(LEASE, OTHER)
    await files.forget(LEASE, ("access",))
    assert files.access(LEASE, OWN) == Access()


def test_what_a_front_end_is_told() -> None:
    job = jobspec.parse("template: vscode\nresources: {gpu: 1}")
    values = access.with_made(job, {"SSH_PUBLIC_KEY": "ssh-ed25519 AAAA"})
    lease = new_caller()
    shown = access.access_view(lease, access.access_of(job, values))
    assert [(one.name, one.port, one.kind) for one in shown.ports] == [
        ("ssh", 2222, "ssh"),
        ("code-server", 8080, "http"),
    ]
    assert shown.ports[1].password == values["PASSWORD"] and shown.public_keys == "ssh-ed25519 AAAA"
    assert values["PASSWORD"] not in repr(shown)


def test_who_gets_in() -> None:
    ours = new_caller()
    access.check_ours(ours)
    with pytest.raises(UsageError, match="only who rented"):
        access.check_ours(new_provider())
    with pytest.raises(JobNotRunning, match="the lease has ended"):
        access.check_ours(replace(ours, phase=Phase.DONE))
