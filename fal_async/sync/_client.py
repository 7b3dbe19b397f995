# Generated from _client/account.py, _client/client.py, _client/inference.py, _client/queue.py,
# _client/storage.py, _client/websockets.py and batch/calls.py by `python -m tests.generate_sync`.
# Do not edit: change the source and run that command.
# ruff: noqa: A002 -- the official client's names
"""`SyncClient`: the blocking client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fal_async._client.client import AsyncClient
from fal_async._config import UNCHANGED
from fal_async._core.annotations import set_module
from fal_async._core.secrets import conceal
from fal_async.sync._objects import (
    RealtimeConnection,
    SyncEventStream,
    SyncHTTPOverWebSocket,
    SyncRequestHandle,
    SyncWebSocketConnection,
)
from fal_async.sync._results import SyncResult, wrap_result
from fal_async.sync._task import run_in_caller_thread
from fal_async.sync._wrappers import SyncClientBase

if TYPE_CHECKING:
    import os
    from collections.abc import (
        AsyncIterable,
        Awaitable,
        Callable,
        Iterable,
        Mapping,
        Sequence,
    )
    from contextlib import AbstractContextManager
    from decimal import Decimal
    from pathlib import Path
    from typing import BinaryIO, Literal, Self

    import httpx
    from typing_extensions import TypeVar

    from fal_async._auth.credentials import KeyProvider
    from fal_async._config import Hosts, Limits, RetryPolicy, Unchanged
    from fal_async._dispatch.resources import Statistics
    from fal_async._files.images import Picture
    from fal_async.batch.inputs import Inputs, Row
    from fal_async.batch.jobs import Job, Progress
    from fal_async.batch.journal import Journal
    from fal_async.batch.options import Budget, Changed, Duplicates, Lost, OnStop, Unsure
    from fal_async.hooks import Hook
    from fal_async.sync._batch import SyncBatch
    from fal_async.sync._platform import SyncModels, SyncRequests
    from fal_async.types import (
        Account,
        Arguments,
        AsyncFile,
        Cancellation,
        Priority,
        Repository,
        Status,
        StorageSettings,
    )

    T = TypeVar("T", default=SyncResult)
    E = TypeVar("E", default=dict[str, Any])

__all__ = ["SyncClient"]


@set_module("fal_async.sync")
class SyncClient(SyncClientBase[AsyncClient]):
    """A client of the platform.

    The constructor does no I/O. Each event loop that uses the client has its own connections, which
    are closed with the loop. Close the client with ``with`` or `close`.

    A copy shares the account and the connections, like the clients that `with_options` makes. A
    pickle contains the settings, but neither key nor transport nor hooks. An unpickled client looks
    up its key in the environment. If its key was an argument, it needs another one from
    `with_options`.

    Args:
        key: The API key, or a function (sync or async) that returns it and is called for each
            request; ``None`` uses ``FAL_KEY``, ``FAL_KEY_ID`` with ``FAL_KEY_SECRET``, the secrets
            of Colab, or the tokens of ``fal auth login``, and looks them up on first use.
        default_timeout: The connect, write and read timeout of short calls (submit, status, result
            and cancel), in seconds; ``None`` disables it.
        hosts: The base URLs, or one URL that all of them are below, as `Hosts.at` takes it;
            ``None`` reads the environment.
        transport: Any httpx transport, which the client then owns; ``None`` makes a
            `PooledTransport`, or one for the proxies in the environment.
        retry: The retry policy; ``None`` uses the defaults of `RetryPolicy`.
        limits: The concurrency limits; ``None`` uses the defaults of `Limits`.
        hooks: A function, or several, that are called with the events of all calls; see
            `fal_async.hooks`. ``None`` disables them.
        default_headers: The headers of all requests to the platform; those of a call take
            precedence. Other hosts, which store files, do not get them.
        user_agent: The name of your program, such as ``"my-app/1.0"``, which is added to the
            User-Agent header; ``None`` adds nothing.

    Raises:
        InvalidRequestError: An argument is invalid, such as an empty key.

    Example:
        >>> with fal_async.sync.SyncClient() as client:
        ...     result = client.run("demo/echo", {"prompt": "a cat"})
        >>> print(result["prompt"])
        a cat
    """

    def __init__(
        self,
        key: str | KeyProvider | None = None,
        default_timeout: float | None = 120.0,
        *,
        hosts: Hosts | str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        retry: RetryPolicy | None = None,
        limits: Limits | None = None,
        hooks: Hook | Sequence[Hook] | None = None,
        default_headers: Mapping[str, str] | None = None,
        user_agent: str | None = None,
    ) -> None:
        key = conceal(key)
        super().__init__(
            AsyncClient(
                key,
                default_timeout,
                hosts=hosts,
                transport=transport,
                retry=retry,
                limits=limits,
                hooks=hooks,
                default_headers=default_headers,
                user_agent=user_agent,
            )
        )

    def run(
        self,
        application: str,
        arguments: Arguments,
        *,
        method: str = "POST",
        path: str = "",
        timeout: float | None = None,
        start_timeout: float | None = None,
        hint: str | None = None,
        headers: Mapping[str, str] | None = None,
        output: type[T] | None = None,
        tags: Mapping[str, str] | None = None,
        store_io: bool | None = None,
        expires_in: int | None = None,
        auto_upload: bool = True,
    ) -> T:
        """Run an app directly and return its output, without the queue.

        Args:
            application: The endpoint id, such as ``"fal-ai/flux/dev"``.
            arguments: The input: a mapping of JSON values, or a pydantic model.
            method: The HTTP method; with ``"GET"`` the arguments become the query string.
            path: A path within the app, appended to the endpoint id.
            timeout: The timeout of the whole call, retries included, in seconds; ``None`` disables
                it. It never starts a second run.
            start_timeout: The longest time until a runner starts, in seconds; ``None`` waits
                without limit.
            hint: Routes requests with the same hint to the same runner where possible.
            headers: Additional request headers.
            output: A pydantic model, or any type that pydantic can validate; the output is
                validated against it. ``None`` returns a `SyncResult`, or the plain value of an
                output that is not a JSON object.
            tags: Up to ten names and values for the platform's usage reports.
            store_io: Whether the platform stores input and output; ``None`` uses the account's
                setting.
            expires_in: The lifetime of output files, in seconds; ``None`` uses the account's
                setting.
            auto_upload: Whether files in the arguments (paths, open files, images, arrays and
                `Upload`) are uploaded first and replaced by their URLs. If false, a file in the
                arguments is an error.

        Raises:
            FalClientTimeoutError: The timeout has passed.
            FalClientHTTPError: The platform or the app responded with an error. The subclass is the
                kind of the error.
            SubmitOutcomeUnknownError: The connection failed after the request was sent.
            ConnectionFailedError: The platform is unreachable; nothing was sent.
            InvalidRequestError: An argument is invalid; nothing was sent.
            InvalidResponseError: The output does not have the type `output`.

        Example:
            >>> result = fal_async.sync.run("demo/echo", {"prompt": "a cat"})
            >>> print(result["prompt"])
            a cat
        """
        return self._portal.call_and_wrap(
            wrap_result,
            self._async.run,
            application,
            arguments,
            method=method,
            path=path,
            timeout=timeout,
            start_timeout=start_timeout,
            hint=hint,
            headers=headers,
            output=output,
            tags=tags,
            store_io=store_io,
            expires_in=expires_in,
            auto_upload=auto_upload,
        )

    def stream(
        self,
        application: str,
        arguments: Arguments,
        *,
        path: str = "/stream",
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
        idle_timeout: float | None = None,
        output: type[E] | None = None,
        auto_upload: bool = True,
    ) -> SyncEventStream[E]:
        """Run an app directly and stream its output.

        Args:
            application: The endpoint id, such as ``"fal-ai/any-llm"``.
            arguments: The input: a mapping of JSON values, or a pydantic model.
            path: The path of the stream within the app.
            timeout: The timeout of the whole stream, in seconds; ``None`` disables it.
            headers: Additional request headers.
            idle_timeout: The longest time without data, in seconds. Opening the stream counts as
                such a time; the platform's keep-alive comments count as data. ``None`` disables it.
            output: The type that each event is validated against; ``None`` returns decoded JSON.
            auto_upload: Whether files in the arguments are uploaded first; see `run`.

        Raises:
            FalClientTimeoutError: One of the timeouts has passed.
            FalClientHTTPError: The platform or the app responded with an error.
            StreamError: The app sent an error within the stream.
            StreamInterruptedError: The connection failed. The error has the number of events that
                had arrived.
            SubmitOutcomeUnknownError: The connection failed before the stream began.
            InvalidRequestError: An argument is invalid; nothing was sent.
            InvalidResponseError: An event does not have the type `output`.

        Example:
            >>> for event in fal_async.sync.stream("demo/stream", {"steps": 2}):
            ...     print(event["step"])
            1
            2
        """
        return SyncEventStream(
            self._portal,
            self._async.stream(
                application,
                arguments,
                path=path,
                timeout=timeout,
                headers=headers,
                idle_timeout=idle_timeout,
                output=output,
                auto_upload=auto_upload,
            ),
        )

    def submit(
        self,
        application: str,
        arguments: Arguments,
        *,
        path: str = "",
        hint: str | None = None,
        webhook_url: str | None = None,
        priority: Priority | None = None,
        headers: Mapping[str, str] | None = None,
        start_timeout: float | None = None,
        tags: Mapping[str, str] | None = None,
        no_retry: bool = False,
        store_io: bool | None = None,
        max_queue_length: int | None = None,
        expires_in: int | None = None,
        auto_upload: bool = True,
        timeout: float | None = None,
    ) -> SyncRequestHandle:
        """Submit a job to the queue and return its handle.

        Cancelling the call cancels the job, since its output could not be fetched without the
        handle.

        Args:
            application: The endpoint id, such as ``"fal-ai/flux/dev"``.
            arguments: The input: a mapping of JSON values, or a pydantic model.
            path: A path within the app, appended to the endpoint id.
            hint: Routes requests with the same hint to the same runner where possible.
            webhook_url: The URL that the platform sends the output to; ``None`` disables it.
            priority: ``"low"`` gives precedence to other requests; ``None`` is normal priority.
            headers: Additional request headers.
            start_timeout: The longest time until a runner starts, in seconds; ``None`` waits
                without limit.
            tags: Up to ten names and values for the platform's usage reports.
            no_retry: Whether the platform must not retry a failed job on another runner.
            store_io: Whether the platform stores input and output; ``None`` uses the account's
                setting.
            max_queue_length: The most requests that may wait for the endpoint. If more do, the call
                raises `RateLimitError` immediately; ``None`` disables the limit.
            expires_in: The lifetime of output files, in seconds; ``None`` uses the account's
                setting.
            auto_upload: Whether files in the arguments (paths, open files, images, arrays and
                `Upload`) are uploaded first and replaced by their URLs. If false, a file in the
                arguments is an error.
            timeout: The timeout of the whole call, uploads and retries included, in seconds;
                ``None`` disables it. Like a cancellation, it cancels a job that was started.

        Raises:
            FalClientTimeoutError: The timeout has passed.
            FalClientHTTPError: The platform rejected the job. The subclass is the kind of
                the error.
            SubmitOutcomeUnknownError: The connection failed after the request was sent. The request
                was not retried.
            ConnectionFailedError: The platform is unreachable; nothing was sent.
            InvalidRequestError: An argument is invalid; nothing was sent.

        Example:
            >>> handle = fal_async.sync.submit("demo/echo", {"prompt": "a cat"})
            >>> print(handle.get())
            {'prompt': 'a cat'}
        """
        return self._portal.call_and_wrap(
            SyncRequestHandle,
            self._async.submit,
            application,
            arguments,
            path=path,
            hint=hint,
            webhook_url=webhook_url,
            priority=priority,
            headers=headers,
            start_timeout=start_timeout,
            tags=tags,
            no_retry=no_retry,
            store_io=store_io,
            max_queue_length=max_queue_length,
            expires_in=expires_in,
            auto_upload=auto_upload,
            timeout=timeout,
        )

    def subscribe(
        self,
        application: str,
        arguments: Arguments,
        *,
        path: str = "",
        hint: str | None = None,
        with_logs: bool = False,
        interval: float | None = None,
        on_enqueue: Callable[[str], Awaitable[None] | None] | None = None,
        on_queue_update: Callable[[Status], Awaitable[None] | None] | None = None,
        priority: Priority | None = None,
        headers: Mapping[str, str] | None = None,
        start_timeout: float | None = None,
        client_timeout: float | None = None,
        output: type[T] | None = None,
        tags: Mapping[str, str] | None = None,
        no_retry: bool = False,
        store_io: bool | None = None,
        max_queue_length: int | None = None,
        expires_in: int | None = None,
        auto_upload: bool = True,
    ) -> T:
        """Submit a job to the queue, wait until it has completed, and return its output.

        Cancelling the call cancels the job; so do `client_timeout` and an exception of a callback.
        A network error does not cancel the job, and has its `request_id`.

        Args:
            application: The endpoint id, such as ``"fal-ai/flux/dev"``.
            arguments: The input: a mapping of JSON values, or a pydantic model.
            path: A path within the app, appended to the endpoint id.
            hint: Routes requests with the same hint to the same runner where possible.
            with_logs: Whether the statuses for `on_queue_update` contain log lines. Each line is
                delivered once.
            interval: The delay between polls of the status, in seconds; ``None`` uses the
                platform's status stream, or polls with increasing delays if there is none.
            on_enqueue: Called once with the request id; sync or async.
            on_queue_update: Called with each new status, or with the status of each poll if there
                is an `interval`; sync or async.
            priority: ``"low"`` gives precedence to other requests; ``None`` is normal priority.
            headers: Additional request headers.
            start_timeout: The longest time until a runner starts, in seconds; ``None`` uses
                `client_timeout`.
            client_timeout: The timeout of the whole call, in seconds; ``None`` disables it.
            output: A pydantic model, or any type that pydantic can validate; the output is
                validated against it. ``None`` returns a `SyncResult`, or the plain value of an
                output that is not a JSON object.
            tags: Up to ten names and values for the platform's usage reports.
            no_retry: Whether the platform must not retry a failed job on another runner.
            store_io: Whether the platform stores input and output; ``None`` uses the account's
                setting.
            max_queue_length: The most requests that may wait for the endpoint. If more do, the call
                raises `RateLimitError` immediately; ``None`` disables the limit.
            expires_in: The lifetime of output files, in seconds; ``None`` uses the account's
                setting.
            auto_upload: Whether files in the arguments (paths, open files, images, arrays and
                `Upload`) are uploaded first and replaced by their URLs. If false, a file in the
                arguments is an error.

        Raises:
            FalClientTimeoutError: The timeout has passed, and the job was cancelled.
            FalClientHTTPError: The platform rejected the job, or the job failed. The subclass is
                the kind of the error.
            SubmitOutcomeUnknownError: The connection failed after the job was sent. The job was not
                submitted again.
            ConnectionFailedError: The platform is unreachable; nothing was sent.
            InvalidRequestError: An argument is invalid; nothing was sent.
            InvalidResponseError: The output does not have the type `output`.

        Example:
            >>> seen = []
            >>> result = fal_async.sync.subscribe(
            ...     "demo/echo", {"prompt": "a cat"}, on_queue_update=seen.append
            ... )
            >>> print(type(seen[-1]).__name__, result)
            Completed {'prompt': 'a cat'}
        """
        return self._portal.call_and_wrap(
            wrap_result,
            self._async.subscribe,
            application,
            arguments,
            path=path,
            hint=hint,
            with_logs=with_logs,
            interval=interval,
            on_enqueue=run_in_caller_thread(on_enqueue),
            on_queue_update=run_in_caller_thread(on_queue_update),
            priority=priority,
            headers=headers,
            start_timeout=start_timeout,
            client_timeout=client_timeout,
            output=output,
            tags=tags,
            no_retry=no_retry,
            store_io=store_io,
            max_queue_length=max_queue_length,
            expires_in=expires_in,
            auto_upload=auto_upload,
        )

    def status(
        self,
        application: str,
        request_id: str,
        *,
        with_logs: bool = False,
        timeout: float | None = None,
    ) -> Status:
        """Return the current status of a job; see `SyncRequestHandle.status`.

        Args:
            application: The endpoint id of the job.
            request_id: The job's id.
            with_logs: Whether the status contains the job's log lines.
            timeout: The timeout of the call, retries included, in seconds; ``None`` disables it.

        Raises:
            FalClientTimeoutError: The timeout has passed.
            NotFoundError: The job is unknown or has expired.
        """
        return self._portal.call(
            self._async.status, application, request_id, with_logs=with_logs, timeout=timeout
        )

    def result(self, application: str, request_id: str, *, output: type[T] | None = None) -> T:
        """Wait until a job has completed, and return its output; see `SyncRequestHandle.get`.

        Args:
            application: The endpoint id of the job.
            request_id: The job's id.
            output: The type that the output is validated against; ``None`` returns a `SyncResult`.

        Raises:
            FalClientHTTPError: The job failed. The subclass is the kind of the error.
        """
        return self._portal.call_and_wrap(
            wrap_result, self._async.result, application, request_id, output=output
        )

    def cancel(
        self, application: str, request_id: str, *, timeout: float | None = None
    ) -> Cancellation:
        """Cancel a job; see `SyncRequestHandle.cancel`.

        Args:
            application: The endpoint id of the job.
            request_id: The job's id.
            timeout: The timeout of the call, retries included, in seconds; ``None`` disables it.

        Raises:
            FalClientTimeoutError: The timeout has passed. The job may have been cancelled.
            NotFoundError: The job is unknown or has expired.
        """
        return self._portal.call(self._async.cancel, application, request_id, timeout=timeout)

    def get_handle(self, application: str, request_id: str) -> SyncRequestHandle:
        """Return the handle of a job by its id. Nothing is sent.

        Args:
            application: The endpoint id of the job.
            request_id: The job's id.

        Raises:
            InvalidRequestError: One of the ids is invalid.
        """
        return self._portal.call_and_wrap(
            SyncRequestHandle, self._async.get_handle, application, request_id
        )

    def attach(self, handle: SyncRequestHandle | Mapping[str, str]) -> SyncRequestHandle:
        """Bind a handle to this client: a handle that was unpickled, or the data of `to_dict`.

        URLs that do not belong to the platform's queue are replaced by the URLs for the ids, so
        that the key is sent to the platform only.

        Args:
            handle: The handle or its data.

        Raises:
            InvalidRequestError: The data is not the data of a handle.
        """
        return SyncRequestHandle(self._portal, self._async.attach(self._unwrap(handle)))

    def realtime(
        self,
        application: str,
        *,
        use_jwt: bool = True,
        path: str = "/realtime",
        max_buffering: int | None = None,
        token_expiration: int = 120,
        encode_message: Callable[[Any], str | bytes] | None = None,
        decode_message: Callable[[bytes], Any] | None = None,
        reconnect: bool = False,
        max_message_size: int | None = 64 * 1024 * 1024,
        open_timeout: float | None = 90.0,
        ping_interval: float | None = 20.0,
        ping_timeout: float | None = 20.0,
        compression: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> AbstractContextManager[RealtimeConnection]:
        """Open a session with a realtime app; ``with`` closes it.

        Args:
            application: The endpoint id, such as ``"fal-ai/fast-lcm-diffusion"``.
            use_jwt: Whether to authenticate with a short-lived token in the URL. If false, the key
                itself is sent in a header.
            path: The path within the app; it is not added to an id that ends with it.
            max_buffering: The number of unprocessed inputs that the platform keeps before it drops
                the oldest, from 1 to 60; ``None`` uses the default of the app.
            token_expiration: The time during which the token can open connections, in seconds.
            encode_message: Encodes the arguments of `send` as text or bytes; ``None`` encodes them
                as msgpack.
            decode_message: Decodes binary messages; ``None`` decodes them as msgpack.
            reconnect: Whether `send` opens a new connection, with a new token, after the last one
                was closed by the server or lost. Inputs without a result are lost; the next `recv`
                then raises a `RealtimeDisconnectedError`.
            max_message_size: The maximum size of a received message, in bytes; ``None`` for no
                limit.
            open_timeout: The timeout for opening a connection, in seconds, which includes the start
                of a runner; ``None`` disables it.
            ping_interval: The time without received data after which to send a ping, in seconds;
                ``None`` disables pings.
            ping_timeout: The time to wait for a response to a ping before the connection counts as
                lost, in seconds; ``None`` disables the timeout.
            compression: Whether to offer permessage-deflate, which takes much time and saves
                nothing on images.
            headers: Additional headers of the handshake.

        Raises:
            FalClientHTTPError: The platform rejected the token or the connection; the subclass
                gives the reason.
            ConnectionFailedError: The connection failed.
            InvalidRequestError: An argument is invalid; nothing was sent.

        Example:
            >>> with fal_async.sync.realtime("demo/echo") as connection:
            ...     connection.send({"prompt": "a cat"})
            ...     result = connection.recv()
            >>> print(result["prompt"])
            a cat
        """
        return self._portal.enter(
            RealtimeConnection,
            self._async.realtime,
            application,
            use_jwt=use_jwt,
            path=path,
            max_buffering=max_buffering,
            token_expiration=token_expiration,
            encode_message=encode_message,
            decode_message=decode_message,
            reconnect=reconnect,
            max_message_size=max_message_size,
            open_timeout=open_timeout,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            compression=compression,
            headers=headers,
        )

    def ws_connect(
        self,
        application: str,
        *,
        path: str = "",
        use_jwt: bool = True,
        max_buffering: int | None = None,
        token_expiration: int = 120,
        max_message_size: int | None = 64 * 1024 * 1024,
        open_timeout: float | None = 90.0,
        ping_interval: float | None = 20.0,
        ping_timeout: float | None = 20.0,
        compression: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> AbstractContextManager[SyncWebSocketConnection]:
        """Open a WebSocket of an app with its own protocol; ``with`` closes it.

        Args:
            application: The endpoint id.
            path: The path within the app, which is added to the id.
            use_jwt: As for `realtime`.
            max_buffering: As for `realtime`.
            token_expiration: As for `realtime`.
            max_message_size: As for `realtime`.
            open_timeout: As for `realtime`.
            ping_interval: As for `realtime`.
            ping_timeout: As for `realtime`.
            compression: As for `realtime`.
            headers: As for `realtime`.

        Raises:
            FalClientHTTPError: The platform rejected the token or the connection.
            ConnectionFailedError: The connection failed.
            InvalidRequestError: An argument is invalid; nothing was sent.

        Example:
            >>> with fal_async.sync.ws_connect("demo/socket", path="/chat") as socket:
            ...     socket.send("hello")
            ...     print(socket.recv())
            hello
        """
        return self._portal.enter(
            SyncWebSocketConnection,
            self._async.ws_connect,
            application,
            path=path,
            use_jwt=use_jwt,
            max_buffering=max_buffering,
            token_expiration=token_expiration,
            max_message_size=max_message_size,
            open_timeout=open_timeout,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            compression=compression,
            headers=headers,
        )

    def http_over_websocket(
        self,
        application: str,
        *,
        max_message_size: int | None = 64 * 1024 * 1024,
        open_timeout: float | None = 90.0,
        headers: Mapping[str, str] | None = None,
    ) -> AbstractContextManager[SyncHTTPOverWebSocket]:
        """Open a WebSocket for many HTTP requests to an endpoint; ``with`` closes it.

        Args:
            application: The endpoint id, with its path.
            max_message_size: The maximum size of a received message, in bytes; ``None`` for no
                limit. A response consists of one or more messages.
            open_timeout: The timeout for opening the connection, in seconds; ``None`` disables it.
            headers: Additional headers of the handshake.

        Raises:
            FalClientHTTPError: The platform rejected the connection.
            ConnectionFailedError: The connection failed.
            InvalidRequestError: An argument is invalid; nothing was sent.

        Example:
            >>> with fal_async.sync.http_over_websocket("demo/echo") as requests:
            ...     response = requests.request({"prompt": "a cat"})
            ...     print(response.result["prompt"])
            a cat
        """
        return self._portal.enter(
            SyncHTTPOverWebSocket,
            self._async.http_over_websocket,
            application,
            max_message_size=max_message_size,
            open_timeout=open_timeout,
            headers=headers,
        )

    def realtime_token(
        self, application: str, *, expires_in: int = 120, path: str = "/realtime"
    ) -> str:
        """Create a token with which a web page opens sessions with an app, without the key.

        It is the value that a ``tokenProvider`` of the official JavaScript client returns. Whoever
        has it can run the app at the expense of the account until it expires.

        Args:
            application: The endpoint id, such as ``"fal-ai/fast-lcm-diffusion"``.
            expires_in: The time during which the token can open connections, in seconds.
            path: The path within the app that the token is for, such as ``"/stream"`` for streams;
                it is not added to an id that ends with it.

        Raises:
            FalClientHTTPError: The platform refused to create a token.
            ConnectionFailedError: The platform is unreachable.
            InvalidRequestError: An argument is invalid; nothing was sent.

        Example:
            >>> token = fal_async.sync.realtime_token("demo/echo", expires_in=60)
            >>> print(len(token) > 20)
            True
        """
        return self._portal.call(
            self._async.realtime_token, application, expires_in=expires_in, path=path
        )

    def upload(
        self,
        data: str
        | bytes
        | bytearray
        | memoryview
        | os.PathLike[str]
        | BinaryIO
        | AsyncFile
        | Iterable[bytes]
        | AsyncIterable[bytes],
        content_type: str,
        file_name: str | None = None,
        *,
        repository: Repository | None = None,
        fallback_repository: Repository | Sequence[Repository] | None = None,
        lifecycle: StorageSettings | None = None,
        on_progress: Callable[[int, int | None], Awaitable[None] | None] | None = None,
    ) -> str:
        """Upload data and return its URL.

        Large data is uploaded in parts, several at once, and each part is retried on its own. The
        parts of an iterator are kept in memory until they are sent; the client's `Limits` bound
        the memory of all uploads together.

        Args:
            data: Text, which is encoded in UTF-8, bytes, a path, a file opened in binary mode,
                which is read from its current position, or an iterator of bytes. Files and
                iterators may be sync or async.
            content_type: The media type of the data, such as ``"image/png"``.
            file_name: The last part of the URL. ``None`` lets the platform choose it.
            repository: The repository of the file. ``None`` selects ``"fal_v3"``, the CDN.
            fallback_repository: The repository to use if the first one fails for another reason
                than the key. ``None`` selects ``"fal"``; an empty list disables the fallback.
            lifecycle: The expiry and the access rules. ``None`` uses the platform's defaults: the
                file is kept for long, and everyone who knows the URL can read it.
            on_progress: Called with the number of bytes sent and the size in bytes, which is
                ``None`` for an iterator; sync or async.

        Raises:
            FalClientHTTPError: The platform rejected a request. A note states how many bytes had
                been uploaded.
            TransportError: The platform could not be reached.
            UploadError: The file changed during the upload, or could not be read.
            InvalidRequestError: An argument is invalid; nothing was sent.

        Example:
            >>> url = fal_async.sync.upload("hello", "text/plain", "hello.txt")
            >>> print(url)  # doctest: +ELLIPSIS
            http.../hello.txt
        """
        return self._portal.call(
            self._async.upload,
            data,
            content_type,
            file_name,
            repository=repository,
            fallback_repository=fallback_repository,
            lifecycle=lifecycle,
            on_progress=run_in_caller_thread(on_progress),
        )

    def upload_file(
        self,
        path: str | os.PathLike[str],
        *,
        repository: Repository | None = None,
        fallback_repository: Repository | Sequence[Repository] | None = None,
        lifecycle: StorageSettings | None = None,
        on_progress: Callable[[int, int | None], Awaitable[None] | None] | None = None,
    ) -> str:
        """Upload a file of this machine and return its URL; see `upload`.

        The name of the file determines the media type. The file is read in chunks, so that it may
        be larger than the memory.

        Args:
            path: The path of the file.
            repository: The repository of the file. ``None`` selects ``"fal_v3"``, the CDN.
            fallback_repository: The repository to use if the first one fails for another reason
                than the key. ``None`` selects ``"fal"``; an empty list disables the fallback.
            lifecycle: The expiry and the access rules. ``None`` uses the platform's defaults.
            on_progress: Called with the number of bytes sent and the size in bytes; sync or async.

        Raises:
            OSError: The file cannot be opened.
            InvalidRequestError: The path is not that of a regular file, or an argument is invalid;
                nothing was sent.
            UploadError: The file changed during the upload, or could not be read.
            FalClientHTTPError: The platform rejected a request. A note states how many bytes had
                been uploaded.
            TransportError: The platform could not be reached.
        """
        return self._portal.call(
            self._async.upload_file,
            path,
            repository=repository,
            fallback_repository=fallback_repository,
            lifecycle=lifecycle,
            on_progress=run_in_caller_thread(on_progress),
        )

    def upload_image(
        self,
        image: Picture,
        format: str = "jpeg",
        file_name: str | None = None,
        *,
        repository: Repository | None = None,
        fallback_repository: Repository | Sequence[Repository] | None = None,
        lifecycle: StorageSettings | None = None,
        on_progress: Callable[[int, int | None], Awaitable[None] | None] | None = None,
    ) -> str:
        """Upload a Pillow image or a NumPy array and return its URL; see `upload`.

        Args:
            image: The image. An array has the dimensions height, width and channels, and contains
                whole numbers from 0 to 255 or fractions from 0 to 1.
            format: A format that Pillow writes, such as ``"png"``. JPEG drops transparency.
            file_name: The last part of the URL. ``None`` lets the platform choose it.
            repository: The repository of the file. ``None`` selects ``"fal_v3"``, the CDN.
            fallback_repository: The repository to use if the first one fails for another reason
                than the key. ``None`` selects ``"fal"``; an empty list disables the fallback.
            lifecycle: The expiry and the access rules. ``None`` uses the platform's defaults.
            on_progress: Called with the number of bytes sent and the size in bytes; sync or async.

        Raises:
            InvalidRequestError: The image cannot be encoded in this format; nothing was sent.
            FalClientHTTPError: The platform rejected a request.
            TransportError: The platform could not be reached.
        """
        return self._portal.call(
            self._async.upload_image,
            image,
            format,
            file_name,
            repository=repository,
            fallback_repository=fallback_repository,
            lifecycle=lifecycle,
            on_progress=run_in_caller_thread(on_progress),
        )

    def download(
        self, url: str, path: str | os.PathLike[str], *, max_bytes: int | None = None
    ) -> Path:
        """Download a file, which appears when it is complete.

        The download is resumed when the connection breaks. It never sends the account's key; a
        private file on the platform's CDN is requested with a token.

        Args:
            url: An http, https or data URL.
            path: The path of a file or of an existing folder. An existing file is replaced and
                keeps its permissions and owner; a symbolic link is followed. In a folder, the file
                gets the name that the server suggests, or the one in its URL, with a number if a
                file of that name exists.
            max_bytes: The maximum size in bytes. ``None`` accepts any size.

        Returns:
            The path of the file.

        Raises:
            FalClientHTTPError: The file does not exist, or this account may not read it.
            TransportError: The connection broke too often, or the file changed during the download.
            InvalidResponseError: The file is too large.
            InvalidRequestError: The URL is not supported.
            OSError: The file cannot be written. The error names the path, and an existing file
                keeps its content.
        """
        return self._portal.call(self._async.download, url, path, max_bytes=max_bytes)

    def account(self) -> Account:
        """Return the account that the key belongs to.

        The platform does not document this API. If it is gone, the call raises `NotFoundError`.

        Raises:
            AuthenticationError: The key is wrong.
            FalClientHTTPError: The platform responded with another error.
            InvalidResponseError: The response names no account.
            TransportError: There was no response.

        Example:
            >>> account = fal_async.sync.account()
            >>> print(account.is_locked)
            False
        """
        return self._portal.call(self._async.account)

    def once(
        self,
        application: str,
        arguments: Mapping[str, Any],
        *,
        journal: Journal | str | os.PathLike[str],
        key: str | None = None,
        unsure: Unsure = "look",
        lost: Lost = "report",
        attempts: int = 3,
        output: type[T] | None = None,
        **submit_options: Any,
    ) -> T:
        """Return the output of a job that is started once, however often this is called.

        A job that the journal knows is waited for, and an output that it knows is returned.
        Cancelling the call leaves the job to the next call.

        Args:
            application: The endpoint id.
            arguments: The input.
            journal: A shared `Journal`, the path of its file or the URL of its database. A path is
                kept open until the event loop ends.
            key: Identifies the input; ``None`` uses the content.
            unsure: The treatment of an input for which a job may have been started; see
                `SyncClient.batch`.
            lost: The treatment of a result that is gone: ``"report"`` raises `NotFoundError`, and
                ``"again"`` starts another job.
            attempts: The most jobs that are started, after errors that may pass.
            output: The type that the output is validated against; ``None`` returns a `SyncResult`.
            submit_options: Options of `submit`, such as `priority`.

        Raises:
            FalClientHTTPError: The job was rejected, or has failed.
            SubmitOutcomeUnknownError: A job may have been started, and cannot be found.
            JournalError: The journal cannot be used; nothing was sent that it does not record.
            ChangedInputError: The key is that of an input with another content.
            InvalidRequestError: An argument is invalid; nothing was sent.

        Example:
            >>> with fal_async.sync.SyncClient() as client:
            ...     for _ in range(2):
            ...         result = client.once(
            ...             "demo/echo", {"prompt": "a cat"}, journal=":memory:"
            ...         )
            >>> print(result["prompt"])
            a cat
        """
        return self._portal.call_and_wrap(
            wrap_result,
            lambda: self._async.once(
                application,
                arguments,
                journal=journal,
                key=key,
                unsure=unsure,
                lost=lost,
                attempts=attempts,
                output=output,
                **submit_options,
            ),
        )

    def batch(
        self,
        application: str | Callable[[Row], str],
        inputs: Inputs,
        *,
        journal: Journal | str | os.PathLike[str] | None = None,
        output: str | os.PathLike[str] | None = None,
        save: str | Callable[[Job, int], Path] | None = None,
        arguments: Mapping[str, str] | Callable[[Row], Mapping[str, Any]] | None = None,
        in_flight: int | Literal["auto"] = "auto",
        submitting: int | Literal["auto"] = "auto",
        via: Literal["queue", "run"] = "queue",
        wait: Literal["auto", "webhook"] = "auto",
        webhook_url: str | None = None,
        ordered: bool = False,
        ready: int = 100,
        attempts: int = 3,
        budget: float | Budget | None = None,
        price: float | Decimal | None = None,
        stop_after: int | float | None = 0.5,
        on_stop: OnStop = "leave",
        grace: float = 30.0,
        key: str | Callable[[Row], str] | None = None,
        duplicates: Duplicates = "each",
        changed: Changed = "error",
        unsure: Unsure = "look",
        lost: Lost = "report",
        progress: bool | Callable[[Progress], None] = False,
        upload_once: bool = True,
        **submit_options: Any,
    ) -> SyncBatch:
        """Start a job for each input, once, and iterate over the outcomes as the jobs end.

        With a journal, a batch that was interrupted continues where it was: jobs that run are
        waited for, outcomes that are known are repeated, and nothing is started twice. The jobs run
        while the context of the batch is entered.

        Args:
            application: The endpoint id, or a function of the input that returns it.
            inputs: The inputs: mappings, read lazily, or the path of a file with JSON lines, CSV or
                Parquet.
            journal: A `Journal`, the path of its file or the URL of its database; ``None`` keeps
                none.
            output: The path of a file of JSON lines, with a row for each input; ``None`` writes
                none.
            save: Where the files of outputs are saved: a pattern with ``{index}``, the number
                ``{n}`` of the file, ``{ext}``, ``{key}``, ``{request_id}`` and columns, or a
                function of the job and the number. ``None`` saves none.
            arguments: The columns of the arguments by name, or a function of the input that returns
                the arguments; ``None`` uses the input.
            in_flight: The most jobs that have started and not ended. ``"auto"`` is twice the number
                that runs at once; with ``via="run"``, it adapts to the limit of the account.
            submitting: The most jobs that are being submitted, and so the most that are unsure
                after a crash. ``"auto"`` is eight, and up to 64 if the platform responds slowly and
                the account would be idle otherwise.
            via: ``"queue"`` submits jobs; ``"run"`` calls apps directly.
            wait: ``"auto"`` waits for jobs on connections to the platform. ``"webhook"`` waits for
                the journal, in which a `fal_async.webhooks.BatchReceiver` records outcomes. What
                has not come after twice the time that the longest job took is asked for.
            webhook_url: The URL of the receiver, with ``wait="webhook"``. The batch appends the key
                of the input.
            ordered: Whether outcomes, and the rows that a run appends to `output`, have the order
                of the inputs.
            ready: The most outcomes that wait for the consumer. Then no more jobs are started.
            attempts: The most jobs for one input. Others are started only after errors that may
                pass.
            budget: The most that the batch may cost; ``None`` is no limit. A job is not started if
                it would exceed it. It and those in flight are counted at the mean cost so far, or
                at the price of a unit before a cost is known.
            price: The price of a unit; ``None`` asks the platform.
            stop_after: The number of failures, or their share among the latest 200 outcomes, at
                which the batch stops; ``None`` never stops.
            on_stop: The treatment of jobs in flight when the batch is stopped: ``"leave"`` waits
                for the grace period and leaves them to the next run, ``"wait"`` waits for all, and
                ``"cancel"`` cancels them, so that the next run starts others.
            grace: The grace period, in seconds.
            key: The column that identifies an input, or a function of the input; ``None`` uses the
                content, so that inputs may be moved.
            duplicates: ``"each"`` starts a job for each of several equal inputs, ``"once"`` one for
                all, and ``"error"`` raises.
            changed: The treatment of inputs that have another content under the same key:
                ``"error"`` raises, ``"new"`` starts other jobs, and ``"keep"`` keeps the outcomes.
            unsure: The treatment of inputs for which a job may have been started: ``"look"`` asks
                the platform for its requests, ``"report"`` yields them, and ``"again"`` starts
                another job, which may be charged twice.
            lost: The treatment of results that are gone: ``"report"`` yields them, and ``"again"``
                starts another job.
            progress: Whether to show the progress, or a function that is called with it.
            upload_once: Whether files in the arguments with the same content are uploaded once, for
                all inputs and all runs with the journal, for as long as they are stored. Otherwise
                they are uploaded for each job.
            submit_options: Options of `submit`, such as `priority` and `tags`.

        Raises:
            InvalidRequestError: An argument is invalid; nothing was sent.

        Example:
            >>> rows = [{"prompt": "a cat"}, {"prompt": "a fox"}]
            >>> with fal_async.sync.SyncClient() as client:
            ...     with client.batch("demo/echo", rows, ordered=True) as batch:
            ...         for job in batch:
            ...             print(job.index, job.output["prompt"])
            0 a cat
            1 a fox
        """
        from fal_async.sync._batch import SyncBatch  # most programs do without

        return SyncBatch(
            self._portal,
            self._async.batch(
                application,
                inputs,
                journal=journal,
                output=output,
                save=save,
                arguments=arguments,
                in_flight=in_flight,
                submitting=submitting,
                via=via,
                wait=wait,
                webhook_url=webhook_url,
                ordered=ordered,
                ready=ready,
                attempts=attempts,
                budget=budget,
                price=price,
                stop_after=stop_after,
                on_stop=on_stop,
                grace=grace,
                key=key,
                duplicates=duplicates,
                changed=changed,
                unsure=unsure,
                lost=lost,
                progress=progress,
                upload_once=upload_once,
                **submit_options,
            ),
        )

    @property
    def default_timeout(self) -> float | None:
        """The timeout of short calls, in seconds; ``None`` if it is disabled."""
        return self._async.default_timeout

    @property
    def requests(self) -> SyncRequests:
        """The requests that the account has made."""
        from fal_async.sync._platform import SyncRequests  # most programs do without

        return SyncRequests(self._portal, self._async.requests)

    @property
    def models(self) -> SyncModels:
        """The platform's models, with their prices and schemas."""
        from fal_async.sync._platform import SyncModels  # most programs do without

        return SyncModels(self._portal, self._async.models)

    def with_options(
        self,
        *,
        key: str | KeyProvider | Unchanged = UNCHANGED,
        default_timeout: float | Unchanged | None = UNCHANGED,
        retry: RetryPolicy | Unchanged | None = UNCHANGED,
        hooks: Hook | Sequence[Hook] | Unchanged | None = UNCHANGED,
        default_headers: Mapping[str, str] | Unchanged | None = UNCHANGED,
        user_agent: str | Unchanged | None = UNCHANGED,
    ) -> Self:
        """Return a client with other settings over the same connections.

        Closing it does not close the connections.

        Args:
            key: Another key, or a function that returns it. ``None`` is an error, since it is most
                often a key that was not found.
            default_timeout: Another timeout, in seconds; ``None`` disables it.
            retry: Another retry policy; ``None`` uses the defaults of `RetryPolicy`.
            hooks: Other hooks; ``None`` disables them.
            default_headers: Other headers of all requests; ``None`` sends none.
            user_agent: Another name of your program; ``None`` adds none.

        Raises:
            InvalidRequestError: An argument is invalid, such as a key that is ``None``.

        Example:
            >>> client = fal_async.sync.SyncClient()
            >>> patient = client.with_options(default_timeout=600)
        """
        key = conceal(key)
        return self._sharing_portal(
            self._async.with_options(
                key=key,
                default_timeout=default_timeout,
                retry=retry,
                hooks=hooks,
                default_headers=default_headers,
                user_agent=user_agent,
            )
        )

    def prepare(self) -> None:
        """Load modules, certificates and credentials before the first request.

        Slow steps run in worker threads, so that a service that starts does not block its event
        loop. Nothing is sent, except to refresh an expired login.

        Raises:
            MissingCredentialsError: There is no key.

        Example:
            >>> with fal_async.sync.SyncClient() as client:
            ...     client.prepare()
            ...     print(client.run("demo/echo", {"prompt": "a cat"}))
            {'prompt': 'a cat'}
        """
        self._portal.call(self._async.prepare)

    def statistics(self) -> Statistics:
        """Return how many slots, connections and WebSockets the client uses on this event loop.

        Example:
            >>> with fal_async.sync.SyncClient() as client:
            ...     print(client.statistics().held)
            LimitUsage(limit=1000, used=0, waiting=0)
        """

        async def read() -> Statistics:
            return self._async.statistics()

        return self._portal.call(read)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancel the jobs of all calls of `subscribe`, and close all connections.

        Later calls raise `ClientClosedError`, and so do the calls of `subscribe`. Other calls that
        have been sent are completed. The cancellations take five seconds at most, and one second
        more for each hundred jobs. They continue when the call is cancelled, until the event loop
        ends. The ids of jobs that could not be cancelled are logged as one warning.

        Async hooks have five seconds to receive the last events.
        """
        self._close()
