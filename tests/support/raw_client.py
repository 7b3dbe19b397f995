"""An HTTP client on a plain socket, which returns the received bytes."""

from __future__ import annotations

import socket
from contextlib import closing
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from fal_async.emulator import Emulator

#: Appended to the received bytes if the connection was reset instead of closed.
RESET = b"<reset>"


def send_request(fal: Emulator, method: str, path: str, body: bytes = b"{}") -> bytes:
    """Send a request on a new connection, and return all received bytes."""
    with closing(connect(fal)) as peer:
        peer.sendall(encode_request(fal, method, path, body))
        return read_all(peer)


def connect(fal: Emulator) -> socket.socket:
    url = httpx.URL(fal.url)
    return socket.create_connection((url.host, url.port), timeout=10)


def encode_request(fal: Emulator, method: str, path: str, body: bytes = b"{}") -> bytes:
    return (
        f"{method} {path} HTTP/1.1\r\n"
        "Host: localhost\r\n"
        f"Authorization: Key {fal.key}\r\n"
        "Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n"
        "\r\n"
    ).encode() + body


def read_all(peer: socket.socket) -> bytes:
    """Return the bytes received until the connection is closed or reset."""
    received = b""
    try:
        while chunk := peer.recv(65536):
            received += chunk
    except ConnectionResetError:
        received += RESET
    return received
