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
    max_price: 900000            # QU per hour
    max_hours: 1.5

Everything wrong is one JobFileInvalid that names line and field. Pure: reads no files.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import yaml

from protocol.errors import JobFileInvalid
from protocol.messages import Wish
from protocol.units import MAX_QU, Qu, Seconds

MAX_FILE_BYTES: Final = 262_144
WORKSPACE: Final = "/workspace/"
MAX_DEPTH: Final = 8
"""Of lists and mappings within each other; a job file needs three."""
MAX_SCRIPT_CHARS: Final = 65_536
MAX_ENVS: Final = 256
MAX_SECRETS: Final = 256
MAX_OUTPUTS: Final = 64
NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
ENV_PATTERN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
SIZE_PATTERN: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]i?B?|B)?", re.IGNORECASE | re.ASCII)
GPU_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_. -]{0,47}")
MIB_OF_UNIT: Final = {"": 1024.0, "K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0 * 1024, "B": 1 / 1024**2}
"""A bare number means gigabytes; K, M, G, T count in 1024s."""


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


@dataclass(frozen=True)
class _Field:
    """One value of the file with its place in it; `line` counts from 1 and is that of its key."""

    path: str
    node: yaml.Node
    line: int

    def fail(self, problem: str) -> NoReturn:
        raise JobFileInvalid(f"line {self.line}, {self.path}: {problem}")

    def text(self, max_chars: int = MAX_SCRIPT_CHARS) -> str:
        if not isinstance(self.node, yaml.ScalarNode) or self.node.tag == "tag:yaml.org,2002:null":
            self.fail("must be text")
        if len(self.node.value) > max_chars:
            self.fail(f"is longer than {max_chars} characters")
        if "\0" in self.node.value or any("\ud800" <= char <= "\udfff" for char in self.node.value):
            self.fail("contains a character that no program can be given (NUL or half of a pair)")
        return str(self.node.value)

    def mapping(self) -> dict[str, _Field]:
        if not isinstance(self.node, yaml.MappingNode):
            self.fail("must be a mapping of `key: value` lines")
        fields: dict[str, _Field] = {}
        for key_node, value in self.node.value:
            line = key_node.start_mark.line + 1
            key = _Field(self.path, key_node, line).text(256)
            path = f"{self.path}.{key}" if self.path != TOP else key
            if key in fields:
                _Field(path, key_node, line).fail("is given twice")
            fields[key] = _Field(path, value, line)
        return fields

    def items(self, most: int) -> list[_Field]:
        if not isinstance(self.node, yaml.SequenceNode):
            self.fail("must be a list")
        if len(self.node.value) > most:
            self.fail(f"has {len(self.node.value)} entries; at most {most} are taken")
        return [
            _Field(f"{self.path}[{i}]", node, node.start_mark.line + 1)
            for i, node in enumerate(self.node.value)
        ]

    def number(self, low: float, high: float) -> float:
        text = self.text(64)
        try:
            value = float(text.rstrip("+"))
        except ValueError:
            self.fail(f"must be a number, not {text!r}")
        if not low <= value <= high:
            self.fail(f"must be between {low:g} and {high:g}, not {text}")
        return value


TOP: Final = "job file"


def parse(text: str) -> Job:
    """A checked Job, or JobFileInvalid naming line and field."""
    if len(text.encode(errors="surrogatepass")) > MAX_FILE_BYTES:
        raise JobFileInvalid(f"the job file is larger than {MAX_FILE_BYTES} bytes")
    fields = _known(_compose(text).mapping(), _TOP_FIELDS)
    resources = _known(fields["resources"].mapping(), _RESOURCE_FIELDS) if "resources" in fields else {}
    if "run" not in fields:
        raise JobFileInvalid("line 1, run: is missing; it says what the job does")
    if "num_nodes" in fields and fields["num_nodes"].number(1, 1_000) != 1:
        fields["num_nodes"].fail("must be 1; jobs on several machines are not offered yet")
    price = fields.get("max_price")
    return Job(
        name=_name(fields.get("name")),
        image=_image(resources.get("image")),
        wish=_wish(resources),
        script=_script(fields),
        envs=_envs(fields.get("envs")),
        secrets=_list(fields.get("secrets"), MAX_SECRETS, _secret),
        file_mounts=_mounts(fields.get("file_mounts")),
        outputs=_list(fields.get("outputs"), MAX_OUTPUTS, _inside),
        max_price_qu_per_hour=_whole_qu(price) if price else None,
        max_seconds=_max_seconds(fields.get("max_hours")),
    )


def _compose(text: str) -> _Field:
    try:
        _check_shape(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise JobFileInvalid(f"line {line}: this is not YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # PyYAML lets bad numbers through
        raise JobFileInvalid("the job file is not YAML text") from error
    if node is None:
        raise JobFileInvalid("line 1: the job file is empty")
    return _Field(TOP, node, node.start_mark.line + 1)


def _check_shape(text: str) -> None:
    """No aliases, which can make a small file huge, and no deep nesting, which PyYAML is slow at."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent):
            raise JobFileInvalid(f"line {line}: YAML aliases (*name) are not allowed in a job file")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise JobFileInvalid(f"line {line}: lists and mappings are nested more than {MAX_DEPTH} deep")


def _known(fields: dict[str, _Field], names: frozenset[str]) -> dict[str, _Field]:
    for name, field in fields.items():
        if name not in names:
            near = ", ".join(sorted(names))
            field.fail(f"is not a field of a job file; known here: {near}")
    return fields


def _name(field: _Field | None) -> str:
    if field is None:
        return "job"
    text = field.text(64)
    if not NAME_PATTERN.fullmatch(text):
        field.fail("must be 1 to 63 letters, digits, '.', '_' or '-'")
    return text


def _image(field: _Field | None) -> str:
    if field is None:
        raise JobFileInvalid("line 1, resources.image: is missing; name the container image to run")
    text = field.text(256)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*", text):
        field.fail("is not an image name such as `python:3.12`")
    return text


def _script(fields: dict[str, _Field]) -> str:
    parts = [fields[name].text() for name in ("setup", "run") if name in fields]
    if not parts[-1].strip():
        fields["run"].fail("is empty")
    script = "\n".join(parts)
    if len(script) > MAX_SCRIPT_CHARS:
        fields["run"].fail(f"and `setup` are together longer than {MAX_SCRIPT_CHARS} characters")
    return script


def _envs(field: _Field | None) -> dict[str, str]:
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


def _secret(field: _Field) -> str:
    name = field.text(64)
    if not ENV_PATTERN.fullmatch(name):
        field.fail("must be the name of an environment variable; its value is read when you run the job")
    return name


def _mounts(field: _Field | None) -> dict[str, str]:
    if field is None:
        return {}
    mounts = {}
    for target, source in field.mapping().items():
        inside = _relative(target, source)
        if inside in mounts:
            source.fail(f"a second file is put at {inside!r}")
        mounts[inside] = source.text(4_096)
    return mounts


def _inside(field: _Field) -> str:
    return _relative(field.text(256), field)


def _relative(path: str, field: _Field) -> str:
    inside = path.removeprefix(WORKSPACE)
    parts = inside.split("/")
    if not {"", ".", ".."}.isdisjoint(parts):
        field.fail(f"{path!r} must name something inside /workspace, without `..`, `.` or a `/` at the end")
    return inside


def _list(field: _Field | None, most: int, read: Callable[[_Field], str]) -> tuple[str, ...]:
    return tuple(read(item) for item in field.items(most)) if field else ()


def _whole_qu(field: _Field) -> Qu:
    value = field.number(0, MAX_QU)
    if value != int(value):
        field.fail("must be whole QU")
    return Qu(int(value))


def _max_seconds(field: _Field | None) -> Seconds:
    hours = field.number(1 / 3_600, 24 * 365) if field else 1.0
    return Seconds(max(1, round(hours * 3_600)))


def _wish(resources: dict[str, _Field]) -> Wish:
    model, vram_mib, count = _gpu(resources["gpu"]) if "gpu" in resources else ("", 0, 0)
    return Wish(
        gpu_model=model,
        gpu_count=count,
        gpu_vram_mib=vram_mib,
        cpu_millis=_or(resources.get("cpus"), 1_000, lambda f: int(f.number(0.001, 1_024) * 1_000)),
        memory_mib=_or(resources.get("memory"), 1_024, _size_mib),
        disk_mib=_or(resources.get("disk"), 1_024, _size_mib),
    )


def _gpu(field: _Field) -> tuple[str, int, int]:
    """model[:memory][:count]; a bare number is a count of any model."""
    parts = [part.strip() for part in field.text(64).split(":")]
    if len(parts) > 3:
        field.fail("must be model[:memory][:count], such as RTX4090:24GB:1")
    model, vram_mib, count = parts[0], 0, 1
    if _is_count(model):
        parts, model = ["", *parts], ""
    elif not GPU_PATTERN.fullmatch(model):
        field.fail(f"{model!r} is not a GPU model")
    for part in parts[1:]:
        if _is_count(part):
            count = int(part)
        else:
            vram_mib = _mib(part.rstrip("+"), field)
    if not 1 <= count <= 16:
        field.fail("asks for a count outside 1 to 16")
    return model, vram_mib, count


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _size_mib(field: _Field) -> int:
    return _mib(field.text(32).rstrip("+"), field)


def _mib(text: str, field: _Field) -> int:
    match = SIZE_PATTERN.fullmatch(text)
    if not match:
        field.fail(f"{text!r} is not a size such as 512MB or 4GB")
    mib = float(match[1]) * MIB_OF_UNIT[(match[2] or "")[:1].upper()]
    if not 1 <= mib <= 2**31:
        field.fail(f"{text!r} is outside 1MB to 2048TB")
    return int(mib)


def _or(field: _Field | None, default: int, read: Callable[[Any], int]) -> int:
    return read(field) if field else default


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
    }
)
_RESOURCE_FIELDS: Final = frozenset({"gpu", "cpus", "memory", "disk", "image"})
