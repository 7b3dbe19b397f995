"""Connections: the sizes of reads."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import anyio
import pytest

from fal_async._http.connection import HTTPConnection, ResponseBody
from fal_async._http.encoder import EncodedRequest
from fal_async._http.parser import ResponseParser
from fal_async._http.transmission import Transmission
from fal_async._http.urls import Origin
from fal_async._net.errors import ReadError, ReadTimeout, WriteError, WriteTimeout
from fal_async._net.sockets import CHUNK, SocketStream
from fal_async._net.tls import TLS_RECORD

if TYPE_CHECKING:
    from collections.abc import Callable

    import trustme


def response(head: bytes) -> ResponseParser:
    parser = ResponseParser(no_body=False, max_header_bytes=CHUNK)
    parser.feed(head)
    return parser


def body_of(
    parser: ResponseParser, stream: SocketStream, released: Callable[[bool], None]
) -> ResponseBody:
    def release(*, reusable: bool) -> None:
        released(reusable)

    connection = HTTPConnection(Origin("http", "127.0.0.1", 80), stream)
    return ResponseBody(connection, parser, None, release)


@pytest.mark.parametrize("length", [CHUNK - 1, 3 * CHUNK])
async def test_reads_grow_while_the_peer_fills_them(length: int) -> None:
    released: list[bool] = []
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    ends[1].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * CHUNK)
    async with SocketStream(ends[0]) as stream:
        with ends[1] as peer:
            assert peer.send(bytes(length)) == length
            parser = response(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length)
            sizes = [len(chunk) async for chunk in body_of(parser, stream, released.append)]
    assert sizes == ([CHUNK, 2 * CHUNK] if length > CHUNK else [length])
    assert released == [True]


@pytest.mark.parametrize("closing_alert", [True, False])
async def test_tls_records_that_have_arrived_are_one_read(
    authority: trustme.CA, closing_alert: bool
) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    sizes: list[int] = []
    released: list[bool] = []
    served = anyio.Event()
    ends = socket.socketpair()
    ends[0].setblocking(False)

    def serve() -> None:
        with server.wrap_socket(ends[1], server_side=True) as peer:
            peer.sendall(bytes(6 * TLS_RECORD))
            peer.setblocking(False)
            with suppress(ssl.SSLWantReadError):  # the client sends no alert
                if closing_alert:
                    peer.unwrap()

    async def wait_served() -> None:
        await anyio.to_thread.run_sync(serve)
        served.set()

    async def read(stream: SocketStream) -> None:
        body = body_of(response(b"HTTP/1.1 200 OK\r\n\r\n"), stream, released.append)
        while (chunk := await anext(body, None)) is not None:
            sizes.append(len(chunk))

    async with anyio.create_task_group() as group:
        group.start_soon(wait_served)
        async with await SocketStream(ends[0]).start_tls(client, "127.0.0.1") as stream:
            await served.wait()
            if closing_alert:
                await read(stream)
            else:
                with pytest.raises(ReadError):  # an attacker could have truncated the response
                    await read(stream)
    assert sizes == [4 * TLS_RECORD, 2 * TLS_RECORD]
    assert released == [False]


@pytest.mark.parametrize("size", [100, 5 * TLS_RECORD])
@pytest.mark.parametrize("is_closed", [True, False])
async def test_only_a_request_that_was_begun_counts_as_sent(
    authority: trustme.CA, size: int, is_closed: bool
) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    ends = socket.socketpair()
    ends[0].setblocking(False)
    ends[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    request = EncodedRequest(memoryview(bytes(size)), b"", 0, False, False)
    transmission = Transmission()
    peers: list[ssl.SSLSocket] = []

    async def accept() -> None:
        wrap = partial(server.wrap_socket, ends[1], server_side=True)
        peers.append(await anyio.to_thread.run_sync(wrap))

    async with anyio.create_task_group() as group:
        group.start_soon(accept)
        stream = await SocketStream(ends[0]).start_tls(client, "127.0.0.1")
    async with stream:
        with peers[0] as peer:
            if is_closed:
                peer.close()
            connection = HTTPConnection(Origin("https", "127.0.0.1", 443), stream)
            parser = ResponseParser(no_body=False, max_header_bytes=CHUNK)
            with pytest.raises((ReadError, WriteError, ReadTimeout, WriteTimeout)):
                await connection.request(
                    request, parser, {"read": 0.01, "write": 0.01}, transmission
                )
    assert transmission.sent is not is_closed
