"""`submit`, `subscribe`, `status`, `result`, `cancel`, `get_handle`, `attach`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fal_async._client.handle import AsyncRequestHandle
from fal_async._client.result import check_output_type
from fal_async._client.subscription import JobSubscription
from fal_async._core.checks import check_callback, check_mapping, seconds
from fal_async._dispatch.call_state import CallState, use_call_state
from fal_async._files.auto_upload import attach_files
from fal_async._net.tasks import on_abandoned_result, optional_timeout
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
    """The calls about jobs in the queue."""

    _dispatcher: Dispatcher

    async def _cancel_abandoned(self, handle: AsyncRequestHandle) -> None:
        """Cancel a job whose caller has left before the handle was received."""
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
    ) -> AsyncRequestHandle:
        """Put a job into the queue and return its handle.

        If the caller is cancelled while the answer is on its way, the answer is waited for briefly
        and the job is cancelled, since nobody could collect it.

        Args:
            application: The endpoint id, such as ``"fal-ai/flux/dev"``.
            arguments: The input: a mapping of JSON values, or a pydantic model.
            path: A path within the app, added to the id.
            hint: Requests with the same hint go to the same runner where possible.
            webhook_url: Where the platform sends the output when the job has ended; ``None`` for
                nowhere.
            priority: ``"low"`` lets other requests pass; ``None`` is normal.
            headers: Further request headers.
            start_timeout: How long the platform may take until a runner starts, in seconds;
                ``None`` for ever.
            tags: Up to ten names and values that the platform's usage reports show.
            no_retry: Whether the platform must not try a failed job again on another runner.
            store_io: Whether the platform stores input and output; ``None`` leaves it to the
                account's setting.
            max_queue_length: Refuse with a `RateLimitError`, at once, when more requests than this
                wait for the endpoint; ``None`` for no bound.
            expires_in: The life of produced files, in seconds; ``None`` leaves it to the account's
                setting.
            auto_upload: Whether files in the arguments are uploaded first, and replaced by their
                URLs: paths, open files, images, arrays and `Upload`. If not, they are an error.

        Raises:
            FalClientHTTPError: The platform refused; the class says in what way.
            SubmitOutcomeUnknownError: The connection broke after the call was sent; it was not sent
                again.
            ConnectionFailedError: The platform could not be reached; nothing was sent.
            InvalidRequestError: An argument is wrong; nothing was sent.

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
        arguments = await attach_files(self._dispatcher, arguments, auto_upload=auto_upload)
        operation = queue.submit(
            self._dispatcher.hosts, endpoint, arguments, path=path, headers=merged, query=query
        )

        async def cancel_abandoned(response: Response) -> None:
            if response.ok:
                await self._cancel_abandoned(self._bind(endpoint, operation.parse(response)))

        submission = await self._dispatcher.execute(operation, on_abandoned=cancel_abandoned)
        return self._bind(endpoint, submission)

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
        """Put a job into the queue, wait until it has ended, and return its output.

        Leaving early cancels the job: when the task is cancelled, when `client_timeout` passes,
        when a callback raises. An error of the network leaves the job alone; the error carries its
        `request_id`.

        Args:
            application: The endpoint id, such as ``"fal-ai/flux/dev"``.
            arguments: The input: a mapping of JSON values, or a pydantic model.
            path: A path within the app, added to the id.
            hint: Requests with the same hint go to the same runner where possible.
            with_logs: Whether the statuses given to `on_queue_update` carry log lines; each line
                comes once.
            interval: Poll with this pause, in seconds; ``None`` listens to the platform's status
                stream, and polls with a growing pause where that cannot be had.
            on_enqueue: Called once with the request id; sync or async.
            on_queue_update: Called with each status that differs from the one before, or with
                `interval` after each poll; sync or async.
            priority: ``"low"`` lets other requests pass; ``None`` is normal.
            headers: Further request headers.
            start_timeout: How long the platform may take until a runner starts, in seconds;
                ``None`` takes `client_timeout`.
            client_timeout: The deadline of the whole call, in seconds; ``None`` waits as long as it
                takes.
            output: A pydantic model, or any type that pydantic knows, which the output is checked
                against; ``None`` gives a `Result`, or the plain value where the output is not a
                JSON object.
            tags: Up to ten names and values that the platform's usage reports show.
            no_retry: Whether the platform must not try a failed job again on another runner.
            store_io: Whether the platform stores input and output; ``None`` leaves it to the
                account's setting.
            max_queue_length: Refuse with a `RateLimitError`, at once, when more requests than this
                wait for the endpoint; ``None`` for no bound.
            expires_in: The life of produced files, in seconds; ``None`` leaves it to the account's
                setting.
            auto_upload: Whether files in the arguments are uploaded first, and replaced by their
                URLs: paths, open files, images, arrays and `Upload`. If not, they are an error.

        Raises:
            FalClientTimeoutError: `client_timeout` has passed; the job was told to stop.
            FalClientHTTPError: The platform refused, or the job failed; the class says in what way.
            SubmitOutcomeUnknownError: The connection broke after the job was sent; it was not sent
                again.
            ConnectionFailedError: The platform could not be reached; nothing was sent.
            InvalidRequestError: An argument is wrong; nothing was sent.
            InvalidResponseError: The output is not of the type asked for.

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

        async def submit() -> AsyncRequestHandle:
            return await self.submit(
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
            )

        job = JobSubscription(
            self._dispatcher.resources.cancellers.get(), on_enqueue, on_queue_update
        )
        state = CallState()
        with optional_timeout(client_timeout), use_call_state(state):
            return await job.run(submit, with_logs=with_logs, interval=interval, output=output)
        error = state.timeout_error(client_timeout or 0, job.request_id, job.last)
        error.uncancelled = job.uncancelled
        raise error

    async def status(self, application: str, request_id: str, *, with_logs: bool = False) -> Status:
        """Ask once how a job stands; see `AsyncRequestHandle.status`.

        Args:
            application: The endpoint id that the job was submitted to.
            request_id: The job's id.
            with_logs: Whether the answer carries the log lines that the platform holds.

        Raises:
            NotFoundError: The job is unknown or has expired.
        """
        return await self._make_handle(application, request_id).status(with_logs=with_logs)

    async def result(
        self, application: str, request_id: str, *, output: type[T] | None = None
    ) -> T:
        """Wait until a job has ended, and fetch its output; see `AsyncRequestHandle.get`.

        Args:
            application: The endpoint id that the job was submitted to.
            request_id: The job's id.
            output: A type that the output is checked against; ``None`` gives a `Result`.

        Raises:
            FalClientHTTPError: The job failed; the class says in what way.
        """
        return await self._make_handle(application, request_id).get(output=output)

    async def cancel(self, application: str, request_id: str) -> Cancellation:
        """Ask the platform to cancel a job; see `AsyncRequestHandle.cancel`.

        Args:
            application: The endpoint id that the job was submitted to.
            request_id: The job's id.

        Raises:
            NotFoundError: The job is unknown or has expired.
        """
        return await self._make_handle(application, request_id).cancel()

    async def get_handle(self, application: str, request_id: str) -> AsyncRequestHandle:
        """The handle of a job whose id is known. Nothing is sent.

        Args:
            application: The endpoint id that the job was submitted to.
            request_id: The job's id.

        Raises:
            InvalidRequestError: One of them cannot be an id.
        """
        return self._make_handle(application, request_id)

    def attach(self, handle: AsyncRequestHandle | Mapping[str, str]) -> AsyncRequestHandle:
        """Bind a handle to this client: one that was pickled, or the data of its `to_dict`.

        URLs that are not at the platform's queue are replaced by those that the ids stand for, so
        that the key goes nowhere else.

        Args:
            handle: The handle or its data.

        Raises:
            InvalidRequestError: The data is not that of a handle.
        """
        facts: Mapping[str, str]
        if isinstance(handle, AsyncRequestHandle):
            facts = handle.to_dict()
        else:
            check_mapping("handle", handle)
            facts = handle
        try:
            endpoint = parse_endpoint(facts["application"])
            request_id = parse_request_id(facts["request_id"])
        except KeyError as error:
            raise InvalidRequestError(f"the data of a handle needs {error.args[0]!r}") from error
        return self._bind(
            endpoint,
            Submission(
                request_id=request_id,
                status_url=facts.get("status_url"),
                response_url=facts.get("response_url"),
                cancel_url=facts.get("cancel_url"),
            ),
        )

    def _make_handle(self, application: str, request_id: str) -> AsyncRequestHandle:
        return self._bind(
            parse_endpoint(application), Submission(request_id=parse_request_id(request_id))
        )

    def _bind(self, endpoint: Endpoint, submission: Submission) -> AsyncRequestHandle:
        urls = job_urls(self._dispatcher.hosts, endpoint, submission)
        handle = AsyncRequestHandle(
            request_id=submission.request_id,
            response_url=urls.response_url,
            status_url=urls.status_url,
            cancel_url=urls.cancel_url,
            application=str(endpoint),
        )
        return handle._used_with(self._dispatcher)  # pyright: ignore[reportPrivateUsage] -- by its maker
