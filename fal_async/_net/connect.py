"""DNS, Happy Eyeballs, TLS, CONNECT tunnels."""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import threading
from base64 import b64encode
from functools import partial
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import anyio
import certifi
from anyio.streams.tls import TLSAttribute

from fal_async._net import socks
from fal_async._net.errors import ConnectError, ProxyError
from fal_async._net.sockets import SocketStream
from fal_async._net.threads import Work, run_in_thread

if TYPE_CHECKING:
    from collections.abc import Sequence

    import httpx

__all__ = ["connect", "connect_via_proxy", "shared_context"]


#: How long one address may keep the others waiting, in seconds (RFC 8305, section 5).
CONNECTION_ATTEMPT_DELAY: Final = 0.25


#: The longest answer of a proxy to CONNECT, in bytes.
MAX_PROXY_RESPONSE: Final = 65536


#: The kinds of proxies that tunnels lead through, and where they are without a port.
DEFAULT_PORTS: Final = {"http": 80, **dict.fromkeys(sorted(socks.SCHEMES), 1080)}


#: A run may be silent for minutes, and routers forget connections on which nothing happens. So the
#: kernel probes a silent connection after a minute, and gives a dead one up a minute later.
_KEEPALIVE: Final = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (
            ("TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE", 60),
            ("TCP_KEEPINTVL", 15),
            ("TCP_KEEPCNT", 4),
        )
        if hasattr(socket, name)  # some systems have their own names, or none
    ),
]


_Address: TypeAlias = "tuple[socket.AddressFamily, tuple[Any, ...]]"


_Resolved: TypeAlias = "tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]"


async def connect(host: str, port: int, *, tls: ssl.SSLContext | None = None) -> SocketStream:
    """Open a connection. Deadlines are the caller's.

    Args:
        host: A name in ASCII or an IP address, IPv6 without brackets. The certificate of the peer
            is checked against it.
        port: The port.
        tls: The context of the TLS handshake; ``None`` for a plain connection.

    Raises:
        ConnectError: No connection could be made, and why.
    """
    try:
        addresses = await _getaddrinfo(host, port)
    except (OSError, UnicodeError) as error:
        message = (
            f"cannot resolve the host name {host!r}: {_reason(error)}; is this machine online?"
        )
        raise ConnectError(message) from error
    try:
        stream = SocketStream(await _happy_eyeballs(addresses))
    except OSError as error:
        raise ConnectError(f"cannot connect to {host}:{port}: {_reason(error)}") from error
    return stream if tls is None else await secure(stream, host, tls)


async def connect_via_proxy(
    proxy: httpx.Proxy, host: str, port: int, *, tls: ssl.SSLContext | None = None
) -> SocketStream:
    """Open a connection through a proxy: a tunnel by CONNECT, or by SOCKS5.

    Args:
        proxy: The proxy, with its credentials; ``http://``, ``socks5://`` or ``socks5h://``.
        host: As for `connect`.
        port: As for `connect`.
        tls: The context of the TLS handshake with the host; ``None`` for a plain connection to it.

    Raises:
        ProxyError: The proxy refused, or is of another kind. Nothing was sent to the host.
        ConnectError: The proxy could not be reached, or the TLS handshake failed.
    """
    scheme = proxy.url.scheme
    if scheme not in DEFAULT_PORTS:
        raise ProxyError(
            f"a proxy for WebSockets must be {'://, '.join(DEFAULT_PORTS)}://, got {scheme}://",
            permanent=True,
        )
    if scheme in socks.SCHEMES:
        socks.check_installed()
    address = proxy.url.raw_host.decode("ascii")
    stream = await connect(address, proxy.url.port or DEFAULT_PORTS[scheme])
    try:
        if scheme in socks.SCHEMES:
            await socks.open_tunnel(stream, host, port, proxy.raw_auth)
        else:
            await stream.send(_connect_request(proxy, host, port))
            await _read_connect_response(stream)
    except (anyio.EndOfStream, anyio.BrokenResourceError) as error:
        stream.close()
        raise ProxyError("the proxy broke off") from error
    except BaseException:
        stream.close()
        raise
    return stream if tls is None else await secure(stream, host, tls)


async def _getaddrinfo(host: str, port: int) -> list[_Address]:
    """The addresses of a host, families taking turns."""
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        found = await _resolve(host, port, socket.AF_UNSPEC)
    else:
        family = socket.AF_INET6 if ip.version == 6 else socket.AF_INET
        if "%" not in host:
            return [(family, (host, port))]
        found = await _resolve(host, port, family)
    families: dict[socket.AddressFamily, list[_Address]] = {}
    for family, _, _, _, address in found:
        families.setdefault(family, []).append((family, address))
    return [each for each in chain(*zip_longest(*families.values())) if each is not None]


async def _resolve(host: str, port: int, family: socket.AddressFamily) -> Sequence[_Resolved]:
    """Ask the system; what is blocked there after a cancellation holds up no other lookup.

    The event loops share the threads of their own resolvers with the application.
    """
    resolve = partial(socket.getaddrinfo, host, port, family=family, type=socket.SOCK_STREAM)
    return await run_in_thread(resolve, Work.LOOKUPS)


