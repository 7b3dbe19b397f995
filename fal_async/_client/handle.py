"""Handles: a job as plain data, and what can be done with it."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, Self

from fal_async._client.result import Result, check_output_type, finalize_output, make_result
from fal_async._client.watcher import JobWatcher
from fal_async._core.annotations import set_module
from fal_async._core.checks import seconds
from fal_async._dispatch.binding import load_default_dispatcher
from fal_async._dispatch.call_state import CallState, use_call_state
from fal_async._net.tasks import optional_timeout
from fal_async._protocol import queue
from fal_async.errors import InvalidRequestError, InvalidResponseError
from fal_async.types import Completed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema
    from typing_extensions import TypeVar

    from fal_async._dispatch.dispatcher import Dispatcher
    from fal_async.types import Cancellation, Status

    T = TypeVar("T", default=Result)
else:
    from typing import TypeVar

__all__ = ["AsyncRequestHandle", "SupportsAttach", "check_client", "handle_schema"]

HandleT = TypeVar("HandleT", covariant=True)


class SupportsAttach(Protocol[HandleT]):
    """A client that binds handles of one class."""

    def attach(self, handle: Mapping[str, str], /) -> HandleT:
        """Bind the data of a handle to the client."""
        raise NotImplementedError


class _Bound:
    """The client's part that does the calls of a handle, and is no part of its data."""

    __slots__ = ("_dispatcher",)

    _dispatcher: Dispatcher

    def _used_with(self, dispatcher: Dispatcher) -> Self:
        object.__setattr__(self, "_dispatcher", dispatcher)
        return self


