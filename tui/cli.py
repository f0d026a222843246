"""The `qubix` command: one parser, one place where errors become a line and an exit code."""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import sys
from collections.abc import Sequence
from textwrap import indent
from typing import NoReturn

from protocol.errors import JobFileInvalid, QubixError, QueryInvalid, UsageError
from protocol.query import help_text
from tui import (
    devnet,
    doctor,
    images,
    market,
    metrics,
    provider,
    run,
    show,
    stake,
    tunnel_verbs,
    up,
    verbs,
    wallet,
)
from tui.connecting import CONNECTING
from tui.safe import safe_line, safe_text
from tui.terminal import with_dashes
from tui.verb import Verb


def _no_arguments(parser: argparse.ArgumentParser) -> None:
    """For verbs that take none of their own."""


def _offer_arguments(parser: argparse.ArgumentParser) -> None:
    text = "what each GPU costs an hour, or a machine without"
    parser.add_argument("--price", type=_amount, metavar="QU", help=text)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--withdraw", action="store_const", const=True, help="take no new jobs")
    choice.add_argument(
        "--restore", dest="withdraw", action="store_const", const=False, help="take jobs again"
    )


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", metavar="job.yaml", help="the job file")
    parser.add_argument("--max-price", type=_amount, metavar="QU_PER_HOUR", help="refuse dearer offers")
    parser.add_argument("--output", metavar="DIR", help="folder for the output files; new or empty")
    parser.add_argument("--provider", default="", metavar="P", help="a peer id or the start of a name")
    run.add_conditions(parser)
    parser.add_argument("--order-by", default="", metavar="KEYS", help="who comes first, e.g. price,-score")
    parser.add_argument("--detach", action="store_true", help="come back once the lease is open")
    parser.add_argument("--up", action="store_true", help="start the daemon first if none runs")
    parser.add_argument("-y", "--yes", action="store_true", help="sign the quote without asking")


def _ps_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-a", "--all", action="store_true", help="ended leases too")


def _logs_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("lease", metavar="LEASE", help="a lease, or the start of its id")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the job ends")


def _lease_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("lease", metavar="LEASE", help="a lease, or the start of its id")


def _demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--runner", choices=("auto", "docker", "process"), default="auto", help="what runs it"
    )
    parser.add_argument("--keep", action="store_true", help="keep the files and logs of the demo")
    parser.add_argument(
        "--chain",
        metavar="URL",
        help="a chain of yours: node://HOST:PORT[,HOST:PORT...] or rpc+http://HOST:PORT",
    )
    parser.add_argument("--contract-index", type=_count, metavar="N", help="where the contract is on it")
    parser.add_argument("--wallet-seed-file", metavar="FILE", help="the wallet that pays there, mode 0600")


async def _demo(options: argparse.Namespace) -> int:
    from tui.demo import demo

    return await demo(options)


VERBS: dict[str, Verb] = {
    "up": Verb(
        "start this machine's daemon",
        (
            "qubix up --provider --detach",
            "qubix up --chain node://127.0.0.1:21841 --contract-index 28 --detach",
            "qubix up --provider --price 360000 --chain node://127.0.0.1:21841 --contract-index 28",
            "qubix up --directory --listen 0.0.0.0:4001 --chain node://127.0.0.1:21841 --contract-index 28",
        ),
        up.add_arguments,
        up.up,
    ),
    "down": Verb("end the daemon; running jobs go on", ("qubix down",), _no_arguments, verbs.down),
    "status": Verb("show the daemon, its network and peers", ("qubix status",), _no_arguments, verbs.status),
    "doctor": Verb(
        "say what works from this machine, what does not, and what to change",
        ("qubix doctor", "qubix doctor --json"),
        _no_arguments,
        doctor.doctor,
        "\n\nThe exit code is 5 if something does not work.",
    ),
    "offer": Verb(
        "show or change what this machine offers",
        ("qubix offer", "qubix offer --price 500000", "qubix offer --withdraw"),
        _offer_arguments,
        verbs.offer,
    ),
    "provider": Verb(
        "show what this machine earns, sells and runs; take no new jobs, or take them again",
        ("qubix provider", "qubix provider --watch", "qubix provider pause", "qubix provider resume"),
        provider.add_arguments,
        provider.provider,
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
        market.market_arguments,
        market.market,
        "\n\nfields of a filter, with their units:\n" + indent(help_text(), "  "),
    ),
    "why": Verb(
        "say why nobody takes a job, and the least change that would help",
        ("qubix why", "qubix why job.yaml --region eu", "qubix why job.yaml --ask --json"),
        market.why_arguments,
        market.why,
    ),
    "score": Verb(
        "show how a provider has done, and check it",
        (
            "qubix score alice",
            "qubix score alice --export alice.json",
            "qubix score --evidence alice.json --json",
        ),
        market.score_arguments,
        market.score,
    ),
    "deny": Verb(
        "say which providers are never hired",
        ("qubix deny list", "qubix deny add mallory", "qubix deny remove 12D3KooW..."),
        market.deny_arguments,
        market.deny,
    ),
    "stake": Verb(
        "enter the contract's registry as a provider, see the record, or leave",
        ("qubix stake", "qubix stake 1_000_000", "qubix stake --leave"),
        stake.add_arguments,
        stake.stake,
    ),
    "directories": Verb(
        "show which directories are used, and what each of them lacks",
        ("qubix directories",),
        _no_arguments,
        market.directories,
    ),
    "run": Verb(
        "rent a machine and run a job on it",
        (
            "qubix run job.yaml",
            "qubix run job.yaml --max-price 400000 --output results --detach",
            "qubix run job.yaml --region eu --min-reliability 95% --max-rtt 50ms",
            "qubix run job.yaml --filter 'cpus>=8 score>=0.3' --order-by price,-score",
        ),
        _run_arguments,
        run.run,
    ),
    "ps": Verb("show leases", ("qubix ps", "qubix ps -a --json"), _ps_arguments, verbs.ps),
    "logs": Verb(
        "show what a job prints", ("qubix logs 3fa9c1", "qubix logs -f 3fa9c1"), _logs_arguments, verbs.logs
    ),
    "metrics": Verb(
        "show what a job uses of its processor, memory, disk, network and GPUs",
        ("qubix metrics 3fa9c1", "qubix metrics 3fa9c1 --follow", "qubix metrics 3fa9c1 --since 2h --json"),
        metrics.add_arguments,
        metrics.metrics,
    ),
    "stop": Verb("end a job and pay for the time used", ("qubix stop 3fa9c1",), _lease_argument, verbs.stop),
    "pause": Verb(
        "freeze a job: the machine stays reserved, so it costs as much as before",
        ("qubix pause 3fa9c1",),
        _lease_argument,
        verbs.pause,
    ),
    "resume": Verb("let a frozen job go on", ("qubix resume 3fa9c1",), _lease_argument, verbs.resume),
    "restart": Verb(
        "end a job and begin it anew in its workspace; the lease and its meter go on",
        ("qubix restart 3fa9c1",),
        _lease_argument,
        verbs.restart,
    ),
    "wallet": Verb(
        "show the wallet and what is in escrow; make, import and export keys; send; look back",
        (
            "qubix wallet",
            "qubix wallet new",
            "qubix wallet import --seed-file seed.txt",
            "qubix wallet export --to backup.txt",
            "qubix wallet send IDENTITY 1000 --id rent-may",
            "qubix wallet history",
        ),
        wallet.add_arguments,
        wallet.wallet,
    ),
    "devnet": Verb(
        "run a private Qubic network on this machine",
        ("qubix devnet", "qubix devnet --nodes 3 --json", "qubix devnet --end"),
        devnet.add_arguments,
        devnet.devnet,
    ),
    **tunnel_verbs.VERBS,
    **CONNECTING,
    "images": Verb(
        "show the ready-made environments of job files, and build their images",
        ("qubix images", "qubix images all", "qubix images jupyter pytorch --gpu"),
        images.add_arguments,
        images.images,
    ),
    "demo": Verb(
        "run a whole rental on this machine, on a private network",
        (
            "qubix demo",
            "qubix demo --runner process --keep",
            "qubix demo --chain node://127.0.0.1:21841 --contract-index 28 --wallet-seed-file seed.txt",
        ),
        _demo_arguments,
        _demo,
    ),
}


