"""The words of the command line that lead into a running job."""

from __future__ import annotations

from typing import Final

from tui import connect, copy, forward, terminal
from tui.terminal import HELP
from tui.verb import Verb

VERBS: Final[dict[str, Verb]] = {
    "attach": Verb(
        "open a shell beside a job, in this terminal",
        ("qubix attach 3fa9c1",),
        terminal.attach_arguments,
        terminal.attach,
        f"\n\nkeys: {HELP}",
    ),
    "exec": Verb(
        "run a program beside a job; its exit code becomes that of the command",
        (
            "qubix exec 3fa9c1 -- nvidia-smi",
            "qubix exec 3fa9c1 -t -- python",
            "qubix exec 3fa9c1 -- tar c results",
        ),
        terminal.exec_arguments,
        terminal.exec_,
    ),
    "cp": Verb(
        "copy files to a job or from it",
        (
            "qubix cp model.pt 3fa9c1:",
            "qubix cp -r data 3fa9c1:data",
            "qubix cp 3fa9c1:results/loss.csv .",
            "qubix cp -r 3fa9c1:results results",
        ),
        copy.add_arguments,
        copy.copy,
    ),
    "forward": Verb(
        "open ports here that lead into a job",
        (
            "qubix forward 3fa9c1",
            "qubix forward 3fa9c1 8888",
            "qubix forward 3fa9c1 9999:8888 0:6006 47998/udp",
        ),
        forward.add_arguments,
        forward.forward,
    ),
    "connect": Verb(
        "be one port of a job: standard input goes there, standard output comes from there",
        (
            "qubix connect 3fa9c1 22",
            "qubix connect --fdpass 3fa9c1 22",
        ),
        connect.add_arguments,
        connect.connect,
        "\n\nfor ssh: -o ProxyUseFdpass=yes -o 'ProxyCommand=qubix connect --fdpass 3fa9c1 22'",
    ),
}
