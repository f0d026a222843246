"""The client of the control API, for the terminal's verbs and screens: that of the package `qubix`."""

from __future__ import annotations

from qubix.answers import error_of as error_of
from qubix.answers import typed as typed
from qubix.client import CONNECT_SECONDS as CONNECT_SECONDS
from qubix.client import Client as Client
from qubix.client import connect as connect
