"""The words of the command line that lead into a job, and what ways there are."""

from __future__ import annotations

from typing import Final

from tui import keys, relay, ssh, ssh_config
from tui import open as open_page
from tui.verb import Verb

CONNECTING: Final[dict[str, Verb]] = {
    "open": Verb(
        "show a page of a job in the browser: Jupyter, VS Code, a desktop",
        ("qubix open 3fa9c1", "qubix open 3fa9c1 code-server", "qubix open 3fa9c1 6006 --print"),
        open_page.add_arguments,
        open_page.open_page,
    ),
    "ssh": Verb(
        "open a shell in a job by its SSH server, or whatever else ssh can do",
        (
            "qubix ssh 3fa9c1",
            "qubix ssh 3fa9c1 nvidia-smi",
            "qubix ssh 3fa9c1 -- -N -L 8888:localhost:8888",
        ),
        ssh.add_arguments,
        ssh.ssh,
    ),
    "ssh-config": Verb(
        "let ssh, scp, rsync and VS Code reach jobs by the name qubix-NAME",
        ("qubix ssh-config", "qubix ssh-config --write"),
        ssh_config.add_arguments,
        ssh_config.ssh_config,
    ),
    "relay": Verb(
        "show the relays through which this node is reached, or rent one",
        ("qubix relay", "qubix relay rent --hours 2", "qubix relay rent 12D3Koo... --max-price 5_000"),
        relay.add_arguments,
        relay.relay,
    ),
    "keys": Verb(
        "show and make the SSH keys that let you into jobs",
        (
            "qubix keys",
            "qubix keys make laptop",
            "qubix keys add ~/.ssh/id_ed25519 --name mine",
            "qubix keys use mine",
            "qubix keys show",
            "qubix keys remove laptop",
        ),
        keys.add_arguments,
        keys.keys,
    ),
}
