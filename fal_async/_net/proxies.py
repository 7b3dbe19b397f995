"""Proxies: selection by URL, and validation."""

from __future__ import annotations

import ipaddress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.request import getproxies

import httpx

from fal_async._net.errors import ProxyError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SOCKS_SCHEMES", "ProxyRules", "parse_proxy"]

#: The schemes of SOCKS proxies. With both, the proxy resolves the host name, as in httpx.
SOCKS_SCHEMES: Final = frozenset({"socks5", "socks5h"})


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
