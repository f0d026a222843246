"""The control socket of a running node: every verb, unkind front ends, and who may listen where."""

from __future__ import annotations

import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from protocol import control
from protocol.control import RunEvent
from protocol.control_market import OfferView
from protocol.errors import AlreadyRunning, ConfigInvalid
from protocol.units import fee_of
from qubixd.control import VERBS, open_control
from qubixd.wire_libp2p import peer_id_of
from tests.support.front_end import Failed, FrontEnd, front_end
from tests.support.rental import Rental, due, rental
from tests.support.world import PRICE
from tests.support.world_jobs import job

Clock = trio.testing.MockClock


@dataclass
class Doors:
    """A provider's and a caller's front end."""

    one: Rental
    alice: FrontEnd
    bob: FrontEnd

    @property
    def socket(self) -> Path:
        return self.one.bob.up.config.control_socket

    def run(self, text: str = "", **changes: Any) -> dict[str, Any]:
        """Arguments of `run`."""
        folder = str(self.one.world.root)
        args = {"job_yaml": text or job(seconds=4), "base_dir": folder, "output_dir": f"{folder}/out"}
        return args | changes


@asynccontextmanager
async def doors(root: Path) -> AsyncIterator[Doors]:
    async with (
        rental(root) as one,
        open_control(one.alice.up) as alice_path,
        open_control(one.bob.up) as bob_path,
        front_end(alice_path) as alice,
        front_end(bob_path) as bob,
    ):
        yield Doors(one, alice, bob)


# --- verbs ----------------------------------------------------------------------------------------


async def test_status(tmp_path: Path, autojump_clock: Clock) -> None:
    async with doors(tmp_path) as at:
        provider, caller = await at.alice.ask("status"), await at.bob.ask("status")
        assert (provider.provider, provider.runner, provider.offers) == (True, "process", 1)
        assert (caller.provider, caller.runner, caller.peers) == (False, "", 1)
        assert caller.identity == at.one.bob.wallet.identity
        assert caller.peer_id == peer_id_of(at.one.bob.peer)
        assert 0 <= at.one.world.chain.engine.tick_info().tick - caller.tick <= 1


async def test_offer_and_market(tmp_path: Path, autojump_clock: Clock) -> None:
    async with doors(tmp_path) as at:
        (seen,) = (await at.bob.ask("market")).offers
        shown: OfferView = (await at.alice.ask("offer")).offer
        assert (seen.name, seen.price_qu_per_hour, seen.own) == ("alice", PRICE, False)
        assert (shown.peer_id, shown.own, shown.withdrawn) == (seen.peer_id, True, False)
        assert (await at.bob.ask("market", gpu="no such card")).offers == []
        assert (await at.bob.ask("market", gpu="c P-u")).offers == [seen]
        assert (await at.bob.ask("offer")).offer is None


async def test_a_new_price_is_shown_at_once_and_everywhere(tmp_path: Path, autojump_clock: Clock) -> None:
    async with doors(tmp_path) as at:
        changed = (await at.alice.ask("offer", price_qu_per_hour=5)).offer
        assert (changed.price_qu_per_hour, changed.withdrawn) == (5, False)
        await trio.sleep(1)
        (seen,) = (await at.bob.ask("market")).offers
        assert seen.price_qu_per_hour == 5
        assert (await at.alice.ask("offer", withdraw=True)).offer.withdrawn
        await trio.sleep(1)
        assert (await at.bob.ask("market")).offers == []
        assert not (await at.alice.ask("offer", withdraw=False)).offer.withdrawn
        await trio.sleep(1)
        assert len((await at.bob.ask("market")).offers) == 1


async def test_a_job_from_run_to_wallet(tmp_path: Path, autojump_clock: Clock) -> None:
    async with doors(tmp_path) as at:
        events, last = await at.bob.follow("run", **at.run())
        phases = list(dict.fromkeys(event.phase for event in events))
        assert phases[:2] == ["packing", "quoting"]
        assert phases[2:] == [
            "quoted", "funding", "provisioning", "running", "stopping", "settling", "done",
        ]  # fmt: skip
        assert last == events[-1] and last.lease.settled and last.lease.exit_code == 0
        view = last.lease
        assert view.paid == due(4) and view.paid + view.refunded == view.deposit
        assert (view.fee, view.provider_received) == (fee_of(due(4)), due(4) - fee_of(due(4)))
        assert (tmp_path / "out" / "result.txt").read_text() == "ran 4 0\n"

        assert (await at.bob.ask("ps")).leases == []
        assert (await at.bob.ask("ps", all=True)).leases == [view]
        chunks, _ = await at.bob.follow("logs", lease=view.lease_id[:8])
        assert b"".join(chunk.data for chunk in chunks) == b"hello from the job\n"
        spent = await at.bob.ask("wallet")
        assert (spent.spent, spent.escrowed, spent.earned) == (due(4), 0, 0)
        assert spent.balance == at.one.world.balance(at.one.bob) == at.one.world.funds - due(4)
        earned = await at.alice.ask("wallet")
        assert (earned.earned, earned.spent) == (view.provider_received, 0)


