# Generated from _client/handle.py, _client/http_over_websocket.py, _client/sessions.py and
# _client/stream.py by `python -m tests.generate_sync`. Do not edit: change the source and run that
# command.
"""Blocking wrappers of handles, streams and connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fal_async._client.handle import AsyncRequestHandle, SupportsAttach, check_client, handle_schema
from fal_async._client.http_over_websocket import HTTPOverWebSocket, WebSocketResponse
from fal_async._client.sessions import AsyncRealtimeConnection, WebSocketConnection
from fal_async._client.stream import EventStream
from fal_async._core.annotations import set_module
from fal_async.sync._default import default_client
from fal_async.sync._results import SyncResult, wrap_result
from fal_async.sync._wrappers import SyncConnectionBase, SyncStreamBase, SyncWrapper

if TYPE_CHECKING:
    from collections.abc import (
        Callable,
        Generator,
        Mapping,
    )
    from typing import Self

    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema
    from typing_extensions import TypeVar

    from fal_async.types import Arguments, Cancellation, Status

    T = TypeVar("T", default=SyncResult)
    E = TypeVar("E", default=dict[str, Any])
else:
    from typing import TypeVar

    E = TypeVar("E")


__all__ = [
    "RealtimeConnection",
    "SyncEventStream",
    "SyncHTTPOverWebSocket",
    "SyncRequestHandle",
    "SyncWebSocketConnection",
    "SyncWebSocketResponse",
]


@set_module("fal_async.sync")
class SyncRequestHandle(SyncWrapper[AsyncRequestHandle]):
    """A job in the queue.

    A handle is plain data: store `to_dict` anywhere, or pickle the handle, and continue with
    `SyncClient.attach` in another process. A pickled handle contains neither client nor key; it
    uses the module-level client until it is attached to another.

    Attributes:
        request_id: The job's id.
        response_url: The URL of the job's output.
        status_url: The URL of the job's status.
        cancel_url: The URL that cancels the job.
        application: The endpoint id of the job.
        traceparent: The trace context of the submission; ``None`` without a hook for traces.

    Example:
        >>> handle = fal_async.sync.submit("demo/echo", {"prompt": "a cat"})
        >>> print(handle.get()["prompt"])
        a cat
    """

    @property
    def request_id(self) -> str:
        """The job's id."""
        return self._async.request_id

    @property
    def response_url(self) -> str:
        """The URL of the job's output."""
        return self._async.response_url

    @property
    def status_url(self) -> str:
        """The URL of the job's status."""
        return self._async.status_url

    @property
    def cancel_url(self) -> str:
        """The URL that cancels the job."""
        return self._async.cancel_url

    @property
    def application(self) -> str:
        """The endpoint id of the job."""
        return self._async.application

    @property
    def traceparent(self) -> str | None:
        """The trace context of the submission; ``None`` without a hook for traces."""
        return self._async.traceparent

    def _repr_html_(self) -> str:
        return self._async._repr_html_()

    @classmethod
    def from_request_id(
        cls, client: SupportsAttach[SyncRequestHandle], application: str, request_id: str
    ) -> SyncRequestHandle:
        """Return the handle of a job by its id, like `SyncClient.get_handle`.

        Args:
            client: The client of the handle.
            application: The endpoint id of the job.
            request_id: The job's id.

        Raises:
            InvalidRequestError: One of the ids is invalid, or the client is not of this library.
        """
        check_client(client)
        return client.attach({"application": application, "request_id": request_id})

    def to_dict(self) -> dict[str, str]:
        """Return the handle as JSON values, for `SyncClient.attach`."""
        return self._async.to_dict()

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return handle_schema(cls, cls._attach_to_default)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Callable[..., SyncRequestHandle], tuple[Any, ...]]:
        return type(self)._attach_to_default, (self.to_dict(),)

    def status(self, *, with_logs: bool = False, timeout: float | None = None) -> Status:
        """Return the current status of the job.

        Args:
            with_logs: Whether the status contains the job's log lines.
            timeout: The timeout of the call, retries included, in seconds; ``None`` disables it.

        Raises:
            FalClientTimeoutError: The timeout has passed.
            NotFoundError: The job is unknown or has expired.
        """
        return self._portal.call(self._async.status, with_logs=with_logs, timeout=timeout)

    def iter_events(
        self, *, with_logs: bool = False, interval: float | None = None
    ) -> Generator[Status, None, None]:
        """Yield each new status of the job, up to and including `Completed`.

        Each log line is yielded once, in order, in the first status that contains it.

        Args:
            with_logs: Whether statuses contain log lines.
            interval: The delay between polls of the status, in seconds. The status of each poll is
                yielded, changed or not. ``None`` uses the platform's status stream, or polls with
                increasing delays if there is none.

        Raises:
            NotFoundError: The job is unknown or has expired.
            TransportError: The platform was unreachable for longer than the client's retry policy
                allows.
        """
        return self._portal.iterate(self._async.iter_events, with_logs=with_logs, interval=interval)

    def get(
        self,
        *,
        interval: float | None = None,
        timeout: float | None = None,
        output: type[T] | None = None,
    ) -> T:
        """Wait until the job has completed, and return its output.

        Cancelling the call does not cancel the job.

        Args:
            interval: The delay between polls of the status, in seconds; ``None`` uses the
                platform's status stream, or polls with increasing delays if there is none.
            timeout: The timeout of the whole call, in seconds; ``None`` disables it.
            output: A pydantic model, or any type that pydantic can validate; the output is
                validated against it. ``None`` returns a `SyncResult`, or the plain value of an
                output that is not a JSON object.

        Raises:
            FalClientTimeoutError: The timeout has passed. The job continues.
            FalClientHTTPError: The job failed. The subclass is the kind of the error.
            InvalidResponseError: The output does not have the type `output`.
        """
        return self._portal.call_and_wrap(
            wrap_result, self._async.get, interval=interval, timeout=timeout, output=output
        )

    def cancel(self, *, timeout: float | None = None) -> Cancellation:
        """Cancel the job.

        Args:
            timeout: The timeout of the call, retries included, in seconds; ``None`` disables it.

        Returns:
            Whether the job was removed from the queue, is being cancelled, or had completed before.

        Raises:
            FalClientTimeoutError: The timeout has passed. The job may have been cancelled.
            NotFoundError: The job is unknown or has expired.
        """
        return self._portal.call(self._async.cancel, timeout=timeout)

    @classmethod
    def _attach_to_default(cls, data: dict[str, str]) -> Self:
        """Return the handle of a job, bound to the default client."""
        client = default_client()
        return cls(client._portal, client._async.attach(data))


