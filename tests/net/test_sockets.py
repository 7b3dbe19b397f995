"""Byte streams over sockets and TLS."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

import anyio
import pytest

from fal_async._net.connect import connect
from fal_async._net.sockets import SocketStream
from tests.support.raw_server import RawConnection, RawServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import trustme


def pair() -> tuple[SocketStream, SocketStream]:
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    return SocketStream(ends[0]), SocketStream(ends[1])


@pytest.fixture
async def streams() -> AsyncIterator[tuple[SocketStream, SocketStream]]:
    one, other = pair()
    async with one, other:
        yield one, other


async def test_bytes_arrive_in_order_both_ways(streams: tuple[SocketStream, SocketStream]) -> None:
    _one, _other = streams
    content = bytes(range(256)) * 10000

    async def send(stream: SocketStream) -> None:
        await stream.send(content)

    async def receive(stream: SocketStream) -> None:
        received = b""
        while len(received) < len(content):
            received += await stream.receive(1_000_000)
        assert received == content

    async with anyio.create_task_group() as group:
        for stream in streams:
            group.start_soon(send, stream)
            group.start_soon(receive, stream)


async def test_half_close_keeps_the_other_direction(
    streams: tuple[SocketStream, SocketStream],
) -> None:
    one, other = streams
    await one.send_eof()
    with pytest.raises(anyio.EndOfStream):
        await other.receive()
    await other.send(b"bye")
    assert await one.receive() == b"bye"


async def test_close_wakes_the_reader(streams: tuple[SocketStream, SocketStream]) -> None:
    one, _ = streams

    async def receive() -> None:
        with pytest.raises(anyio.ClosedResourceError):
            await one.receive()

    async with anyio.create_task_group() as group:
        group.start_soon(receive)
        await anyio.wait_all_tasks_blocked()
        await one.aclose()
        await one.aclose()


async def test_close_wakes_the_writer(streams: tuple[SocketStream, SocketStream]) -> None:
    one, _ = streams

    async def send() -> None:
        with pytest.raises(anyio.ClosedResourceError):
            await one.send(b"x" * 10_000_000)

    async with anyio.create_task_group() as group:
        group.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        await one.aclose()


async def test_closed_stream_is_not_waited_for(
    streams: tuple[SocketStream, SocketStream],
) -> None:
    one, _ = streams
    await one.aclose()
    assert await one.wait_receivable(timeout=30)
    await one.wait_sendable()


async def test_broken_stream_raises_an_error(streams: tuple[SocketStream, SocketStream]) -> None:
    one, other = streams
    await other.aclose()
    with pytest.raises(anyio.BrokenResourceError):
        await one.send(b"x")
    with pytest.raises(anyio.EndOfStream):
        await one.receive()


async def test_cancelled_receive_loses_nothing(
    streams: tuple[SocketStream, SocketStream],
) -> None:
    one, other = streams
    await other.send(b"hello")
    with anyio.CancelScope() as scope:
        scope.cancel()
        await one.receive()
    assert await one.receive() == b"hello"


async def test_stream_is_quiet_until_data_arrives(
    streams: tuple[SocketStream, SocketStream],
) -> None:
    one, other = streams
    assert not one.has_unread_data()
    await other.send(b"x")
    assert one.has_unread_data()
    assert one.has_unread_data()
    assert await one.receive() == b"x"
    assert not one.has_unread_data()
    await other.aclose()
    assert one.has_unread_data()
    await one.aclose()
    assert one.has_unread_data()


async def test_wait_ends_with_data_or_with_its_own_timeout(
    streams: tuple[SocketStream, SocketStream],
) -> None:
    one, other = streams
    assert not await one.wait_receivable(0.01)
    for timeout in (60, None):
        await other.send(b"hello")
        assert await one.wait_receivable(timeout)
        part = bytearray(2)
        assert (one.receive_into_nowait(memoryview(part)), bytes(part)) == (2, b"he")
        assert one.has_unread_data()
        assert await one.wait_receivable(timeout)
        assert (one.receive_nowait(), one.receive_nowait()) == (b"llo", None)
        assert not await one.wait_receivable(0.01)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
async def test_dropped_stream_is_closed_although_it_was_waited_for() -> None:
    one, other = pair()
    assert not await one.wait_receivable(0.01)
    descriptor = one.extra(anyio.abc.SocketAttribute.raw_socket).fileno()
    del one
    with pytest.raises(anyio.EndOfStream):
        await other.receive()
    ends = socket.socketpair()  # gets the number of the dropped socket
    assert descriptor in {end.fileno() for end in ends}
    for end in ends:
        end.setblocking(False)
    async with SocketStream(ends[0]) as one, SocketStream(ends[1]) as another, other:
        await another.send(b"x")
        await one.send(b"y")
        assert (await one.receive(), await another.receive()) == (b"x", b"y")


def test_stream_can_be_closed_without_a_loop() -> None:
    one, other = pair()
    one.close_without_loop()
    one.close_without_loop()
    assert other.has_unread_data()
    other.close_without_loop()


async def test_decrypted_data_makes_a_stream_readable(authority: trustme.CA) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    server.num_tickets = 0
    client = ssl.create_default_context()
    authority.configure_trust(client)

    def script(connection: RawConnection) -> None:
        connection.send(b"hello")
        connection.wait_closed()

    with RawServer(script, tls=server) as peer:
        async with await connect("127.0.0.1", peer.port, tls=client) as stream:
            assert await stream.receive(1) == b"h"
            assert stream.has_unread_data()
            assert await stream.receive() == b"ello"
            assert not stream.has_unread_data()


async def test_tls_has_no_half_close(authority: trustme.CA) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    with RawServer(RawConnection.wait_closed, tls=server) as peer:
        async with await connect("127.0.0.1", peer.port, tls=client) as stream:
            assert stream.extra(anyio.abc.SocketAttribute.raw_socket).family == socket.AF_INET
            with pytest.raises(NotImplementedError):
                await stream.send_eof()
