"""Clients of sockets: the websockets library alone, and this library without a face."""

from __future__ import annotations

import json
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import ormsgpack
import pytest
import websockets.sync.client
from websockets.exceptions import ConnectionClosedError

from fal_async import AsyncClient

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import httpx
    from websockets.sync.client import ClientConnection

    from fal_async.emulator import Emulator

TIMEOUT = "no inputs, reconnect when needed!"


@asynccontextmanager
async def socket_client(fal: Emulator) -> AsyncGenerator[AsyncClient]:
    async with AsyncClient(fal.key, hosts=fal.hosts) as client:
        yield client


def dial(fal: Emulator, path: str, *, key: str | None = "", **options: Any) -> ClientConnection:
    """Open a WebSocket, with the emulator's key, another one, or none."""
    headers = {} if key is None else {"Authorization": f"Key {key or fal.key}"}
    headers |= options.pop("headers", {})
    options = {"open_timeout": 10, "close_timeout": 10, "compression": None} | options
    url = f"ws{fal.url.removeprefix('http')}/{path}"
    return websockets.sync.client.connect(url, additional_headers=headers, **options)


def assert_not_forwarded(fal: Emulator, path: str) -> None:
    """Check that the app refused the handshake, of which the edge tells after accepting it."""
    with dial(fal, path) as socket, pytest.raises(ConnectionClosedError) as closed:
        socket.recv(timeout=10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1011
    assert closed.value.rcvd.reason == "Error while forwarding the request"


def token(http: httpx.Client, **wishes: Any) -> str:
    body = {"allowed_apps": ["live"], "token_expiration": 120} | wishes
    minted: str = http.post("/rest/tokens/", json=body).raise_for_status().json()
    return minted


def packed(**fields: Any) -> bytes:
    return ormsgpack.packb(fields)


def unpacked(message: str | bytes) -> Any:
    assert isinstance(message, bytes)
    return ormsgpack.unpackb(message)


def rest_of(socket: ClientConnection) -> list[Any]:
    """The messages up to the close; those of msgpack are unpacked."""
    return [unpacked(message) if isinstance(message, bytes) else message for message in socket]


def response(socket: ClientConnection) -> tuple[dict[str, Any], list[str | bytes], dict[str, Any]]:
    """The start, the parts of the body, and the end of the next response that a socket carries."""
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
    """Stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = time.monotonic()

    def __call__(self) -> float:
        return self.now
