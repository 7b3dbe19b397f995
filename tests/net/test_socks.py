"""SOCKS5 proxies for HTTP and WebSockets."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest

from fal_async import AsyncClient, RetryPolicy, errors
from fal_async._net import proxies
from fal_async._net.errors import ProxyError
from fal_async._net.proxies import connect_via_proxy
from fal_async.emulator import Socket  # noqa: TC001 -- the emulator reads the annotation
from tests.support.cancel_points import cancel_everywhere
from tests.support.raw_server import PATIENCE, RawConnection, RawServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from fal_async.emulator import Emulator

SUCCEEDED = b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00"


class SocksProxy:
    """A scripted SOCKS5 proxy, which connects to local ports.

    Attributes:
        asked: The requested hosts and ports.
    """

    def __init__(
        self, credentials: tuple[bytes, bytes] | None = None, *, slowly: bool = False
    ) -> None:
        self.asked: list[tuple[str, int]] = []
        self._credentials = credentials
        self._slowly = slowly

    def __call__(self, connection: RawConnection) -> None:
        version, methods = connection.exactly(2)
        offered = connection.exactly(methods)
        assert version == 5
        if self._credentials is None:
            assert 0 in offered
            self._send(connection, b"\x05\x00")
        else:
            assert 2 in offered
            self._send(connection, b"\x05\x02")
            connection.exactly(1)
            username, password = (connection.exactly(connection.exactly(1)[0]) for _ in range(2))
            right = (username, password) == self._credentials
            self._send(connection, b"\x01\x00" if right else b"\x01\x01")
            if not right:
                return
        kind = connection.exactly(4)[3]
        if kind == 3:
            host = connection.exactly(connection.exactly(1)[0]).decode()
        else:
            family, size = {1: (socket.AF_INET, 4), 4: (socket.AF_INET6, 16)}[kind]
            host = socket.inet_ntop(family, connection.exactly(size))
        (port,) = struct.unpack("!H", connection.exactly(2))
        self.asked.append((host, port))
        with socket.create_connection(("127.0.0.1", port)) as upstream:
            self._send(connection, SUCCEEDED)
            back = threading.Thread(target=pour, args=(upstream, connection._socket))
            back.start()
            upstream.sendall(connection._take(len(connection._buffer)))
            pour(connection._socket, upstream)
            back.join()

    def _send(self, connection: RawConnection, response: bytes) -> None:
        for part in [response[at : at + 1] for at in range(len(response))] * self._slowly or [
            response
        ]:
            connection.send(part)


def pour(source: socket.socket, target: socket.socket) -> None:
    """Forward data until EOF."""
    with contextlib.suppress(OSError):
        while received := source.recv(65536):
            target.sendall(received)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def greeting(connection: RawConnection) -> None:
    connection.send(b"hello")
    connection.wait_closed()


@pytest.mark.parametrize("scheme", sorted(proxies.SOCKS_SCHEMES))
@pytest.mark.parametrize("slowly", [False, True])
@pytest.mark.parametrize("host", ["fal.example", "127.0.0.1", "::1"])
async def test_proxy_resolves_the_host(scheme: str, host: str, *, slowly: bool) -> None:
    proxy = SocksProxy(slowly=slowly)
    with RawServer(greeting) as server, RawServer(proxy) as peer:
        through = httpx.Proxy(f"{scheme}://127.0.0.1:{peer.port}")
        async with await connect_via_proxy(through, host, server.port) as stream:
            assert await stream.receive() == b"hello"
        assert proxy.asked == [(host, server.port)]


async def test_proxy_receives_the_requested_password() -> None:
    with RawServer(greeting) as server:
        for script in (SocksProxy((b"user", b"p@ss")), SocksProxy()):
            with RawServer(script) as peer:
                through = httpx.Proxy(f"socks5://user:p%40ss@127.0.0.1:{peer.port}")
                async with await connect_via_proxy(through, "fal.example", server.port) as stream:
                    assert await stream.receive() == b"hello"


@pytest.mark.parametrize(
    ("responses", "message"),
    [
        ([b"\x05\xff"], "refused the authentication"),
        ([b"\x05\x01"], "refused the authentication"),
        ([b"\x05\x02", b"\x01\x01"], "refused the username or password"),
        ([b"\x05\x00", b"\x05\x05\x00\x01" + bytes(6)], "connection refused"),
        ([b"\x05\x00", b"\x05\x04\x00\x03\x01a\x00\x00"], "host unreachable"),
        ([b"\x05\x00", b"\x05\x02\x00\x04" + bytes(18)], "not allowed"),
        ([b"\x05\x00", b"\x05\x99\x00\x01" + bytes(6)], "does not use SOCKS5"),
        ([b"\x05\x00", b"\x04\x00\x00\x01" + bytes(6)], "does not use SOCKS5"),
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], "SOCKS5"),
        ([], "closed the connection"),
        ([b"\x05"], "closed the connection"),
        ([b"\x05\x00"], "closed the connection"),
        ([b"\x05\x00", b"\x05\x00\x00\x01\x7f"], "closed the connection"),
    ],
)
async def test_refusing_or_invalid_proxy_is_an_error(responses: list[bytes], message: str) -> None:
    def script(connection: RawConnection) -> None:
        for response in responses:
            connection._fill()
            connection.send(response)

    with RawServer(script) as peer:
        through = httpx.Proxy(f"socks5://user:secret@127.0.0.1:{peer.port}")
        with pytest.raises(ProxyError, match=message) as caught:
            await connect_via_proxy(through, "fal.example", 443)
        assert "secret" not in str(caught.value)


async def test_overlong_password_is_an_error() -> None:
    with RawServer(SocksProxy((b"user", b""))) as peer:
        through = httpx.Proxy(f"socks5://user:{'x' * 256}@127.0.0.1:{peer.port}")
        with pytest.raises(ProxyError):
            await connect_via_proxy(through, "fal.example", 443)
        peer.connections[0].stop_reading()
        peer.errors.clear()


async def test_tunnel_setup_is_cancellable_anywhere() -> None:
    with RawServer(greeting) as server, RawServer(SocksProxy()) as peer:

        async def call() -> None:
            through = httpx.Proxy(f"socks5://127.0.0.1:{peer.port}")
            await (await connect_via_proxy(through, "fal.example", server.port)).aclose()

        async for _ in cancel_everywhere(call):
            pass
        peer.errors.clear()  # the client disconnected within a request


@pytest.fixture
def client_through(fal: Emulator, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], AsyncClient]:
    """A client of the emulator, by the proxy that the environment names."""

    def make(proxy: str) -> AsyncClient:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.lower(), raising=False)
        monkeypatch.setenv("ALL_PROXY", proxy)
        return AsyncClient(fal.key, hosts=fal.hosts, retry=RetryPolicy(attempts=3, base_delay=60))

    return make


async def test_requests_and_sessions_share_the_proxy(
    fal: Emulator, client_through: Callable[[str], AsyncClient]
) -> None:
    fal.register("acme/echo", lambda arguments: arguments)

    @fal.websocket("acme/live")
    async def live(socket: Socket) -> None:
        async for message in socket:
            await socket.send(message)

    proxy = SocksProxy()
    with RawServer(proxy) as peer:
        async with client_through(f"socks5://127.0.0.1:{peer.port}") as client:
            assert await client.run("acme/echo", {"a": 1}) == {"a": 1}
            async with client.realtime("acme/live") as session:
                await session.send({"a": 1})
                assert await session.recv() == {"a": 1}
        assert len(proxy.asked) >= 2


@pytest.mark.parametrize(
    ("proxy", "message"),
    [
        ("socks5://127.0.0.1:1", r"pip install 'fal-async\[socks\]'"),
        ("socks4://127.0.0.1:1", "scheme"),
        ("http://127.0.0.1:port", "cannot use the proxy"),
    ],
)
async def test_unusable_proxy_fails_before_the_request(
    client_through: Callable[[str], AsyncClient],
    monkeypatch: pytest.MonkeyPatch,
    proxy: str,
    message: str,
) -> None:
    monkeypatch.setattr(proxies, "find_spec", lambda name: None)  # as if the extra was missing
    with anyio.fail_after(PATIENCE):  # so it is not tried again either
        async with client_through(proxy) as client:
            with pytest.raises(errors.ConnectionFailedError, match=message):
                await client.run("acme/echo", {})
            with pytest.raises(errors.ConnectionFailedError, match=message):
                await client.realtime("acme/live", use_jwt=False).__aenter__()
