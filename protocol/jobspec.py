"""The job file a person writes (YAML), checked field by field.

    name: wordcount
    resources:
      gpu: RTX4090:24GB:1        # model[:memory][:count]; leave out for a CPU job
      cpus: 2
      memory: 4GB
      disk: 10GB
      image: python:3.12
    file_mounts:
      /workspace/data.txt: ./data.txt
    outputs: [result.json]
    envs: {LEVEL: "3"}
    setup: pip install -r requirements.txt
    run: python count.py data.txt > result.json
    max_price: 900000            # QU per hour, all in
    max_hours: 1.5
    budget: 1000000              # QU in all: the job is stopped before it costs more
    ready: test -s index.html    # succeeds as soon as the job is ready, and billing begins
    restart: on_failure          # what becomes of it when it ends by itself
    idle_stop: 30m
    region: eu                   # whom to hire: these and max_rtt, min_reliability, order_by
    min_score: 0.3
    filter: cpus>=8 rtt<50ms
    ports: [8888, 47998/udp]     # what it listens on, see ports.py

Everything wrong is one JobFileInvalid that names line and field. Pure: reads no files.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import yaml

from protocol import job_life, job_resources
from protocol.errors import JobFileInvalid, QueryInvalid
from protocol.job_life import USUAL_LIFE, Life, life_of
from protocol.job_resources import wish_of
from protocol.messages import Wish
from protocol.ports import Port, ports_of
from protocol.query import (
    FIELDS,
    MAX_CHARACTERS,
    MAX_LIST,
    Condition,
    Filter,
    SortKey,
    name_key,
    parse_filter,
    parse_sort,
)
from protocol.templates import TEMPLATES, Template
from protocol.units import MAX_QU, Qu, Seconds
from protocol.yaml_fields import MAX_SCRIPT_CHARS, Field, compose, missing

T = TypeVar("T")
MAX_FILE_BYTES: Final = 262_144
WORKSPACE: Final = "/workspace/"
MAX_ENVS: Final = 256
MAX_SECRETS: Final = 256
MAX_OUTPUTS: Final = 64
NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
ENV_PATTERN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
NO_FILTER: Final = Filter()
PROOFS: Final = ("auto", "always", "never")
BOUNDS: Final = {
    "min_score": ("score", ">="),
    "min_reliability": ("reliability", ">="),
    "max_rtt": ("rtt", "<="),
}
"""Fields of the job file that say the same as a condition of the filter language."""


@dataclass(frozen=True)
class Choice:
    """Whom to hire: what a provider must be like, and who comes first (nothing said: the cheapest)."""

    where: Filter = NO_FILTER
    order: tuple[SortKey, ...] = ()


@dataclass(frozen=True)
class Job:
    """A checked job. Sizes are in MiB, CPU in thousandths of a core, money in QU per hour."""

    name: str
    image: str
    wish: Wish
    script: str
    """`setup`, then `run`, for `/bin/sh -eu`."""
    envs: dict[str, str]
    secrets: tuple[str, ...]
    """Names only; the values come from the caller's environment when the job is submitted."""
    file_mounts: dict[str, str]
    """Path inside the workspace (relative) -> the caller's path (relative to the job file)."""
    outputs: tuple[str, ...]
    """Patterns inside the workspace; empty = everything the job left there except its inputs."""
    max_price_qu_per_hour: Qu | None
    max_seconds: Seconds
    choice: Choice = Choice()
    template: str = ""
    """Of protocol/templates.py: what the file left out is from there."""
    life: Life = USUAL_LIFE
    budget: Qu = Qu(0)
    """The job is stopped before it costs more; 0 for no limit beside the rented time."""
    proof: str = "auto"
    """One of PROOFS: whether the machine is proved before the job begins."""
    ports: tuple[Port, ...] = ()
    """Those that have a name; its caller reaches all others too."""

    @property
    def makes(self) -> dict[str, str]:
        """Secrets that need not be given -> what is made for them, of templates.MAKES."""
        made = TEMPLATES[self.template].makes if self.template else {}
        return {name: kind for name, kind in made.items() if name in self.secrets}