@set_module("fal_async.sync")
class SyncEventStream(SyncStreamBase[EventStream[E], E]):
    """The output of an app, event by event. ``with`` or the first iteration opens it.

    The end of ``with`` closes the connection, which stops an app that checks for disconnects.
    Freeing the stream closes it, too: in CPython, breaking out of a loop over a stream to which
    there is no other reference closes it immediately.

    An event is decoded JSON, or text if it is not JSON. A response that is not an event stream
    yields its bytes, chunk by chunk. A stream has one reader at a time.

    Example:
        >>> with fal_async.sync.stream("demo/stream", {"steps": 2}) as events:
        ...     for event in events:
        ...         print(event["step"])
        1
        2
    """

    @property
    def request_id(self) -> str | None:
        """The id of the request; ``None`` before the stream is open."""
        return self._async.request_id

    @property
    def response_headers(self) -> Mapping[str, str]:
        """The response headers, names in lower case; empty before the stream is open."""
        return self._async.response_headers


@set_module("fal_async.sync")
class RealtimeConnection(SyncConnectionBase[AsyncRealtimeConnection, Any]):
    """A session with a realtime app, which receives arguments and sends results.

    Several tasks may send; only one may receive at a time. ``for`` yields the results until
    the session ends: by a normal close, or because it was idle for too long.

    Example:
        >>> with fal_async.sync.realtime("demo/echo") as connection:
        ...     connection.send({"prompt": "a cat"})
        ...     result = connection.recv()
        >>> print(result["prompt"])
        a cat
    """

    @property
    def close_code(self) -> int | None:
        """The close code, 1006 for a lost connection; ``None`` while open."""
        return self._async.close_code

    @property
    def close_reason(self) -> str | None:
        """The close reason, which may be empty; ``None`` while open."""
        return self._async.close_reason

    def send(self, arguments: object) -> None:
        """Send an input; with ``reconnect=True``, reconnect first if the connection was lost.

        Args:
            arguments: A mapping or a pydantic model, which may contain bytes; or any value that
                `encode_message` accepts.

        Raises:
            RealtimeDisconnectedError: The connection is closed, and `reconnect` is false.
            InvalidRequestError: The arguments cannot be encoded.
            FalClientHTTPError: The platform rejected the new connection.
            ConnectionFailedError: The new connection failed.
        """
        self._portal.call(self._async.send, arguments)

    def recv(self) -> Any:
        """Receive the next result, which may contain bytes and may be ``None``.

        Raises:
            RealtimeError: The app failed; or, with the error ``"TIMEOUT"``, the session has ended.
            RealtimeDisconnectedError: The connection is closed, and all earlier results were
                received. Inputs without a result are lost.
            AuthenticationError: The token was rejected, or has expired.
            InvalidResponseError: The message cannot be decoded.
            InvalidRequestError: Another task is receiving.
        """
        return self._portal.call(self._async.recv)

    def close(self) -> None:
        """End the session, and wait up to 5 seconds for the server to confirm."""
        self._portal.call(self._async.close)


