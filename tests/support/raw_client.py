"""A bare socket that says HTTP and shows what comes back, to the byte."""

from __future__ import annotations

import socket
from contextlib import closing
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from fal_async.emulator import Emulator

#: What `exchange` puts at the end when the connection was reset instead of closed.
RESET = b"<reset>"


def connect(fal: Emulator) -> socket.socket:
    url = httpx.URL(fal.url)
    return socket.create_connection((url.host, url.port), timeout=10)


def request(fal: Emulator, method: str, path: str, body: bytes = b"{}") -> bytes:
    return (
        f"{method} {path} HTTP/1.1\r\n"
        "Host: localhost\r\n"
        f"Authorization: Key {fal.key}\r\n"
        "Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n"
        "\r\n"
    ).encode() + body


def everything(peer: socket.socket) -> bytes:
    """All that comes until the other side closes or resets the connection."""
    received = b""
    try:
        while chunk := peer.recv(65536):
            received += chunk
    except ConnectionResetError:
        received += RESET
    return received


def exchange(fal: Emulator, method: str, path: str, body: bytes = b"{}") -> bytes:
    with closing(connect(fal)) as peer:
        peer.sendall(request(fal, method, path, body))
        return everything(peer)
