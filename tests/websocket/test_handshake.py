"""Opening a WebSocket: what is sent, and what becomes of answers that are not a WebSocket's."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

import anyio
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
    from fal_async._websocket.connection import WebSocket

TOKEN = "secret-token"


def address(peer: RawServer) -> str:
    return f"ws://127.0.0.1:{peer.port}/owner/app/realtime?fal_jwt_token={TOKEN}"


async def connect(peer: RawServer, **options: object) -> WebSocket:
    with anyio.fail_after(PATIENCE):
        return await connect_websocket(address(peer), **options)  # type: ignore[arg-type]  # passed on


async def refusal(*answer: bytes) -> HandshakeRejected:
    """What comes of an answer after which the server waits."""

    def script(line: RawConnection) -> None:
        line.response(*answer)
        line.wait_closed()

    with RawServer(script) as peer, pytest.raises(HandshakeRejected) as caught:
        await connect(peer)
    return caught.value


async def failure(script: object, **options: object) -> FalClientError:
    with RawServer(script) as peer, pytest.raises(FalClientError) as caught:  # type: ignore[arg-type]  # passed on
        await connect(peer, **options)
    assert TOKEN not in str(caught.value)
    return caught.value


async def test_the_handshake_asks_for_the_path_and_query_and_carries_the_headers() -> None:
    requests: list[ScriptedWebSocket] = []

    def script(line: RawConnection) -> None:
        requests.append(ScriptedWebSocket(line))
        requests[0].agree()

    with RawServer(script) as peer, anyio.fail_after(PATIENCE):
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
async def test_a_refusal_has_its_status_headers_and_body(status: int) -> None:
    head = (
        f"HTTP/1.1 {status} No\r\nX-Fal-Request-Id: 1\r\nA: b\r\na: c\r\nContent-Length: 15\r\n\r\n"
    )
    response = (await refusal(head.encode(), b'{"detail": "x"}')).response
    assert (response.status_code, response.body, response.request_id) == (
        status,
        b'{"detail": "x"}',
        "1",
    )
    assert response.headers["a"] == "b, c"


async def test_the_body_of_a_refusal_may_come_in_chunks() -> None:
    head = b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert (await refusal(head, b"3\r\nabc\r\n", b"2\r\nde\r\n0\r\n\r\n")).response.body == b"abcde"


async def test_the_body_of_a_refusal_may_end_with_the_connection() -> None:
    for ending in (RawConnection.close, RawConnection.reset):

        def script(line: RawConnection, ending: object = ending) -> None:
            line.response(b"HTTP/1.0 403 No\r\n\r\nno, ", b"never")
            ending(line)  # type: ignore[operator]

        with RawServer(script) as peer, pytest.raises(HandshakeRejected) as caught:
            await connect(peer)
        assert caught.value.response.status_code == 403
        assert b"no, never".startswith(caught.value.response.body)


async def test_a_refusal_without_an_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REJECTION_TIMEOUT", 10 * PATIENCE)
    body = (
        await refusal(b"HTTP/1.1 500 Oh\r\n\r\n", b"x" * (MAX_REJECTION_SIZE + 1000))
    ).response.body
    assert body == b"x" * MAX_REJECTION_SIZE


async def test_a_refusal_that_stalls_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REJECTION_TIMEOUT", 0.05)
    answer = await refusal(b"HTTP/1.1 429 Slow\r\nContent-Length: 100\r\n\r\nslow ")
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
async def test_an_answer_that_is_not_one_to_a_handshake_is_an_invalid_response(name: str) -> None:
    def script(line: RawConnection) -> None:
        line.response(WRONG[name])
        line.wait_closed()

    assert isinstance(await failure(script), InvalidResponseError)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 101 Swi", b"HTTP/1.1 403 No\r\nA: b"])
async def test_a_connection_that_breaks_during_the_handshake_is_a_failure(answer: bytes) -> None:
    assert type(await failure(lambda line: line.response(answer))) is ConnectionFailedError
    assert (
        type(await failure(lambda line: (line.response(answer), line.reset())))
        is ConnectionFailedError
    )


async def test_a_server_that_does_not_answer_is_given_up() -> None:
    left = threading.Event()

    def script(line: RawConnection) -> None:
        line.request()
        line.wait_closed()
        left.set()

    error = await failure(script, open_timeout=0.05)
    assert type(error) is ConnectionFailedError
    assert str(error) == "cannot open the WebSocket: no response within 0.05 seconds"
    assert left.is_set()


async def test_a_host_that_cannot_be_reached_is_a_failure_to_connect() -> None:
    with pytest.raises(ConnectionFailedError, match=r"cannot connect to 127\.0\.0\.1:9"):
        await connect_websocket("ws://127.0.0.1:9/")


@pytest.mark.parametrize(
    "url", ["http://x/?t=secret", "ws://", "ws://x:y/?t=secret", "ws://x/#secret"]
)
async def test_an_address_that_is_none_is_refused_without_showing_it(url: str) -> None:
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
async def test_headers_that_cannot_be_sent_are_refused(name: str, value: str) -> None:
    with RawServer(lambda line: line.wait_closed()) as peer, pytest.raises(InvalidRequestError):
        await connect_websocket(address(peer), {name: value})


async def test_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    theirs = logging.getLogger("server")
    with caplog.at_level(logging.DEBUG), websockets_server(echo, logger=theirs) as url:
        websocket = await connect_websocket(f"{url}?t={TOKEN}", {"Authorization": "Key a:b"})
        async with closing(websocket):
            await websocket.send("hello")
            await websocket.recv()
    assert [record for record in caplog.records if record.name not in {"asyncio", "server"}] == []


async def test_the_environment_names_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    def script(line: RawConnection) -> None:
        assert line.until(b"\r\n\r\n").startswith(b"CONNECT fal.run:80 HTTP/1.1\r\n")
        line.send(b"HTTP/1.1 200 Connected\r\n\r\n")
        socketeer = ScriptedWebSocket(line)
        assert socketeer.request.headers["Host"] == "fal.run"
        socketeer.line.send(text("through"))
        socketeer.agree()

    with RawServer(script) as peer, anyio.fail_after(PATIENCE):
        monkeypatch.setenv("http_proxy", peer.url)
        monkeypatch.delenv("no_proxy", raising=False)
        websocket = await connect_websocket("ws://fal.run/app")
        async with closing(websocket):
            assert await websocket.recv() == "through"


async def test_a_proxy_that_refuses_is_a_failure_to_connect() -> None:
    async def refused(url: httpx.URL) -> object:
        raise ProxyError("the proxy refused the tunnel")

    with pytest.raises(ConnectionFailedError, match="the proxy refused the tunnel"):
        await connect_websocket("ws://fal.run/app", connect=refused)  # type: ignore[arg-type]  # it never returns


async def test_a_plain_address_is_dialled_without_tls() -> None:
    with RawServer(lambda line: line.wait_closed()) as peer:
        stream = await connect_socket(httpx.URL(address(peer)))
        assert stream._tls is None
        stream.close()
