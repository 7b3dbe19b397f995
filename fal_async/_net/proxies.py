"""Proxies: selection by URL, validation, and tunnels by CONNECT and by SOCKS5."""

from __future__ import annotations

import ipaddress
from base64 import b64encode
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.request import getproxies

import anyio
import httpx

from fal_async._net.connect import connect, secure
from fal_async._net.errors import ProxyError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from fal_async._net.sockets import SocketStream

__all__ = ["ProxyRules", "connect_via_proxy", "parse_proxy"]

#: The schemes of SOCKS proxies. With both, the proxy resolves the host name, as in httpx.
SOCKS_SCHEMES: Final = frozenset({"socks5", "socks5h"})
#: Default ports, by the scheme of the proxy.
DEFAULT_PORTS: Final = {"http": 80, **dict.fromkeys(sorted(SOCKS_SCHEMES), 1080)}
#: Maximum length of a proxy's response to CONNECT, in bytes.
MAX_PROXY_RESPONSE: Final = 65536


class ProxyRules:
    """Rules that select the proxy of a URL.

    Args:
        proxies: Proxy URLs by scheme: ``http``, ``https``, ``all``. The entry ``no`` lists the
            hosts that are connected to directly, separated by commas: a host (with its
            subdomains), ``.suffix``, ``host:port``, an address, a network such as ``10.0.0.0/8``,
            or ``*``.

    Example:
        >>> import httpx
        >>> rules = ProxyRules({"https": "http://proxy:3128", "no": "localhost,.internal"})
        >>> rules.find(httpx.URL("https://fal.run/")), rules.find(httpx.URL("https://a.internal/"))
        ('http://proxy:3128', None)
    """

    def __init__(self, proxies: Mapping[str, str]) -> None:
        self._proxies = {
            scheme: url if "://" in url else f"http://{url}"
            for scheme in ("http", "https", "all")
            if (url := proxies.get(scheme, "").strip())
        }
        self._exceptions = [
            entry for part in proxies.get("no", "").split(",") if (entry := part.strip().lower())
        ]

    @classmethod
    def from_environment(cls) -> ProxyRules:
        """Read ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``."""
        return cls(getproxies())

    def __bool__(self) -> bool:
        return bool(self._proxies)

    def find(self, url: httpx.URL) -> str | None:
        """Return the proxy of a URL; ``None`` for a direct connection.

        The proxies of ``http`` and ``https`` are also those of ``ws`` and ``wss``.
        """
        scheme = {"ws": "http", "wss": "https"}.get(url.scheme, url.scheme)
        proxy = self._proxies.get(scheme) or self._proxies.get("all")
        host = url.raw_host.decode("ascii").lower().rstrip(".")
        port = str(url.port or (443 if scheme == "https" else 80))
        if any(_matches(entry, host, port) for entry in self._exceptions):
            return None
        return proxy


def _matches(entry: str, host: str, port: str) -> bool:
    if entry == "*":
        return True
    network = _parse_network(entry)
    if network is None:
        name, colon, entry_port = entry.rpartition(":")
        if colon and entry_port.isdigit():
            if entry_port != port:
                return False
            entry, network = name, _parse_network(name)
    if network is not None:
        try:
            return ipaddress.ip_address(host) in network
        except ValueError:
            return False
    name = entry.lstrip("*").strip(".")
    return host == name or host.endswith(f".{name}")


_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


def _parse_network(text: str) -> _Network | None:
    try:
        return ipaddress.ip_network(text.removeprefix("[").removesuffix("]"), strict=False)
    except ValueError:
        return None


def parse_proxy(url: str) -> httpx.Proxy:
    """Parse the URL of a proxy, and check that the proxy is supported.

    Raises:
        ProxyError: The URL is not valid, or a package is missing.
    """
    try:
        proxy = httpx.Proxy(url)
    except (ValueError, httpx.InvalidURL) as error:
        raise ProxyError(
            f"cannot use the proxy of the environment: {error}", permanent=True
        ) from error
    if proxy.url.scheme in SOCKS_SCHEMES and find_spec("socksio") is None:
        raise ProxyError(
            "SOCKS proxies need the extra 'socks': pip install 'fal-async[socks]'", permanent=True
        )
    return proxy


