"""`StreamedResponse`; the `Transport` interface."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, Protocol, Self, TypeAlias

from fal_async._net.errors import DecodingError, ExchangeError
from fal_async._net.time_slices import TimeSlice
from fal_async._protocol.response import Response
from fal_async._protocol.retry import NetworkFailure
from fal_async.errors import InvalidResponseError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping

    from fal_async._core.secrets import Secret
    from fal_async._http.connection import Timeouts
    from fal_async._http.transmission import Transmission

__all__ = ["Body", "ExchangeFailed", "StreamedResponse", "Transport", "decode_headers"]


#: How much is read of the body of an error, in bytes, decompressed.
MAX_ERROR_BODY: Final = 8 * 1024 * 1024


class ExchangeFailed(Exception):  # noqa: N818 -- a signal to the retry loop, not an error of a call
    """No complete response arrived.

    Attributes:
        failure: The reason, for retries and errors.
        unreachable: Whether a backup host may be reachable instead.
    """

    def __init__(self, failure: NetworkFailure, *, unreachable: bool = False) -> None:
        super().__init__(failure.reason)
        self.failure = failure
        self.unreachable = unreachable

    @classmethod
    def from_error(
        cls, error: ExchangeError | OSError, *, sent: bool, request_id: str | None = None
    ) -> Self:
        """Make one from the error of a transport.

        Args:
            error: The error.
            sent: Whether any of the request may have reached the peer.
            request_id: The id that the headers of the response contain; ``None`` without one.
        """
        reason = str(error) or type(error).__name__
        if not isinstance(error, ExchangeError):
            return cls(NetworkFailure(reason, sent=sent, request_id=request_id))
        failure = NetworkFailure(
            error.summary or reason, sent=sent, request_id=request_id, permanent=error.permanent
        )
        return cls(failure, unreachable=error.unreachable and not error.permanent)

    def __str__(self) -> str:
        return self.failure.reason


class StreamedResponse:
    """A response whose body is still being received. Its receiver reads it or closes it.

    It owns the connection and the slot of its request, and releases both when it is closed. The
    slot of a response that was dropped is released when the response is freed.

    Args:
        status_code: The HTTP status.
        headers: The names in lower case; values of repeated headers are joined by commas.
        whole: The body, if it has arrived completely.
        rest: The decoded chunks of the body, if it has not.
        close: Closes the connection, or releases it for reuse; ``None`` without one.

    Attributes:
        status_code: The HTTP status.
        headers: The headers.
        release_slot: Releases the slot of the request; ``None`` without one.
    """

    __slots__ = ("_close", "_rest", "_whole", "headers", "release_slot", "status_code")

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
        self.release_slot: Callable[[], None] | None = None
        self._whole = whole
        self._rest = rest
        self._close = close

    def __del__(self) -> None:
        self._release_slot()

    @property
    def ok(self) -> bool:
        """Whether the status is one of success."""
        return 200 <= self.status_code < 300

    @property
    def head(self) -> Response:
        """Status and headers, as a response without a body."""
        return Response(status_code=self.status_code, headers=self.headers)

    async def next_chunk(self) -> bytes | None:
        """The next part of the decoded body, or ``None`` at its end; raises `ExchangeFailed`."""
        if self._rest is None:
            whole, self._whole = self._whole, b""
            return whole or None
        try:
            return await anext(self._rest, None)
        except (ExchangeError, OSError) as error:
            request_id = self.headers.get("x-fal-request-id")
            raise ExchangeFailed.from_error(error, sent=True, request_id=request_id) from error

    async def read(self, *, limit: int) -> Response:
        """Read the whole body and close.

        The status of an error says more than its body, which is cut off at `MAX_ERROR_BODY`, and
        where it cannot be decompressed.

        Args:
            limit: How long the body may be, in bytes, decompressed.

        Raises:
            Broken: The rest of the body did not arrive, or cannot be decompressed.
            InvalidResponseError: The body of a success is longer than that.
        """
        if self._rest is None:
            body = self._whole
            self._release_slot()
        else:
            body = await self._read_rest(limit)
        return Response(status_code=self.status_code, headers=self.headers, body=body)

    async def _read_rest(self, limit: int) -> bytes:
        body = _Gathered()
        time_slice = TimeSlice()
        try:
            while body.add(await self.next_chunk()):
                if time_slice.is_over:
                    await time_slice.end()
                if body.size > limit and self.ok:
                    raise InvalidResponseError(
                        f"the response has more than {limit} bytes, which is the limit",
                        request_id=self.headers.get("x-fal-request-id"),
                    )
                if body.size > MAX_ERROR_BODY and not self.ok:
                    break
        except ExchangeFailed as error:
            if self.ok or not isinstance(error.__cause__, DecodingError):
                raise
        finally:
            await self.aclose()
        return body.join() if self.ok else body.join()[:MAX_ERROR_BODY]

    async def aclose(self) -> None:
        """Release the slot, and close the connection, or release it if the body has been read."""
        self._release_slot()
        self._rest = None
        close, self._close = self._close, None
        if close is not None:
            await close()

    def _release_slot(self) -> None:
        release_slot, self.release_slot = self.release_slot, None
        if release_slot is not None:
            release_slot()


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


#: The body of a request.
Body: TypeAlias = "bytes | AsyncIterator[bytes]"


class Transport(Protocol):
    """What carries exchanges: the engine, or a transport of httpx's kind."""

    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str | Secret],
        body: Body,
        timeouts: Timeouts,
        transmission: Transmission,
        *,
        query: Secret | None = None,
    ) -> StreamedResponse:
        """Send a request and wait for the head of its response.

        Args:
            method: The method.
            url: Where to.
            headers: The headers, complete.
            body: The body.
            timeouts: The bounds of connecting, writing and reading, in seconds.
            transmission: Says whether the request may be repeated, and learns whether it was sent.
            query: A signed query, added to the URL.

        Raises:
            ExchangeError: There is no response.
            InvalidURL: It is not known where to.
        """
        ...

    async def prepare(self) -> None:
        """Do what the first exchange would have to do otherwise."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


def decode_headers(received: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Names in lower case; values of repeated headers are joined by commas."""
    headers: dict[str, str] = {}
    repeated: dict[str, list[str]] = {}  # joined once, so that many of a name cost no more each
    for raw_name, raw_value in received:
        name, value = _name(raw_name), raw_value.decode("latin-1")
        if name in headers:
            repeated.setdefault(name, [headers[name]]).append(value)
        else:
            headers[name] = value
    for name, values in repeated.items():
        headers[name] = ", ".join(values)
    return headers


@lru_cache(maxsize=1024)
def _name(raw: bytes) -> str:
    return raw.decode("latin-1").lower()
