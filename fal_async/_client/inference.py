"""Direct calls: an app answers over the connection that asked it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fal_async._client.result import check_output_type, finalize_output, make_result
from fal_async._client.stream import EventStream
from fal_async._core.checks import seconds
from fal_async._dispatch.call_state import CallState, use_call_state
from fal_async._files.auto_upload import attach_files, prepare_auto_upload
from fal_async._net.tasks import optional_timeout
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
    """The calls that hold a connection for their whole life."""

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
            path: A path within the app, added to the id.
            timeout: The deadline of the whole call, in seconds, retries included; ``None`` waits as
                long as it takes. The run is never started a second time because of it.
            start_timeout: How long the platform may take until a runner starts, in seconds;
                ``None`` for ever.
            hint: Requests with the same hint go to the same runner where possible.
            headers: Further request headers.
            output: A pydantic model, or any type that pydantic knows, which the output is checked
                against; ``None`` gives a `Result`, or the plain value where the output is not a
                JSON object.
            tags: Up to ten names and values that the platform's usage reports show.
            store_io: Whether the platform stores input and output; ``None`` leaves it to the
                account's setting.
            expires_in: The life of produced files, in seconds; ``None`` leaves it to the account's
                setting.
            auto_upload: Whether files in the arguments are uploaded first, and replaced by their
                URLs: paths, open files, images, arrays and `Upload`. If not, they are an error.

        Raises:
            FalClientTimeoutError: `timeout` has passed.
            FalClientHTTPError: The platform or the app answered with an error; the class says of
                what kind.
            SubmitOutcomeUnknownError: The connection broke after the call was sent.
            ConnectionFailedError: The platform could not be reached; nothing was sent.
            InvalidRequestError: An argument is wrong; nothing was sent.
            InvalidResponseError: The output is not of the type asked for.

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
        state = CallState()
        with optional_timeout(timeout), use_call_state(state):
            arguments = await attach_files(dispatcher, arguments, auto_upload=auto_upload)
            operation = inference.run(
                dispatcher.hosts, endpoint, arguments, method=method, path=path, headers=merged
            )
            value = make_result(await dispatcher.execute(operation))
            return finalize_output(value, output, dispatcher)
        raise state.timeout_error(timeout or 0)

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
        """Run an app directly and read its output as it comes.

        Args:
            application: The endpoint id, such as ``"fal-ai/any-llm"``.
            arguments: The input: a mapping of JSON values, or a pydantic model.
            path: The path within the app that streams.
            timeout: The deadline of the whole stream, in seconds; ``None`` reads as long as it
                takes.
            headers: Further request headers.
            idle_timeout: How long the stream may be silent, in seconds, from its opening on; the
                platform's keep-alive comments are no silence. ``None`` for any time.
            output: A type that each event is checked against; ``None`` gives decoded JSON.
            auto_upload: Whether files in the arguments are uploaded first; see `run`.

        Raises:
            FalClientTimeoutError: `timeout` has passed, or the stream was silent for too long.
            FalClientHTTPError: The platform or the app answered with an error.
            StreamError: The app sent an error in the midst of the stream.
            StreamInterruptedError: The connection was lost; the error says how many events had
                arrived.
            SubmitOutcomeUnknownError: The connection broke before the stream began.
            InvalidRequestError: An argument is wrong; nothing was sent.
            InvalidResponseError: An event is not of the type asked for.

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