async def connect_via_proxy(
    proxy: httpx.Proxy, host: str, port: int, *, tls: ssl.SSLContext | None = None
) -> SocketStream:
    """Open a connection through a proxy. The caller limits the time.

    Args:
        proxy: The proxy, with its credentials; ``http://``, ``socks5://`` or ``socks5h://``.
        host: The host to connect to: a name in ASCII or an IP address, IPv6 without brackets.
        port: The port of the host.
        tls: The context of the TLS handshake with the host; ``None`` for a plain connection.

    Raises:
        ProxyError: The proxy refused the connection, or is of another kind. Nothing was sent to the
            host.
        ConnectError: Connecting to the proxy failed, or the TLS handshake failed.
    """
    scheme = proxy.url.scheme
    if scheme not in DEFAULT_PORTS:
        raise ProxyError(
            f"a proxy for WebSockets must be {'://, '.join(DEFAULT_PORTS)}://, got {scheme}://",
            permanent=True,
        )
    address = proxy.url.raw_host.decode("ascii")
    stream = await connect(address, proxy.url.port or DEFAULT_PORTS[scheme])
    try:
        if scheme in SOCKS_SCHEMES:
            await _open_socks_tunnel(stream, host, port, proxy.raw_auth)
        else:
            await _open_http_tunnel(stream, host, port, proxy.raw_auth)
    except (anyio.EndOfStream, anyio.BrokenResourceError) as error:
        stream.close()
        raise ProxyError("the proxy closed the connection") from error
    except BaseException:
        stream.close()
        raise
    return stream if tls is None else await secure(stream, host, tls)


async def _open_http_tunnel(
    stream: SocketStream, host: str, port: int, credentials: tuple[bytes, bytes] | None
) -> None:
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if credentials is not None:
        lines.append(f"Proxy-Authorization: Basic {b64encode(b':'.join(credentials)).decode()}")
    await stream.send("\r\n".join([*lines, "", ""]).encode("ascii"))
    response = b""
    while b"\r\n\r\n" not in response:
        if len(response) >= MAX_PROXY_RESPONSE:
            raise ProxyError(
                f"the response of the proxy must have at most {MAX_PROXY_RESPONSE} bytes, got more"
            )
        response += await stream.receive()
    status = response.split(b"\r\n", 1)[0].decode("latin-1")
    if not status.startswith(("HTTP/1.1 2", "HTTP/1.0 2")):
        raise ProxyError(f"the proxy refused the tunnel: {status!r}")
    if response.partition(b"\r\n\r\n")[2]:  # the host sends nothing before it gets a request
        raise ProxyError("the proxy sent more than a response")


async def _open_socks_tunnel(
    stream: SocketStream, host: str, port: int, credentials: tuple[bytes, bytes] | None
) -> None:
    """Open a tunnel by SOCKS5 (RFC 1928), with a password if the proxy asks for it (RFC 1929)."""
    from socksio import ProtocolError, socks5  # an extra

    methods = [socks5.SOCKS5AuthMethod.NO_AUTH_REQUIRED]
    if credentials is not None:
        methods.append(socks5.SOCKS5AuthMethod.USERNAME_PASSWORD)
    try:
        await stream.send(socks5.SOCKS5AuthMethodsRequest(methods).dumps())
        method = socks5.SOCKS5AuthReply.loads(await _receive_exactly(stream, 2)).method
        if method not in methods:
            raise ProxyError("the SOCKS proxy refused the authentication", permanent=True)
        if method is socks5.SOCKS5AuthMethod.USERNAME_PASSWORD and credentials is not None:
            await stream.send(socks5.SOCKS5UsernamePasswordRequest(*credentials).dumps())
            outcome = socks5.SOCKS5UsernamePasswordReply.loads(await _receive_exactly(stream, 2))
            if not outcome.success:
                raise ProxyError("the SOCKS proxy refused the username or password", permanent=True)
        command = socks5.SOCKS5Command.CONNECT
        await stream.send(socks5.SOCKS5CommandRequest.from_address(command, (host, port)).dumps())
        response = await _receive_exactly(stream, 4)
        address_type = response[3]
        if address_type == 3:  # a name, after its length
            response += await _receive_exactly(stream, 1)
            size = response[4]
        else:
            size = {1: 4, 4: 16}.get(address_type, -2)
        response += await _receive_exactly(stream, size + 2)
        code = socks5.SOCKS5Reply.loads(response).reply_code
    except (ProtocolError, OverflowError) as error:
        raise ProxyError(f"the proxy does not use SOCKS5: {error}") from error
    if code is not socks5.SOCKS5ReplyCode.SUCCEEDED:
        reason = code.name.lower().replace("_", " ")
        raise ProxyError(f"the SOCKS proxy refused the tunnel: {reason}")


async def _receive_exactly(stream: SocketStream, size: int) -> bytes:
    """Receive exactly this many bytes; the bytes after them are from the host."""
    received = b""
    while len(received) < size:
        received += await stream.receive(size - len(received))
    return received
