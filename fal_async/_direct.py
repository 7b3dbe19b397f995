"""Direct calls: an app answers over the connection that asked it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fal_async._attachments import attach_files, uploading
from fal_async._checks import seconds
from fal_async._protocol import operations, options
from fal_async._protocol.endpoint import parse_endpoint
from fal_async._protocol.outputs import check_output_type
from fal_async._results import hand_over
from fal_async._stream import EventStream
from fal_async._transport.call_state import CallState, use_call_state
from fal_async._transport.tasks import within

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from typing_extensions import TypeVar

    from fal_async._transport.perform import Performer
    from fal_async.types import Arguments, Result

    E = TypeVar("E", default=dict[str, Any])
    T = TypeVar("T", default=Result)

__all__ = ["DirectCalls"]


class DirectCalls:
    """The calls that hold a connection for their whole life."""

    _performer: Performer

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
            InvalidReplyError: The output is not of the type asked for.

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
        performer = self._performer
        state = CallState()
        with within(timeout), use_call_state(state):
            arguments = await attach_files(performer, arguments, auto_upload=auto_upload)
            operation = operations.run(
                performer.hosts, endpoint, arguments, method=method, path=path, headers=merged
            )
            value = await performer.perform(operation)
            return hand_over(value, output, performer)
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
            StreamBrokenError: The connection was lost; the error says how many events had arrived.
            SubmitOutcomeUnknownError: The connection broke before the stream began.
            InvalidRequestError: An argument is wrong; nothing was sent.
            InvalidReplyError: An event is not of the type asked for.

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
        upload = uploading(self._performer, arguments, auto_upload=auto_upload)

        def operation(given: Arguments) -> operations.Operation[None]:
            return operations.stream(
                self._performer.hosts, endpoint, given, path=path, headers=merged
            )

        async def prepare() -> operations.Operation[None]:
            return operation(arguments if upload is None else await upload())

        return EventStream(
            self._performer,
            operation(arguments if upload is None else {}),
            prepare=None if upload is None else prepare,
            timeout=seconds("timeout", timeout),
            idle_timeout=seconds("idle_timeout", idle_timeout),
            output=output,
        )
