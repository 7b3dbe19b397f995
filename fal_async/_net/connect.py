"""DNS, Happy Eyeballs and TLS."""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import threading
from functools import partial
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import anyio
from anyio.streams.tls import TLSAttribute

from fal_async._net.errors import ConnectError
from fal_async._net.sockets import SocketStream
from fal_async._net.threads import Work, run_in_thread

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["connect", "secure", "shared_context"]

#: Time after which the next address is tried as well, in seconds (RFC 8305, section 5).
CONNECTION_ATTEMPT_DELAY: Final = 0.25

#: TCP keepalive. A run may send nothing for minutes, and routers forget idle connections. The
#: kernel probes an idle connection after a minute, and closes a dead one a minute later.
_KEEPALIVE: Final = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (
            ("TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE", 60),
            ("TCP_KEEPINTVL", 15),
            ("TCP_KEEPCNT", 4),
        )
        if hasattr(socket, name)  # some systems have other names, or none
    ),
]

_Address: TypeAlias = "tuple[socket.AddressFamily, tuple[Any, ...]]"


async def connect(host: str, port: int, *, tls: ssl.SSLContext | None = None) -> SocketStream:
    """Open a connection. The caller limits the time.

    Args:
        host: A name in ASCII or an IP address, IPv6 without brackets. The certificate of the peer
            must match it.
        port: The port.
        tls: The context of the TLS handshake; ``None`` for a plain connection.

    Raises:
        ConnectError: No connection could be made.
    """
    try:
        addresses = await _resolve(host, port)
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


async def secure(stream: SocketStream, host: str, tls: ssl.SSLContext) -> SocketStream:
    """Do the TLS handshake; the result replaces the stream, which is closed on failure.

    Args:
        stream: A plain connection.
        host: The name or address that the certificate of the peer must match.
        tls: The context.

    Raises:
        ConnectError: The handshake failed.
    """
    try:
        secured = await stream.start_tls(tls, host)
    except ssl.SSLCertVerificationError as error:
        message = f"the certificate of {host} is not valid: {error.verify_message}"
        raise ConnectError(message) from error
    except (OSError, ValueError) as error:
        raise ConnectError(f"cannot start TLS with {host}: {_reason(error)}") from error
    protocol = secured.extra(TLSAttribute.alpn_protocol)  # noqa: S610 -- anyio's
    if protocol not in {None, "http/1.1"}:
        secured.close()
        raise ConnectError(
            f"the SSL context must offer only http/1.1, got {protocol}, which {host} selected"
        )
    return secured


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


async def _resolve(host: str, port: int) -> list[_Address]:
    """Return the addresses of a host, with alternating address families."""
    family = socket.AF_UNSPEC
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    else:
        family = socket.AF_INET6 if ip.version == 6 else socket.AF_INET
        if "%" not in host:
            return [(family, (host, port))]
    # The event loops share the threads of their own resolvers with the application. Here a blocked
    # lookup whose caller was cancelled delays no other one.
    resolve = partial(socket.getaddrinfo, host, port, family=family, type=socket.SOCK_STREAM)
    families: dict[socket.AddressFamily, list[_Address]] = {}
    for family, _, _, _, address in await run_in_thread(resolve, Work.LOOKUPS):
        families.setdefault(family, []).append((family, address))
    return [each for each in chain(*zip_longest(*families.values())) if each is not None]


async def _happy_eyeballs(addresses: Sequence[_Address]) -> socket.socket:
    """Connect to one address after the other, without a long wait; the first connection wins."""
    if len(addresses) == 1:
        return await _connect(addresses[0])
    connected: list[socket.socket] = []
    errors: list[OSError] = []

    async def attempt(address: _Address, done: anyio.Event) -> None:
        try:
            connected.append(await _connect(address))
            group.cancel_scope.cancel()
        except OSError as error:
            errors.append(error)
        finally:
            done.set()

    try:
        async with anyio.create_task_group() as group:
            for address in addresses:
                done = anyio.Event()
                group.start_soon(attempt, address, done)
                with anyio.move_on_after(CONNECTION_ATTEMPT_DELAY):
                    await done.wait()
    except BaseException:
        for sock in connected:
            sock.close()
        raise
    if not connected:
        raise errors[0]
    for sock in connected[1:]:
        sock.close()
    return connected[0]


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
            if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(code, os.strerror(code)) from None
    except BaseException:
        sock.close()
        raise
    return sock


_lock = threading.Lock()
_context: ssl.SSLContext | None = None


async def shared_context() -> ssl.SSLContext:
    """Return the default context, which trusts the same certificates as httpx.

    These are the certificates of ``SSL_CERT_FILE``, of ``SSL_CERT_DIR``, or of certifi. Loading
    them takes tens of milliseconds, so it is done once, in a worker thread.

    Raises:
        ConnectError: The certificates cannot be read. A retry does not help.
    """
    return _context if _context is not None else await run_in_thread(_load_context)


def _load_context() -> ssl.SSLContext:
    global _context
    with _lock:
        if _context is None:
            if file := os.environ.get("SSL_CERT_FILE"):
                context = _create_context("SSL_CERT_FILE", file=file)
            elif folder := os.environ.get("SSL_CERT_DIR"):
                context = _create_context("SSL_CERT_DIR", folder=folder)
            else:
                import certifi  # slow to import, and this is a worker thread

                context = _create_context("certifi", file=certifi.where())
            context.set_alpn_protocols(["http/1.1"])
            _context = context
    return _context


def _create_context(
    source: str, *, file: str | None = None, folder: str | None = None
) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=file, capath=folder)
    except OSError as error:  # ssl.SSLError is one
        reason = error.strerror or str(error)
        path = file or folder
        if error.filename is not None:  # OpenSSL names no file; Python names that of the key log
            source, path = "SSLKEYLOGFILE", error.filename
            action = "write the file for TLS secrets"
        else:
            action = "read the trusted certificates"
        raise ConnectError(
            f"cannot {action}: {source} names {path!r}: {reason}", permanent=True
        ) from error
