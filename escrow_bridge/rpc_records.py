"""What the public HTTP RPC answers: the JSON objects of its Live and Archive services as far as we read them.

Field names as in the descriptions that Qubic publishes for its partners. Ranges are checked in decoding.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from protocol.units import MAX_QU

U32 = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]
U16 = Annotated[int, msgspec.Meta(ge=0, lt=1 << 16)]
Amount = Annotated[int, msgspec.Meta(ge=0, le=MAX_QU)]


class Record(msgspec.Struct, rename="camel"):
    """A JSON object of the service. Integers may come as strings; unknown fields are ignored."""


class TickInfoRecord(Record):
    tick: U32
    epoch: U16
    initial_tick: U32
    duration: U32 = 0


class TickInfoAnswer(Record):
    tick_info: TickInfoRecord


class BalanceRecord(Record):
    id: str
    balance: Amount
    valid_for_tick: U32
    latest_outgoing_transfer_tick: U32 = 0


class BalanceAnswer(Record):
    balance: BalanceRecord


class ContractAnswer(Record):
    response_data: str = ""


class LastProcessed(Record):
    tick_number: U32


class Interval(Record):
    first_tick: U32
    last_tick: U32


class Intervals(Record):
    processed_tick_intervals: list[Interval] = []


class TickData(Record):
    tick_number: U32
    transaction_hashes: list[str] = []


class TickDataAnswer(Record):
    tick_data: TickData | None = None


class TransactionRecord(Record):
    source: str
    destination: str
    amount: Amount
    tick_number: U32
    signature: str
    input_type: U16 = 0
    input_size: U16 = 0
    input_data: str = ""


class Transactions(Record):
    transactions: list[TransactionRecord] = []


class TransactionAnswer(Record):
    transaction: TransactionRecord | None = None


class ErrorObject(Record):
    code: int = 0
    message: str = ""
