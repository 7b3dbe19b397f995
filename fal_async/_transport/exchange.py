"""One HTTP exchange over any httpx transport: values in, values out, nothing of httpx beyond."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import httpx

from fal_async._protocol.replies import Reply
from fal_async._protocol.retry import Breakdown
from fal_async._version import __version__
from fal_async.errors import InvalidReplyError, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from fal_async._protocol.operations import Content, Request

__all__ = ["Broken", "OpenReply", "start"]

#: Replies that are read whole may have this many bytes, decompressed.
MAX_BODY: Final = 512 * 1024 * 1024

USER_AGENT: Final = f"fal_async/{__version__} (python)"

_parse_url = lru_cache(maxsize=256)(httpx.URL)
#: Failures before the first byte was sent.
_UNSENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.LocalProtocolError,
)


class Broken(Exception):  # noqa: N818 -- a signal within the transport layer, not an error of the library
    """An exchange broke; `breakdown` says how."""

    def __init__(self, breakdown: Breakdown, *, unreachable: bool = False) -> None:
        super().__init__(breakdown.reason)
        self.breakdown = breakdown
        self.unreachable = unreachable


def _broken(error: httpx.RequestError | OSError) -> Broken:
    words: dict[type[Exception], str] = {
        httpx.ConnectTimeout: "connecting took too long",
        httpx.ReadTimeout: "the peer was silent for too long",
        httpx.WriteTimeout: "sending took too long",
        httpx.PoolTimeout: "no connection came free in time",
    }
    reason = words.get(type(error)) or str(error) or type(error).__name__
    return Broken(
        Breakdown(reason, sent=not isinstance(error, _UNSENT)),
        unreachable=isinstance(error, httpx.ConnectError | httpx.ConnectTimeout),
    )


class OpenReply:
    """A reply whose body has not been read yet. Whoever holds it reads it or closes it.

    Attributes:
        status_code: The HTTP status.
        headers: Names in lower case; values of repeated headers are joined by commas.
    """

    def __init__(self, response: httpx.Response) -> None:
        self.status_code = response.status_code
        self.headers = _headers(response)
        self._response = response
        self._chunks: AsyncIterator[bytes] | None = None

    @property
    def ok(self) -> bool:
        """Whether the status is one of success."""
        return 200 <= self.status_code < 300

    async def next_chunk(self) -> bytes | None:
        """The next part of the decoded body, or ``None`` at its end; raises `Broken`."""
        if self._chunks is None:
            self._chunks = self._open_body()
        try:
            return await anext(self._chunks, None)
        except (httpx.RequestError, OSError) as error:
            raise _broken(error) from error

    def _open_body(self) -> AsyncIterator[bytes]:
        stream = self._response.stream
        if "content-encoding" in self.headers or not isinstance(stream, httpx.AsyncByteStream):
            return self._response.aiter_bytes()
        return aiter(stream)  # saves httpx's bookkeeping where there is nothing to decode

    async def read(self, *, limit: int = MAX_BODY) -> Reply:
        """Read the whole body and close."""
        parts: list[bytes] = []
        size = 0
        try:
            while (chunk := await self.next_chunk()) is not None:
                size += len(chunk)
                if size > limit:
                    raise InvalidReplyError(
                        f"the reply has more than {limit} bytes",
                        request_id=self.headers.get("x-fal-request-id"),
                    )
                parts.append(chunk)
        finally:
            await self.aclose()
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        return Reply(status_code=self.status_code, headers=self.headers, body=body)

    async def aclose(self) -> None:
        """Close the connection, or give it back when the body has been read."""
        chunks, self._chunks = self._chunks, None
        try:
            if isinstance(chunks, AsyncGenerator):
                await chunks.aclose()
        finally:
            await self._response.aclose()


class _Body(httpx.AsyncByteStream):
    """A body that is read while it is sent."""

    def __init__(self, content: Content) -> None:
        self.content = content
        self.failure: Exception | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._chunks = aiter(self.content)
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._chunks)
        except StopAsyncIteration:
            raise
        except Exception as error:
            self.failure = error
            raise


async def start(
    transport: httpx.AsyncBaseTransport,
    request: Request,
    url: str,
    *,
    authorization: str | None,
    timeout: Mapping[str, float | None],
) -> OpenReply:
    """Send a request and wait for the head of its reply; raises `Broken`."""
    headers = {"user-agent": USER_AGENT, **request.headers}
    if authorization is not None:
        headers.setdefault("authorization", authorization)
    content = request.content
    body = content if isinstance(content, bytes) else _Body(content)
    if isinstance(body, _Body):
        headers["content-length"] = str(body.content.size)
    try:
        response = await transport.handle_async_request(
            httpx.Request(
                request.method,
                _parse_url(url),
                headers=headers,
                content=body,
                extensions={"timeout": timeout},
            )
        )
    except (httpx.RequestError, OSError) as error:
        if isinstance(body, _Body) and body.failure is error:
            raise  # the exchange is well, but not what was to be sent
        raise _broken(error) from error
    except httpx.InvalidURL as error:
        raise InvalidRequestError(f"not a URL that can be called: {error}") from error
    return OpenReply(response)


def _headers(response: httpx.Response) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in response.headers.raw:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
