"""Connections: the sizes of reads."""

from __future__ import annotations

import socket

import pytest

from fal_async._http.connection import HTTPConnection, ResponseBody
from fal_async._http.parser import ResponseParser
from fal_async._http.urls import Origin
from fal_async._net.sockets import CHUNK, SocketStream


@pytest.mark.parametrize("length", [CHUNK - 1, 3 * CHUNK])
async def test_reads_grow_while_the_peer_fills_them(length: int) -> None:
    released: list[bool] = []

    def release(*, reusable: bool) -> None:
        released.append(reusable)

    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    ends[1].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * CHUNK)
    async with SocketStream(ends[0]) as stream:
        with ends[1] as peer:
            parser = ResponseParser(no_body=False, max_header_bytes=CHUNK)
            parser.feed(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length)
            assert peer.send(bytes(length)) == length
            connection = HTTPConnection(Origin("http", "127.0.0.1", 80), stream)
            body = ResponseBody(connection, parser, None, release)
            sizes = [len(chunk) async for chunk in body]
    assert sizes == ([CHUNK, 2 * CHUNK] if length > CHUNK else [length])
    assert released == [True]
