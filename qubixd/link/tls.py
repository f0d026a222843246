"""TLS 1.3 between two daemons: each shows a certificate made for this run, and knows the other's beforehand.

The certificates travel over the authenticated wire (PathOffer), so no authority is asked: the other's own
certificate is the only anchor, on both sides. Encryption goes through memory, which lets one task work on
a quarter of a megabyte between two visits to the kernel; that, not the cipher, decides the speed in Python.
"""

from __future__ import annotations

import datetime
import hashlib
import mmap
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from protocol.errors import StreamBroken
from protocol.paths import PathKind
from protocol.units import PeerKey
from qubixd.link.bulk import clock, spent

BUFFER_BYTES: Final = 512 * 1024
_RECORD_BYTES: Final = 16_384
"""The most that one TLS record holds: `read` gives no more at a time."""
_SPARE_BYTES: Final = 2 * _RECORD_BYTES
"""For what encryption adds to a batch and for the record that was cut off before: what came with one visit to
the kernel is gone through in one go."""
_CONFIRMED: Final = b"\x06"
_NAME: Final = "qubix"
_LIFE: Final = datetime.timedelta(days=3_650)
"""It ends with the process."""

Buffer = bytes | bytearray | memoryview

# For all carriers together: what is in them is gone through before anybody waits. Anonymous maps take no
# memory before they are written to.
_raw: Final = memoryview(mmap.mmap(-1, BUFFER_BYTES + _SPARE_BYTES))
_plain: Final = memoryview(mmap.mmap(-1, BUFFER_BYTES + _SPARE_BYTES))


class Identity:
    """The certificate of this run and its key, which never touches a disk."""

    def __init__(self, peer: PeerKey) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(peer, key)
        self.certificate = certificate.public_bytes(serialization.Encoding.DER)
        """DER, as PathOffer carries it."""
        self._pem = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def context(self, *, server: bool, anchors: Sequence[bytes]) -> ssl.SSLContext:
        """Shows this certificate, and takes none but `anchors` (DER). StreamBroken if one is none."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        if server:
            context.num_tickets = 0
        for anchor in anchors:
            _trust(context, anchor)
        self._load(context)
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        """The library reads keys from files alone: this one lives in memory."""
        descriptor = os.memfd_create("qubix", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, self._pem)
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)


def _certificate(peer: PeerKey, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    # Two anchors with one name would be mistaken for each other: the node's key makes it its own.
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, _NAME),
            x509.NameAttribute(NameOID.COMMON_NAME, peer.hex()),
        ]
    )
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _LIFE)
        .not_valid_after(now + _LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )


def _trust(context: ssl.SSLContext, anchor: bytes) -> None:
    try:
        context.load_verify_locations(cadata=anchor)
    except (ssl.SSLError, ValueError) as error:
        raise StreamBroken("the peer's certificate cannot be read") from error


class TlsCarrier:
    """A socket after the handshake; see Carrier."""

    def __init__(self, sock: socket.socket, kind: PathKind, address: str) -> None:
        self._sock, self.kind, self.address = sock, kind, address
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject
        self._held = memoryview(b"")
        """Encrypted, and for the moment more than the socket takes."""
        self._closed = False

    async def shake_hands(self, context: ssl.SSLContext, *, server: bool) -> bytes:
        """DER of the certificate that the other side has shown. StreamBroken."""
        self._tls = context.wrap_bio(self._in, self._out, server_side=server)
        try:
            await self._until_done(self._tls.do_handshake)
        except ssl.SSLError as error:
            await self._say_why()
            raise StreamBroken(f"the two sides do not know each other: {error.reason}") from error
        shown = self._tls.getpeercert(binary_form=True)
        assert shown is not None, "without a certificate the handshake fails"
        return shown

    async def _until_done(self, step: Callable[[], object]) -> None:
        while True:
            try:
                step()
            except ssl.SSLWantReadError:
                await self.flush()
                if not await self._fill(BUFFER_BYTES):
                    raise StreamBroken("the other side hung up in the middle of the handshake") from None
            else:
                await self.flush()
                return

    async def _say_why(self) -> None:
        """The alert that the library has written, as far as it still goes out."""
        with suppress(StreamBroken):
            await self.flush()

    async def confirm(self) -> None:
        """The server's last word: it has taken the client's certificate."""
        if not self.put([_CONFIRMED]):
            await self.flush()

    async def wait_confirmed(self) -> None:
        """The client's part is through before the server has looked at its certificate."""
        if bytes(await self._receive(1, _RECORD_BYTES)) != _CONFIRMED:
            raise StreamBroken("the other side did not take this node's certificate")

    # --- bytes --------------------------------------------------------------------------------

    def put(self, parts: Sequence[Buffer]) -> bool:
        write = self._tls.write
        for part in parts:
            write(part)
        return self._send()

    def _send(self) -> bool:
        """As much as the socket takes now of what is encrypted; True if that is all."""
        held = self._held or memoryview(self._out.read())
        begun = clock()
        try:
            while held:
                held = held[self._sock.send(held) :]
        except BlockingIOError:
            pass
        except OSError as error:
            raise self._broken(error) from error
        finally:
            spent[0] += clock() - begun
        self._held = held
        return not held

    async def flush(self) -> None:
        while self._held or self._out.pending:
            if not self._send():
                await trio.lowlevel.wait_writable(self._sock)

    async def receive_some(self, max_bytes: int) -> memoryview:
        most = min(max_bytes, BUFFER_BYTES)
        return await self._receive(most + _SPARE_BYTES, most + _RECORD_BYTES)

    async def _receive(self, most: int, encrypted: int) -> memoryview:
        while True:
            if size := self._decrypt(most):
                return _plain[:size]
            if not await self._fill(encrypted):
                return _plain[:0]

    def _decrypt(self, most: int) -> int:
        """As much as there is, record by record."""
        read: Callable[[int, memoryview], int] = self._tls.read  # type: ignore[assignment]  # a view is filled
        plain, size = _plain, 0
        try:
            while size < most:
                count = read(min(_RECORD_BYTES, most - size), plain[size:])
                if not count:
                    break
                size += count
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            pass
        except ssl.SSLError as error:
            raise StreamBroken(f"bytes came that the other side did not send: {error.reason}") from error
        return size

    async def _fill(self, most: int) -> int:
        """Take in what the socket has; 0 at the end."""
        while True:
            try:
                begun = clock()
                count = self._sock.recv_into(_raw, most)
                spent[0] += clock() - begun
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._sock)
            except OSError as error:
                raise self._broken(error) from error
            else:
                self._in.write(_raw[:count])
                return count

    def _broken(self, error: OSError) -> Exception:
        return (
            trio.ClosedResourceError()
            if self._closed
            else StreamBroken(f"the connection broke: {error.strerror}")
        )

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()
        await trio.lowlevel.checkpoint()


