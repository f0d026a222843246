"""Chain over the RPCs of several operators, none of them trusted: what two of them say counts.

Each is asked as `rpc.py` does it, so each has to agree with itself before it is heard at all.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

import trio

from escrow_bridge.chain import Balance, Chain, Outcome, TickInfo
from escrow_bridge.node_peer import NoAnswer, Timing
from escrow_bridge.node_quorum import Answer, Quorum, contract_answer, shown
from escrow_bridge.qubic import identity_of, transaction_hash
from escrow_bridge.rpc import open_rpc_chain, parse_url
from escrow_bridge.shared import Shared
from protocol.errors import ChainDisagrees, ChainUnreachable, ConfigInvalid
from protocol.units import QubicId, Tick

_LOG: Final = logging.getLogger(__name__)
KIND: Final = "Qubic RPC"
T = TypeVar("T")


@dataclass(eq=False)
class Operator:
    """One RPC. There is no connection to lose: whether it answers, each question shows."""

    name: str
    chain: Chain
    trouble: str = ""
    connected: bool = True


class RpcQuorumChain:
    """Obtained from `open_rpc_chains`."""

    def __init__(self, operators: Sequence[Operator], timing: Timing) -> None:
        self._operators = operators
        self._quorum = Quorum(operators, timing, trio.lowlevel.ParkingLot(), KIND)
        self._tick_info = Shared(self._ask_tick_info)

    @property
    def name(self) -> str:
        return f"the {KIND}s {', '.join(one.name for one in self._operators)}"

    async def tick_info(self) -> TickInfo:
        return await self._tick_info()

    async def _ask_tick_info(self) -> TickInfo:
        def answer(info: TickInfo) -> Answer[TickInfo]:
            says = f"epoch {info.epoch} since tick {info.initial_tick}"
            return Answer(info, (info.epoch, info.initial_tick), says, info.tick)

        return await self._ask(lambda chain: chain.tick_info(), answer, "the current tick")

    async def balance(self, owner: QubicId) -> Balance:
        def answer(balance: Balance) -> Answer[Balance]:
            return Answer(balance, balance.amount, f"{balance.amount} QU", balance.as_of)

        return await self._ask(
            lambda chain: chain.balance(owner), answer, f"the balance of {identity_of(owner)}"
        )

    async def query(
        self, contract_index: int, input_type: int, payload: bytes, *, tick_at: int | None = None
    ) -> bytes:
        return await self._ask(
            lambda chain: chain.query(contract_index, input_type, payload),
            lambda output: contract_answer(output, tick_at),
            f"the answer of function {input_type} of contract {contract_index}",
        )

    async def outcome(self, transaction: bytes) -> Outcome:
        return await self._ask(
            lambda chain: chain.outcome(transaction),
            lambda outcome: Answer(outcome, outcome, outcome.value),
            f"the outcome of transaction {transaction_hash(transaction)}",
        )

    async def transactions(self, tick: Tick) -> tuple[bytes, ...] | None:
        def answer(raws: tuple[bytes, ...] | None) -> Answer[tuple[bytes, ...] | None]:
            return Answer(raws, raws, "that it cannot say" if raws is None else shown(b"".join(raws)))

        return await self._ask(
            lambda chain: chain.transactions(tick), answer, f"the transactions in tick {tick}"
        )

    async def _ask(
        self, call: Callable[[Chain], Awaitable[T]], answer: Callable[[T], Answer[T]], what: str
    ) -> T:
        async def attempt(operator: Operator) -> Answer[T]:
            try:
                return answer(await call(operator.chain))
            except (ChainUnreachable, ChainDisagrees) as error:
                raise NoAnswer(str(error)) from error

        return await self._quorum.ask(attempt, what)

    async def broadcast(self, transaction: bytes) -> None:
        troubles: list[str] = []

        async def send(chain: Chain) -> None:
            try:
                await chain.broadcast(transaction)
            except ChainUnreachable as error:
                troubles.append(str(error))

        async with trio.open_nursery() as nursery:
            for operator in self._operators:
                nursery.start_soon(send, operator.chain)
        if len(troubles) == len(self._operators):
            raise ChainUnreachable(f"no {KIND} took the transaction ({'; '.join(troubles)}); try again")


@asynccontextmanager
async def open_rpc_chains(urls: Sequence[str], timing: Timing | None = None) -> AsyncIterator[Chain]:
    """A Chain over the RPCs at `urls`, each as for `open_rpc_chain`. One alone is taken at its word.

    Raises ConfigInvalid for a wrong address or one that is named twice.
    """
    names = [parse_url(url) for url in urls]
    if len(set(names)) < len(names):
        raise ConfigInvalid("a Qubic RPC is named twice; its word would count as that of two")
    async with AsyncExitStack() as stack:
        chains = [await stack.enter_async_context(open_rpc_chain(url, timing)) for url in urls]
        if len(chains) == 1:
            _LOG.warning(
                "only one Qubic RPC is configured, %s: it is believed in all that fits together; name three",
                names[0],
            )
            yield chains[0]
        else:
            operators = [Operator(*pair) for pair in zip(names, chains, strict=True)]
            yield RpcQuorumChain(operators, timing or Timing())
