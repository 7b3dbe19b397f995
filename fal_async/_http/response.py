"""Streamed responses, decompression, and the `Transport` interface."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, Self, TypeAlias

from fal_async._net.errors import DecodingError, ExchangeError
from fal_async._net.time_slice import SLICE, TimeSlice
from fal_async._protocol.content_coding import CodingError, ContentDecoder, content_codings
from fal_async._protocol.response import Response
from fal_async._protocol.retry import NetworkFailure
from fal_async.errors import InvalidResponseError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    from fal_async._core.secrets import Secret
    from fal_async._http.connection import Timeouts
    from fal_async._http.transmission import Transmission

__all__ = [
    "Body",
    "BodyStream",
    "ConnectionCounts",
    "DecodedBody",
    "ExchangeFailed",
    "StreamedResponse",
    "Transport",
    "decode_headers",
]

#: Maximum number of bytes that are read of the body of an error response, decompressed.
MAX_ERROR_BODY: Final = 8 * 1024 * 1024

#: The body of a request.
Body: TypeAlias = "bytes | AsyncIterator[bytes]"


class ConnectionCounts(NamedTuple):
    """The numbers of connections.

    Attributes:
        used: The connections that carry a request.
        idle: The connections that carry none.
    """

    used: int
    idle: int


class Transport(Protocol):
    """Sends requests: over the connection pool, or over a transport of httpx."""

    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Body,
        timeouts: Timeouts,
        transmission: Transmission,
        authorization: Secret | None = None,
        query: Secret | None = None,
    ) -> StreamedResponse:
        """Send a request and wait for the head of its response.

        Args:
            method: The method.
            url: The URL.
            headers: The headers. That of the length of a body in bytes is added.
            body: The body.
            timeouts: The timeouts of connecting, writing and reading, in seconds.
            transmission: The state of the attempt, which is updated.
            authorization: The value of the ``Authorization`` header; ``None`` for none.
            query: A signed query, added to the URL; ``None`` for none.

        Raises:
            ExchangeError: There is no response.
            InvalidURL: The URL is not valid.
        """
        ...

    async def prepare(self) -> None:
        """Do what the first request would have to do otherwise."""
        ...

    def count_connections(self) -> ConnectionCounts | None:
        """Return the numbers of connections of the running event loop; ``None`` if unknown."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


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
        """Convert an error of the transport.

        Args:
            error: The error.
            sent: Whether any of the request may have reached the peer.
            request_id: The request id of the response; ``None`` if there is none.
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


class BodyStream(Protocol):
    """A body that is being received, as it was sent."""

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> bytes: ...

    def interrupt(self) -> None:
        """Let the read that waits for a chunk fail, if there is one, or else the next read."""
        ...

    async def aclose(self) -> None:
        """Close the connection, unless the body was read to its end."""
        ...


class StreamedResponse:
    """A response whose body is still being received; its owner reads it or closes it.

    It owns the connection and the slot of its request, and releases both when it is closed. If it
    is dropped, both are released when it is freed.

    Args:
        status_code: The HTTP status.
        headers: The headers.
        body: The body as it was sent: all of it, or a stream, which the response owns.
        is_decoded: Whether the body is decompressed already.

    Attributes:
        status_code: The HTTP status.
        headers: Header values by name in lower case. Repeated headers are joined by commas.
        release_slot: Releases the slot of the request; ``None`` without one.
    """

    __slots__ = ("_chunks", "_complete", "_stream", "headers", "release_slot", "status_code")

    def __init__(
        self,
        status_code: int,
        headers: Mapping[str, str],
        body: bytes | BodyStream,
        *,
        is_decoded: bool = False,
    ) -> None:
        self.status_code: int = status_code
        self.headers: Mapping[str, str] = headers
        self.release_slot: Callable[[], None] | None = None
        self._stream: BodyStream | None = None if isinstance(body, bytes) else body
        self._complete: bytes | None = None
        self._chunks: AsyncIterator[bytes] | None = None
        encoding = None if is_decoded else headers.get("content-encoding")
        if encoding is not None:
            self._chunks = DecodedBody(body, encoding)
        elif isinstance(body, bytes):
            self._complete = body
        else:
            self._chunks = body

    def __del__(self) -> None:
        if self.release_slot is not None:
            self.release_slot()

    @property
    def ok(self) -> bool:
        """True if the status is a success."""
        return 200 <= self.status_code < 300

    @property
    def head(self) -> Response:
        """Status and headers, as a response without a body."""
        return Response(status_code=self.status_code, headers=self.headers)

    async def next_chunk(self) -> bytes | None:
        """Return the next chunk of the decompressed body; ``None`` at its end.

        Raises:
            ExchangeFailed: The body was truncated, or cannot be decompressed.
        """
        if self._chunks is None:
            complete, self._complete = self._complete, None
            return complete or None
        try:
            return await anext(self._chunks, None)
        except (ExchangeError, OSError) as error:
            raise ExchangeFailed.from_error(
                error, sent=True, request_id=self.headers.get("x-fal-request-id")
            ) from error

    def interrupt(self) -> None:
        """Let the read of the body that is under way fail, if there is one, or else the next."""
        if self._stream is not None:
            self._stream.interrupt()

    async def read(self, *, limit: int) -> Response:
        """Read the whole body and close the response.

        The status of an error matters more than its body. The body of an error is therefore
        truncated at `MAX_ERROR_BODY`, or where it cannot be decompressed.

        Args:
            limit: Maximum length of the decompressed body, in bytes.

        Raises:
            ExchangeFailed: The body of a success was truncated, or cannot be decompressed.
            InvalidResponseError: The body of a success is longer than the limit.
        """
        if self._chunks is None:
            self._release_slot()
            body = self._complete or b""
            return Response(self.status_code, self.headers, body)
        buffer = _BodyBuffer()
        time_slice = TimeSlice()
        try:
            while buffer.add(await self.next_chunk()):
                if time_slice.is_over:
                    await time_slice.end()
                if buffer.size > limit and self.ok:
                    raise InvalidResponseError(
                        f"the response must have at most {limit} bytes, got more",
                        request_id=self.headers.get("x-fal-request-id"),
                    )
                if buffer.size > MAX_ERROR_BODY and not self.ok:
                    break
        except ExchangeFailed as error:
            if self.ok or not isinstance(error.__cause__, DecodingError):
                raise
        finally:
            await self.aclose()
        body = buffer.join() if self.ok else buffer.join()[:MAX_ERROR_BODY]
        return Response(status_code=self.status_code, headers=self.headers, body=body)

    async def aclose(self) -> None:
        """Release the slot; close the connection, or return it to its pool if the body was read."""
        self._release_slot()
        self._chunks = None
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.aclose()

    def _release_slot(self) -> None:
        release_slot, self.release_slot = self.release_slot, None
        if release_slot is not None:
            release_slot()


class _BodyBuffer:
    """The received part of a body. Tracebacks do not show its content, which may be a token."""

    def __init__(self) -> None:
        self.size = 0
        self._chunks: list[bytes] = []

    def add(self, chunk: bytes | None) -> bool:
        """Add a chunk; return ``False`` at the end of the body."""
        if chunk is None:
            return False
        self.size += len(chunk)
        self._chunks.append(chunk)
        return True

    def join(self) -> bytes:
        """Return the whole body."""
        return self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)


class DecodedBody:
    """The decompressed body of a response, in chunks of bounded size.

    Each chunk is decompressed when it is read. This is no generator, so an instance that is not
    read to its end needs no cleanup.

    Args:
        body: The body as it was sent: all of it, or its chunks.
        encoding: The value of the ``Content-Encoding`` header.
    """

    def __init__(self, body: Body, encoding: str) -> None:
        self._body = _SingleChunk(body) if isinstance(body, bytes) else body
        self._encoding = encoding
        self._decoder: ContentDecoder | None = None
        self._rest = memoryview(b"")
        self._time_slice = TimeSlice()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Return the next chunk.

        Raises:
            DecodingError: The body is truncated, or cannot be decompressed.
        """
        try:
            while True:
                if self._time_slice.is_over:
                    await self._time_slice.end()
                decoder = self._decoder
                chunk = None if decoder is None else decoder.step()
                if chunk:
                    return chunk
                if chunk is None:
                    await self._feed(decoder)
        except CodingError as error:
            raise DecodingError(str(error)) from error

    async def _feed(self, decoder: ContentDecoder | None) -> None:
        """Feed the decoder in slices, since it copies the rest of its input at each step."""
        if not self._rest:
            received = await anext(self._body, None)
            if received is None:
                if decoder is not None:
                    decoder.finish()
                raise StopAsyncIteration
            self._rest = memoryview(received)
        if decoder is None and self._rest:  # a response without a body may name any coding
            decoder = self._decoder = ContentDecoder(content_codings(self._encoding))
        if decoder is not None:
            decoder.feed(bytes(self._rest[:SLICE]))
            self._rest = self._rest[SLICE:]


class _SingleChunk:
    """A complete body as an iterator."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._body:
            raise StopAsyncIteration
        body, self._body = self._body, b""
        return body


def decode_headers(received: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Decode headers: names in lower case, values of repeated headers joined by commas."""
    headers: dict[str, str] = {}
    repeated: dict[str, list[str]] = {}  # joined once, so that the cost stays linear
    for raw_name, raw_value in received:
        name, value = _decode_name(raw_name), raw_value.decode("latin-1")
        if name in headers:
            repeated.setdefault(name, [headers[name]]).append(value)
        else:
            headers[name] = value
    for name, values in repeated.items():
        headers[name] = ", ".join(values)
    return headers


@lru_cache(maxsize=1024)
def _decode_name(name: bytes) -> str:
    return name.decode("latin-1").lower()
