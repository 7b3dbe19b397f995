"""WebSocket handshake: request, rejection, failures and proxies."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

import httpx
import pytest

from fal_async._net.errors import ProxyError
from fal_async._websocket import handshake as module
from fal_async._websocket.handshake import (
    MAX_REJECTION_SIZE,
    HandshakeRejected,
    connect_socket,
    connect_websocket,
)
from fal_async.errors import (
    ConnectionFailedError,
    FalClientError,
    InvalidRequestError,
    InvalidResponseError,
)
from tests.support.raw_server import PATIENCE, RawConnection, RawServer
from tests.support.websocket_server import ScriptedWebSocket, closing, echo, text, websockets_server

if TYPE_CHECKING:
    from collections.abc import Callable

    from fal_async._websocket.connection import WebSocket

TOKEN = "secret-token"


def address(peer: RawServer) -> str:
    return f"ws://127.0.0.1:{peer.port}/owner/app/realtime?fal_jwt_token={TOKEN}"


async def connect(peer: RawServer, **options: object) -> WebSocket:
    return await connect_websocket(address(peer), **options)  # type: ignore[arg-type]  # passed on


async def rejection(*response: bytes) -> HandshakeRejected:
    """Return the rejection that a response causes; the server keeps the connection open."""

    def script(connection: RawConnection) -> None:
        connection.respond(*response)
        connection.wait_closed()

    with RawServer(script) as peer, pytest.raises(HandshakeRejected) as caught:
        await connect(peer)
    return caught.value


async def failure(script: Callable[[RawConnection], object], **options: object) -> FalClientError:
    with RawServer(script) as peer, pytest.raises(FalClientError) as caught:  # type: ignore[arg-type]  # passed on
        await connect(peer, **options)
    assert TOKEN not in str(caught.value)
    return caught.value


async def test_handshake_has_path_query_and_headers() -> None:
    requests: list[ScriptedWebSocket] = []

    def script(connection: RawConnection) -> None:
        requests.append(ScriptedWebSocket(connection))
        requests[0].confirm_close()

    with RawServer(script) as peer:
        websocket = await connect_websocket(address(peer), {"Authorization": "Key a:b"})
        async with closing(websocket):
            pass
    request = requests[0].request
    assert request.path == f"/owner/app/realtime?fal_jwt_token={TOKEN}"
    assert request.headers["Authorization"] == "Key a:b"
    assert request.headers["Host"] == f"127.0.0.1:{peer.port}"
    assert request.headers["User-Agent"].startswith("fal_async/")
    assert "Sec-WebSocket-Extensions" not in request.headers


@pytest.mark.parametrize("status", [200, 301, 401, 403, 404, 429, 500, 503])
async def test_rejection_has_status_headers_and_body(status: int) -> None:
    head = (
        f"HTTP/1.1 {status} No\r\nX-Fal-Request-Id: 1\r\nA: b\r\na: c\r\nContent-Length: 15\r\n\r\n"
    )
    response = (await rejection(head.encode(), b'{"detail": "x"}')).response
    assert (response.status_code, response.body, response.request_id) == (
        status,
        b'{"detail": "x"}',
        "1",
    )
    assert response.headers["a"] == "b, c"


async def test_rejection_may_be_chunked() -> None:
    head = b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert (
        await rejection(head, b"3\r\nabc\r\n", b"2\r\nde\r\n0\r\n\r\n")
    ).response.body == b"abcde"


async def test_rejection_may_end_with_connection() -> None:
    for ending in (RawConnection.close, RawConnection.reset):

        def script(
            connection: RawConnection, ending: Callable[[RawConnection], object] = ending
        ) -> None:
            connection.respond(b"HTTP/1.0 403 No\r\n\r\nno, ", b"never")
            ending(connection)

        with RawServer(script) as peer, pytest.raises(HandshakeRejected) as caught:
            await connect(peer)
        assert caught.value.response.status_code == 403
        assert b"no, never".startswith(caught.value.response.body)


async def test_endless_rejection_is_truncated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REJECTION_TIMEOUT", 10 * PATIENCE)
    body = (
        await rejection(b"HTTP/1.1 500 Oh\r\n\r\n", b"x" * (MAX_REJECTION_SIZE + 1000))
    ).response.body
    assert body == b"x" * MAX_REJECTION_SIZE


async def test_stalled_rejection_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REJECTION_TIMEOUT", 0.05)
    answer = await rejection(b"HTTP/1.1 429 Slow\r\nContent-Length: 100\r\n\r\nslow ")
    assert (answer.response.status_code, answer.response.body) == (429, b"slow ")


WRONG = {
    "not HTTP": b"SSH-2.0-OpenSSH\r\n\r\n",
    "no accept": b"HTTP/1.1 101 Ok\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "a wrong accept": b"HTTP/1.1 101 Ok\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: AAAA\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 Ok\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    "a head without end": b"HTTP/1.1 200 Ok\r\nA: " + b"x" * 100_000,
}


@pytest.mark.parametrize("name", WRONG)
async def test_invalid_handshake_response_raises(name: str) -> None:
    def script(connection: RawConnection) -> None:
        connection.respond(WRONG[name])
        connection.wait_closed()

    assert isinstance(await failure(script), InvalidResponseError)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 101 Swi", b"HTTP/1.1 403 No\r\nA: b"])
async def test_closed_handshake_is_connection_failure(answer: bytes) -> None:
    def close(connection: RawConnection) -> None:
        connection.respond(answer)

    def reset(connection: RawConnection) -> None:
        connection.respond(answer)
        connection.reset()

    for script in (close, reset):
        assert type(await failure(script)) is ConnectionFailedError


async def test_open_timeout_closes_connection() -> None:
    disconnected = threading.Event()

    def script(connection: RawConnection) -> None:
        connection.request()
        connection.wait_closed()
        disconnected.set()

    error = await failure(script, open_timeout=0.05)
    assert type(error) is ConnectionFailedError
    assert str(error) == "cannot open the WebSocket: no response within 0.05 seconds"
    assert disconnected.is_set()


async def test_unreachable_host_is_connection_failure() -> None:
    with pytest.raises(ConnectionFailedError, match=r"cannot connect to 127\.0\.0\.1:9"):
        await connect_websocket("ws://127.0.0.1:9/")


@pytest.mark.parametrize(
    "url", ["http://x/?t=secret", "ws://", "ws://x:y/?t=secret", "ws://x/#secret"]
)
async def test_invalid_url_is_rejected_and_not_shown(url: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await connect_websocket(url)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("A", "b\r\nC: d"),
        ("A\r\n", "b"),
        ("", "b"),
        ("Upgrade", "h2c"),
        ("A", "—"),
        ("sec-websocket-extensions", "permessage-deflate"),
    ],
)
async def test_invalid_headers_are_rejected(name: str, value: str) -> None:
    with (
        RawServer(lambda connection: connection.wait_closed()) as peer,
        pytest.raises(InvalidRequestError),
    ):
        await connect_websocket(address(peer), {name: value})


async def test_handshake_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    theirs = logging.getLogger("server")
    with caplog.at_level(logging.DEBUG), websockets_server(echo, logger=theirs) as url:
        websocket = await connect_websocket(f"{url}?t={TOKEN}", {"Authorization": "Key a:b"})
        async with closing(websocket):
            await websocket.send("hello")
            await websocket.recv()
    assert [record for record in caplog.records if record.name not in {"asyncio", "server"}] == []


async def test_proxy_of_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def script(connection: RawConnection) -> None:
        assert connection.until(b"\r\n\r\n").startswith(b"CONNECT fal.run:80 HTTP/1.1\r\n")
        connection.send(b"HTTP/1.1 200 Connected\r\n\r\n")
        server = ScriptedWebSocket(connection)
        assert server.request.headers["Host"] == "fal.run"
        server.send(text("through"))
        server.confirm_close()

    with RawServer(script) as peer:
        monkeypatch.setenv("http_proxy", peer.url)
        monkeypatch.delenv("no_proxy", raising=False)
        websocket = await connect_websocket("ws://fal.run/app")
        async with closing(websocket):
            assert await websocket.recv() == "through"


async def test_proxy_error_is_connection_failure() -> None:
    async def reject(url: httpx.URL) -> object:
        raise ProxyError("the proxy refused the tunnel")

    with pytest.raises(ConnectionFailedError, match="the proxy refused the tunnel"):
        await connect_websocket("ws://fal.run/app", connect=reject)  # type: ignore[arg-type]  # it never returns


async def test_ws_url_is_connected_without_tls() -> None:
    with RawServer(lambda connection: connection.wait_closed()) as peer:
        stream = await connect_socket(httpx.URL(address(peer)))
        assert stream._tls is None
        stream.close()
