"""The CPU variants of the templates' images, built once for all tests by the code that users build them with.

They need Debian's packages. Where no mirror of Debian answers the tests that want them skip, or fail where
QUBIX_TEST_REQUIRE_DOCKER=1 says that nothing may be lacking.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import docker
import pytest

from protocol.errors import ImageUnavailable
from tests.support.engine import skip_or_fail
from tui import images

Build = Callable[[str], str]
NO_MIRROR: Final = re.compile(
    r"Failed to fetch|Temporary failure resolving|Could not (resolve|connect)|Unable to locate package"
)
"""What apt says that cannot reach its packages."""


def test_tag(name: str, cpu: bool) -> str:
    """Other names than a user's own images have."""
    return f"qubix-test/template-{name}:{'cpu' if cpu else 'gpu'}"


@pytest.fixture(scope="session")
def template_image(docker_engine: docker.DockerClient, python_image: str) -> Build:
    """A template's name -> its built image. The engine keeps what it has built, so only the first time
    is slow."""
    built: dict[str, str] = {}

    def build(name: str) -> str:
        try:
            return images.build(
                docker_engine.api, name, cpu=True, debian=python_image, built=built, called=test_tag
            )
        except ImageUnavailable as error:
            if NO_MIRROR.search(str(error)):
                skip_or_fail(f"no mirror of Debian answers: {error}")
            raise

    return build
