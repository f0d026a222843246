"""How things look in a terminal: tables, sums of money, ages. Nothing here trusts a string.

Every string goes through `cell`, so neither markup nor control characters of a peer take effect.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TextIO, cast

import msgspec
from rich import box
from rich.console import Console, ConsoleOptions, Group, JustifyMethod, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from protocol.control import LeaseView, StatusView
from protocol.control_tunnels import PathView
from protocol.control_wallet import HistoryEntry, PaymentView, WalletView
from tui.safe import safe_line

ID_CHARS = 8
LEAST_CHARS: Final = 6
"""Of a column that gives way, what still says something."""
NONE: Mapping[str, int] = {}
GOOD, BAD, BUSY = "green", "red", "cyan"


def console(file: TextIO) -> Console:
    """A console that takes no markup and invents no colours of its own."""
    return Console(file=file, markup=False, highlight=False, emoji=False, soft_wrap=False)


def say_waiting(screen: Console, why: str) -> None:
    """Why a transaction takes unusually long; `why` "" = it goes on."""
    words = f"Waiting for the chain: {safe_line(why, 500)}" if why else "The chain goes on."
    screen.print(Text(words, BUSY), soft_wrap=True)


def print_json(value: object) -> None:
    """One JSON document on one line of standard output. Dataclasses become objects."""
    sys.stdout.write(json.dumps(msgspec.to_builtins(value)) + "\n")
    sys.stdout.flush()


def cell(text: str, style: str = "", max_chars: int = 64) -> Text:
    return Text(safe_line(text, max_chars) or "-", style=style, overflow="ellipsis", no_wrap=True)


def qu(amount: int) -> str:
    return f"{amount:,}"


def qu_range(low: int, high: int) -> str:
    """What the catalogue suggests: two prices, or one where they are the same."""
    return qu(low) if low == high else f"{qu(low)} to {qu(high)}"


def duration(seconds: int) -> str:
    """7s, 4m05s, 3h20m, 2d04h."""
    minutes, rest = divmod(max(0, seconds), 60)
    hours, minutes_rest = divmod(minutes, 60)
    if not minutes:
        return f"{rest}s"
    if not hours:
        return f"{minutes}m{rest:02}s"
    return f"{hours}h{minutes_rest:02}m" if hours < 24 else f"{hours // 24}d{hours % 24:02}h"


def size(mib: int) -> str:
    if mib < 1_024:
        return f"{mib} MB"
    return f"{mib / 1_024:.{0 if mib >= 10_240 else 1}f} GB"


def short_id(text: str) -> str:
    return text[:ID_CHARS]


def short_peer(peer_id: str) -> str:
    """The tail: all peer ids of one key type begin alike."""
    return f"…{peer_id[-ID_CHARS:]}" if len(peer_id) > ID_CHARS else peer_id


def phase_style(phase: str) -> str:
    return {"done": GOOD, "failed": BAD, "cancelled": BAD}.get(phase, BUSY)


def table(
    columns: Iterable[str],
    rows: Iterable[Sequence[Text]],
    right: Iterable[str] = (),
    flexible: Mapping[str, int] = NONE,
) -> Table:
    """Where the terminal is narrow the `flexible` columns give way, down to so many characters; never a
    number: where that is not enough, each row becomes lines of its own."""
    numbers = set(right)
    made = Fitting(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in columns:
        justify: JustifyMethod = "right" if name in numbers else "left"
        made.add_column(
            Text(name, no_wrap=True),
            justify=justify,
            no_wrap=name not in flexible,
            min_width=flexible.get(name) or None,
        )
    for row in rows:
        made.add_row(*row)
        made.kept.append(row)
    return made


class Fitting(Table):
    """A table as long as its columns have room, else its rows one below the other."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.kept: list[Sequence[Text]] = []

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self._needs() <= options.max_width:
            yield from super().__rich_console__(console, options)
            return
        heads = [str(column.header) for column in self.columns]
        for row in self.kept:
            named = [(head, value) for head, value in zip(heads, row, strict=True) if str(value).strip("- ")]
            yield sheet(named)
            yield Text()

    def _needs(self) -> int:
        """Columns that may be narrowed count as far as that still says something."""
        widths: list[int] = []
        for column, cells in zip(self.columns, zip(*self.kept, strict=True), strict=False):
            head = cast(Text, column.header).cell_len
            natural: int = max(head, *(cell.cell_len for cell in cells))
            widths.append(natural if column.no_wrap else min(natural, max(head, LEAST_CHARS)))
        return sum(widths) + len(widths)


