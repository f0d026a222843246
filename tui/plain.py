"""`qubix tui --plain`: the same areas, line by line. A question, a numbered answer, sentences; no drawing.

For screen readers and for terminals that can do nothing. Nothing moves, nothing is overwritten, colours
are left out. What changes something (rent, stop, send) is done by the verb of the command line for it.
"""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

from protocol.control import LeaseView, PsArgs, PsView
from protocol.control_market import MarketArgs, MarketView, OfferView
from protocol.control_network import NetworkArgs, NetworkView
from protocol.control_provider import ProviderArgs, ProviderView
from protocol.control_wallet import HistoryArgs, HistoryView, WalletArgs, WalletView
from protocol.errors import DaemonUnreachable, QubixError
from tui import provider_screen, show
from tui.client import connect
from tui.places import control_socket
from tui.plain_lines import Lines
from tui.safe import safe_line, safe_text
from tui.screens.instances_model import moment, ordered, spent, statistics, status_of
from tui.wallet_keys import has_keys

OFFERS_SHOWN: Final = 9
ENTRIES_SHOWN: Final = 10
Choice = tuple[str, Callable[[], Awaitable[None]]]


class Plain:
    """The menu over the daemon of one data directory. `read` and `say` are the terminal."""

    def __init__(
        self,
        directory: Path,
        read: Callable[[], Awaitable[str | None]] | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self._directory = directory
        self._read = read or Lines().read
        self._say = say

    async def run(self) -> int:
        """Until the person quits or the input ends."""
        self._say(
            "qubix, line by line. A number and Enter answers; an empty line goes back, from this menu out."
        )
        areas: list[Choice] = [
            ("Market", self._market),
            ("Instances", self._instances),
            ("Wallet", self._wallet),
            ("Provider", self._provider),
            ("Network", self._network),
            ("New job", self._new_job),
            ("Start the daemon", self._start),
        ]
        while await self._choose("Where to", areas, last="Quit"):
            pass
        return 0

    async def _choose(self, question: str, choices: Sequence[Choice], last: str = "Back") -> bool:
        """Ask once and do what was chosen; False for the last choice, an empty line or the end."""
        for number, (title, _) in enumerate(choices, 1):
            self._say(f"{number}. {title}")
        self._say(f"0. {last}")
        said = await self._ask(f"{question}?")
        if said in ("", "0"):
            return False
        if not (said.isdecimal() and len(said) <= 2 and int(said) <= len(choices)):
            self._say(f"{safe_line(said, 40)} is none of the numbers 0 to {len(choices)}.")
            return True
        try:
            await choices[int(said) - 1][1]()
        except DaemonUnreachable as error:
            self._say(f"Error: {safe_line(str(error))} Choose `Start the daemon` in the first menu.")
        except QubixError as error:
            self._say(f"Error: {safe_text(str(error))}")
        return True

    async def _ask(self, question: str) -> str:
        self._say(question)
        return (await self._read() or "").strip()

    async def _call(self, verb: str, args: object) -> Any:
        async with connect(control_socket(self._directory)) as client:
            return await client.call(verb, args)

    async def _do(self, verb: str, *words: str) -> None:
        """Do what the verb of the command line does, its questions included."""
        from tui.cli import parsed
        from tui.verb_table import VERBS

        try:
            options = parsed([verb, "--data-dir", str(self._directory), *words])
        except SystemExit:  # an answer was --help, and that is what has been shown
            return
        await VERBS[verb].load()(options)

    # --- areas --------------------------------------------------------------------------------

    async def _market(self) -> None:
        conditions = await self._ask("Conditions, such as gpu=RTX_4090 price<=4M, or an empty line for all?")
        view: MarketView = await self._call("market", MarketArgs(limit=OFFERS_SHOWN, filter=conditions))
        self._say(f"{view.total} of {view.known} offers fit, ordered by {safe_line(view.order)}.")
        if view.offers:
            choices = [(offer_words(one), self._offer(one)) for one in view.offers]
            await self._choose("Which one do you want to know more of", choices)

    def _offer(self, offer: OfferView) -> Callable[[], Awaitable[None]]:
        async def more() -> None:
            await self._do("score", offer.peer_id)
            await self._choose("And now", [("Rent it", lambda: self._new_job(offer.peer_id))])

        return more

    async def _new_job(self, provider: str = "") -> None:
        command = await self._ask("Which command shall run, such as python train.py?")
        if not command:
            return
        gpu = await self._ask("Which GPU, such as RTX4090, or an empty line for none?")
        hours = await self._ask("For how many hours at most (an empty line: 1)?")
        words = [*(["--gpu", gpu] if gpu else []), *(["--hours", hours] if hours else [])]
        words += ["--provider", provider] if provider else []
        await self._do("run", *words, "--detach", "--", *shlex_words(command))

    async def _instances(self) -> None:
        view: PsView = await self._call("ps", PsArgs(all=True))
        self._say(statistics(view.leases).words())
        if not view.leases:
            self._say("Nothing is rented yet: choose New job in the first menu.")
            return
        leases = ordered(view.leases)[:ENTRIES_SHOWN]
        await self._choose("Which one", [(lease_words(one), self._lease(one)) for one in leases])

    def _lease(self, lease: LeaseView) -> Callable[[], Awaitable[None]]:
        def verb(name: str) -> Callable[[], Awaitable[None]]:
            return lambda: self._do(name, lease.lease_id)

        async def more() -> None:
            self._say(show.lease_sheet(lease).plain)
            self._say(f"{status_of(lease).sentence}")
            choices: list[Choice] = [("What it printed", verb("logs"))]
            if not lease.ended_at_ms:
                frozen = ("Let it go on", "resume") if lease.frozen else ("Pause it", "pause")
                choices += [(frozen[0], verb(frozen[1])), ("Begin it anew", verb("restart"))]
                choices += [("A shell in it", verb("ssh")), ("Stop it", verb("stop"))]
            await self._choose("And now", choices)

        return more

    async def _wallet(self) -> None:
        view: WalletView = await self._call("wallet", WalletArgs())
        self._say(show.wallet_sheet(view).plain)
        await self._choose("And now", [("What happened", self._history), ("Send QU", self._send)])

    async def _history(self) -> None:
        view: HistoryView = await self._call("history", HistoryArgs(ENTRIES_SHOWN))
        for one in view.entries:
            when = moment(one.at_ms, 0)
            self._say(f"{when}: {safe_line(one.kind)} {safe_line(one.state)}, {one.qu:+,} QU.")
        if not view.entries:
            self._say("Nothing has happened yet.")

    async def _send(self) -> None:
        identity = await self._ask("To which identity (60 letters)?")
        amount = await self._ask("How many QU?")
        if (
            identity
            and amount
            and await self._ask(f"Send {safe_line(amount, 30)} QU for good? Say yes.") == "yes"
        ):
            await self._do("wallet", "send", identity, amount)

    async def _provider(self) -> None:
        view: ProviderView = await self._call("provider", ProviderArgs())
        self._say(provider_screen.first(view).plain)
        earned = view.earnings
        self._say(f"Earned {show.qu(earned.today_qu)} QU today, {show.qu(earned.total_qu)} QU in all.")
        choices: list[Choice] = [
            ("Take no new jobs", lambda: self._do("provider", "pause")),
            ("Take jobs again", lambda: self._do("provider", "resume")),
        ]
        await self._choose("And now", choices)

    async def _network(self) -> None:
        view: NetworkView = await self._call("network", NetworkArgs())
        for line in network_lines(view):
            self._say(line)

    async def _start(self) -> None:
        if not has_keys(self._directory):
            self._say("There are no keys yet; on a private network the daemon makes a wallet of its own.")
        await self._do("up", "--detach")


def offer_words(offer: OfferView) -> str:
    """One offer as a sentence to be read aloud."""
    gpus = f"{offer.gpus} times " if offer.gpus > 1 else ""
    what = f"{gpus}{safe_line(offer.gpu_class, 40)}, {show.size(offer.vram_mib)}" if offer.gpus else "no GPU"
    score = "new" if offer.score is None or offer.newcomer else f"score {offer.score:.2f}"
    ping = "" if offer.rtt_ms is None else f", {offer.rtt_ms:.0f} milliseconds away"
    price = f"{show.qu(offer.all_in_qu_per_hour)} QU an hour"
    return f"{safe_line(offer.name, 40) or show.short_peer(offer.peer_id)}: {what}, {price}, {score}{ping}"


def lease_words(lease: LeaseView) -> str:
    """One lease as a sentence to be read aloud."""
    money = f"{show.qu(spent(lease))} QU so far, {show.qu(lease.price_qu_per_hour)} QU an hour"
    name = safe_line(lease.name, 40) or show.short_id(lease.lease_id)
    return f"{name}: {status_of(lease).word}, {safe_line(lease.gpu, 40)}, {money}"


def shlex_words(command: str) -> list[str]:
    """The words of a command; one that is not finished stays one line for the shell."""
    try:
        return shlex.split(command)
    except ValueError:
        return [command]


def network_lines(view: NetworkView) -> list[str]:
    """How this node stands in its network, as sentences."""
    heard = {True: "others can open connections to it", False: "others cannot open connections to it"}
    reach = heard[view.reachable] if view.reachable is not None else "nobody has tried to reach it"
    chain = view.chain
    state = "is well" if chain.state == "ok" else safe_line(chain.sentence or chain.state)
    lines = [
        f"This node is {view.peer_id}; {reach}.",
        f"{view.total} peers, {view.relayed} of them through a relay; {view.gossip.offers} offers known.",
        f"The chain {safe_line(chain.network)} {state}; tick {show.qu(chain.tick)}.",
    ]
    for peer in view.peers[:ENTRIES_SHOWN]:
        ping = "" if peer.rtt_ms is None else f", {peer.rtt_ms:.0f} milliseconds"
        name = safe_line(peer.name, 40) or show.short_peer(peer.peer_id)
        lines.append(f"Peer {name}: {show.PATHS.get(peer.way, safe_line(peer.way, 40))}{ping}.")
    return lines
