"""The journal: events, state and outbox of leases; and the small tables beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest

from ledger import journal, offers, settings
from ledger.journal import OutboxItem
from ledger.rows import OfferRow, PendingEffect
from ledger.store import Store, inline, open_store
from protocol.errors import ConfigInvalid, LedgerBroken

A, B = b"a" * 32, b"b" * 32


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with open_store(":memory:", inline) as opened:
        yield opened


async def step(
    store: Store, steps: int, outbox: Sequence[OutboxItem] = (), *, lease: bytes = A, phase: str = "running"
) -> tuple[PendingEffect, ...]:
    """Commit event e<steps>, giving state s<steps + 1>, at time 1000 + steps."""
    return await journal.commit(
        store,
        lease_id=lease,
        role="caller",
        phase=phase,
        event=f"e{steps}".encode(),
        state=f"s{steps + 1}".encode(),
        outbox=outbox,
        now_ms=1000 + steps,
        expected_steps=steps,
    )


async def test_a_lease_is_its_latest_state_and_all_its_events(store: Store) -> None:
    await step(store, 0, phase="quoted")
    await step(store, 1, phase="funding")
    row = await journal.lease(store, A)
    assert row == journal.LeaseRow(A, "caller", "funding", b"s2", 2, 1000, 1001)
    assert await journal.events(store, A) == (b"e0", b"e1")
    assert await journal.lease(store, B) is None
    assert await journal.events(store, B) == ()


async def test_leases_by_phase(store: Store) -> None:
    await step(store, 0, phase="running", lease=B)
    await step(store, 0, phase="done", lease=A)
    assert [row.lease_id for row in await journal.leases(store)] == [A, B]
    assert [row.lease_id for row in await journal.leases(store, {"running", "paused"})] == [B]
    assert await journal.leases(store, ()) == ()


async def test_effects_are_pending_until_done(store: Store) -> None:
    given = await step(store, 0, [OutboxItem("chain", "fund", b"1"), OutboxItem("wire", "say", b"2")])
    assert given == (
        PendingEffect(A, 0, "chain", "fund", b"1", b""),
        PendingEffect(A, 1, "wire", "say", b"2", b""),
    )
    assert await journal.pending(store) == given
    await journal.done(store, A, 0)
    await journal.done(store, A, 0)
    assert await journal.pending(store, A) == given[1:]
    assert await journal.pending(store, B) == ()


async def test_a_seq_is_never_used_twice(store: Store) -> None:
    (first,) = await step(store, 0, [OutboxItem("wire", "say", b"1")])
    await journal.done(store, A, first.seq)
    (second,) = await step(store, 1, [OutboxItem("wire", "say", b"2")])
    assert (first.seq, second.seq) == (0, 1)


async def test_replacing_drops_only_pending_of_same_lease_lane_and_kind(store: Store) -> None:
    await step(store, 0, [OutboxItem("wire", "voucher", b"other lease")], lease=B)
    await step(
        store,
        0,
        [
            OutboxItem("wire", "voucher", b"1"),
            OutboxItem("wire", "stop", b"other kind"),
            OutboxItem("chain", "voucher", b"other lane"),
        ],
    )
    await step(store, 1, [OutboxItem("wire", "voucher", b"2", replaces=True)])
    left = [(effect.seq, effect.payload) for effect in await journal.pending(store)]
    assert left == [(1, b"other kind"), (2, b"other lane"), (3, b"2"), (0, b"other lease")]


async def test_scratch_is_kept_with_its_effect_while_it_is_pending(store: Store) -> None:
    await step(store, 0, [OutboxItem("chain", "fund", b"1")])
    assert await journal.save_scratch(store, A, 0, b"signed")
    assert [effect.scratch for effect in await journal.pending(store)] == [b"signed"]
    await journal.done(store, A, 0)
    assert not await journal.save_scratch(store, A, 0, b"signed again")


async def test_a_step_built_on_an_old_state_is_refused_whole(store: Store) -> None:
    await step(store, 0)
    await step(store, 1, [OutboxItem("wire", "say", b"1")])
    for stale in (0, 1, 3):
        with pytest.raises(LedgerBroken, match="at step 2"):
            await step(store, stale, [OutboxItem("wire", "say", b"2", replaces=True)])
    assert await journal.events(store, A) == (b"e0", b"e1")
    assert [effect.payload for effect in await journal.pending(store)] == [b"1"]


async def test_the_hook_hears_of_every_commit_by_name() -> None:
    heard: list[str] = []
    async with open_store(":memory:", inline, heard.append) as store:
        await step(store, 0)
        await journal.done(store, A, 0)
        await journal.save_scratch(store, A, 0, b"")
        with pytest.raises(LedgerBroken):
            await step(store, 7)
    assert heard == ["journal.commit", "journal.done", "journal.save_scratch"]


async def test_only_newer_offers_are_remembered(store: Store) -> None:
    first = OfferRow(A, 5, 2_000, b"five")
    await offers.remember(store, [first, OfferRow(B, 1, 1_000, b"b")])
    await offers.remember(store, [OfferRow(A, 4, 9_000, b"four"), OfferRow(A, 5, 9_000, b"again")])
    assert await offers.known(store) == (first, OfferRow(B, 1, 1_000, b"b"))
    newer = OfferRow(A, 6, 3_000, b"six")
    await offers.remember(store, [newer])
    assert await offers.forget_expired(store, 1_000) == 1
    assert await offers.known(store) == (newer,)


async def test_only_the_named_ones_offers_are_kept(store: Store) -> None:
    rows = [OfferRow(bytes([n]) * 32, 1, 9_000, b"raw") for n in range(5)]
    await offers.remember(store, rows)
    assert await offers.keep_only(store, {rows[1].peer, rows[3].peer, b"somebody else"}) == 3
    assert await offers.known(store) == (rows[1], rows[3])


async def test_own_numbers_only_rise(store: Store) -> None:
    assert await settings.next_number(store, "offer", at_least=10) == 10
    assert await settings.next_number(store, "offer", at_least=3) == 11
    assert await settings.next_number(store, "offer", at_least=50) == 50
    assert await settings.next_number(store, "other") == 0


async def test_settings_by_name(store: Store) -> None:
    assert await settings.get(store, "k") is None
    await settings.put(store, "k", b"1")
    await settings.put(store, "k", b"2")
    assert await settings.get(store, "k") == b"2"


async def test_a_ledger_belongs_to_one_network(store: Store) -> None:
    await settings.bind_network(store, "devnet")
    await settings.bind_network(store, "devnet")
    with pytest.raises(ConfigInvalid, match="devnet"):
        await settings.bind_network(store, "mainnet")