def parse(text: str) -> Job:
    """A checked Job, or JobFileInvalid naming line and field."""
    if len(text.encode(errors="surrogatepass")) > MAX_FILE_BYTES:
        raise JobFileInvalid(f"the job file is larger than {MAX_FILE_BYTES} bytes")
    fields = _known(compose(text).mapping(), _TOP_FIELDS)
    resources = _known(fields["resources"].mapping(), job_resources.FIELDS) if "resources" in fields else {}
    template = _template(fields.get("template"))
    if "run" not in fields and not (template and template.run):
        missing("run", "is missing; it says what the job does")
    if "num_nodes" in fields and fields["num_nodes"].number(1, 1_000) != 1:
        fields["num_nodes"].fail("must be 1; jobs on several machines are not offered yet")
    price = fields.get("max_price")
    wish, envs = wish_of(resources, template), _envs(fields.get("envs"))
    secrets = _with_needed(_list(fields.get("secrets"), MAX_SECRETS, _secret), envs, template)
    usual_ports = template.ports_for(wish.gpu_count) if template else ()
    return Job(
        name=_name(fields.get("name")),
        image=_image(resources.get("image"), template, wish),
        wish=wish,
        script=_script(fields, template),
        envs=envs,
        secrets=secrets,
        file_mounts=_mounts(fields.get("file_mounts")),
        outputs=_list(fields.get("outputs"), MAX_OUTPUTS, _inside),
        max_price_qu_per_hour=_whole_qu(price) if price else None,
        max_seconds=_max_seconds(fields.get("max_hours")),
        choice=_choice(fields),
        template=template.name if template else "",
        life=life_of(fields, template),
        budget=_budget(fields.get("budget")),
        proof=fields["proof"].one_of(PROOFS) if "proof" in fields else "auto",
        ports=ports_of(fields.get("ports"), (*envs, *secrets), usual_ports),
    )


def _known(fields: dict[str, Field], names: frozenset[str]) -> dict[str, Field]:
    for name, field in fields.items():
        if name not in names:
            near = ", ".join(sorted(names))
            field.fail(f"is not a field of a job file; known here: {near}")
    return fields


def _name(field: Field | None) -> str:
    if field is None:
        return "job"
    text = field.text(64)
    if not NAME_PATTERN.fullmatch(text):
        field.fail("must be 1 to 63 letters, digits, '.', '_' or '-'")
    return text


def _template(field: Field | None) -> Template | None:
    if field is None:
        return None
    name = field.text(64)
    if name not in TEMPLATES:
        field.fail(f"{name!r} is no template; known are {', '.join(TEMPLATES)}")
    return TEMPLATES[name]


def _with_needed(
    secrets: tuple[str, ...], envs: dict[str, str], template: Template | None
) -> tuple[str, ...]:
    """The secrets, and those that the template needs and the file does not speak of."""
    needed = template.secrets if template else ()
    return tuple(dict.fromkeys((*secrets, *(name for name in needed if name not in envs))))


def _image(field: Field | None, template: Template | None, wish: Wish) -> str:
    if field is None and template:
        return template.image_for(wish.gpu_count)
    if field is None:
        missing("resources.image", "is missing; name the container image to run")
    text = field.text(256)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*", text):
        field.fail("is not an image name such as `python:3.12`")
    return text


def _script(fields: dict[str, Field], template: Template | None) -> str:
    parts = [fields[name].text() for name in ("setup", "run") if name in fields]
    if "run" not in fields and template:
        parts.append(template.run)
    elif not parts[-1].strip():
        fields["run"].fail("is empty")
    script = "\n".join(parts)
    if len(script) > MAX_SCRIPT_CHARS:
        last, other = (fields["run"], "`setup`") if "run" in fields else (fields["setup"], "`run`")
        last.fail(f"and {other} are together longer than {MAX_SCRIPT_CHARS} characters")
    return script


