"""How much one peer may have of a link, and how long it waits for another way."""

from __future__ import annotations

from typing import Final

from protocol.paths import PathKind

RESUME_SECONDS: Final = 120.0
OPEN_SECONDS: Final = 60.0
"""For the other side to say yes or no; it may have to start something first."""
PATIENCE_SECONDS: Final = 10.0
"""How long the side that did not open the waiting streams leaves the search to the other."""
PAUSES_SECONDS: Final = (0.2, 1.0, 2.0, 5.0)
"""Between tries to find another carrier; the last one again and again."""
MAX_STREAMS_FROM_PEER: Final = 512
MAX_CARRIERS: Final = 48
"""From both sides together."""
CARRIERS_OF: Final = {PathKind.DIRECT: 16, PathKind.PUNCHED: 2, PathKind.WIRE: 2, PathKind.RELAYED: 2}
"""So many are looked for of each kind, so that bulk and keystrokes travel apart."""
BUSY_BYTES_PER_SECOND: Final = 1 << 20
WINDOWS_BYTES: Final = 128 << 20
"""What all streams of a peer may have been granted together beyond their first windows."""
KEPT_BYTES: Final = 2 * WINDOWS_BYTES
"""So much is kept for a peer until it has taken it, beyond the first windows; what it asked for a stream that
has ended here may still count there."""
MAX_REMEMBERED: Final = 4_096
MAX_LATE: Final = 256
SPARE_SECONDS: Final = 10.0
"""For a carrier that nobody waits for."""
