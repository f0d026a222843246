"""The words of the command line: what each is for, how it is used, and where it is done.

Arguments and handlers are named "module:function" and loaded when their word is used, so that `qubix --help`
and the completion of a shell need not load everything.
"""

from __future__ import annotations

from textwrap import indent
from typing import Final

from tui.verb import Verb


def _filter_fields() -> str:
    from protocol.query import help_text

    return "\n\nfields of a filter, with their units:\n" + indent(help_text(), "  ")


def _terminal_keys() -> str:
    from tui.terminal import HELP

    return f"\n\nkeys: {HELP}"


VERBS: Final[dict[str, Verb]] = {
    "up": Verb(
        "start this machine's daemon",
        (
            "qubix up --provider --detach",
            "qubix up --chain node://127.0.0.1:21841 --contract-index 28 --detach",
            "qubix up --provider --price 360000 --chain node://127.0.0.1:21841 --contract-index 28",
            "qubix up --directory --listen 0.0.0.0:4001 --chain node://127.0.0.1:21841 --contract-index 28",
        ),
        "tui.up:add_arguments",
        "tui.up:up",
    ),
    "down": Verb("end the daemon; running jobs go on", ("qubix down",), "", "tui.verbs:down"),
    "status": Verb(
        "show the daemon, its network and peers",
        ("qubix status", "qubix status --peers", "qubix status --peers --json"),
        "tui.status:add_arguments",
        "tui.status:status",
    ),
    "doctor": Verb(
        "say what works from this machine, what does not, and what to change",
        ("qubix doctor", "qubix doctor --json"),
        "",
        "tui.doctor:doctor",
        "\n\nThe exit code is 5 if something does not work.",
    ),
    "offer": Verb(
        "show or change what this machine offers",
        (
            "qubix offer",
            "qubix offer --price 500000",
            "qubix offer --schedule 'mon-fri 18:00-08:00 price 400000; sat,sun price 300000'",
            "qubix offer --schedule 'closed; sat,sun open' --preview",
            "qubix offer --withdraw",
        ),
        "tui.offer:offer_arguments",
        "tui.offer:offer",
    ),
    "provider": Verb(
        "show what this machine earns, sells and runs; take no new jobs, or take them again",
        ("qubix provider", "qubix provider --watch", "qubix provider pause", "qubix provider resume"),
        "tui.provider:add_arguments",
        "tui.provider:provider",
    ),
    "market": Verb(
        "show the offers known here, the cheapest or the fittest first",
        (
            "qubix market",
            'qubix market --for "stable diffusion"',
            "qubix market gpu=RTX_4090 'price<=50000' 'region in (eu, us)' --measure",
            "qubix market 'vram>=24' 'score>=0.3' --sort price,-score --limit 50",
            "qubix market --gpu A100 --image pytorch/pytorch:latest --disk 200GB --json",
        ),
        "tui.market:market_arguments",
        "tui.market:market",
        _filter_fields,
    ),
    "why": Verb(
        "say why nobody takes a job, and the least change that would help",
        ("qubix why", "qubix why job.yaml --region eu", "qubix why job.yaml --ask --json"),
        "tui.market:why_arguments",
        "tui.market:why",
    ),
    "notices": Verb(
        "show what happened lately, also while nobody watched",
        ("qubix notices", "qubix notices --limit 10", "qubix notices --after 57 --json"),
        "tui.notices:add_arguments",
        "tui.notices:notices",
    ),
    "score": Verb(
        "show how a provider has done, and check it",
        (
            "qubix score alice",
            "qubix score alice --export alice.json",
            "qubix score --evidence alice.json --json",
        ),
        "tui.market:score_arguments",
        "tui.market:score",
    ),
    "deny": Verb(
        "say which providers are never hired",
        ("qubix deny list", "qubix deny add mallory", "qubix deny remove 12D3KooW..."),
        "tui.market:deny_arguments",
        "tui.market:deny",
    ),
    "stake": Verb(
        "enter the contract's registry as a provider, see the record, or leave",
        ("qubix stake", "qubix stake 1_000_000", "qubix stake --leave"),
        "tui.stake:add_arguments",
        "tui.stake:stake",
    ),
    "directories": Verb(
        "show which directories are used, and what each of them lacks",
        ("qubix directories",),
        "",
        "tui.market:directories",
    ),
    "run": Verb(
        "rent a machine and run a job on it",
        (
            "qubix run job.yaml",
            "qubix run --gpu RTX4090 --hours 2 -- python train.py",
            "qubix run --image python:3.12 --budget 50000 --env LEVEL=3 -- python count.py data.txt",
            "qubix run job.yaml --max-price 400000 --output results --detach",
            "qubix run job.yaml --region eu --min-reliability 95% --max-rtt 50ms",
            "qubix run job.yaml --filter 'cpus>=8 score>=0.3' --order-by price,-score",
            "qubix run --again 3fa9c1",
        ),
        "tui.run:add_arguments",
        "tui.run:run",
    ),
    "apply": Verb(
        "make a job run as its file says: start it, leave it, or end it and start it anew",
        (
            "qubix apply -f job.yaml",
            "qubix apply -f job.yaml --diff",
            "qubix apply -f job.yaml --yes --json",
            "qubix apply -f job.yaml --end-first",
        ),
        "tui.apply:add_arguments",
        "tui.apply:apply",
        "\n\nThe job's name says which job it is. What goes on as the file says is left alone, so that the\n"
        "same command may be given again and again. What is otherwise is shown, another machine is asked\n"
        "for, and with a yes to its quote the new job is opened; only then the old one is ended, so that\n"
        "nobody is left with nothing. Until its end both are paid for, and both deposits are locked. With\n"
        "--end-first the old one is ended before another machine is sought: its deposit and its machine\n"
        "are free then. A workspace goes with its job, outputs are brought. Input files count, values of\n"
        "secrets do not.",
    ),
    "import": Verb(
        "make a job file of a docker-compose file or an Akash SDL file",
        (
            "qubix import compose.yml --output job.yaml",
            "qubix import compose.yml --service trainer --gpu RTX4090:24GB:2 --hours 8",
            "qubix import deploy.yaml --set TAG=1.4 --json",
        ),
        "tui.importing:add_arguments",
        "tui.importing:import_",
        "\n\nWhat has no place in a job is left out and said so, with the reason; nothing is started.",
    ),
    "ps": Verb("show leases", ("qubix ps", "qubix ps -a --json"), "tui.verbs:ps_arguments", "tui.verbs:ps"),
    "logs": Verb(
        "show what a job prints",
        ("qubix logs 3fa9c1", "qubix logs -f 3fa9c1"),
        "tui.verbs:logs_arguments",
        "tui.verbs:logs",
    ),
    "metrics": Verb(
        "show what a job uses of its processor, memory, disk, network and GPUs",
        ("qubix metrics 3fa9c1", "qubix metrics 3fa9c1 --follow", "qubix metrics 3fa9c1 --since 2h --json"),
        "tui.metrics:add_arguments",
        "tui.metrics:metrics",
    ),
    "stop": Verb(
        "end a job and pay for the time used",
        ("qubix stop 3fa9c1",),
        "tui.verbs:lease_argument",
        "tui.verbs:stop",
    ),
    "pause": Verb(
        "freeze a job: the machine stays reserved, so it costs as much as before",
        ("qubix pause 3fa9c1",),
        "tui.verbs:lease_argument",
        "tui.verbs:pause",
    ),
    "resume": Verb(
        "let a frozen job go on", ("qubix resume 3fa9c1",), "tui.verbs:lease_argument", "tui.verbs:resume"
    ),
    "extend": Verb(
        "add time to a running job, at its price and in its lease",
        (
            "qubix extend 3fa9c1 --hours 2",
            "qubix extend 3fa9c1 --hours 90m --check",
            "qubix extend 3fa9c1 --hours 2 --max-cost 800000 --yes --id evening --json",
        ),
        "tui.extend:add_arguments",
        "tui.extend:extend",
    ),
    "restart": Verb(
        "end a job and begin it anew in its workspace; the lease and its meter go on",
        ("qubix restart 3fa9c1",),
        "tui.verbs:lease_argument",
        "tui.verbs:restart",
    ),
    "wallet": Verb(
        "show the wallet and what is in escrow; make, import, export and seal keys; send; look back",
        (
            "qubix wallet",
            "qubix wallet new",
            "qubix wallet import --seed-file seed.txt",
            "qubix wallet export --to backup.txt",
            "qubix wallet passphrase --new-passphrase-file new.txt",
            "qubix wallet send IDENTITY 1000 --id rent-may",
            "qubix wallet history",
        ),
        "tui.wallet:add_arguments",
        "tui.wallet:wallet",
    ),
    "devnet": Verb(
        "run a private Qubic network on this machine",
        ("qubix devnet", "qubix devnet --nodes 3 --json", "qubix devnet --end"),
        "tui.devnet:add_arguments",
        "tui.devnet:devnet",
    ),
    "attach": Verb(
        "open a shell beside a job, in this terminal",
        ("qubix attach 3fa9c1",),
        "tui.terminal:attach_arguments",
        "tui.terminal:attach",
        _terminal_keys,
    ),
    "exec": Verb(
        "run a program beside a job; its exit code becomes that of the command",
        (
            "qubix exec 3fa9c1 -- nvidia-smi",
            "qubix exec 3fa9c1 -t -- python",
            "qubix exec 3fa9c1 -- tar c results",
        ),
        "tui.terminal:exec_arguments",
        "tui.terminal:exec_",
    ),
    "cp": Verb(
        "copy files to a job or from it",
        (
            "qubix cp model.pt 3fa9c1:",
            "qubix cp -r data 3fa9c1:data",
            "qubix cp 3fa9c1:results/loss.csv .",
            "qubix cp -r 3fa9c1:results results",
        ),
        "tui.copy:add_arguments",
        "tui.copy:copy",
    ),
    "forward": Verb(
        "open ports here that lead into a job",
        (
            "qubix forward 3fa9c1",
            "qubix forward 3fa9c1 8888",
            "qubix forward 3fa9c1 9999:8888 0:6006 47998/udp",
        ),
        "tui.forward:add_arguments",
        "tui.forward:forward",
    ),
    "connect": Verb(
        "be one port of a job: standard input goes there, standard output comes from there",
        (
            "qubix connect 3fa9c1 22",
            "qubix connect --fdpass 3fa9c1 22",
        ),
        "tui.connect:add_arguments",
        "tui.connect:connect",
        "\n\nfor ssh: -o ProxyUseFdpass=yes -o 'ProxyCommand=qubix connect --fdpass 3fa9c1 22'",
    ),
    "open": Verb(
        "show a page of a job in the browser: Jupyter, VS Code, a desktop",
        ("qubix open 3fa9c1", "qubix open 3fa9c1 code-server", "qubix open 3fa9c1 6006 --print"),
        "tui.open:add_arguments",
        "tui.open:open_page",
    ),
    "ssh": Verb(
        "open a shell in a job by its SSH server, or whatever else ssh can do",
        (
            "qubix ssh 3fa9c1",
            "qubix ssh 3fa9c1 nvidia-smi",
            "qubix ssh 3fa9c1 -- -N -L 8888:localhost:8888",
        ),
        "tui.ssh:add_arguments",
        "tui.ssh:ssh",
    ),
    "ssh-config": Verb(
        "let ssh, scp, rsync and VS Code reach jobs by the name qubix-NAME",
        ("qubix ssh-config", "qubix ssh-config --write"),
        "tui.ssh_config:add_arguments",
        "tui.ssh_config:ssh_config",
    ),
    "relay": Verb(
        "show the relays through which this node is reached, or rent one",
        ("qubix relay", "qubix relay rent --hours 2", "qubix relay rent 12D3Koo... --max-price 5_000"),
        "tui.relay:add_arguments",
        "tui.relay:relay",
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
        "tui.keys:add_arguments",
        "tui.keys:keys",
    ),
    "images": Verb(
        "show the ready-made environments of job files, and build their images",
        ("qubix images", "qubix images all", "qubix images jupyter pytorch --gpu"),
        "tui.images:add_arguments",
        "tui.images:images",
    ),
    "tui": Verb(
        "show everything in full screen: market, jobs, wallet, provider; `qubix` alone does the same",
        ("qubix tui", "qubix tui --light", "qubix tui --plain"),
        "tui.full_screen:add_arguments",
        "tui.full_screen:tui",
    ),
    "web": Verb(
        "show the market as pages in a browser, from this machine's daemon",
        (
            "qubix web",
            "qubix web --port 0 --json",
            "qubix web --host 0.0.0.0 --port 8080 --workers 4 --behind-proxy 1",
            "qubix web --publish postgresql://qubix@db.example/market",
            "qubix web --mirror postgresql://qubix@db.example/market",
            "qubix web --off",
        ),
        "tui.web_verb:add_arguments",
        "tui.web_verb:web",
        "\n\nThe daemon begins to copy the public part of what it knows into a file, and goes on with it\n"
        "until --off. The pages are served from that file by a process that has no key. Each setting\n"
        "may stand in the environment as well, as QUBIX_WEB_PORT; an address with a password does so best.",
    ),
    "completion": Verb(
        "make a shell complete qubix's words, leases, providers and templates",
        ("qubix completion bash", "qubix completion zsh", "qubix completion fish"),
        "tui.completion:add_arguments",
        "tui.completion:completion",
        "\n\nwhere a shell looks for it:\n"
        "  qubix completion bash > ~/.local/share/bash-completion/completions/qubix\n"
        '  qubix completion zsh > "${fpath[1]}/_qubix"\n'
        "  qubix completion fish > ~/.config/fish/completions/qubix.fish\n"
        'or for this bash alone: eval "$(qubix completion bash)"',
    ),
    "demo": Verb(
        "run a whole rental on this machine, on a private network",
        (
            "qubix demo",
            "qubix demo --runner process --keep",
            "qubix demo --chain node://127.0.0.1:21841 --contract-index 28 --wallet-seed-file seed.txt",
        ),
        "tui.demo:add_arguments",
        "tui.demo:demo",
    ),
}
