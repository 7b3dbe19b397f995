"""Refusal of the real hosts: their names are not resolved while tests run."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

from fal_async._core.annotations import set_module

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Network", "RealHostError"]

#: The domains of the platform.
_DOMAINS = ("fal.run", "falrun.com", "fal.ai", "fal.media")


@set_module("fal_async.pytest_plugin")
class RealHostError(RuntimeError):
    """A test tried to reach a real host of the platform.

    It is no `OSError`, so that no client retries the request.
    """


class Network:
    """The network as tests see it.

    Args:
        allowed: The real hosts that may be reached: names, names such as ``*.fal.run``, or ``*``.
    """

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = [host.lower() for host in allowed]
        self._resolve = socket.getaddrinfo
        self._no_proxy: dict[str, str | None] = {}

    def block(self) -> None:
        """Refuse to resolve the names of the real hosts.

        Every client that resolves names with Python's `socket` is refused: this package, and httpx
        except on uvloop. A proxy would resolve the names itself, so the hosts bypass proxies.
        """
        socket.getaddrinfo = self._getaddrinfo
        if not self._allowed and any(name.lower().endswith("_proxy") for name in os.environ):
            for name in ("no_proxy", "NO_PROXY"):
                self._no_proxy[name] = before = os.environ.get(name)
                domains = [text for domain in _DOMAINS for text in (domain, f".{domain}")]
                os.environ[name] = ",".join([*filter(None, [before]), *domains])

    def unblock(self) -> None:
        """Resolve all names again."""
        if socket.getaddrinfo == self._getaddrinfo:
            socket.getaddrinfo = self._resolve
        for name, before in self._no_proxy.items():
            if before is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = before

    def _getaddrinfo(self, host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode("latin-1") if isinstance(host, bytes) else host
        lowered = name.lower().rstrip(".") if isinstance(name, str) else ""
        is_real = any(lowered == each or lowered.endswith(f".{each}") for each in _DOMAINS)
        is_allowed = any(
            allowed in {"*", lowered}
            or (allowed.startswith("*.") and lowered.endswith(allowed[1:]))
            for allowed in self._allowed
        )
        if is_real and not is_allowed:
            raise RealHostError(
                f"cannot connect to {name}: tests must not reach the real platform. Use the "
                "fixture fal, and make clients after it has set the environment, not on import; "
                f"or allow the host by --fal-allow-hosts={name} or the setting fal_allow_hosts. "
                "Mocks of httpx (respx, pytest-httpx, vcrpy) apply only while they are active, and "
                "never to PooledTransport and WebSockets, which do not use httpx"
            )
        return self._resolve(host, *args, **kwargs)