async def test_run_in_the_background_then_wait_then_stop(tmp_path: Path, autojump_clock: Clock) -> None:
    async with doors(tmp_path) as at:
        begun: RunEvent = await at.bob.ask("run", **at.run(job(seconds=1_000), detach=True))
        assert begun.lease is not None
        at.one.lease_id = type(at.one.lease_id)(bytes.fromhex(begun.lease.lease_id))
        await at.one.until_paid(due(3))
        prefix = begun.lease.lease_id[:10].upper()
        waiting = await at.bob.send("wait", lease=prefix)
        first = await at.bob.receive()
        assert first["event"]["phase"] == "running"
        escrowed = 0
        async with front_end(at.socket) as other:
            escrowed = (await other.ask("wallet")).escrowed
            await other.ask("stop", lease=prefix)
        assert 0 < escrowed < begun.lease.deposit
        while "ok" not in (frame := await at.bob.receive()):
            assert frame["id"] == waiting
        assert frame["ok"]["phase"] == "cancelled"
        assert frame["ok"]["lease"]["reason"] == "lease.stopped_by_caller"


async def test_shutdown_answers_before_the_daemon_ends(tmp_path: Path, autojump_clock: Clock) -> None:
    async with doors(tmp_path) as at:
        node = at.one.bob.up
        assert await at.bob.ask("shutdown") == control.Done()
        with trio.fail_after(5):
            await node.stopped.wait()


WRONG: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "unknown verb": ("dance", {}, "wire.message_invalid", "knows no verb 'dance'"),
    "wrong type": ("ps", {"all": "yes"}, "wire.message_invalid", "arguments of ps"),
    "missing argument": ("stop", {}, "wire.message_invalid", "arguments of stop"),
    "short prefix": ("stop", {"lease": "abc"}, "lease.unknown", "at least the first 4"),
    "unknown lease": ("logs", {"lease": "abcdef"}, "lease.unknown", "no lease here begins"),
    "no offer to change": ("offer", {"price_qu_per_hour": 5}, "config.invalid", "--provider"),
    "broken job": ("run", {"job_yaml": "name: 7: x"}, "job.invalid", "line 1"),
    "relative folder": ("run", {"base_dir": "here"}, "wire.message_invalid", "absolute"),
    "impossible folder": ("run", {"output_dir": "/a\0b"}, "wire.message_invalid", "absolute"),
    "secrets nobody asked for": ("run", {"secrets": {"A": "b"}}, "job.invalid", "does not speak of A"),
    "missing input": (
        "run", {"job_yaml": job(extra="file_mounts: {a: ./missing}\n")}, "job.invalid", "does not exist",
    ),
    "too cheap": ("run", {"max_price_qu_per_hour": 1}, "quote.price_above_limit", "your limit is 1"),
    "nobody of that name": ("run", {"provider": "zoe"}, "market.no_offer", "'zoe'"),
}  # fmt: skip


@pytest.mark.parametrize("verb,args,code,sentence", WRONG.values(), ids=WRONG)
async def test_what_cannot_be_done_is_one_sentence(
    tmp_path: Path, autojump_clock: Clock, verb: str, args: dict[str, Any], code: str, sentence: str
) -> None:
    async with doors(tmp_path) as at:
        with pytest.raises(Failed) as failed:
            await at.bob.ask(verb, **(at.run(**args) if verb == "run" else args))
        assert failed.value.code == code and sentence in failed.value.body["message"]
        assert failed.value.body["exit_code"] > 0
        assert (await at.bob.ask("ps", all=True)).leases == [], "the connection goes on, nothing was made"
        assert not list((at.one.bob.root / "waiting").glob("*"))


async def test_a_provider_s_refusal_has_the_provider_s_code(tmp_path: Path, autojump_clock: Clock) -> None:
    async with doors(tmp_path) as at:
        at.one.alice.engine.name = "docker"  # plain processes have no images
        with pytest.raises(Failed, match="is not built here") as failed:
            await at.bob.follow("run", **at.run(job().replace("'test:1'", "localhost/qubix/base:1-cpu")))
        assert failed.value.code == "image.not_here"


# --- unkind front ends ----------------------------------------------------------------------------