@set_module("fal_async.sync")
class SyncWebSocketConnection(SyncConnectionBase[WebSocketConnection, str | bytes]):
    """A WebSocket of an app with its own protocol, for text and bytes in both directions.

    Several tasks may send; only one may receive at a time. ``for`` yields the messages until
    a normal close.

    Example:
        >>> with fal_async.sync.ws_connect("demo/socket") as socket:
        ...     socket.send("hello")
        ...     print(socket.recv())
        hello
    """

    @property
    def close_code(self) -> int | None:
        """The close code, 1006 for a lost connection; ``None`` while open."""
        return self._async.close_code

    @property
    def close_reason(self) -> str | None:
        """The close reason, which may be empty; ``None`` while open."""
        return self._async.close_reason

    def send(self, message: str | bytes | bytearray | memoryview) -> None:
        """Send text or bytes; a message is never sent in part, even if the task is cancelled.

        Raises:
            RealtimeDisconnectedError: The connection is closed.
            InvalidRequestError: The message is neither text nor bytes.
        """
        self._portal.call(self._async.send, message)

    def recv(self) -> str | bytes:
        """Receive the next message.

        Raises:
            RealtimeDisconnectedError: The connection is closed, and all earlier messages were
                received.
            InvalidResponseError: The server violated the protocol, or the message is too long.
            InvalidRequestError: Another task is receiving.
        """
        return self._portal.call(self._async.recv)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection, and wait up to 5 seconds for the server to confirm.

        Args:
            code: The close code: 1000 for a normal closure, or a code from 3000 to 4999.
            reason: The close reason, up to 123 bytes in UTF-8.
        """
        self._portal.call(self._async.close, code, reason)


@set_module("fal_async.sync")
class SyncWebSocketResponse(SyncStreamBase[WebSocketResponse, Any]):
    """A response to a request over a WebSocket.

    ``for`` reads a stream: it yields the data of events, decoded from JSON where possible, or
    the chunks of any other content as bytes. One task at a time may read. ``with`` closes
    the response.

    Attributes:
        status_code: The HTTP status code, from 200 to 299.
        headers: The response headers, with names in lower case.
        request_id: The id of the request.
        result: The output if it is JSON; ``None`` for a stream.
    """

    @property
    def status_code(self) -> int:
        """The HTTP status code, from 200 to 299."""
        return self._async.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        """The response headers, with names in lower case."""
        return self._async.headers

    @property
    def request_id(self) -> str | None:
        """The id of the request."""
        return self._async.request_id

    @property
    def result(self) -> Any:
        """The output if it is JSON; ``None`` for a stream."""
        return self._async.result


@set_module("fal_async.sync")
class SyncHTTPOverWebSocket(SyncWrapper[HTTPOverWebSocket]):
    """A WebSocket for HTTP requests to one endpoint.

    Several tasks may send requests; the responses arrive in the order of the requests. A response
    that is a stream must be read to its end, or closed, before the next response can be received.

    Example:
        >>> with fal_async.sync.http_over_websocket("demo/echo") as requests:
        ...     response = requests.request({"prompt": "a cat"})
        ...     print(response.status_code, response.result["prompt"])
        200 a cat
    """

    def request(self, arguments: Arguments) -> SyncWebSocketResponse:
        """Send a request, and receive its response: all of it, or the headers of a stream.

        Args:
            arguments: The input, a mapping of JSON values or a pydantic model.

        Raises:
            FalClientHTTPError: The platform or the app responded with an error.
            RealtimeDisconnectedError: The connection was closed before the response.
            InvalidResponseError: The response cannot be decoded.
            InvalidRequestError: The arguments cannot be encoded.
        """
        return self._portal.call_and_wrap(SyncWebSocketResponse, self._async.request, arguments)

    def close(self) -> None:
        """Close the connection, and wait up to 5 seconds for the server to confirm."""
        self._portal.call(self._async.close)