def _carrier(stream: trio.SocketStream, kind: PathKind) -> TlsCarrier:
    """Takes the socket out of trio's stream, whose every call would cost a pass of the event loop."""
    with suppress(OSError):
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        host, port = stream.socket.getpeername()[:2]
    except OSError as error:
        raise StreamBroken("the connection broke") from error
    sock = socket.socket(fileno=stream.socket.detach())
    sock.setblocking(False)
    return TlsCarrier(sock, kind, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


async def tls_client(
    stream: trio.SocketStream, identity: Identity, certificate: bytes, kind: PathKind
) -> TlsCarrier:
    """The side that begins. The peer must show `certificate` (DER). StreamBroken; the socket is closed
    then. Deadlines are the caller's."""
    carrier = _carrier(stream, kind)
    try:
        context = identity.context(server=False, anchors=[certificate])
        if await carrier.shake_hands(context, server=False) != certificate:
            raise StreamBroken("another node answered at that address")
        await carrier.wait_confirmed()
    except BaseException:
        await _drop(carrier)
        raise
    return carrier


class TlsDoor:
    """The side that answers: who is expected, and by which certificate."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._expected: dict[PeerKey, bytes] = {}
        self._context: ssl.SSLContext | None = None

    def expect(self, peer: PeerKey, certificate: bytes) -> None:
        """Let this peer in with this certificate (DER) from now on. StreamBroken if it is none."""
        if self._expected.get(peer) == certificate:
            return
        self._identity.context(server=True, anchors=[certificate])
        self._expected[peer] = certificate
        self._context = None

    def forget(self, peer: PeerKey) -> None:
        if self._expected.pop(peer, None) is not None:
            self._context = None

    async def accept(self, stream: trio.SocketStream, kind: PathKind) -> tuple[PeerKey, TlsCarrier]:
        """Who came, and its carrier. StreamBroken; the socket is closed then. Deadlines are the caller's."""
        carrier = _carrier(stream, kind)
        try:
            shown = await carrier.shake_hands(self._current(), server=True)
            peer = self._whose(shown)
            await carrier.confirm()
        except BaseException:
            await _drop(carrier)
            raise
        return peer, carrier

    def _current(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = self._identity.context(server=True, anchors=list(self._expected.values()))
        return self._context

    def _whose(self, shown: bytes) -> PeerKey:
        digest = hashlib.sha256(shown).digest()
        for peer, certificate in self._expected.items():
            if hashlib.sha256(certificate).digest() == digest:
                return peer
        raise StreamBroken("a node came that is not expected any more")


async def _drop(carrier: TlsCarrier) -> None:
    with trio.CancelScope(shield=True):
        await carrier.aclose()
