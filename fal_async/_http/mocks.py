"""Requests while a test has put a mock in the place of httpx's transport.

Such tests trust that nothing reaches the platform, and our connections are not httpx's. So what
respx, pytest-httpx, vcrpy or a test itself has replaced carries our requests as well.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from fal_async._http.httpx_adapter import HTTPXBackend

__all__ = ["httpx_is_mocked", "over_httpx"]

#: What mocks replace. Tracing does not, or wraps it so that it still shows what it wraps.
_REPLACED: Final = (
    ("httpx", "AsyncHTTPTransport", "handle_async_request"),
    ("httpx", "AsyncClient", "_transport_for_url"),
    ("httpcore", "AsyncConnectionPool", "handle_async_request"),
    ("httpcore", "AsyncHTTPConnection", "handle_async_request"),
)
#: What was there when it was last looked at, and was no mock.
_genuine: list[Any] = []


def httpx_is_mocked() -> bool:
    """Whether a mock stands in the place of httpx's transport; no more than a look."""
    global _genuine
    if "httpx" not in sys.modules:  # which every mock imports
        return False
    found = [
        getattr(getattr(sys.modules[package], kind), method)
        for package, kind, method in _REPLACED
        if package in sys.modules
    ]
    if found == _genuine:
        return False
    if not all(map(_is_genuine, found)):
        return True
    _genuine = found
    return False


def _is_genuine(method: object) -> bool:
    """Whether a method is httpx's or httpcore's own, whatever it says of itself."""
    home: str = getattr(method, "__globals__", {}).get("__name__", "")
    return home.partition(".")[0] in {"httpx", "httpcore"}


async def over_httpx() -> HTTPXBackend:
    """A carrier over httpx as it is now, which keeps no connections."""
    import httpx  # imported already, by the code that mocks it

    # Late, since most programs mock nothing.
    from fal_async._http.httpx_adapter import HTTPXBackend
    from fal_async._net.connect import shared_context

    class Client(httpx.AsyncBaseTransport):
        """A client as a transport: some mocks replace a part of clients."""

        def __init__(self, client: httpx.AsyncClient) -> None:
            self._client = client

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            return await self._client.send(request, stream=True)

    return HTTPXBackend(
        Client(
            httpx.AsyncClient(
                verify=await shared_context(),
                trust_env=False,
                limits=httpx.Limits(max_keepalive_connections=0),
            )
        )
    )