async def _happy_eyeballs(addresses: Sequence[_Address]) -> socket.socket:
    """Try one address after the other, not waiting long for any; the first to answer wins."""
    if len(addresses) == 1:
        return await _connect(addresses[0])
    connected: list[socket.socket] = []
    errors: list[OSError] = []

    async def attempt(address: _Address, settled: anyio.Event) -> None:
        try:
            connected.append(await _connect(address))
            group.cancel_scope.cancel()
        except OSError as error:
            errors.append(error)
        finally:
            settled.set()

    try:
        async with anyio.create_task_group() as group:
            for address in addresses:
                settled = anyio.Event()
                group.start_soon(attempt, address, settled)
                with anyio.move_on_after(CONNECTION_ATTEMPT_DELAY):
                    await settled.wait()
    except BaseException:
        _close_all(connected)
        raise
    if not connected:
        raise errors[0]
    _close_all(connected[1:])
    return connected[0]


def _close_all(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


async def _connect(address: _Address) -> socket.socket:
    family, target = address
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)  # noqa: FBT003 -- the method's only argument
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for level, option, value in _KEEPALIVE:
            sock.setsockopt(level, option, value)
        try:
            sock.connect(target)
        except BlockingIOError:
            await anyio.wait_writable(sock)
            _check(sock)
    except BaseException:
        sock.close()
        raise
    return sock


def _check(sock: socket.socket) -> None:
    if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(code, os.strerror(code)) from None


async def secure(stream: SocketStream, host: str, tls: ssl.SSLContext) -> SocketStream:
    """Make the TLS handshake; the result replaces the stream, which is closed on failure.

    Args:
        stream: A plain connection.
        host: The name or address that the certificate of the peer has to be for.
        tls: The context.

    Raises:
        ConnectError: The handshake failed, and why.
    """
    try:
        secured = await stream.start_tls(tls, host)
    except ssl.SSLCertVerificationError as error:
        message = f"the certificate of {host} is not valid: {error.verify_message}"
        raise ConnectError(message) from error
    except (OSError, ValueError) as error:
        raise ConnectError(f"no TLS with {host}: {_reason(error)}") from error
    protocol = secured.extra(TLSAttribute.alpn_protocol)  # noqa: S610 -- anyio's
    if protocol not in {None, "http/1.1"}:
        secured.close()
        raise ConnectError(f"{host} chose {protocol}; the SSL context may offer only http/1.1")
    return secured


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _connect_request(proxy: httpx.Proxy, host: str, port: int) -> bytes:
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    if proxy.raw_auth is not None:
        lines.append(f"Proxy-Authorization: Basic {b64encode(b':'.join(proxy.raw_auth)).decode()}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


async def _read_connect_response(stream: SocketStream) -> None:
    """Read the proxy's answer. Nothing may follow it, since the host is to be spoken to first."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        if len(answer) >= MAX_PROXY_RESPONSE:
            raise ProxyError("the answer of the proxy does not end")
        answer += await stream.receive()
    status = answer.split(b"\r\n", 1)[0].decode("latin-1")
    if not status.startswith(("HTTP/1.1 2", "HTTP/1.0 2")):
        raise ProxyError(f"the proxy refused the tunnel: {status!r}")
    if answer.index(b"\r\n\r\n") + 4 != len(answer):
        raise ProxyError("the proxy said more than it was asked")


_lock = threading.Lock()


_context: ssl.SSLContext | None = None


async def shared_context() -> ssl.SSLContext:
    """The default context, which trusts what httpx trusts.

    That is ``SSL_CERT_FILE``, or else ``SSL_CERT_DIR``, or else the roots of certifi.

    Making one takes tens of milliseconds of reading files, so it is made once, in a worker thread.

    Raises:
        ConnectError: What the environment names cannot be used. Trying again does not help.
    """
    return _context if _context is not None else await run_in_thread(_load)


def _load() -> ssl.SSLContext:
    global _context
    with _lock:
        if _context is None:
            context = _default()
            context.set_alpn_protocols(["http/1.1"])
            _context = context
    return _context


def _default() -> ssl.SSLContext:
    if file := os.environ.get("SSL_CERT_FILE"):
        return _create("SSL_CERT_FILE", cafile=file)
    if folder := os.environ.get("SSL_CERT_DIR"):
        return _create("SSL_CERT_DIR", capath=folder)
    return _create("certifi", cafile=certifi.where())


def _create(source: str, *, cafile: str | None = None, capath: str | None = None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=cafile, capath=capath)
    except OSError as error:  # that of OpenSSL is one
        reason = error.strerror or str(error)
        path = cafile or capath
        if error.filename is not None:  # OpenSSL names no file, and Python that of the key log
            source, path = "SSLKEYLOGFILE", error.filename
            what = "the file for TLS secrets cannot be written"
        else:
            what = "the trusted certificates cannot be read"
        raise ConnectError(f"{what}: {source} names {path!r}: {reason}", permanent=True) from error
