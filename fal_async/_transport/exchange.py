"""One HTTP exchange, whatever carries it: values in, values out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from fal_async._protocol.replies import Reply
from fal_async._protocol.retry import Breakdown
from fal_async._transport.errors import DecodingError, ExchangeError, InvalidURL
from fal_async._transport.time_slices import TimeSlice
from fal_async._version import __version__
from fal_async.errors import InvalidReplyError, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from fal_async._protocol.operations import Content, Request
    from fal_async._secret import Secret
    from fal_async._transport.connection import Timeouts
    from fal_async._transport.transmission import Transmission

__all__ = ["Body", "Broken", "Carrier", "OpenReply", "start"]

#: How much is read of the body of an error, in bytes, decompressed.
MAX_ERROR_BODY: Final = 8 * 1024 * 1024

USER_AGENT: Final = f"fal_async/{__version__} (python)"

#: Methods whose requests have a body, if an empty one.
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})


class Broken(Exception):  # noqa: N818 -- a signal within the transport layer, not an error of the library
    """An exchange broke; `breakdown` says how."""

    def __init__(self, breakdown: Breakdown, *, unreachable: bool = False) -> None:
        super().__init__(breakdown.reason)
        self.breakdown = breakdown
        self.unreachable = unreachable


def _broken(error: ExchangeError | OSError, *, sent: bool, request_id: str | None = None) -> Broken:
    reason = str(error) or type(error).__name__
    if not isinstance(error, ExchangeError):
        return Broken(Breakdown(reason, sent=sent, request_id=request_id))
    breakdown = Breakdown(
        error.words or reason, sent=sent, request_id=request_id, permanent=error.permanent
    )
    return Broken(breakdown, unreachable=error.unreachable and not error.permanent)


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

    @property
    def head(self) -> Reply:
        """Status and headers, as a reply without a body."""
        return Reply(status_code=self.status_code, headers=self.headers)

    async def next_chunk(self) -> bytes | None:
        """The next part of the decoded body, or ``None`` at its end; raises `Broken`."""
        if self._rest is None:
            whole, self._whole = self._whole, b""
            return whole or None
        try:
            return await anext(self._rest, None)
        except (ExchangeError, OSError) as error:
            raise _broken(
                error, sent=True, request_id=self.headers.get("x-fal-request-id")
            ) from error

    async def read(self, *, limit: int) -> Reply:
        """Read the whole body and close.

        The status of an error says more than its body, which is cut off at `MAX_ERROR_BODY`, and
        where it cannot be decompressed.

        Args:
            limit: How long the body may be, in bytes, decompressed.

        Raises:
            Broken: The rest of the body did not arrive, or cannot be decompressed.
            InvalidReplyError: The body of a success is longer than that.
        """
        body = self._whole if self._rest is None else await self._read_rest(limit)
        return Reply(status_code=self.status_code, headers=self.headers, body=body)

    async def _read_rest(self, limit: int) -> bytes:
        body = _Gathered()
        time_slice = TimeSlice()
        try:
            while body.add(await self.next_chunk()):
                if time_slice.is_over:
                    await time_slice.end()
                if body.size > limit and self.ok:
                    raise InvalidReplyError(
                        f"the reply has more than {limit} bytes, which is the limit",
                        request_id=self.headers.get("x-fal-request-id"),
                    )
                if body.size > MAX_ERROR_BODY and not self.ok:
                    break
        except Broken as error:
            if self.ok or not isinstance(error.__cause__, DecodingError):
                raise
        finally:
            await self.aclose()
        return body.join() if self.ok else body.join()[:MAX_ERROR_BODY]

    async def aclose(self) -> None:
        """Close the connection, or give it back when the body has been read."""
        self._rest = None
        close, self._close = self._close, None
        if close is not None:
            await close()


class _Gathered:
    """What has arrived of a body, which tracebacks do not show: it may be a token."""

    def __init__(self) -> None:
        self.size = 0
        self._parts: list[bytes] = []

    def add(self, chunk: bytes | None) -> bool:
        """Add a chunk, unless it is the end."""
        if chunk is None:
            return False
        self.size += len(chunk)
        self._parts.append(chunk)
        return True

    def join(self) -> bytes:
        """The whole body."""
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)


class _Reading:
    """A body that is read while it is sent."""

    def __init__(self, content: Content) -> None:
        self._chunks = aiter(content)
        self.failure: Exception | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._chunks)
        except StopAsyncIteration:
            raise
        except Exception as error:
            self.failure = error
            raise


#: The body of a request.
Body: TypeAlias = "bytes | AsyncIterator[bytes]"


class Carrier(Protocol):
    """What carries exchanges: the engine, or a transport of httpx's kind."""

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
        """Send a request and wait for the head of its reply.

        Args:
            method: The method.
            url: Where to.
            headers: The headers, complete.
            body: The body.
            timeouts: The bounds of connecting, writing and reading, in seconds.
            transmission: Says whether the request may be repeated, and learns whether it was sent.
            query: A signed query, added to the URL.

        Raises:
            ExchangeError: There is no reply.
            InvalidURL: It is not known where to.
        """
        ...

    async def prepare(self) -> None:
        """Do what the first exchange would have to do otherwise."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


async def start(
    carrier: Carrier,
    request: Request,
    url: str,
    *,
    authorization: Secret | None,
    timeout: Timeouts,
    transmission: Transmission,
) -> OpenReply:
    """Send a request and wait for the head of its reply; raises `Broken`."""
    headers: dict[str, str | Secret] = {"user-agent": USER_AGENT, **request.headers}
    if authorization is not None:
        headers.setdefault("authorization", authorization)
    content = request.content
    body = content if isinstance(content, bytes) else _Reading(content)
    if not isinstance(content, bytes):
        headers["content-length"] = str(content.size)
    elif content or request.method in _WITH_BODY:
        headers["content-length"] = str(len(content))
    try:
        return await carrier.carry(
            request.method, url, headers, body, timeout, transmission, query=request.signature
        )
    except (ExchangeError, OSError) as error:
        if isinstance(body, _Reading) and body.failure is error:
            raise  # the exchange is well, but not what was to be sent
        raise _broken(error, sent=transmission.sent) from error
    except InvalidURL as error:
        raise InvalidRequestError(f"not a URL that can be called: {error}") from error