def _envs(field: Field | None) -> dict[str, str]:
    if field is None:
        return {}
    values = {}
    given = field.mapping()
    if len(given) > MAX_ENVS:
        field.fail(f"has {len(given)} entries; at most {MAX_ENVS} are taken")
    for name, value in given.items():
        if not ENV_PATTERN.fullmatch(name):
            value.fail("is not a variable name")
        values[name] = value.text(32_768)
    return values


def _secret(field: Field) -> str:
    name = field.text(64)
    if not ENV_PATTERN.fullmatch(name):
        field.fail("must be the name of an environment variable; its value is read when you run the job")
    return name


def _mounts(field: Field | None) -> dict[str, str]:
    if field is None:
        return {}
    mounts = {}
    for target, source in field.mapping().items():
        inside = _relative(target, source)
        if inside in mounts:
            source.fail(f"a second file is put at {inside!r}")
        mounts[inside] = source.text(4_096)
    return mounts


def _inside(field: Field) -> str:
    return _relative(field.text(256), field)


def _relative(path: str, field: Field) -> str:
    inside = path.removeprefix(WORKSPACE)
    parts = inside.split("/")
    if not {"", ".", ".."}.isdisjoint(parts):
        field.fail(f"{path!r} must name something inside /workspace, without `..`, `.` or a `/` at the end")
    return inside


def _list(field: Field | None, most: int, read: Callable[[Field], str]) -> tuple[str, ...]:
    return tuple(read(item) for item in field.items(most)) if field else ()


def _budget(field: Field | None) -> Qu:
    budget = _whole_qu(field) if field else Qu(0)
    if field and not budget:
        field.fail("must be at least 1 QU; leave it out for no limit beside `max_hours`")
    return budget


def _whole_qu(field: Field) -> Qu:
    value = field.number(0, MAX_QU)
    if value != int(value):
        field.fail("must be whole QU")
    return Qu(int(value))


def _max_seconds(field: Field | None) -> Seconds:
    hours = field.number(1 / 3_600, 24 * 365) if field else 1.0
    return Seconds(max(1, round(hours * 3_600)))


def _choice(fields: dict[str, Field]) -> Choice:
    conditions = list(_query(fields["filter"], parse_filter).conditions) if "filter" in fields else []
    for name, (field_name, operator) in BOUNDS.items():
        if name in fields:
            conditions.append(_bound(fields[name], field_name, operator))
    if "region" in fields:
        conditions.append(_region(fields["region"]))
    order = _query(fields["order_by"], parse_sort) if "order_by" in fields else ()
    return Choice(Filter(tuple(conditions)), order)


def _query(field: Field, read: Callable[[str], T]) -> T:
    try:
        return read(field.text(MAX_CHARACTERS))
    except QueryInvalid as error:
        field.fail(str(error))


def _bound(field: Field, name: str, operator: str) -> Condition:
    """A number with or without its unit."""
    quoted = "'" + field.text(32).replace("'", " ") + "'"
    try:
        return parse_filter(f"{name}{operator}{quoted}").conditions[0]
    except QueryInvalid:
        field.fail(f"must be a number, such as {FIELDS[name].example.lstrip(name + '<>=')}")


def _region(field: Field) -> Condition:
    """One region or a list of them."""
    given = field.items(MAX_LIST) if isinstance(field.node, yaml.SequenceNode) else [field]
    keys = []
    for one in given:
        try:
            keys.append(name_key(one.text(64)))
        except ValueError as error:
            one.fail(str(error))
    if not keys:
        field.fail("is an empty list; name a region or leave it out")
    return Condition("region", "in" if len(keys) > 1 else "=", tuple(keys))


_TOP_FIELDS: Final = frozenset(
    {
        "name",
        "resources",
        "envs",
        "secrets",
        "file_mounts",
        "outputs",
        "setup",
        "run",
        "max_price",
        "max_hours",
        "num_nodes",
        "region",
        "filter",
        "order_by",
        "template",
        "budget",
        "proof",
        "ports",
        *job_life.FIELDS,
        *BOUNDS,
    }
)
