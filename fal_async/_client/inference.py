"""`InferenceMixin`: direct calls, `run` and `stream`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fal_async._client.result import check_output_type, finalize_output, make_result
from fal_async._client.stream import EventStream
from fal_async._core.checks import seconds
from fal_async._files.auto_upload import attach_files, prepare_auto_upload
from fal_async._protocol import inference, options
from fal_async._protocol.endpoint import parse_endpoint

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from typing_extensions import TypeVar

    from fal_async._client.result import Result
    from fal_async._dispatch.dispatcher import Dispatcher
    from fal_async._protocol.operation import Operation
    from fal_async.types import Arguments

    E = TypeVar("E", default=dict[str, Any])
    T = TypeVar("T", default=Result)

__all__ = ["InferenceMixin"]


class InferenceMixin:
    """Direct calls of apps, without the queue."""

    _dispatcher: Dispatcher

    async def run(
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
                validated against it. ``None`` returns a `Result`, or the plain value of an
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
            >>> async def main() -> None:
            ...     result = await fal_async.run("demo/echo", {"prompt": "a cat"})
            ...     print(result["prompt"])
            >>> anyio.run(main)
            a cat
        """
        check_output_type(output)
        platform = options.platform_headers(
            hint=hint,
            start_timeout=start_timeout,
            tags=tags,
            store_io=store_io,
            expires_in=expires_in,
        )
        endpoint = parse_endpoint(application)
        merged = options.merge_headers(platform, headers)
        timeout = seconds("timeout", timeout)
        dispatcher = self._dispatcher
        with dispatcher.call("run", endpoint.id, timeout=timeout):
            arguments = await attach_files(dispatcher, arguments, auto_upload=auto_upload)
            operation = inference.run(
                dispatcher.hosts, endpoint, arguments, method=method, path=path, headers=merged
            )
            value = make_result(await dispatcher.execute(operation))
            called = endpoint.id
            if path:
                called = f"{called}/{path.partition('?')[0].strip('/')}".rstrip("/")
            return finalize_output(value, output, dispatcher, called)

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
    ) -> EventStream[E]:
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
            >>> async def main() -> None:
            ...     async for event in fal_async.stream("demo/stream", {"steps": 2}):
            ...         print(event["step"])
            >>> anyio.run(main)
            1
            2
        """
        check_output_type(output)
        endpoint = parse_endpoint(application)
        merged = options.merge_headers(headers)
        upload = prepare_auto_upload(self._dispatcher, arguments, auto_upload=auto_upload)

        def build(given: Arguments) -> Operation[None]:
            return inference.stream(
                self._dispatcher.hosts, endpoint, given, path=path, headers=merged
            )

        async def prepare() -> Operation[None]:
            return build(arguments if upload is None else await upload())

        return EventStream(
            self._dispatcher,
            build(arguments if upload is None else {}),
            prepare=None if upload is None else prepare,
            timeout=seconds("timeout", timeout),
            idle_timeout=seconds("idle_timeout", idle_timeout),
            output=output,
        )
