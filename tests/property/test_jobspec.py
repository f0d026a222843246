"""The job file against every text: a job that fits the wire, or JobFileInvalid and nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from protocol import job_resources, messages
from protocol.errors import JobFileInvalid
from protocol.jobspec import _TOP_FIELDS, Job, parse
from protocol.messages import MAX_ORDER_BYTES, JobOrder, QuoteRequest
from tests.support.values import sample

FIELDS = sorted(_TOP_FIELDS)
RESOURCES = sorted(job_resources.FIELDS)
VALUES = [
    "1",
    "RTX4090:24GB:1",
    "4GB",
    "a",
    "-1",
    "1e9",
    "nan",
    "~",
    "{}",
    "[]",
    "{A: 1}",
    "[A]",
    "|\n  x",
    "²:²",
    "10m",
    "1.5h",
    "always",
    "on_failure",
    "true",
    ">=12.4",
    "amd64",
]
scalars = st.one_of(
    st.sampled_from(VALUES), st.text(max_size=12), st.integers().map(str), st.floats().map(str)
)


def fits_the_wire(job: Job) -> None:
    """What a caller's daemon makes of a job is something a provider's takes."""
    life = job.life
    order = JobOrder(
        name=job.name,
        image=job.image,
        script=job.script,
        envs=job.envs,
        secrets_sha256=bytes(32),
        outputs=job.outputs,
        inputs_sha256=bytes(32),
        inputs_bytes=0,
        ready=life.ready,
        restart=life.restart,
        restarts=life.restarts,
    )
    assert messages.decode(messages.encode(order), MAX_ORDER_BYTES) == order
    said = {
        "wish": job.wish,
        "max_seconds": job.max_seconds,
        "budget": job.budget,
        "ready_seconds": life.ready_seconds,
        "idle_seconds": life.idle_seconds,
    }
    request = QuoteRequest(**{**vars(sample(QuoteRequest)), **said})
    assert messages.decode(messages.encode(request)) == request


def check(text: str) -> None:
    try:
        fits_the_wire(parse(text))
    except JobFileInvalid as error:
        assert str(error)


@given(st.text(st.characters(), max_size=200))
def test_any_text(text: str) -> None:
    check(text)


@given(st.text(st.sampled_from("[]{}:,-?*&!|>'\"%@#\n \tab0\\uU~<"), max_size=80))
def test_any_yaml_like_text(text: str) -> None:
    check(text)


@given(
    st.dictionaries(st.sampled_from(FIELDS), scalars, max_size=5),
    st.dictionaries(st.sampled_from(RESOURCES), scalars, max_size=4),
)
def test_any_values_of_the_known_fields(fields: dict[str, str], resources: dict[str, str]) -> None:
    inner = "".join(f"  {name}: {value}\n" for name, value in {"image": "a", **resources}.items())
    outer = {"run": "x", **fields}
    outer.pop("resources", None)
    check(f"resources:\n{inner}" + "".join(f"{name}: {value}\n" for name, value in outer.items()))
