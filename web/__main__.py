"""`python -m web`: arguments -> frozen Settings -> uvicorn, or the publisher."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence

from protocol.errors import QubixError
from web.settings import Settings, read


def main(arguments: Sequence[str]) -> int:
    """The exit code. Trouble is one sentence with its code on standard error; for programs, an object."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    try:
        _run(read(arguments, os.environ))
    except QubixError as error:
        _report(error, as_json="--json" in arguments)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def _report(error: QubixError, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps({"error": {"code": error.code, "message": str(error)}}) + "\n")
    else:
        sys.stderr.write(f"error: {error} [{error.code}]\n")


def _where(settings: Settings, url: str, *, everywhere: bool) -> str:
    if settings.json:
        return json.dumps({"url": url}) + "\n"
    others = "it is at every other address of this machine as well; " if everywhere else ""
    return f"the market is at {url}\n{others}Ctrl-C ends it\n"


def _run(settings: Settings) -> None:
    if settings.publish:
        from web.publish import run_publisher

        run_publisher(settings)
        return
    from web.server import EVERYWHERE, listen, serve, url_of

    with listen(settings) as listening:
        sys.stdout.write(_where(settings, url_of(listening), everywhere=settings.host in EVERYWHERE))
        sys.stdout.flush()
        serve(settings, listening)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
