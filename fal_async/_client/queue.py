"""`QueueMixin`: calls about jobs in the queue, from `submit` to `attach`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fal_async._client.handle import AsyncRequestHandle
from fal_async._client.result import check_output_type
from fal_async._client.subscription import JobSubscription
from fal_async._core.checks import check_callback, check_mapping, seconds
from fal_async._files.auto_upload import attach_files
from fal_async._net.tasks import on_abandoned_result
from fal_async._protocol import options, queue
from fal_async._protocol.endpoint import parse_endpoint, parse_request_id
from fal_async._protocol.queue import Submission, job_urls
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from typing_extensions import TypeVar

    from fal_async._client.result import Result
    from fal_async._dispatch.dispatcher import Dispatcher
    from fal_async._protocol.endpoint import Endpoint
    from fal_async._protocol.response import Response
    from fal_async.types import Arguments, Cancellation, Priority, Status

    T = TypeVar("T", default=Result)

__all__ = ["QueueMixin"]


class QueueMixin:
    """Calls about jobs in the queue."""

    _dispatcher: Dispatcher

    async def _cancel_abandoned(self, handle: AsyncRequestHandle) -> None:
        """Cancel a job whose caller was cancelled before it received the handle."""
        canceller = self._dispatcher.resources.cancellers.get()
        await canceller.wait(canceller.cancel(handle.request_id, handle.cancel))

    @on_abandoned_result(_cancel_abandoned)
    async def submit(
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
    ) -> AsyncRequestHandle:
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
            >>> async def main() -> None:
            ...     handle = await fal_async.submit("demo/echo", {"prompt": "a cat"})
            ...     print(await handle.get())
            >>> anyio.run(main)
            {'prompt': 'a cat'}
        """
        platform = options.platform_headers(
            hint=hint,
            priority=priority,
            start_timeout=start_timeout,
            tags=tags,
            no_retry=no_retry,
            store_io=store_io,
            expires_in=expires_in,
        )
        endpoint = parse_endpoint(application)
        merged = options.merge_headers(platform, headers)
        query = options.submit_query(webhook_url=webhook_url, max_queue_length=max_queue_length)
        timeout = seconds("timeout", timeout)
        dispatcher = self._dispatcher
        with dispatcher.call("submit", endpoint.id, timeout=timeout) as state:
            arguments = await attach_files(dispatcher, arguments, auto_upload=auto_upload)
            operation = queue.submit(
                dispatcher.hosts, endpoint, arguments, path=path, headers=merged, query=query
            )

            async def cancel_abandoned(response: Response) -> None:
                if response.ok:
                    await self._cancel_abandoned(self._bind(endpoint, operation.parse(response)))

            submission = await dispatcher.execute(operation, on_abandoned=cancel_abandoned)
            return self._bind(endpoint, submission, state.observer.traceparent)

    async def subscribe(
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
                validated against it. ``None`` returns a `Result`, or the plain value of an
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
            >>> async def main() -> None:
            ...     seen = []
            ...     result = await fal_async.subscribe(
            ...         "demo/echo", {"prompt": "a cat"}, on_queue_update=seen.append
            ...     )
            ...     print(type(seen[-1]).__name__, result)
            >>> anyio.run(main)
            Completed {'prompt': 'a cat'}
        """
        check_output_type(output)
        check_callback("on_enqueue", on_enqueue)
        check_callback("on_queue_update", on_queue_update)
        client_timeout = seconds("client_timeout", client_timeout)
        interval = seconds("interval", interval)
        start_timeout = options.start_timeout_within(start_timeout, client_timeout)

        dispatcher, name = self._dispatcher, str(parse_endpoint(application))
        await dispatcher.resources.lanes.get().turns.wait()
        with dispatcher.call("subscribe", name, timeout=client_timeout) as state:
            job = JobSubscription(dispatcher, state, on_enqueue, on_queue_update)
            return await job.run(
                self.submit(
                    application,
                    arguments,
                    path=path,
                    hint=hint,
                    priority=priority,
                    headers=headers,
                    start_timeout=start_timeout,
                    tags=tags,
                    no_retry=no_retry,
                    store_io=store_io,
                    max_queue_length=max_queue_length,
                    expires_in=expires_in,
                    auto_upload=auto_upload,
                ),
                with_logs=with_logs,
                interval=interval,
                output=output,
            )

    async def status(
        self,
        application: str,
        request_id: str,
        *,
        with_logs: bool = False,
        timeout: float | None = None,
    ) -> Status:
        """Return the current status of a job; see `AsyncRequestHandle.status`.

        Args:
            application: The endpoint id of the job.
            request_id: The job's id.
            with_logs: Whether the status contains the job's log lines.
            timeout: The timeout of the call, retries included, in seconds; ``None`` disables it.

        Raises:
            FalClientTimeoutError: The timeout has passed.
            NotFoundError: The job is unknown or has expired.
        """
        handle = self._make_handle(application, request_id)
        return await handle.status(with_logs=with_logs, timeout=timeout)

    async def result(
        self, application: str, request_id: str, *, output: type[T] | None = None
    ) -> T:
        """Wait until a job has completed, and return its output; see `AsyncRequestHandle.get`.

        Args:
            application: The endpoint id of the job.
            request_id: The job's id.
            output: The type that the output is validated against; ``None`` returns a `Result`.

        Raises:
            FalClientHTTPError: The job failed. The subclass is the kind of the error.
        """
        return await self._make_handle(application, request_id).get(output=output)

    async def cancel(
        self, application: str, request_id: str, *, timeout: float | None = None
    ) -> Cancellation:
        """Cancel a job; see `AsyncRequestHandle.cancel`.

        Args:
            application: The endpoint id of the job.
            request_id: The job's id.
            timeout: The timeout of the call, retries included, in seconds; ``None`` disables it.

        Raises:
            FalClientTimeoutError: The timeout has passed. The job may have been cancelled.
            NotFoundError: The job is unknown or has expired.
        """
        return await self._make_handle(application, request_id).cancel(timeout=timeout)

    async def get_handle(self, application: str, request_id: str) -> AsyncRequestHandle:
        """Return the handle of a job by its id. Nothing is sent.

        Args:
            application: The endpoint id of the job.
            request_id: The job's id.

        Raises:
            InvalidRequestError: One of the ids is invalid.
        """
        return self._make_handle(application, request_id)

    def attach(self, handle: AsyncRequestHandle | Mapping[str, str]) -> AsyncRequestHandle:
        """Bind a handle to this client: a handle that was unpickled, or the data of `to_dict`.

        URLs that do not belong to the platform's queue are replaced by the URLs for the ids, so
        that the key is sent to the platform only.

        Args:
            handle: The handle or its data.

        Raises:
            InvalidRequestError: The data is not the data of a handle.
        """
        data: Mapping[str, str]
        if isinstance(handle, AsyncRequestHandle):
            data = handle.to_dict()
        else:
            check_mapping("handle", handle)
            data = handle
        try:
            endpoint = parse_endpoint(data["application"])
            request_id = parse_request_id(data["request_id"])
        except KeyError as error:
            raise InvalidRequestError(f"handle must have {error.args[0]!r}") from error
        return self._bind(
            endpoint,
            Submission(
                request_id=request_id,
                status_url=data.get("status_url"),
                response_url=data.get("response_url"),
                cancel_url=data.get("cancel_url"),
            ),
            data.get("traceparent"),
        )

    def _make_handle(self, application: str, request_id: str) -> AsyncRequestHandle:
        return self._bind(
            parse_endpoint(application), Submission(request_id=parse_request_id(request_id))
        )

    def _bind(
        self, endpoint: Endpoint, submission: Submission, traceparent: str | None = None
    ) -> AsyncRequestHandle:
        urls = job_urls(self._dispatcher.hosts, endpoint, submission)
        handle = AsyncRequestHandle(
            request_id=submission.request_id,
            response_url=urls.response_url,
            status_url=urls.status_url,
            cancel_url=urls.cancel_url,
            application=endpoint.id,
            traceparent=traceparent,
        )
        return handle._bind(self._dispatcher)  # pyright: ignore[reportPrivateUsage] -- the client makes handles
