"""WebSocket client of the websockets library, and messages as the platform sends them."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import ormsgpack
import pytest
import websockets.sync.client
from websockets.exceptions import ConnectionClosedError

if TYPE_CHECKING:
    import httpx
    from websockets.sync.client import ClientConnection

    from fal_async.emulator import Emulator

TIMEOUT = "no inputs, reconnect when needed!"


def connect_websocket(
    fal: Emulator, path: str, *, key: str | None = "", **options: Any
) -> ClientConnection:
    """Open a WebSocket with the emulator's key, another key, or none (``None``)."""
    headers = {} if key is None else {"Authorization": f"Key {key or fal.key}"}
    headers |= options.pop("headers", {})
    options = {"open_timeout": 10, "close_timeout": 10, "compression": None} | options
    url = f"ws{fal.url.removeprefix('http')}/{path}"
    return websockets.sync.client.connect(url, additional_headers=headers, **options)


def assert_not_forwarded(fal: Emulator, path: str) -> None:
    """Check that the app rejected the handshake, after the platform accepted it."""
    with connect_websocket(fal, path) as socket, pytest.raises(ConnectionClosedError) as closed:
        socket.recv(timeout=10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1011
    assert closed.value.rcvd.reason == "Error while forwarding the request"


def create_token(http: httpx.Client, **fields: Any) -> str:
    body = {"allowed_apps": ["live"], "token_expiration": 120} | fields
    token: str = http.post("/rest/tokens/", json=body).raise_for_status().json()
    return token


def pack(**fields: Any) -> bytes:
    return ormsgpack.packb(fields)


def unpack(message: str | bytes) -> Any:
    assert isinstance(message, bytes)
    return ormsgpack.unpackb(message)


def receive_all(socket: ClientConnection) -> list[Any]:
    """Receive the messages up to the close; decode binary ones from msgpack."""
    return [unpack(message) if isinstance(message, bytes) else message for message in socket]


def receive_response(
    socket: ClientConnection,
) -> tuple[dict[str, Any], list[str | bytes], dict[str, Any]]:
    """Receive the start, the body chunks and the end of the next response."""
    start = json.loads(socket.recv(timeout=10))
    assert start["type"] == "start"
    body: list[str | bytes] = []
    while True:
        message = socket.recv(timeout=10)
        if isinstance(message, str) and '"type":"end"' in message:
            end = json.loads(message)
            assert end["request_id"] == start["request_id"]
            return start, body, end
        body.append(message)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = time.monotonic()

    def __call__(self) -> float:
        return self.now
