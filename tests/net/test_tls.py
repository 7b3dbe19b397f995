"""TLS: trust, handshake failures and the end of responses."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest

from fal_async import AsyncClient, ConnectionFailedError, Hosts, RetryPolicy
from fal_async._http.httpx_transport import PooledTransport
from fal_async._net import connect
from tests.support.pool_state import idle, in_use
from tests.support.raw_server import OK, RawConnection, RawServer, respond_with

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import trustme


def server_context(authority: trustme.CA, name: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """A context of a user, as passed for `ssl_context`."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def ask(transport: PooledTransport, url: str, **options: object) -> bytes:
    request = httpx.Request("POST", url, **options)  # type: ignore[arg-type]  # of httpx
    return await (await transport.handle_async_request(request)).aread()


async def test_requests_share_one_tls_connection(
    authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    with RawServer(respond_with(OK), tls=server_context(authority)) as peer:
        async with PooledTransport(ssl_context=trusting) as transport:
            for _ in range(3):
                assert await ask(transport, peer.url) == b"ok"
            assert len(peer.connections) == 1


async def test_large_bodies_work_in_both_directions(
    authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    content = bytes(range(256)) * 20000

    def script(connection: RawConnection) -> None:
        body = connection.request().partition(b"\r\n\r\n")[2]
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), body)
        connection.wait_closed()

    with RawServer(script, tls=server_context(authority)) as peer:
        async with PooledTransport(ssl_context=trusting) as transport:
            assert await ask(transport, peer.url, content=content) == content


async def test_unknown_certificate_is_not_trusted(
    transport: PooledTransport, authority: trustme.CA
) -> None:
    with RawServer(respond_with(OK), tls=server_context(authority)) as peer:
        with pytest.raises(httpx.ConnectError, match=r"certificate of 127\.0\.0\.1 is not valid"):
            await ask(transport, peer.url)
        assert (in_use(transport), idle(transport)) == (0, 0)


async def test_certificate_must_match_the_host(
    authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    with RawServer(respond_with(OK), tls=server_context(authority, "fal.example")) as peer:
        async with PooledTransport(ssl_context=trusting) as transport:
            with pytest.raises(httpx.ConnectError, match="certificate"):
                await ask(transport, peer.url)


async def test_plain_server_is_a_connect_error(
    transport: PooledTransport,
) -> None:
    plain = RawServer(lambda connection: connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    url = plain.url.replace("http:", "https:")
    with plain, pytest.raises(httpx.ConnectError, match="cannot start TLS with"):
        await ask(transport, url)


async def test_close_in_handshake_is_a_connect_error(
    transport: PooledTransport,
) -> None:
    mute = RawServer(lambda connection: None)
    url = mute.url.replace("http:", "https:")
    with mute, pytest.raises(httpx.ConnectError, match="cannot start TLS with"):
        await ask(transport, url)


async def test_context_must_not_select_http_2(
    authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    server = server_context(authority)
    server.set_alpn_protocols(["h2"])
    trusting.set_alpn_protocols(["h2", "http/1.1"])
    with RawServer(RawConnection.wait_closed, tls=server) as peer:
        async with PooledTransport(ssl_context=trusting) as transport:
            with pytest.raises(httpx.ConnectError, match="got h2, which"):
                await ask(transport, peer.url)


async def test_shared_context_verifies_and_is_strict() -> None:
    await PooledTransport().prepare()
    context = await connect.shared_context()
    assert await connect.shared_context() is context
    assert not context.options & ssl.OP_IGNORE_UNEXPECTED_EOF
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


async def test_body_ending_at_eof_requires_close_notify(
    authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    """Without the closing alert of TLS, an attacker could have truncated the response."""

    def script(connection: RawConnection) -> None:
        connection.request()
        connection.send(b"HTTP/1.1 200 OK\r\n\r\nok")
        if connection.number == 1:
            connection.unwrap()

    with RawServer(script, tls=server_context(authority)) as peer:
        async with PooledTransport(ssl_context=trusting) as transport:
            assert await ask(transport, peer.url) == b"ok"
            with pytest.raises(httpx.ReadError):
                await ask(transport, peer.url)


async def test_extra_data_prevents_reuse(authority: trustme.CA, trusting: ssl.SSLContext) -> None:
    """In the same record, and in one of its own that arrives together with it."""

    def script(connection: RawConnection) -> None:
        connection.request()
        if connection.number == 1:
            connection.send(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        else:
            connection._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
            connection.send(OK, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
            connection._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
        connection.wait_closed()

    with RawServer(script, tls=server_context(authority)) as peer:
        async with PooledTransport(ssl_context=trusting) as transport:
            for _ in range(4):
                assert await ask(transport, peer.url) == b"ok"
            assert len(peer.connections) == 4


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_dead_idle_connection_is_replaced(
    authority: trustme.CA, trusting: ssl.SSLContext, version: ssl.TLSVersion
) -> None:
    context = server_context(authority)
    context.minimum_version = context.maximum_version = version
    with RawServer(lambda connection: connection.respond(OK), tls=context) as peer:
        async with PooledTransport(ssl_context=trusting) as transport:
            for number in range(1, 4):
                assert await ask(transport, peer.url) == b"ok"
                await anyio.to_thread.run_sync(peer.wait_ended, number)


async def test_user_context_is_not_modified(trusting: ssl.SSLContext) -> None:
    before = (trusting.options, trusting.verify_mode)
    async with PooledTransport(ssl_context=trusting) as transport:
        await transport.prepare()
    assert (trusting.options, trusting.verify_mode) == before


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSLKEYLOGFILE"])
@pytest.mark.parametrize("call", ["run", "submit", "status", "realtime", "prepare"])
async def test_unreadable_certificates_send_nothing(
    monkeypatch: pytest.MonkeyPatch, variable: str, call: str
) -> None:
    monkeypatch.setattr(connect, "_context", None)
    monkeypatch.setenv(variable, "/nonexistent/file")
    hosts = Hosts.at("https://localhost:1")
    never = RetryPolicy(base_delay=1000, max_delay=1000, budget=100_000)
    async with AsyncClient("id:secret", hosts=hosts, retry=never) as client:
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "run": lambda: client.run("acme/app", {}),
            "submit": lambda: client.submit("acme/app", {}),
            "status": lambda: client.status("acme/app", "abc"),
            "realtime": client.realtime("acme/app", use_jwt=False).__aenter__,
            "prepare": client.prepare,
        }
        with pytest.raises(ConnectionFailedError, match=variable) as caught:
            await calls[call]()
    assert "/nonexistent/file" in str(caught.value)
    if call != "status":
        assert caught.value.started is False


async def test_httpx_reports_unreadable_certificates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connect, "_context", None)
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent/file")
    async with PooledTransport() as transport:
        with pytest.raises(httpx.ConnectError, match="SSL_CERT_FILE"):
            await transport.prepare()
        with pytest.raises(httpx.ConnectError, match="SSL_CERT_FILE"):
            await ask(transport, "https://localhost:1/")
