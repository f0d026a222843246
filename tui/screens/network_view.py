"""What the network area and `qubix status --peers` show: sentences and rows. Pure.

Names and addresses are strangers' words: everything goes through show.cell or safe_line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from rich.table import Table
from rich.text import Text

from protocol.control_network import ChainView, DirectoryUseView, NetworkView, PeerView, RelayUseView
from tui import show
from tui.safe import safe_line
from tui.screens.filling import Column, Row

Colours = Mapping[str, str]
WAYS: Final = {
    "direct": "direct",
    "punched": "direct, punched",
    "wire": "direct (libp2p)",
    "relayed": "by a relay",
    "": "none now",
}
PEER_COLUMNS: Final = (
    Column("peer", 10),
    Column("name", least=8),
    Column("what it is", 16, from_width=70),
    Column("way", 15),
    Column("rtt", 7, right=True),
    Column("in", 9, right=True),
    Column("out", 9, right=True, from_width=92),
    Column("tunnels", 7, right=True, from_width=104),
    Column("address", 24, from_width=130),
)
DIRECTORY_COLUMNS: Final = (
    Column("directory", 10),
    Column("state", 12),
    Column("used for", least=20),
    Column("offers", 8, right=True),
    Column("missing", 8, right=True),
)
RELAY_COLUMNS: Final = (
    Column("relay", 10),
    Column("free a day", least=18),
    Column("at most", 12, right=True),
    Column("rent QU/h", 12, right=True),
)


# --- the head -----------------------------------------------------------------------------------


def head(view: NetworkView, colours: Colours) -> Text:
    """Peers, how this node is reached, gossip and the chain, each with a word for its state."""
    lines = (_peers_line, _gossip_line, _chain_line)
    return Text("\n").join([line(view, colours) for line in lines])


def _peers_line(view: NetworkView, colours: Colours) -> Text:
    if not view.total:
        said = "no peer is connected; `qubix up --bootstrap` names a first one"
        return _line("peers", "alone", said, colours["error"])
    relayed = f", {view.relayed} by a relay" if view.relayed else ""
    reach = {
        True: "can be reached from outside",
        False: "cannot be reached from outside",
        None: "nobody has tried yet from outside",
    }[view.reachable]
    good = view.reachable is not False or bool(view.relays)
    if view.reachable is False and view.relays:
        reach += f", but by {len(view.relays)} relay{'s' * (len(view.relays) != 1)}"
    said = f"{view.total} connected{relayed}; {reach}"
    return _line("peers", "ok" if good else "hidden", said, colours["success" if good else "warning"])


def _gossip_line(view: NetworkView, colours: Colours) -> Text:
    gossip = view.gossip
    by = "directories" if gossip.served else "gossip" if gossip.topics else "nobody"
    many = f"{gossip.offers:,} offer{'s' if gossip.offers != 1 else ''}"
    said = f"{many}, brought by {by}; {gossip.received:,} messages"
    if gossip.rejected:
        said += f", {gossip.rejected:,} refused"
    return _line("market", "ok" if by != "nobody" else "silent", said, colours["success"])


def _chain_line(view: NetworkView, colours: Colours) -> Text:
    chain = view.chain
    style = {"ok": "success", "silent": "error"}.get(chain.state, "warning")
    said = f"tick {chain.tick:,} of epoch {chain.epoch}, one every {_seconds(chain.tick_ms)}"
    if chain.state != "ok":
        said = safe_line(chain.sentence, 300)
    if chain.differences:
        said += f"; {chain.differences} differences with the ledger stand, see `qubix status`"
    return _line("chain", chain.state, said, colours[style])


def _line(name: str, state: str, words: str, style: str) -> Text:
    return Text.assemble((f"{name:8}", "dim"), (f"{state:8}", f"bold {style}"), words)


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1_000:.1f} s"


# --- rows ---------------------------------------------------------------------------------------


def peer_rows(view: NetworkView, rtts: Mapping[str, float], colours: Colours) -> list[Row]:
    """`rtts`: what was measured before, where the answer has none."""
    return [(one.peer_id, _peer_cells(one, rtts, colours)) for one in view.peers]


def _peer_cells(one: PeerView, rtts: Mapping[str, float], colours: Colours) -> list[Text]:
    rtt = one.rtt_ms if one.rtt_ms is not None else rtts.get(one.peer_id)
    way = show.cell(WAYS.get(one.way, one.way), max_chars=15)
    way.style = colours["warning"] if one.way == "relayed" else ""
    return [
        show.cell(show.short_peer(one.peer_id)),
        show.cell(one.name or "-", max_chars=32),
        show.cell(", ".join(one.roles) or "-", max_chars=40),
        way,
        Text(milliseconds(rtt)),
        Text(_rate(one.received_per_second)),
        Text(_rate(one.sent_per_second)),
        Text(str(one.streams) if one.streams else "-"),
        show.cell(one.address or (f"by {show.short_peer(one.relay)}" if one.relay else "-"), max_chars=48),
    ]


def milliseconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f} ms" if value < 10 else f"{value:.0f} ms"


def _rate(per_second: int | None) -> str:
    return "-" if per_second is None else show.rate_words(per_second)


def directory_rows(view: NetworkView, colours: Colours) -> list[Row]:
    return [(one.peer_id, _directory_cells(one, colours)) for one in view.directories]


def _directory_cells(one: DirectoryUseView, colours: Colours) -> list[Text]:
    uses = [word for word, has in (("signs of life", one.heartbeats), ("reading offers", one.reads)) if has]
    return [
        show.cell(show.short_peer(one.peer_id)),
        Text("works", colours["success"]) if one.live else Text("no answer", colours["warning"]),
        Text(", ".join(uses) or "-"),
        Text(f"{one.offers:,}"),
        Text(f"{one.missing:,}", colours["warning"] if one.missing else ""),
    ]


def relay_rows(view: NetworkView) -> list[Row]:
    return [(one.peer_id, _relay_cells(one)) for one in view.relays]


def _relay_cells(one: RelayUseView) -> list[Text]:
    return [
        show.cell(show.short_peer(one.peer_id)),
        Text(f"{show.bytes_words(one.used_bytes)} of {show.bytes_words(one.free_bytes)} gone"),
        Text(show.rate_words(one.bytes_per_second) if one.bytes_per_second else "no limit"),
        Text(show.qu(one.price_qu_per_hour) if one.price_qu_per_hour else "not for rent"),
    ]


def about_directories(view: NetworkView) -> str:
    words = []
    if view.serving is not None:
        words.append(f"This node is a directory; {view.serving:,} providers are heard.")
    if not view.directories:
        words.append("No directory is used: offers come by gossip, which does for a few hundred nodes.")
    if not view.relays:
        words.append("No relay is used: this node is reached directly, or nobody asks for it.")
    if own := view.own_relay:
        price = f"{show.qu(own.price_qu_per_hour)} QU an hour" if own.price_qu_per_hour else "not for rent"
        words.append(
            f"This node relays: {own.places} places, {own.joined} connections, "
            f"{own.renters} renters; {price}."
        )
    return " ".join(words)


def plain_table(columns: Sequence[Column], rows: Sequence[Row]) -> Table:
    """For the command line: all columns."""
    made = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for one in columns:
        made.add_column(one.name, justify="right" if one.right else "left", no_wrap=bool(one.width))
    for _, cells in rows:
        made.add_row(*cells)
    return made


# --- details ------------------------------------------------------------------------------------


def gossip_details(view: NetworkView) -> Text:
    """Counters since the daemon began, and what was refused, the most frequent first."""
    gossip = view.gossip
    topics = ", ".join(safe_line(one, 60).rpartition("/")[2] or one for one in gossip.topics) or "none"
    settled = "kept alive by directories" if gossip.settled else "told by gossip, if this machine offers"
    pairs = [
        ("listens to", topics),
        ("offer", settled),
        ("received", f"{gossip.received:,}"),
        ("old, seen", f"{gossip.ignored:,}"),
        ("refused", f"{gossip.rejected:,}"),
        ("dropped", f"{gossip.peers_dropped:,} peers that sent too much of that"),
    ]
    dropped = sorted(gossip.dropped.items(), key=lambda item: -item[1])
    pairs += [(safe_line(why, 40), f"{count:,}") for why, count in dropped if count]
    return _sheet(pairs)


def node_details(view: NetworkView) -> Text:
    """Where this node is, for others, and the chain in full."""
    chain: ChainView = view.chain
    addresses = [safe_line(one, 160) for one in view.addresses] or ["none"]
    pairs = [
        ("peer id", safe_line(view.peer_id, 80)),
        *(("address" if not place else "", one) for place, one in enumerate(addresses)),
        ("seen as", ", ".join(safe_line(one, 48) for one in view.outside_ips) or "nobody has said yet"),
        ("chain", f"{safe_line(chain.name, 120)}; {safe_line(chain.network, 24)}"),
        ("contract", str(chain.contract_index)),
        ("epoch", f"{chain.epoch}, {chain.ticks_of_epoch:,} ticks ago it began"),
        ("last tick", f"{chain.tick:,}, seen {chain.age_ms / 1_000:.0f} s ago"),
    ]
    return _sheet(pairs)


def _sheet(pairs: list[tuple[str, str]]) -> Text:
    width = max(len(name) for name, _ in pairs) + 2
    return Text("\n").join(Text.assemble((f"{name:{width}}", "dim"), value) for name, value in pairs)