def sheet(pairs: Iterable[tuple[str, str | Text]]) -> Text:
    """Labels and values below each other. Long values are not cut: a person may want to copy them."""
    lines = list(pairs)
    width = max(len(label) for label, _ in lines) + 2
    parts: list[Text] = []
    for label, value in lines:
        said = value if isinstance(value, Text) else Text(safe_line(value))
        parts.append(Text.assemble((f"{label:{width}}", "dim"), said))
    return Text("\n").join(parts)


class Ticking:
    """A line about work under way that counts the seconds by itself each time the screen is drawn."""

    def __init__(self, text: Text, began: float) -> None:
        self._text = text
        self._began = began

    def __rich__(self) -> Text:
        return Text.assemble(self._text, (f"  {time.monotonic() - self._began:.0f} s", "dim"))


def leases_table(leases: Sequence[LeaseView]) -> Table:
    rows = [
        (
            cell(short_id(lease.lease_id)),
            cell(lease.role),
            cell(lease.name, max_chars=20),
            _state(lease),
            cell(_time(lease)),
            cell(qu(lease.paid if lease.settled else lease.promised), "bold"),
            cell(qu(lease.deposit)),
            cell(short_peer(lease.peer_id), "dim"),
        )
        for lease in leases
    ]
    columns = ("lease", "role", "job", "state", "time", "used QU", "deposit QU", "with")
    return table(columns, rows, ("time", "used QU", "deposit QU"), {"job": 0, "with": 0})


def _time(lease: LeaseView) -> str:
    """Used, and while it goes on of how much."""
    used = duration(lease.seconds)
    return f"{used}/{duration(lease.max_seconds)}" if lease.max_seconds and not lease.ended_at_ms else used


PATHS: Final = {
    "direct": "directly",
    "punched": "directly, through both routers",
    "wire": "over the connection between the daemons",
    "relayed": "through a relay",
}


def path_words(path: PathView) -> str:
    """ "directly, 12 ms"."""
    if not path.kind:
        return "no path yet"
    if path.waiting:
        return "the path is lost, waiting for another"
    words = PATHS.get(path.kind) or safe_line(path.kind, 40)
    return words if path.rtt_ms is None else f"{words}, {path.rtt_ms:.{0 if path.rtt_ms >= 10 else 1}f} ms"


def _tunnels(path: PathView) -> str:
    """How tunnels travel, and what travels there now."""
    rates = (("↓", path.received_per_second), ("↑", path.sent_per_second))
    return ", ".join([path_words(path), *(f"{sign} {rate_words(rate)}" for sign, rate in rates if rate)])


def rate_words(per_second: int) -> str:
    return f"{bytes_words(per_second)}/s"


