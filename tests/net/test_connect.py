"""Connecting: addresses, proxies, TLS and cancellation."""

from __future__ import annotations

import base64
import socket
import ssl
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest

from fal_async._net.connect import connect
from fal_async._net.errors import ConnectError, ProxyError
from fal_async._net.proxies import connect_via_proxy
from tests.support.cancel_points import cancel_everywhere
from tests.support.raw_server import RawConnection, RawServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    import trustme

    from fal_async._http.httpx_transport import PooledTransport


def echo(connection: RawConnection) -> None:
    while received := connection._socket.recv(65536):
        connection.send(received)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that refuses connections."""
    with socket.socket() as occupied:
        occupied.bind(("127.0.0.1", 0))
        yield occupied.getsockname()[1]


async def test_connection_is_a_byte_stream() -> None:
    with RawServer(echo) as peer:
        async with await connect("127.0.0.1", peer.port) as stream:
            await stream.send(b"hello")
            assert await stream.receive() == b"hello"


async def test_every_resolved_address_is_tried() -> None:
    """``localhost`` also resolves to ``::1``, where no server listens."""
    with RawServer(echo) as peer:
        async with await connect("localhost", peer.port) as stream:
            await stream.send(b"hello")
            assert await stream.receive() == b"hello"


@pytest.mark.skipif(not socket.has_ipv6, reason="there is no IPv6 here")
async def test_ipv6_addresses_are_connected(transport: PooledTransport) -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("there is no IPv6 here")
    with listener:
        port = listener.getsockname()[1]
        async with await connect("::1", port):
            pass
        with pytest.raises(httpx.ReadTimeout):
            await transport.handle_async_request(
                httpx.Request(
                    "GET", f"http://[::1]:{port}/", extensions={"timeout": {"read": 0.01}}
                )
            )


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_refused_connection_is_one_readable_error(host: str, closed_port: int) -> None:
    with pytest.raises(ConnectError) as caught:
        await connect(host, closed_port)
    assert str(caught.value) == f"cannot connect to {host}:{closed_port}: Connection refused"
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 64 + ".invalid", "a..b"])
async def test_unknown_host_is_a_connect_error(host: str) -> None:
    with pytest.raises(ConnectError, match="cannot resolve"):
        await connect(host, 80)


def look_up_as(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    """Resolve every name to these addresses, which are tried almost concurrently."""

    def look_up(*args: object, **options: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr("fal_async._net.connect.CONNECTION_ATTEMPT_DELAY", 0)


async def test_slow_address_does_not_delay_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first address never accepts, because its backlog is full."""
    slow = socket.create_server(("127.0.0.2", 0), backlog=0)
    port = slow.getsockname()[1]
    queued = [socket.socket() for _ in range(4)]
    for sock in queued:
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.2", port))
    quick = socket.create_server(("127.0.0.1", port))
    look_up_as(monkeypatch, ("127.0.0.2", port), ("127.0.0.1", port))
    async with await connect("two.example", port) as stream:
        raw = stream.extra(anyio.abc.SocketAttribute.raw_socket)
        assert raw.getpeername() == ("127.0.0.1", port)
    for sock in [slow, quick, *queued]:
        sock.close()


async def test_losing_connect_attempts_are_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with RawServer(RawConnection.wait_closed) as peer:
        look_up_as(monkeypatch, *[("127.0.0.1", peer.port)] * 3)
        async with await connect("three.example", peer.port):
            await anyio.to_thread.run_sync(peer.wait_ended, 1)

        async def call() -> None:
            await (await connect("three.example", peer.port)).aclose()

        async for _ in cancel_everywhere(call):
            await anyio.to_thread.run_sync(peer.wait_idle)


def proxying(response: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n") -> object:
    """Return the script of a proxy whose tunnels echo."""

    def script(connection: RawConnection) -> None:
        connection.respond(response)
        echo(connection)

    return script


async def test_proxy_receives_a_connect_request() -> None:
    with RawServer(proxying()) as peer:  # type: ignore[arg-type]  # a script
        proxy = httpx.Proxy(f"http://user:pass@127.0.0.1:{peer.port}")
        async with await connect_via_proxy(proxy, "fal.example", 443) as stream:
            await stream.send(b"hello")
            assert await stream.receive() == b"hello"
        credentials = base64.b64encode(b"user:pass")
        assert peer.connections[0].requests == [
            b"CONNECT fal.example:443 HTTP/1.1\r\nHost: fal.example:443\r\n"
            b"Proxy-Authorization: Basic " + credentials + b"\r\n\r\n"
        ]


async def test_ipv6_address_is_bracketed_for_proxies() -> None:
    with RawServer(proxying()) as peer:  # type: ignore[arg-type]  # a script
        async with await connect_via_proxy(httpx.Proxy(peer.url), "::1", 80):
            pass
        assert peer.connections[0].requests[0].startswith(b"CONNECT [::1]:80 HTTP/1.1\r\n")


async def test_tls_works_through_the_tunnel(authority: trustme.CA) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("fal.example").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)

    def script(connection: RawConnection) -> None:
        connection.respond(b"HTTP/1.1 200 OK\r\n\r\n")
        connection._socket = server.wrap_socket(connection._socket, server_side=True)
        echo(connection)

    with RawServer(script) as peer:
        async with await connect_via_proxy(
            httpx.Proxy(peer.url), "fal.example", 443, tls=client
        ) as stream:
            await stream.send(b"hello")
            assert await stream.receive() == b"hello"


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"",
        b"x" * 70000,
        b"HTTP/1.1 200 OK\r\n\r\nevil",
    ],
)
async def test_refusing_proxy_is_an_error(response: bytes) -> None:
    def script(connection: RawConnection) -> None:
        connection.respond(response)

    with RawServer(script) as peer:
        with pytest.raises(ProxyError):
            await connect_via_proxy(httpx.Proxy(peer.url), "fal.example", 443)
        peer.wait_ended()


async def test_unsupported_proxy_is_refused() -> None:
    with pytest.raises(ProxyError, match="got https://"):
        await connect_via_proxy(httpx.Proxy("https://127.0.0.1:1080"), "fal.example", 443)


async def test_proxy_connect_is_cancellable_anywhere() -> None:
    with RawServer(proxying(b"HTTP/1.1 200 OK\r\n\r\n")) as peer:  # type: ignore[arg-type]  # a script

        async def call() -> None:
            await (await connect_via_proxy(httpx.Proxy(peer.url), "fal.example", 443)).aclose()

        async for _ in cancel_everywhere(call):
            pass
        peer.wait_ended(len(peer.connections))