class _Parser(argparse.ArgumentParser):
    """Reports mistakes as UsageError instead of printing and exiting on its own."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; `{self.prog} --help` shows how")


def make_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    everywhere = _Parser(add_help=False)
    everywhere.add_argument(
        "--data-dir", default=argparse.SUPPRESS, metavar="DIR", help="the node's directory"
    )
    everywhere.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="answer in JSON")
    top = _Parser(
        prog="qubix",
        description="Rent and offer computing time with no company in the middle.",
        epilog="`qubix VERB --help` shows examples. `qubix demo` shows it all on this machine.",
        parents=[everywhere],
        allow_abbrev=False,
    )
    words = top.add_subparsers(dest="verb", metavar="VERB", parser_class=_Parser)
    for name, verb in VERBS.items():
        sub = words.add_parser(
            name,
            help=verb.help,
            description=f"{verb.help[0].upper()}{verb.help[1:]}.",
            epilog="examples:\n" + "\n".join(f"  {line}" for line in verb.examples) + verb.more,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            parents=[everywhere],
            allow_abbrev=False,
        )
        verb.arguments(sub)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code. 0 done, 130 interrupted, else the error's own."""
    words = with_dashes(_with_orders(sys.argv[1:] if argv is None else list(argv)))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a narrow locale must not end a command
    try:
        return _dispatch(words)
    except QubixError as error:
        report(error, as_json="--json" in words)
        return error.exit_code
    except (KeyboardInterrupt, asyncio.CancelledError):
        return run.INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more to flush at exit
        return 1


def _with_orders(words: list[str]) -> list[str]:
    """`--sort -score` as `--sort=-score`: the parser would take the order for an option."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] in ("--sort", "--order-by") and word.startswith("-") and word[1:2] != "-":
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _dispatch(words: list[str]) -> int:
    top = make_parser()
    options = top.parse_args(words, argparse.Namespace(data_dir=None, json=False))
    if options.verb is None:
        top.print_help(sys.stderr)
        return UsageError.exit_code
    return asyncio.run(VERBS[options.verb].handler(options))


def report(error: QubixError, *, as_json: bool) -> None:
    """One line for a person, or one object for a program."""
    if as_json:
        show.print_json({"error": {"code": error.code, "message": str(error)}})
    else:
        # Only what was written here may take several lines: a caret stands below the character it means.
        own = error.code in (QueryInvalid.code, JobFileInvalid.code)
        sentence = safe_text(str(error))[:2_000] if own else safe_line(str(error), 2_000)
        first, _, rest = sentence.partition("\n")
        print(f"error: {first} [{safe_line(error.code)}]" + (f"\n{rest}" if rest else ""), file=sys.stderr)


def _amount(text: str) -> int:
    """A whole number of QU; `_` and `,` may group its digits."""
    digits = text.replace("_", "").replace(",", "")
    if not (digits.isascii() and digits.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of QU")
    return int(digits)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 10_000):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 10000")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
