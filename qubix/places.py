"""Where a node keeps its files, as the daemon sees it too."""

from __future__ import annotations

import os
from pathlib import Path


def data_dir(chosen: str | os.PathLike[str] | None = None) -> Path:
    """The node's directory: what was asked for, else QUBIX_DATA_DIR, else XDG_DATA_HOME/qubix."""
    named = chosen or os.environ.get("QUBIX_DATA_DIR")
    if named:
        return Path(named).expanduser().absolute()
    return data_home() / "qubix"


def data_home() -> Path:
    """Where this user's programs keep their data."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share").absolute()


def control_socket(directory: Path) -> Path:
    return directory / "control.sock"
