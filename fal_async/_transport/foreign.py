"""What carries exchanges over transports of httpx's kind."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, Self

import httpx

from fal_async._protocol.origins import with_query
from fal_async._secret import Secret
from fal_async._transport.carriers import headers_of
from fal_async._transport.decoding import DecodedBody
from fal_async._transport.errors import (
    ConnectError,
    ConnectTimeout,
    InvalidURL,
    LocalProtocolError,
    PoolTimeout,
    ProxyError,
    UnsupportedProtocol,
    kind_of,
)
from fal_async._transport.exchange import OpenReply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from fal_async._transport.connection import Timeouts
    from fal_async._transport.exchange import Body
    from fal_async._transport.transmission import Transmission

__all__ = ["Foreign"]

#: Errors by which a transport says that nothing was sent.
_UNSENT: Final = (
    ConnectError,
    ConnectTimeout,
    LocalProtocolError,
    PoolTimeout,
    ProxyError,
    UnsupportedProtocol,
)
_parse_url = lru_cache(maxsize=256)(httpx.URL)


class Foreign:
    """Carries exchanges over a transport that is not ours.

    Args:
        transport: The transport.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

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
        """Send a request and wait for the head of its reply, as `Carrier` says."""
        extensions: dict[str, Any] = {"timeout": timeouts}
        if type(self._transport) is httpx.AsyncHTTPTransport:  # it tells, and the rest may not
            extensions["trace"] = partial(_note_sending, transmission)
        try:
            carried = self._transport.handle_async_request(
                _make_request(method, url, headers, body, extensions, query)
            )
            if "trace" not in extensions:
                transmission.sent = True
            return _opened(await carried)
        except httpx.InvalidURL as error:
            raise InvalidURL(str(error)) from error
        except httpx.RequestError as error:
            kind = kind_of(error)
            if issubclass(kind, _UNSENT):
                transmission.sent = False
            raise kind(str(error)) from error

    async def prepare(self) -> None:
        """A transport that is not ours prepares itself."""

    async def aclose(self) -> None:
        """Close the transport."""
        await self._transport.aclose()


async def _note_sending(transmission: Transmission, event: str, info: Mapping[str, Any]) -> None:
    """Learn from httpx's transport that it begins to send; a tunnel is asked for by CONNECT."""
    if event == "http11.send_request_headers.started" and info["request"].method != b"CONNECT":
        transmission.sent = True


def _make_request(
    method: str,
    url: str,
    headers: Mapping[str, str | Secret],
    body: Body,
    extensions: dict[str, Any],
    query: Secret | None,
) -> httpx.Request:
    """The request as httpx has it, which shows its URL to whoever looks at a variable."""
    return httpx.Request(
        method,
        _parse_url(url if query is None else with_query(url, query)),
        headers={
            name.encode(): (value.reveal() if isinstance(value, Secret) else value).encode(
                "latin-1"
            )
            for name, value in headers.items()
        },
        content=body,
        extensions=extensions,
    )


def _opened(response: httpx.Response) -> OpenReply:
    headers, raw = headers_of(response.headers.raw), _Body(response)
    encoding = headers.get("content-encoding")
    body = raw if encoding is None or raw.is_decoded else DecodedBody(raw, encoding)
    return OpenReply(response.status_code, headers, rest=body, close=raw.aclose)


class _Body:
    """The body of a reply of httpx as it was sent.

    Attributes:
        is_decoded: Whether the transport has read and decompressed it already.
    """

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        stream = response.stream
        was_read = response.is_stream_consumed and not isinstance(stream, httpx.ByteStream)
        self.is_decoded = was_read or not isinstance(stream, httpx.AsyncByteStream)
        self._chunks: AsyncIterator[bytes] = (
            aiter(stream)
            if isinstance(stream, httpx.AsyncByteStream) and not was_read
            else response.aiter_bytes()
        )

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._chunks)
        except httpx.RequestError as error:
            raise kind_of(error)(str(error)) from error

    async def aclose(self) -> None:
        chunks = self._chunks
        try:
            if isinstance(chunks, AsyncGenerator):
                await chunks.aclose()
        finally:
            await self._response.aclose()
