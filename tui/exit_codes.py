"""What the exit codes of `qubix` mean; each error of the tree says which is its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

EXIT_CODES: Final[Mapping[int, str]] = {
    0: "done",
    1: "a fault of qubix itself",
    2: "what was asked for cannot be asked",
    3: "what was named is not there",
    4: "one side of a deal said no, before money moved",
    5: "something of this machine is missing, full, dead or taken",
    6: "money or the chain",
    7: "the job failed; qubix did not",
    8: "bytes from or to a peer",
    130: "interrupted",
}
"""`qubix exec` and `qubix ssh` end with the exit code of what they ran instead."""


def exit_codes_text() -> str:
    """One a line, for --help."""
    return "exit codes:\n" + "\n".join(f"  {code:3}  {meaning}" for code, meaning in EXIT_CODES.items())
