"""One HTTP exchange over any httpx transport: values in, values out, nothing of httpx beyond."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import lru_cache
from typing import TYPE_CHECKING, Final, cast

import httpx

from fal_async._protocol.replies import Reply
from fal_async._protocol.retry import Breakdown
from fal_async._transport.encoding import compose
from fal_async._transport.pool import PooledTransport, response_of
from fal_async._transport.proxies import ProxiedTransport
from fal_async._transport.targets import locate
from fal_async._version import __version__
from fal_async.errors import InvalidReplyError, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping

    from fal_async._protocol.operations import Content, Request
    from fal_async._transport.engine import Engine

__all__ = ["Broken", "OpenReply", "start"]

#: Replies that are read whole may have this many bytes, decompressed.
MAX_BODY: Final = 512 * 1024 * 1024

USER_AGENT: Final = f"fal_async/{__version__} (python)"

_parse_url = lru_cache(maxsize=256)(httpx.URL)
#: Methods whose requests have a body, if an empty one.
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
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

    Args:
        whole: The body, if all of it is there.
        rest: The decoded body, if not.
        close: Called in the end, if there is a connection to be given back.

    Attributes:
        status_code: The HTTP status.
        headers: Names in lower case; values of repeated headers are joined by commas.
    """

    __slots__ = ("_close", "_rest", "_whole", "headers", "status_code")

    def __init__(
        self,
        status_code: int,
        headers: Mapping[str, str],
        *,
        whole: bytes = b"",
        rest: AsyncIterator[bytes] | None = None,
        close: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.status_code = status_code
        self.headers = headers
        self._whole = whole
        self._rest = rest
        self._close = close

    @property
    def ok(self) -> bool:
        """Whether the status is one of success."""
        return 200 <= self.status_code < 300

    async def next_chunk(self) -> bytes | None:
        """The next part of the decoded body, or ``None`` at its end; raises `Broken`."""
        if self._rest is None:
            whole, self._whole = self._whole, b""
            return whole or None
        try:
            return await anext(self._rest, None)
        except (httpx.RequestError, OSError) as error:
            raise _broken(error) from error

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
        rest, self._rest = self._rest, None
        close, self._close = self._close, None
        try:
            if isinstance(rest, AsyncGenerator):
                await rest.aclose()
        finally:
            if close is not None:
                await close()


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
    elif body or request.method in _WITH_BODY:
        headers["content-length"] = str(len(body))
    try:
        engine = _engine_of(transport, url)
        if engine is None:
            return await _over_httpx(transport, request.method, url, headers, body, timeout)
        return await _over_engine(engine, request.method, url, headers, body, timeout)
    except (httpx.RequestError, OSError) as error:
        if isinstance(body, _Body) and body.failure is error:
            raise  # the exchange is well, but not what was to be sent
        raise _broken(error) from error
    except httpx.InvalidURL as error:
        raise InvalidRequestError(f"not a URL that can be called: {error}") from error


def _engine_of(transport: httpx.AsyncBaseTransport, url: str) -> Engine | None:
    """What may be asked without the objects of httpx; a subclass may want to see those."""
    if type(transport) in (PooledTransport, ProxiedTransport):
        return cast("PooledTransport | ProxiedTransport", transport).engine_for(url)
    return None


async def _over_engine(
    engine: Engine,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes | _Body,
    timeout: Mapping[str, float | None],
) -> OpenReply:
    origin, host, target = locate(url)
    outgoing = compose(
        method,
        host,
        target,
        [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()],
        body if isinstance(body, bytes) else aiter(body),
    )
    incoming = await engine.exchange(origin, outgoing, timeout)
    reply, rest = incoming
    received = _headers(reply.headers)
    if "content-encoding" in received:
        return _opened(response_of(incoming))
    if rest is None:
        return OpenReply(reply.status, received, whole=reply.take())
    return OpenReply(reply.status, received, rest=rest, close=rest.aclose)


async def _over_httpx(
    transport: httpx.AsyncBaseTransport,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes | _Body,
    timeout: Mapping[str, float | None],
) -> OpenReply:
    request = httpx.Request(
        method, _parse_url(url), headers=headers, content=body, extensions={"timeout": timeout}
    )
    return _opened(await transport.handle_async_request(request))


def _opened(response: httpx.Response) -> OpenReply:
    headers = _headers(response.headers.raw)
    stream = response.stream
    rest = response.aiter_bytes()
    if "content-encoding" not in headers and isinstance(stream, httpx.AsyncByteStream):
        rest = aiter(stream)  # saves httpx's bookkeeping where there is nothing to decode
    return OpenReply(response.status_code, headers, rest=rest, close=response.aclose)


def _headers(received: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in received:
        name, value = _name(raw_name), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


@lru_cache(maxsize=1024)
def _name(raw: bytes) -> str:
    return raw.decode("latin-1").lower()
