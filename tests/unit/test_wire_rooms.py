"""libp2p is imported by its rooms: what nobody uses is left out, and nothing else is lost by it.

In a process of its own: here another test may have imported all of libp2p already.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

from qubixd.wire_libp2p.rooms import ABSENT

NAMES = [(module, name) for module, names in ABSENT.items() for name in names]
CHILD = """
import sys
import qubixd.wire_libp2p
from qubixd.wire_libp2p.rooms import ABSENT

for module, names in ABSENT.items():
    for name in names:
        try:
            getattr(sys.modules[module], name)(1, config=2)
            print(name, "can be made")
        except RuntimeError as error:
            assert str(error) == f"this node goes without libp2p's {name}"
unused = {"aioquic", "trio_websocket", "zeroconf", "libp2p.kad_dht", "libp2p.bitswap"}
print(*sorted(unused & sys.modules.keys()))
"""


def test_a_daemon_goes_without() -> None:
    command = [sys.executable, "-c", CHILD]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.split() == []


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_what_is_left_out_is_in_libp2p(module: str, name: str) -> None:
    source = Path(str(distribution("libp2p").locate_file(module.replace(".", "/") + ".py"))).read_text()
    assert f"\nclass {name}" in source or f"\ndef {name}" in source
