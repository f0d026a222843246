"""Rules for every test: no unexpected ERROR log; property tests that repeat exactly in CI."""

from __future__ import annotations

import gc
import logging
import os
import signal
from collections.abc import Iterator

import hypothesis
import pytest

pytest_plugins = ["tests.support.engine", "tests.support.netlab", "tests.support.template_images"]

hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")

# A shell gives programs that it starts in the background an ignored SIGINT, and they hand it on: tests that
# press ctrl-C in a child would wait forever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """What was imported and collected stays: the collector looking through it again and again takes a third
    of the time of a test that draws screens."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


class _ErrorCollector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture(autouse=True)
def no_unexpected_error_logs(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test during which anything logged an ERROR. `@pytest.mark.error_logs("libp2p")` allows
    those of loggers whose name starts with a given prefix (no prefix: all)."""
    collector = _ErrorCollector()
    logging.getLogger().addHandler(collector)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(collector)
    marker = request.node.get_closest_marker("error_logs")
    allowed: tuple[str, ...] = () if marker is None else (marker.args or ("",))
    unexpected = [record for record in collector.records if not record.name.startswith(allowed)]
    if unexpected:
        lines = "\n".join(f"  {record.name}: {record.getMessage()}" for record in unexpected)
        pytest.fail(f"unexpected ERROR logs:\n{lines}", pytrace=False)
