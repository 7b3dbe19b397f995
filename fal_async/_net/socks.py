"""Tunnels of SOCKS5 proxies (RFC 1928), with a password where one is asked for (RFC 1929)."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from fal_async._net.errors import ProxyError

if TYPE_CHECKING:
    from fal_async._net.sockets import SocketStream

__all__ = ["SCHEMES", "check_installed", "open_tunnel"]

#: The schemes of SOCKS proxies. Under both names the proxy resolves the host, as with httpx.
SCHEMES: Final = frozenset({"socks5", "socks5h"})
#: How many bytes follow the first four of a response, by the type of the address.
_REST: Final = {b"\x01": 4 + 2, b"\x04": 16 + 2}
_NAME: Final = b"\x03"


def check_installed() -> None:
    """Raise where the extra is missing.

    Raises:
        ProxyError: It is.
    """
    if find_spec("socksio") is None:
        raise ProxyError(
            "SOCKS proxies need the extra 'socks': pip install 'fal-async[socks]'", permanent=True
        )


async def open_tunnel(
    stream: SocketStream, host: str, port: int, credentials: tuple[bytes, bytes] | None
) -> None:
    """Ask a proxy for a tunnel.

    Args:
        stream: The connection to the proxy.
        host: Where the tunnel leads: a name in ASCII or an IP address.
        port: The port.
        credentials: Username and password for the proxy; ``None`` for none.

    Raises:
        ProxyError: The proxy refused, or does not speak SOCKS5.
        anyio.EndOfStream: The connection was closed, or, as `anyio.BrokenResourceError`, it broke.
    """
    from socksio import ProtocolError, socks5  # an extra

    methods = [socks5.SOCKS5AuthMethod.NO_AUTH_REQUIRED]
    if credentials is not None:
        methods.append(socks5.SOCKS5AuthMethod.USERNAME_PASSWORD)
    try:
        await stream.send(socks5.SOCKS5AuthMethodsRequest(methods).dumps())
        chosen = socks5.SOCKS5AuthReply.loads(await _receive_exactly(stream, 2)).method
        if chosen not in methods:
            raise ProxyError(_refused("authentication"), permanent=True)
        if chosen is socks5.SOCKS5AuthMethod.USERNAME_PASSWORD and credentials is not None:
            await stream.send(socks5.SOCKS5UsernamePasswordRequest(*credentials).dumps())
            answer = socks5.SOCKS5UsernamePasswordReply.loads(await _receive_exactly(stream, 2))
            if not answer.success:
                raise ProxyError(_refused("username or password"), permanent=True)
        connect = socks5.SOCKS5Command.CONNECT
        await stream.send(socks5.SOCKS5CommandRequest.from_address(connect, (host, port)).dumps())
        code = socks5.SOCKS5Reply.loads(await _receive_response(stream)).reply_code
    except (ProtocolError, OverflowError) as error:
        raise ProxyError(f"the proxy does not speak SOCKS5: {error}") from error
    if code is not socks5.SOCKS5ReplyCode.SUCCEEDED:
        raise ProxyError(_refused(f"tunnel: {code.name.lower().replace('_', ' ')}"))


def _refused(what: str) -> str:
    return f"the SOCKS proxy refused the {what}"


async def _receive_response(stream: SocketStream) -> bytes:
    head = await _receive_exactly(stream, 4)
    if (kind := head[3:]) == _NAME:
        head += await _receive_exactly(stream, 1)
        return head + await _receive_exactly(stream, head[4] + 2)
    return head + await _receive_exactly(stream, _REST.get(kind, 0))


async def _receive_exactly(stream: SocketStream, size: int) -> bytes:
    """Receive so many bytes and no more: what follows them is the host's."""
    received = b""
    while len(received) < size:
        received += await stream.receive(size - len(received))
    return received