def bytes_words(count: float) -> str:
    """ "12.3 MB", in powers of 1,000 as networks have them."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1_000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1_000
    return f"{count:,.1f} TB"


def leases_screen(leases: Sequence[LeaseView]) -> RenderableType:
    """The table, and below it what happens in leases that are made ready or frozen, and their tunnels."""
    going_on = [one for one in leases if one.detail and (one.frozen or one.phase == "provisioning")]
    lines = [(short_id(one.lease_id), safe_line(one.detail, 300)) for one in going_on]
    ways: dict[str, tuple[list[str], PathView]] = {}
    for one in leases:
        if one.path:  # it is that of the two nodes, so all their leases have it
            ways.setdefault(one.peer_id, ([], one.path))[0].append(short_id(one.lease_id))
    lines += [(", ".join(names), f"tunnels: {_tunnels(path)}") for names, path in ways.values()]
    notes = [Text(f" {names}: {line}", "dim", overflow="fold") for names, line in lines]
    return Group(leases_table(leases), *notes)


def _state(lease: LeaseView) -> Text:
    if not lease.differences:
        return cell("frozen" if lease.frozen else lease.phase, phase_style(lease.phase))
    return cell(f"{lease.phase}, {', '.join(lease.differences)}", BAD)


def lease_sheet(lease: LeaseView) -> Text:
    """What became of a job: for the end of `run`. Why it failed is said after it, as an error."""
    pairs: list[tuple[str, str | Text]] = [
        ("lease", short_id(lease.lease_id)),
        ("state", cell(lease.phase, phase_style(lease.phase))),
    ]
    if lease.exit_code is not None:
        pairs.append(("exit code", str(lease.exit_code)))
    if lease.deposit:
        pairs += [("time", duration(lease.seconds)), ("cost", _cost(lease))]
    if lease.outputs_sha256.strip("0") and lease.phase == "done":
        pairs.append(("outputs", lease.output_dir))
    if lease.exit_code is not None:
        pairs.append(("log", f"`qubix logs {short_id(lease.lease_id)}` shows what it printed"))
    return sheet(pairs)


def _cost(lease: LeaseView) -> str:
    if not lease.settled:
        return f"{qu(lease.promised)} of {qu(lease.deposit)} QU promised so far"
    return f"{qu(lease.paid)} QU ({qu(lease.refunded)} of the {qu(lease.deposit)} QU deposit came back)"


def wallet_sheet(wallet: WalletView) -> Text:
    return sheet(
        [
            ("identity", wallet.identity),
            ("balance", Text(f"{qu(wallet.balance)} QU", style="bold")),
            ("in escrow", f"{qu(wallet.escrowed)} QU not yet promised to anyone"),
            ("spent", f"{qu(wallet.spent)} QU as a caller"),
            ("earned", f"{qu(wallet.earned)} QU as a provider, after the fee"),
            ("tick", qu(wallet.tick)),
        ]
    )


def payment_sheet(payment: PaymentView) -> Text:
    pairs: list[tuple[str, str | Text]] = [
        ("payment", payment.payment_id),
        ("to", payment.identity),
        ("amount", f"{qu(payment.amount)} QU"),
        ("state", cell(payment.state, GOOD if payment.state == "sent" else BAD)),
        ("because", payment.sentence),
    ]
    pairs += [("tried", f"tick {one.tick}, transaction {one.hash}") for one in payment.transactions]
    return sheet(pairs)


def _signed_or_said(entry: HistoryEntry) -> str:
    """The transactions for it; of what came by itself, all that is known."""
    if entry.kind == "received":
        return entry.sentence + (f", from {entry.sender}" if entry.sender else "")
    return ", ".join(f"{one.action} {one.tick}" for one in entry.transactions)


def history_table(entries: Sequence[HistoryEntry]) -> Table:
    rows = [
        (
            cell(time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.at_ms / 1_000))),
            cell(entry.kind),
            cell(short_id(entry.id), max_chars=ID_CHARS),
            cell(entry.state, phase_style(entry.state)),
            cell(f"{entry.qu:+,}" if entry.qu else "0", "bold"),
            cell(_signed_or_said(entry), "dim", 80),
        )
        for entry in entries
    ]
    columns = ("when", "what", "id", "state", "QU", "transactions (tick)")
    return table(columns, rows, ("QU",), {"transactions (tick)": 0})


def status_sheet(status: StatusView) -> Text:
    role = f"yes, jobs run with {status.runner}" if status.provider else "no"
    dropped = {name: n for name, n in status.counters.items() if n and name.startswith("offer.")}
    tick = f"tick {qu(status.tick)}" if status.tick else "no tick seen yet: does the node at --chain answer?"
    pairs: list[tuple[str, str | Text]] = [
        ("peer id", status.peer_id),
        *(("address", address) for address in status.addresses),
        ("peers", str(status.peers)),
        ("network", f"{status.network}, contract {status.contract_index}, {tick}"),
        ("wallet", status.identity),
        ("provider", role),
        ("offers", f"{status.offers} known"),
        ("data", status.data_dir),
    ]
    if dropped:
        pairs.append(("dropped", ", ".join(f"{name} {count}" for name, count in dropped.items())))
    for one in status.differences:
        said = f"lease {short_id(one.lease_id)}: {safe_line(one.sentence, 300)} [{safe_line(one.code)}]"
        pairs.append(("differs", Text(said, BAD)))
    return sheet(pairs)
