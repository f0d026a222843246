"""A container registry of one image on loopback: as much of the registry API as a pull needs.

Paths and media types: OCI distribution specification 1.1 and Docker image manifest version 2, schema 2.
"""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import docker

MANIFEST_TYPE: Final = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE: Final = "application/vnd.docker.container.image.v1+json"
LAYER_TYPE: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"


@contextmanager
def registry_of(
    client: docker.DockerClient, image: str, *, private: bool = False
) -> Iterator[tuple[str, list[str]]]:
    """(name that pulls `image`'s layers with a comment of its own, Authorization headers seen).
    A private one answers only those who send some credentials."""
    blobs, manifest = _contents(client, image)
    authorizations: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent = self.headers.get_all("Authorization", [])
            authorizations.extend(sent)
            kind, _, reference = self.path.rpartition("/")
            if private and not sent:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="test"')
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif self.path == "/v2/":
                self._answer(b"{}", "application/json")
            elif kind.endswith("/manifests"):
                self._answer(manifest, MANIFEST_TYPE)
            elif reference in blobs:
                self._answer(blobs[reference], "application/octet-stream")
            else:
                self.send_error(404)

        do_HEAD = do_GET

        def _answer(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Docker-Content-Digest", _digest(body))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}/qubix-test/pulled:1", authorizations
    finally:
        server.shutdown()
        server.server_close()


def _contents(client: docker.DockerClient, image: str) -> tuple[dict[str, bytes], bytes]:
    """The image's blobs by digest, and its manifest."""
    saved = io.BytesIO(b"".join(client.api.get_image(image)))
    with tarfile.open(fileobj=saved) as archive:
        index = json.loads(_read(archive, "manifest.json"))[0]
        config = json.loads(_read(archive, index["Config"])) | {"comment": "pulled from a test registry"}
        layers = [gzip.compress(_read(archive, name), compresslevel=1) for name in index["Layers"]]
    parts = [(CONFIG_TYPE, json.dumps(config).encode()), *((LAYER_TYPE, layer) for layer in layers)]
    listed = [{"mediaType": kind, "size": len(blob), "digest": _digest(blob)} for kind, blob in parts]
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": listed[0], "layers": listed[1:]}
    return {_digest(blob): blob for _, blob in parts}, json.dumps(manifest).encode()


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None
    return file.read()


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"
