"""Proxies that the environment names, and what carries exchanges by way of them."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, TypeAlias
from urllib.request import getproxies

import httpx

from fal_async._transport.errors import InvalidURL, ProxyError
from fal_async._transport.foreign import Foreign
from fal_async._transport.loops import PerLoop
from fal_async._transport.socks import SCHEMES, check_installed
from fal_async._transport.tls import shared_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from fal_async._secret import Secret
    from fal_async._transport.carriers import Pooled
    from fal_async._transport.connection import Timeouts
    from fal_async._transport.exchange import Body, OpenReply
    from fal_async._transport.transmission import Transmission

__all__ = ["Proxied", "ProxyRules", "parse_proxy"]

_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
_Transports: TypeAlias = dict[str, httpx.AsyncHTTPTransport]


class ProxyRules:
    """Which proxy is for which URL.

    Args:
        proxies: Proxy URLs by scheme: ``http``, ``https``, ``all``; and under ``no`` what is
            reached directly, separated by commas: a host (which stands for its subdomains too),
            ``.suffix``, ``host:port``, an address, a network such as ``10.0.0.0/8``, or ``*``.

    Example:
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
        """The rules of ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``."""
        return cls(getproxies())

    def __bool__(self) -> bool:
        return bool(self._proxies)

    def find(self, url: httpx.URL) -> str | None:
        """The proxy for a URL, ``ws`` as for ``http``; ``None`` for the direct way."""
        scheme = {"ws": "http", "wss": "https"}.get(url.scheme, url.scheme)
        proxy = self._proxies.get(scheme) or self._proxies.get("all")
        if proxy is None or self._is_excepted(url, 443 if scheme == "https" else 80):
            return None
        return proxy

    def _is_excepted(self, url: httpx.URL, default_port: int) -> bool:
        host = url.raw_host.decode("ascii").lower().rstrip(".")
        port = str(url.port or default_port)
        return any(_covers(entry, host, port) for entry in self._exceptions)


def _covers(entry: str, host: str, port: str) -> bool:
    if entry == "*":
        return True
    network = _network(entry)
    if network is not None:
        return _address_in(network, host)
    name, entry_port = _split_port(entry)
    if entry_port is not None and entry_port != port:
        return False
    network = _network(name)
    if network is not None:
        return _address_in(network, host)
    name = name.lstrip("*").strip(".")
    return host == name or host.endswith(f".{name}")


def _split_port(entry: str) -> tuple[str, str | None]:
    name, colon, port = entry.rpartition(":")
    return (name, port) if colon and port.isdigit() else (entry, None)


def _network(text: str) -> _Network | None:
    try:
        return ipaddress.ip_network(text.removeprefix("[").removesuffix("]"), strict=False)
    except ValueError:
        return None


def _address_in(network: _Network, host: str) -> bool:
    try:
        return ipaddress.ip_address(host) in network
    except ValueError:
        return False


class Proxied:
    """Carries what the rules cover through httpx's own transport, and the rest over the engine.

    Args:
        rules: Which proxy is for which URL.
        direct: Carries the rest.
    """

    def __init__(self, rules: ProxyRules, direct: Pooled) -> None:
        self._rules = rules
        self._direct = direct
        self._proxied: PerLoop[_Transports] = PerLoop(dict, _close)
        self._closed = False

    async def carry(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str | Secret],
        body: Body,
        timeouts: Timeouts,
        transmission: Transmission,
        *,
        query: Secret | None = None,
    ) -> OpenReply:
        """Send a request and wait for the head of its reply, as `Carrier` says.

        Raises:
            ProxyError: The proxy refused, or cannot be used.
        """
        proxy = self._find(url)
        if proxy is None:
            return await self._direct.carry(
                method, url, headers, body, timeouts, transmission, query=query
            )
        if self._closed:
            raise RuntimeError("the transport is closed")
        context = await shared_context()
        transports = self._proxied.get()
        if proxy not in transports:
            transports[proxy] = _through(proxy, context)
        foreign = Foreign(transports[proxy])
        return await foreign.carry(method, url, headers, body, timeouts, transmission, query=query)

    def _find(self, url: str) -> str | None:
        try:
            return self._rules.find(httpx.URL(url))
        except httpx.InvalidURL as error:
            raise InvalidURL(str(error)) from error

    async def prepare(self) -> None:
        """Load the trusted certificates."""
        await self._direct.prepare()

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        self._closed = True
        try:
            await _close(self._proxied.pop() or {})
        finally:
            await self._direct.aclose()


def parse_proxy(url: str) -> httpx.Proxy:
    """Read the URL of a proxy, and check that the proxy can be used.

    Raises:
        ProxyError: It cannot, as long as nothing changes here.
    """
    try:
        proxy = httpx.Proxy(url)
    except (ValueError, httpx.InvalidURL) as error:
        raise ProxyError(
            f"the proxy of the environment cannot be used: {error}", permanent=True
        ) from error
    if proxy.url.scheme in SCHEMES:
        check_installed()
    return proxy


def _through(proxy: str, context: ssl.SSLContext) -> httpx.AsyncHTTPTransport:
    # How much goes on at once is for the client to bound.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncHTTPTransport(verify=context, proxy=parse_proxy(proxy), limits=limits)


async def _close(transports: _Transports) -> None:
    while transports:
        _, transport = transports.popitem()
        await transport.aclose()
