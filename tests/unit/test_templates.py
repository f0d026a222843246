"""Templates: every use case has one, what they say is what their images have, and job files can name them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from protocol import jobspec
from protocol.catalogue import USE_CASES
from protocol.errors import JobFileInvalid, UsageError
from protocol.images import full_name
from protocol.templates import TEMPLATES, Template, image_name, is_local, template, templates_for

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "images"
every_template = pytest.mark.parametrize("one", TEMPLATES.values(), ids=list(TEMPLATES))


def test_every_use_case_has_a_template() -> None:
    assert all(templates_for(use) for use in USE_CASES)
    assert templates_for("sdxl")[0].name == "pytorch"
    assert templates_for("blender")[0].name == "desktop"
    assert templates_for("docker")[0].name == "vscode"


@every_template
def test_a_template_serves_uses_that_there_are(one: Template) -> None:
    assert set(one.uses) <= USE_CASES.keys()


@every_template
def test_a_template_s_images_are_in_the_repository(one: Template) -> None:
    assert {path.name for path in (IMAGES / one.name).iterdir()} >= {"Dockerfile", "Dockerfile.cpu"}
    script = IMAGES / one.name / f"qubix-{one.name}"
    assert one.run in ("", script.name)
    assert script.stat().st_mode & 0o111 == 0o111


def test_every_image_is_of_a_template() -> None:
    assert {path.name for path in IMAGES.iterdir() if path.is_dir()} == TEMPLATES.keys()


@every_template
def test_a_template_s_variables_and_ports_are_those_of_its_script(one: Template) -> None:
    folder = IMAGES / one.name
    said = (folder / f"qubix-{one.name}").read_text()
    for inner in re.findall(r"see (qubix-[a-z]+)", said):
        said += (IMAGES / inner.removeprefix("qubix-") / inner).read_text()
    for variable in one.env:
        assert variable.name in said
        assert (f"${{{variable.name}:?" in said) == variable.must
    for port in one.ports:
        assert (f" {port.port} (" if one.name == "moonlight" else f":-{port.port}}}") in said
        assert port.variables <= {variable.name for variable in one.env}


def test_no_engine_looks_elsewhere_for_these_images() -> None:
    names = [name for one in TEMPLATES.values() for name in (one.image, one.cpu_image)]
    assert len(set(names)) == len(names) and all(map(is_local, names))
    assert full_name(names[0]) == names[0] == image_name("pytorch", 1, cpu=False)
    assert not is_local("python:3.12")


def test_a_name_that_is_none() -> None:
    with pytest.raises(UsageError, match="known are pytorch, jupyter"):
        template("jupiter")


# In a job file --------------------------------------------------------------------------------


def test_a_template_alone_is_a_job() -> None:
    job = jobspec.parse("template: jupyter")
    one = TEMPLATES["jupyter"]
    assert (job.template, job.image, job.script) == ("jupyter", one.cpu_image, one.run)
    assert job.secrets == ("JUPYTER_TOKEN",) and job.wish.cuda == 0


def test_with_a_gpu_it_is_the_image_for_gpus_and_its_need() -> None:
    job = jobspec.parse("template: pytorch\nresources: {gpu: 1}")
    assert job.image == TEMPLATES["pytorch"].image and job.wish.cuda == 12_040


def test_what_the_file_says_goes_before_the_template() -> None:
    text = "template: ssh\nresources: {image: mine, gpu: 1}\nrun: mine\nenvs: {SSH_PUBLIC_KEY: ssh-ed25519 x}"
    job = jobspec.parse(text)
    assert (job.image, job.script, job.wish.cuda) == ("mine", "mine", 0)
    assert job.secrets == ("SSH_HOST_KEY",) and set(job.makes) == {"SSH_HOST_KEY"}


def test_setup_goes_before_the_template_s_command() -> None:
    assert jobspec.parse("template: vscode\nsetup: make").script == "make\nqubix-vscode"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("template: jupiter", "line 1, template: 'jupiter' is no template; known are"),
        ("template: [ssh]", "line 1, template: must be text"),
        ("template: base", "run: is missing"),
        ("name: x\nsetup: " + "a" * 65_530 + "\ntemplate: ssh", "line 2, setup: and `run` are together"),
    ],
)
def test_what_cannot_be(text: str, words: str) -> None:
    with pytest.raises(JobFileInvalid, match=re.escape(words)):
        jobspec.parse(text)


# Their Dockerfiles -----------------------------------------------------------------------------

DOCKERFILES = sorted(IMAGES.glob("*/Dockerfile*"))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_everything_in_an_image_is_pinned(path: Path) -> None:
    """By digest, by checksum, by hash, or by the distribution that signs it."""
    said = path.read_text()
    (base,) = re.findall(r"^ARG BASE=(\S+)$", said, re.MULTILINE)
    assert re.findall(r"^FROM (\S+)$", said, re.MULTILINE) == ["${BASE}"]
    cpu = path.suffix == ".cpu"
    if is_local(base):
        assert base.endswith("-cpu") == cpu and re.fullmatch(r"localhost/qubix/[a-z]+:1(-cpu)?", base)
    else:
        assert cpu or re.fullmatch(r"[a-z]+/[a-z]+:[\w.-]+@sha256:[0-9a-f]{64}", base)
    assert "latest" not in said and "ADD " not in said
    assert said.count("curl -") == said.count("sha256sum -c")
    assert said.count("pip install") == said.count("--require-hashes")
    if cpu:
        assert "pip" not in said and "curl" not in said
    for cuda in re.findall(r"\scuda-\S+", said):
        assert "=" in cuda


def test_the_lock_of_jupyter_has_hashes_and_no_address() -> None:
    said = (IMAGES / "jupyter" / "requirements.txt").read_text()
    wanted = re.findall(r"^[a-z0-9].*", said, re.MULTILINE)
    assert any(line.startswith("jupyterlab==") for line in wanted)
    assert all(re.match(r"[a-z0-9._-]+(\[\w+\])?==\S+", line) and line.endswith("\\") for line in wanted)
    assert said.count("--hash=sha256:") >= len(wanted) and "://" not in said
