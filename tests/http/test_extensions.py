"""httpx extensions of requests and responses."""

from __future__ import annotations

import ssl
import threading
from typing import TYPE_CHECKING, Any

import anyio
import httpcore
import httpx
import pytest

from fal_async._http.httpx_transport import PooledTransport
from tests.support.pool_state import idle, in_use
from tests.support.raw_server import OK, RawConnection, RawServer, respond_with

if TYPE_CHECKING:
    import trustme

UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: loud\r\nConnection: Upgrade\r\n\r\n"
UPGRADE = {"Connection": "Upgrade", "Upgrade": "loud"}
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

SENT = [
    "http11.send_request_headers.started",
    "http11.send_request_headers.complete",
    "http11.send_request_body.started",
    "http11.send_request_body.complete",
    "http11.receive_response_headers.started",
]
READ = [
    "http11.receive_response_headers.complete",
    "http11.receive_response_body.started",
    "http11.receive_response_body.complete",
    "http11.response_closed.started",
    "http11.response_closed.complete",
]


def client_of(transport: PooledTransport) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=transport, timeout=10, trust_env=False)


async def traced(transport: PooledTransport, url: str, **options: Any) -> list[str]:
    """The events of one request; its error is that of the last event."""
    events: list[str] = []
    infos: dict[str, Any] = {}

    async def note(event: str, info: dict[str, Any]) -> None:
        events.append(event)
        infos.update(info)

    client = client_of(transport)
    try:
        await client.post(url, extensions={"trace": note}, **options)
    except httpx.TransportError:
        assert isinstance(infos["exception"], Exception)
    return events


async def test_trace_reports_the_steps_of_httpx(transport: PooledTransport) -> None:
    connect = ["connection.connect_tcp.started", "connection.connect_tcp.complete"]
    with RawServer(respond_with(CHUNKED + b"2\r\nok\r\n0\r\n\r\n")) as peer:
        assert await traced(transport, peer.url) == connect + SENT + READ
        assert await traced(transport, peer.url, content=b"x" * 500_000) == SENT + READ
        theirs: list[str] = []

        async def note(event: str, _: object) -> None:
            theirs.append(event)

        async with (
            httpx.AsyncHTTPTransport() as other,
            httpx.AsyncClient(transport=other) as client,
        ):
            await client.post(peer.url, extensions={"trace": note})
        assert theirs == connect + SENT + READ
        await transport.aclose()


async def test_trace_reports_failures(transport: PooledTransport) -> None:
    with RawServer(lambda connection: connection.respond(b"")) as peer:
        events = await traced(transport, peer.url)
        assert events[-1] == "http11.receive_response_headers.failed"
        url = peer.url
    assert (await traced(transport, url))[-1] == "connection.connect_tcp.failed"


async def test_trace_of_tls_reports_the_server_name(authority: trustme.CA) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("files.example").configure_cert(server)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    named = {"sni_hostname": "files.example"}
    with RawServer(respond_with(OK), tls=server) as peer:
        async with PooledTransport(ssl_context=trusting) as transport:
            client = client_of(transport)
            for _ in range(2):
                assert (await client.get(peer.url, extensions=named)).text == "ok"
            assert len(peer.connections) == 1
            # A connection that was checked for one name is not used for another.
            with pytest.raises(httpx.ConnectError, match="certificate"):
                await client.get(peer.url)
            assert (await traced(transport, peer.url))[-1] == "connection.start_tls.failed"
            response = await client.get(peer.url, extensions=named)
            tls = response.extensions["network_stream"].get_extra_info("ssl_object")
            assert tls.server_hostname == "files.example"


async def test_response_exposes_its_connection(transport: PooledTransport) -> None:
    with RawServer(respond_with(OK)) as peer:
        response = await client_of(transport).get(peer.url)
        stream = response.extensions["network_stream"]
        assert stream.get_extra_info("server_addr") == ("127.0.0.1", peer.port)
        assert stream.get_extra_info("client_addr")[0] == "127.0.0.1"
        assert stream.get_extra_info("socket").fileno() >= 0
        assert stream.get_extra_info("ssl_object") is None
        assert stream.get_extra_info("is_readable") is False
        assert stream.get_extra_info("weather") is None
        with pytest.raises(httpcore.ReadError, match="not upgraded"):
            await stream.read(1)
        with pytest.raises(httpcore.WriteError, match="not upgraded"):
            await stream.write(b"x")
        with pytest.raises(httpcore.ConnectError):
            await stream.start_tls(ssl.create_default_context())
        await stream.aclose()
        assert (await client_of(transport).get(peer.url)).text == "ok"
        assert len(peer.connections) == 1
        await transport.aclose()


@pytest.mark.parametrize("early", [b"", b"hi "])
async def test_upgraded_connection_belongs_to_caller(
    transport: PooledTransport, early: bytes
) -> None:
    disconnected = threading.Event()

    def script(connection: RawConnection) -> None:
        connection.respond(UPGRADED + early)
        connection.send(connection.exactly(5).upper())
        connection.wait_closed()
        disconnected.set()

    with RawServer(script) as peer:
        async with client_of(transport).stream("GET", peer.url, headers=UPGRADE) as response:
            assert response.status_code == 101
            assert in_use(transport) == 1
            stream = response.extensions["network_stream"]
            assert b"".join([await stream.read(1) for _ in early]) == early
            with pytest.raises(httpcore.ReadTimeout):
                await stream.read(1, timeout=0.01)
            await stream.write(b"hello", timeout=5)
            assert await stream.read(100) == b"HELLO"
        assert (in_use(transport), idle(transport)) == (0, 0)
        await anyio.to_thread.run_sync(disconnected.wait)


async def test_data_after_an_upgrade_is_kept(transport: PooledTransport) -> None:
    with RawServer(lambda connection: connection.respond(UPGRADED + b"hello")) as peer:
        async with client_of(transport).stream("GET", peer.url, headers=UPGRADE) as response:
            stream = response.extensions["network_stream"]
            got = b""
            while received := await stream.read(2):
                got += received
        assert got == b"hello"


async def test_unrequested_upgrade_is_an_error(transport: PooledTransport) -> None:
    with RawServer(lambda connection: connection.respond(UPGRADED)) as peer:
        with pytest.raises(httpx.RemoteProtocolError):
            await client_of(transport).get(peer.url)
        assert (in_use(transport), idle(transport)) == (0, 0)


async def test_refused_upgrade_is_a_response(transport: PooledTransport) -> None:
    with RawServer(respond_with(OK)) as peer:
        response = await client_of(transport).get(peer.url, headers=UPGRADE)
        assert (response.status_code, response.text) == (200, "ok")
        assert (in_use(transport), idle(transport)) == (0, 1)
        await transport.aclose()


async def test_upgraded_connection_can_start_tls(
    transport: PooledTransport, authority: trustme.CA
) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("files.example").configure_cert(server)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    def script(connection: RawConnection) -> None:
        connection.respond(UPGRADED)
        connection._socket = server.wrap_socket(connection._socket, server_side=True)
        connection.send(connection.exactly(5).upper())

    with RawServer(script) as peer:
        async with client_of(transport).stream("GET", peer.url, headers=UPGRADE) as response:
            plain = response.extensions["network_stream"]
            secured = await plain.start_tls(trusting, "files.example", timeout=5)
            await secured.write(b"hello")
            assert await secured.read(100) == b"HELLO"
        assert (in_use(transport), idle(transport)) == (0, 0)
