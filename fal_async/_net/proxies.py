"""Proxy selection from environment variables."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, TypeAlias
from urllib.request import getproxies

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

__all__ = ["ProxyRules"]


_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


class ProxyRules:
    """Which proxy is for which URL.

    Args:
        proxies: Proxy URLs by scheme: ``http``, ``https``, ``all``; and under ``no`` what is
            reached directly, separated by commas: a host (which stands for its subdomains too),
            ``.suffix``, ``host:port``, an address, a network such as ``10.0.0.0/8``, or ``*``.

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
        """The rules of ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``."""
        return cls(getproxies())

    def __bool__(self) -> bool:
        return bool(self._proxies)

    def find(self, url: httpx.URL) -> str | None:
        """The proxy for a URL, ``ws`` as for ``http``; ``None`` for the direct way."""
        scheme = {"ws": "http", "wss": "https"}.get(url.scheme, url.scheme)
        proxy = self._proxies.get(scheme) or self._proxies.get("all")
        if proxy is None or self._bypasses(url, 443 if scheme == "https" else 80):
            return None
        return proxy

    def _bypasses(self, url: httpx.URL, default_port: int) -> bool:
        host = url.raw_host.decode("ascii").lower().rstrip(".")
        port = str(url.port or default_port)
        return any(_matches(entry, host, port) for entry in self._exceptions)


def _matches(entry: str, host: str, port: str) -> bool:
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