async def test_requests_of_one_connection_do_not_wait_for_each_other(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with doors(tmp_path) as at:
        long = await at.bob.send("run", **at.run(job(seconds=100)))
        short = await at.bob.send("status")
        answered: list[int] = []
        while len(answered) < 2:
            frame = await at.bob.receive()
            if "ok" in frame:
                answered.append(frame["id"])
        assert answered == [short, long]


@pytest.mark.parametrize("junk", [b"", b"\xc1", b"\x80", b"\x93\x01\x02\x03", b"\x81\xa2id\xa1x"])
async def test_a_malformed_request_is_answered_and_the_next_one_too(
    tmp_path: Path, autojump_clock: Clock, junk: bytes
) -> None:
    async with doors(tmp_path) as at:
        await at.bob.stream.send_all(len(junk).to_bytes(4, "big") + junk)
        frame = await at.bob.receive()
        assert frame["id"] == 0 and frame["error"]["code"] == "wire.message_invalid"
        assert (await at.bob.ask("status")).api_version == control.API_VERSION


async def test_a_frame_too_large_ends_the_connection_only(tmp_path: Path, autojump_clock: Clock) -> None:
    async with doors(tmp_path) as at:
        await at.bob.stream.send_all((control.MAX_FRAME_BYTES + 1).to_bytes(4, "big") + b"x")
        assert await at.bob.hung_up()
        async with front_end(at.socket) as other:
            assert (await other.ask("status")).offers == 1


async def test_front_ends_that_vanish_at_any_moment(tmp_path: Path, autojump_clock: Clock) -> None:
    async with doors(tmp_path) as at:
        for start in (b"\0", b"\0\0\0\x10half", control.pack({"id": 1, "verb": "status", "args": {}})):
            async with front_end(at.socket) as other:
                await other.stream.send_all(start)
        async with front_end(at.socket) as other:
            await other.send("run", **at.run(job(seconds=6)))
            while (await other.receive())["event"]["phase"] != "running":
                pass
        (lease,) = (await at.bob.ask("ps")).leases
        last = await at.bob.ask("wait", lease=lease.lease_id)
        assert last.phase == "done", "the lease goes on without its front end"


async def test_a_front_end_that_never_reads_holds_up_nobody(tmp_path: Path, autojump_clock: Clock) -> None:
    async with doors(tmp_path) as at, front_end(at.socket) as deaf, trio.open_nursery() as nursery:
        nursery.start_soon(_flood, deaf)
        await trio.sleep(1)
        assert (await at.bob.ask("run", **at.run())).phase == "done"
        nursery.cancel_scope.cancel()


async def test_a_front_end_asleep_for_long_still_hears_the_end(
    tmp_path: Path, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More happens than the socket holds and is kept for it: it misses some changes, but not the last."""
    monkeypatch.setattr("qubixd.leases.KEPT_FOR_LISTENERS", 10)
    async with doors(tmp_path) as at:
        asleep = await at.bob.send("run", **at.run(job(seconds=500)))
        await trio.sleep(600)
        async with front_end(at.socket) as other:
            assert (await other.ask("ps")).leases == []
        with trio.fail_after(60):
            heard = 0
            while "ok" not in (frame := await at.bob.receive()):
                heard += frame["id"] == asleep
        assert frame["ok"]["phase"] == "done"
        assert heard < frame["ok"]["lease"]["vouchers"], "it did miss some"


async def _flood(deaf: FrontEnd) -> None:
    while True:
        await deaf.send("status")


@pytest.mark.error_logs("qubix.control")
async def test_a_bug_in_a_verb_ends_neither_daemon_nor_connection(
    tmp_path: Path, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    async with doors(tmp_path) as at:
        monkeypatch.setitem(VERBS, "wallet", broken)
        with pytest.raises(Failed) as failed:
            await at.bob.ask("wallet")
        assert (failed.value.code, failed.value.body["exit_code"]) == ("internal.error", 1)
        assert (await at.bob.ask("status")).offers == 1


# --- the socket itself ----------------------------------------------------------------------------


async def test_the_socket_is_the_owners_alone_and_goes_with_the_daemon(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    async with rental(tmp_path) as one:
        path = one.bob.up.config.control_socket
        async with open_control(one.bob.up):
            info = path.stat()
            assert stat.S_ISSOCK(info.st_mode) and stat.S_IMODE(info.st_mode) == 0o600
        assert not path.exists()


async def test_a_second_listener_is_refused_and_harms_nothing(tmp_path: Path, autojump_clock: Clock) -> None:
    async with doors(tmp_path) as at:
        with pytest.raises(AlreadyRunning, match="a daemon already answers at"):
            async with open_control(at.one.bob.up):
                pass
        assert (await at.bob.ask("status")).offers == 1
        async with front_end(at.socket) as other:
            assert (await other.ask("status")).offers == 1


async def test_a_socket_left_by_a_dead_daemon_is_replaced(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        path = one.bob.up.config.control_socket
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))
        async with open_control(one.bob.up), front_end(path) as other:
            assert (await other.ask("status")).offers == 1


async def test_something_else_in_its_place_is_not_touched(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path) as one:
        path = one.bob.up.config.control_socket
        path.write_text("mine")
        with pytest.raises(ConfigInvalid, match=r"control\.sock"):
            async with open_control(one.bob.up):
                pass
        assert path.read_text() == "mine"


async def test_too_long_a_path_is_said(tmp_path: Path, autojump_clock: Clock) -> None:
    async with rental(tmp_path / ("x" * 100)) as one:
        with pytest.raises(ConfigInvalid, match="too long"):
            async with open_control(one.bob.up):
                pass