@set_module("fal_async")
@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncRequestHandle(_Bound):
    """A job in the queue.

    It is plain data: store `to_dict` anywhere, or pickle it, and pick the job up with
    `AsyncClient.attach` in another process. A pickled handle carries neither client nor key; until
    it is attached it uses the module-level client.

    Attributes:
        request_id: The job's id.
        response_url: Where its result is.
        status_url: Where its status is.
        cancel_url: Where it is cancelled.
        application: The endpoint id that it was submitted to.

    Example:
        >>> async def main() -> None:
        ...     handle = await fal_async.submit("demo/echo", {"prompt": "a cat"})
        ...     print((await handle.get())["prompt"])
        >>> anyio.run(main)
        a cat
    """

    request_id: str
    response_url: str = field(repr=False)
    status_url: str = field(repr=False)
    cancel_url: str = field(repr=False)
    application: str

    @classmethod
    def from_request_id(
        cls, client: SupportsAttach[AsyncRequestHandle], application: str, request_id: str
    ) -> AsyncRequestHandle:
        """The handle of a job whose id is known, as `AsyncClient.get_handle` gives it.

        Args:
            client: The client that it is used with.
            application: The endpoint id that the job was submitted to.
            request_id: The job's id.

        Raises:
            InvalidRequestError: One of the ids cannot be one, or the client is another library's.
        """
        check_client(client)
        return client.attach({"application": application, "request_id": request_id})

    def to_dict(self) -> dict[str, str]:
        """The handle as JSON values; `AsyncClient.attach` takes it back."""
        return {
            "request_id": self.request_id,
            "response_url": self.response_url,
            "status_url": self.status_url,
            "cancel_url": self.cancel_url,
            "application": self.application,
        }

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return handle_schema(cls, lambda data: cls(**data))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Callable[..., AsyncRequestHandle], tuple[Any, ...]]:
        # Names of public classes alone, so that other versions of the library can read the pickle.
        return partial(type(self), **self.to_dict()), ()

    async def status(self, *, with_logs: bool = False) -> Status:
        """Ask once how the job stands.

        Args:
            with_logs: Whether the answer carries the log lines that the platform holds.

        Raises:
            NotFoundError: The job is unknown or has expired.
        """
        dispatcher = await self._get_dispatcher()
        return await dispatcher.execute(
            queue.status(
                self.status_url,
                application=self.application,
                request_id=self.request_id,
                with_logs=with_logs,
            )
        )

    async def iter_events(
        self, *, with_logs: bool = False, interval: float | None = None
    ) -> AsyncGenerator[Status, None]:
        """Yield the job's statuses as they change, up to and including `Completed`.

        Log lines come exactly once, in order, in the status in which they were first seen.

        Args:
            with_logs: Whether statuses carry log lines.
            interval: Poll with this pause, in seconds, and yield the status of each poll, changed
                or not, so that the body of the loop runs that often; ``None`` listens to the
                platform's status stream, and polls with a growing pause where that cannot be had.

        Raises:
            NotFoundError: The job is unknown or has expired.
            TransportError: The platform could not be reached for longer than the client's retry
                policy allows.
        """
        watcher = await self._watch(with_logs=with_logs, interval=interval)
        async with aclosing(watcher.statuses()) as statuses:  # closed in order, not by the loop
            async for status in statuses:
                yield status

    async def get(
        self,
        *,
        interval: float | None = None,
        timeout: float | None = None,
        output: type[T] | None = None,
    ) -> T:
        """Wait until the job has ended, and fetch its output. Leaving early leaves the job alone.

        Args:
            interval: Poll with this pause, in seconds; ``None`` chooses by itself.
            timeout: How long to wait, in seconds; ``None`` waits as long as it takes.
            output: A pydantic model, or any type that pydantic knows, which the output is checked
                against; ``None`` gives a `Result`, or the plain value where the output is not a
                JSON object.

        Raises:
            FalClientTimeoutError: `timeout` has passed; the job goes on.
            FalClientHTTPError: The job failed; the class says in what way.
            InvalidResponseError: The output is not of the type asked for.
        """
        check_output_type(output)
        timeout = seconds("timeout", timeout)
        last: Status | None = None
        state = CallState("wait", started=None)
        with optional_timeout(timeout), use_call_state(state):
            watcher = await self._watch(interval=interval)
            async with aclosing(watcher.statuses()) as statuses:
                async for status in statuses:
                    last = status
            return await self._fetch_result(last, output)
        raise state.timeout_error(timeout or 0, self.request_id, last)

    async def cancel(self) -> Cancellation:
        """Ask the platform to cancel the job.

        Returns:
            Whether it was removed from the queue, told to stop, or had ended already.

        Raises:
            NotFoundError: The job is unknown or has expired.
        """
        dispatcher = await self._get_dispatcher()
        return await dispatcher.execute(
            queue.cancel(self.cancel_url, application=self.application, request_id=self.request_id)
        )

    async def _watch(
        self, *, with_logs: bool = False, interval: float | None, poll_immediately: bool = True
    ) -> JobWatcher:
        return JobWatcher(
            await self._get_dispatcher(),
            status_url=self.status_url,
            application=self.application,
            request_id=self.request_id,
            with_logs=with_logs,
            interval=seconds("interval", interval),
            poll_immediately=poll_immediately,
        )

    async def _fetch_result(self, last: Status | None, output: type[T] | None) -> T:
        """Fetch the output of the job, which has ended; the response tells whether it succeeded."""
        dispatcher = await self._get_dispatcher()
        fetched = await dispatcher.execute(
            queue.result(
                self.response_url,
                application=self.application,
                request_id=self.request_id,
                failed=isinstance(last, Completed) and last.error is not None,
            )
        )
        metrics = last.metrics if isinstance(last, Completed) else None
        value = make_result(fetched, request_id=self.request_id, metrics=metrics)
        try:
            return finalize_output(value, output, dispatcher)
        except InvalidResponseError as error:
            error.request_id = self.request_id
            raise

    async def _get_dispatcher(self) -> Dispatcher:
        if hasattr(self, "_dispatcher"):
            return self._dispatcher
        return await load_default_dispatcher()


def handle_schema(kind: type[Any], make: Callable[[dict[str, str]], Any]) -> CoreSchema:
    """The schema of a handle, or of the data of its `to_dict`; it is written as such data."""
    from pydantic_core import core_schema  # who defines a model has it at hand

    text = core_schema.typed_dict_field(core_schema.str_schema())
    names = ("request_id", "response_url", "status_url", "cancel_url", "application")
    data = core_schema.typed_dict_schema(dict.fromkeys(names, text))
    made = core_schema.no_info_after_validator_function(make, data)
    kept = core_schema.is_instance_schema(kind)
    return core_schema.json_or_python_schema(
        made,
        core_schema.union_schema([kept, made], mode="left_to_right"),
        serialization=core_schema.plain_serializer_function_ser_schema(
            kind.to_dict, return_schema=data
        ),
    )


def check_client(client: object) -> None:
    """Refuse what cannot bind a handle, such as a client of httpx."""
    if not hasattr(client, "attach"):
        raise InvalidRequestError(
            f"client must be a client of fal_async, got {type(client).__name__}"
        )
