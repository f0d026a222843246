"""The SSH keys that let a person into jobs: files below the node's directory.

<data dir>/ssh/keys/NAME.pub   one line as in authorized_keys
<data dir>/ssh/keys/NAME       the private key, 0600, or a link to where its owner has it
<data dir>/ssh/keys/.used      the name of the one that new jobs let in

A key without NAME is one that an agent or a card holds. Only what was made here is ever deleted.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from protocol.errors import NotFound, UsageError

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
USUAL: Final = "qubix"
MAX_KEY_BYTES: Final = 65_536
PRIVATE: Final = "-----BEGIN OPENSSH PRIVATE KEY-----"
MAGIC: Final = b"openssh-key-v1\0"
KINDS: Final = re.compile(r"(sk-)?(ssh|ecdsa)-[a-z0-9@.-]+")


@dataclass(frozen=True)
class Key:
    name: str
    public: str
    """`ssh-ed25519 AAAA... comment`"""
    identity: Path
    """For `ssh -i`: the private key, or the public one of a key that an agent holds."""
    made: bool
    """Here; others are their owner's and stay where they are."""
    used: bool

    @property
    def blob(self) -> str:
        """What makes two lines the same key."""
        return " ".join(self.public.split()[:2])


@dataclass(frozen=True)
class Keys:
    """The keys of one node's person."""

    folder: Path

    def all(self) -> list[Key]:
        used = self._used_name()
        names = sorted(path.name.removesuffix(".pub") for path in self.folder.glob("*.pub"))
        return [self._key(name, used or names[0]) for name in names]

    def get(self, name: str) -> Key:
        """NotFound that names those there are; without a name the one that is used."""
        known = self.all()
        for key in known:
            if key.name == name or (not name and key.used):
                return key
        if not name or not known:
            raise NotFound("there are no SSH keys yet; `qubix keys make` makes one")
        raise NotFound(f"no key is called {name[:64]!r}; there are {', '.join(key.name for key in known)}")

    def used(self) -> Key:
        """The one that new jobs let in; made now if there is none."""
        return self.get("") if self.all() else self.make(USUAL)

    def among(self, lines: str) -> list[Key]:
        """Those of the keys here that are among lines of authorized_keys."""
        let_in = set(public_blobs(lines))
        return [key for key in self.all() if key.blob in let_in]

    def make(self, name: str) -> Key:
        """A new Ed25519 key. UsageError if the name is taken or none."""
        self._check_free(name)
        private, public = new_key(f"qubix-{name}")
        self._write(name, private)
        self._write(f"{name}.pub", public)
        return self.get(name)

    def add(self, file: Path, name: str) -> Key:
        """A key that its owner has: private (it stays there, linked) or public. UsageError, NotFound."""
        name = name or _name_from(file)
        self._check_free(name)
        public = public_line(file)
        private = file.with_suffix("") if file.suffix == ".pub" else file
        if private.is_file():
            self._make_folder()
            (self.folder / name).unlink(missing_ok=True)
            (self.folder / name).symlink_to(private.absolute())
        self._write(f"{name}.pub", public)
        return self.get(name)

    def use(self, name: str) -> Key:
        self.get(name)
        self._write(".used", name)
        return self.get(name)

    def remove(self, name: str) -> Key:
        """What was made here is gone for good; of others only the mention; `identity` says where they lie."""
        key = self.get(name)
        key = replace(key, identity=key.identity.resolve())
        for file in (f"{key.name}.pub", key.name):
            (self.folder / file).unlink(missing_ok=True)
        return key

    def _key(self, name: str, used: str) -> Key:
        private, public = self.folder / name, self.folder / f"{name}.pub"
        there = private.exists()  # a link may lead nowhere by now
        return Key(
            name,
            public.read_text().strip(),
            private if there else public,
            made=there and not private.is_symlink(),
            used=name == used,
        )

    def _used_name(self) -> str:
        try:
            name = (self.folder / ".used").read_text().strip()
        except FileNotFoundError:
            return ""
        return name if (self.folder / f"{name}.pub").exists() else ""

    def _check_free(self, name: str) -> None:
        if not NAME.fullmatch(name) or name.endswith(".pub"):
            raise UsageError(
                f"{name[:64]!r} cannot be a key's name; use letters, digits, '.', '_' and '-', and not .pub"
            )
        if (self.folder / f"{name}.pub").exists():
            raise UsageError(f"a key {name!r} is there already; choose another name, or remove it first")

    def _make_folder(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _write(self, name: str, text: str) -> None:
        self._make_folder()
        write_private(self.folder / name, text.rstrip("\n") + "\n")


def write_private(path: Path, text: str) -> None:
    """A whole file or none, 0600 from its first byte on."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def new_key(comment: str) -> tuple[str, str]:
    """Private key as OpenSSH writes it, and the public line."""
    # Only here: this import takes longer than all others of most commands.
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption())
    public = key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH)
    return private.decode(), f"{public.decode()} {comment}"


def public_line(file: Path) -> str:
    """Of a public key, or of a private one whether locked or not. UsageError, NotFound."""
    try:
        with file.open("rb") as opened:
            text = opened.read(MAX_KEY_BYTES).decode("ascii", "replace").strip()
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {file}") from error
    except OSError as error:
        raise UsageError(f"the key {file} cannot be read: {error.strerror}") from error
    if text.startswith(PRIVATE):
        return f"{_public_of(text, file)} {_name_from(file)}"
    if len(text.splitlines()) == 1 and list(public_blobs(text)):
        return text
    if "PRIVATE KEY-----" in text[:64]:
        raise UsageError(f"{file} is not in OpenSSH's own format; `ssh-keygen -p -f {file}` rewrites it")
    raise UsageError(f"{file} is no SSH key: neither a private one nor one line of a public one")


def public_blobs(lines: str) -> Iterator[str]:
    """`ssh-ed25519 AAAA...` of every line that is a public key."""
    for line in lines.splitlines():
        kind, _, rest = line.strip().partition(" ")
        blob = rest.partition(" ")[0]
        try:
            inner = base64.b64decode(blob, validate=True)
        except binascii.Error:
            continue
        if KINDS.fullmatch(kind) and inner[4 : 4 + len(kind)] == kind.encode():
            yield f"{kind} {blob}"


def _public_of(text: str, file: Path) -> str:
    """The public half stands outside of what a passphrase locks (OpenSSH's PROTOCOL.key)."""
    try:
        data = base64.b64decode("".join(text.splitlines()[1:-1]), validate=True)
        rest = data[len(MAGIC) :]
        for _ in range(3):  # cipher, key derivation and its options
            rest = rest[4 + int.from_bytes(rest[:4], "big") :]
        count, size = int.from_bytes(rest[:4], "big"), int.from_bytes(rest[4:8], "big")
        blob = rest[8 : 8 + size]
        kind = blob[4 : 4 + int.from_bytes(blob[:4], "big")].decode("ascii")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is a broken private key") from error
    if not data.startswith(MAGIC) or count != 1 or len(blob) != size or not KINDS.fullmatch(kind):
        raise UsageError(f"{file} is a broken private key")
    return f"{kind} {base64.b64encode(blob).decode()}"


def _name_from(file: Path) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", file.name.removesuffix(".pub")).lstrip("._-")[:63] or USUAL
