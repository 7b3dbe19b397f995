"""TLS records: parts of them, many at once, and full buffers."""

from __future__ import annotations

import socket
import ssl
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import anyio
import pytest

from fal_async._net.sockets import CHUNK, SocketStream
from fal_async._net.tls import TLS_RECORD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import trustme


class Peer:
    """The server's side, which decides when which bytes of its records are sent."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.socket = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def handshake(self) -> None:
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.send(self.output())
                self._incoming.write(self.socket.recv(CHUNK))
            else:
                return self.send(self.output())
            finally:
                self.send(self.output())

    def output(self) -> bytes:
        return self._outgoing.read()

    def encrypt(self, data: bytes) -> bytes:
        rest = memoryview(data)
        while rest:
            rest = rest[self.tls.write(rest) :]
        return self.output()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def fill(self) -> int:
        """Receive what has arrived; return its size."""
        size = 0
        self.socket.setblocking(False)
        try:
            while received := self.socket.recv(CHUNK):
                self._incoming.write(received)
                size += len(received)
        except BlockingIOError:
            pass
        finally:
            self.socket.setblocking(True)
        return size

    def decrypt(self) -> bytes:
        """Return the data of the complete records that have arrived."""
        self.fill()
        data = b""
        try:
            while record := self.tls.read(CHUNK):
                data += record
        except ssl.SSLWantReadError:
            pass
        return data


@pytest.fixture
def contexts(authority: trustme.CA) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.configure_cert(server)
    certificate.configure_cert(client)
    authority.configure_trust(server)
    authority.configure_trust(client)
    client.post_handshake_auth = True
    server.num_tickets = 0
    return server, client


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def connected(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], request: pytest.FixtureRequest
) -> AsyncIterator[tuple[SocketStream, Peer]]:
    server, client = contexts
    server.maximum_version = request.param
    ends = socket.socketpair()
    ends[0].setblocking(False)
    ends[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    peer = Peer(ends[1], server)
    with ends[1]:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, peer.handshake)
            stream = await SocketStream(ends[0]).start_tls(client, "127.0.0.1")
        async with stream:
            yield stream, peer


def fill_kernel(stream: SocketStream, data: bytes) -> int:
    """Send until the kernel accepts nothing more; return how many bytes were sent."""
    total = 0
    while sent := stream.send_nowait(memoryview(data)[total:]):
        total += sent
    assert 0 < total < len(data)
    return total


async def test_part_of_a_record_is_kept(connected: tuple[SocketStream, Peer]) -> None:
    stream, peer = connected
    data = bytes(range(256)) * 160
    records = peer.encrypt(data)
    cuts = (0, 3, 1000, TLS_RECORD + 100, len(records) - 1, len(records))
    received = b""
    sizes: list[int] = []
    for start, end in pairwise(cuts):
        peer.send(records[start:end])
        part = stream.receive_nowait()
        received += part or b""
        sizes.append(len(part or b""))
        assert not stream.has_unread_data()
    assert received == data
    assert sizes == [0, 0, TLS_RECORD, TLS_RECORD, len(data) - 2 * TLS_RECORD]


async def test_wait_ends_with_a_complete_record(connected: tuple[SocketStream, Peer]) -> None:
    stream, peer = connected
    records = peer.encrypt(b"hello")
    peer.send(records[:10])
    assert not await stream.wait_receivable(0.01) or stream.receive_nowait() is None
    peer.send(records[10:] + peer.encrypt(b"bye"))
    assert await stream.wait_receivable()
    buffer = memoryview(bytearray(2))
    assert stream.receive_into_nowait(buffer) == 2
    assert stream.has_unread_data()
    assert await stream.wait_receivable()
    assert bytes(buffer) + (stream.receive_nowait() or b"") == b"hellobye"
    assert stream.receive_nowait() is None


@pytest.mark.parametrize("size", [1, 5, 8])
async def test_rest_of_many_records_is_unread(
    connected: tuple[SocketStream, Peer], size: int
) -> None:
    stream, peer = connected
    peer.send(peer.encrypt(b"hello") + peer.encrypt(b"bye"))
    assert stream.receive_nowait(size) == b"hellobye"[:size]
    assert stream.has_unread_data() == (size < 8)
    assert (stream.receive_nowait() or b"") == b"hellobye"[size:]
    assert not stream.has_unread_data()


async def test_data_before_an_invalid_record_is_received(
    connected: tuple[SocketStream, Peer],
) -> None:
    stream, peer = connected
    peer.send(peer.encrypt(b"hello") + peer.encrypt(b"bye")[:-1] + b"?")
    assert await stream.receive() == b"hello"
    assert stream.has_unread_data()
    assert await stream.wait_receivable()
    for receive in (stream.receive_nowait, partial(stream.receive_into_nowait, memoryview(b""))):
        with pytest.raises(ssl.SSLError, match="bad record mac"):
            receive()


@pytest.mark.parametrize("closing_alert", [True, False])
async def test_end_of_stream_after_data(
    connected: tuple[SocketStream, Peer], closing_alert: bool
) -> None:
    stream, peer = connected
    data = peer.encrypt(b"hello")
    if closing_alert:
        with pytest.raises(ssl.SSLWantReadError):
            peer.tls.unwrap()
    peer.send(data + peer.output())
    peer.socket.shutdown(socket.SHUT_WR)
    assert await stream.receive() == b"hello"
    for _ in range(2):
        assert await stream.wait_receivable()
        assert stream.has_unread_data()
        with pytest.raises(anyio.EndOfStream if closing_alert else anyio.BrokenResourceError):
            await stream.receive()


async def test_full_kernel_buffer_splits_records(connected: tuple[SocketStream, Peer]) -> None:
    stream, peer = connected
    data = bytes(range(256)) * 4000
    total = fill_kernel(stream, data)
    received = b""
    while total < len(data):
        received += peer.decrypt()
        total += stream.send_nowait(memoryview(data)[total:])
    assert received + peer.decrypt() == data


async def test_last_byte_is_sent_with_its_record(connected: tuple[SocketStream, Peer]) -> None:
    stream, peer = connected
    data = b"x" * 1_000_000
    total = fill_kernel(stream, data)
    assert stream.send_nowait(memoryview(data)[total:]) == 0
    peer.fill()
    while total < len(data):
        peer.fill()
        total += stream.send_nowait(memoryview(data)[total:])
    peer.fill()
    assert len(peer.decrypt()) == len(data)


async def test_receiving_sends_nothing_of_a_sender(
    connected: tuple[SocketStream, Peer],
) -> None:
    """Otherwise a request might reach the peer while its sender counts it as not sent."""
    stream, peer = connected
    fill_kernel(stream, b"x" * 1_000_000)
    peer.send(peer.encrypt(b"hello"))
    assert await stream.receive() == b"hello"
    assert peer.fill() > 0
    assert stream.receive_nowait() is None
    assert peer.fill() == 0


async def test_cancelled_sender_leaves_whole_records(
    connected: tuple[SocketStream, Peer],
) -> None:
    stream, peer = connected
    data = bytes(range(256)) * 4000
    received = b""
    async with anyio.create_task_group() as group:
        group.start_soon(stream.send, data)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    async with anyio.create_task_group() as group:
        group.start_soon(stream.send, b"the end")
        while not received.endswith(b"the end"):
            received += await anyio.to_thread.run_sync(peer.decrypt)
    assert 0 < len(received) < len(data)
    assert received == data[: len(received) - 7] + b"the end"


async def test_both_sides_send_more_than_the_buffers_hold(
    connected: tuple[SocketStream, Peer],
) -> None:
    stream, peer = connected
    data = bytes(range(256)) * 4000
    received: list[bytes] = []

    async def receive() -> None:
        while sum(map(len, received)) < len(data):
            received.append(await stream.receive())

    async with anyio.create_task_group() as group:
        group.start_soon(stream.send, data)
        group.start_soon(anyio.to_thread.run_sync, peer.send, peer.encrypt(data))
        await receive()
        arrived = b""
        while len(arrived) < len(data):
            arrived += await anyio.to_thread.run_sync(peer.decrypt)
    assert b"".join(received) == arrived == data


async def test_closed_stream_gives_no_more_data(connected: tuple[SocketStream, Peer]) -> None:
    stream, peer = connected
    peer.send(peer.encrypt(b"hello") + peer.encrypt(b"bye"))
    assert stream.receive_nowait(1) == b"h"
    stream.close()
    with pytest.raises(anyio.ClosedResourceError):
        await stream.receive()
    with pytest.raises(anyio.ClosedResourceError):
        await stream.send(b"x")


async def test_reading_answers_requests_of_the_peer(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    """A server may ask for the certificate of the client at any time."""
    server, client = contexts
    server.verify_mode = ssl.CERT_OPTIONAL
    ends = socket.socketpair()
    ends[0].setblocking(False)
    ends[1].settimeout(10)

    def serve() -> None:
        with server.wrap_socket(ends[1], server_side=True) as peer:
            assert peer.recv(10) == b"hello"
            server.verify_mode = ssl.CERT_REQUIRED
            peer.verify_client_post_handshake()
            peer.sendall(b"who?")
            assert peer.recv(10) == b"me"
            assert peer.getpeercert()
            peer.sendall(b"welcome")

    async with anyio.create_task_group() as group:
        group.start_soon(anyio.to_thread.run_sync, serve)
        async with await SocketStream(ends[0]).start_tls(client, "127.0.0.1") as stream:
            await stream.send(b"hello")
            assert await stream.receive() == b"who?"
            await stream.send(b"me")
            assert await stream.receive() == b"welcome"


async def test_peer_learns_why_its_certificate_is_refused(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    server, _ = contexts
    ends = socket.socketpair()
    ends[0].setblocking(False)

    def serve() -> None:
        with ends[1], pytest.raises(ssl.SSLError, match="unknown ca"):
            server.wrap_socket(ends[1], server_side=True).recv(1)

    async with anyio.create_task_group() as group:
        group.start_soon(anyio.to_thread.run_sync, serve)
        with pytest.raises(ssl.SSLCertVerificationError):
            await SocketStream(ends[0]).start_tls(ssl.create_default_context(), "127.0.0.1")
