"""Where a node keeps its files: the same for the terminal's verbs as for everybody else."""

from __future__ import annotations

from qubix.places import control_socket as control_socket
from qubix.places import data_dir as data_dir
from qubix.places import data_home as data_home
