"""`AsyncRequestHandle`: a job in the queue, as plain data."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self

from fal_async._client.result import Result, check_output_type, finalize_output, make_result
from fal_async._client.watcher import JobWatcher
from fal_async._core.annotations import set_module
from fal_async._core.checks import seconds
from fal_async._dispatch.binding import load_default_dispatcher
from fal_async._protocol import queue
from fal_async.errors import InvalidRequestError, InvalidResponseError
from fal_async.types import Completed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema
    from typing_extensions import TypeVar

    from fal_async._dispatch.call_state import CallState
    from fal_async._dispatch.dispatcher import Dispatcher
    from fal_async.types import Cancellation, Status

    T = TypeVar("T", default=Result)
else:
    from typing import TypeVar

__all__ = ["AsyncRequestHandle", "Bound", "SupportsAttach", "check_client", "handle_schema"]

HandleT = TypeVar("HandleT", covariant=True)


class SupportsAttach(Protocol[HandleT]):
    """A client that binds handles of one class."""

    def attach(self, handle: Mapping[str, str], /) -> HandleT:
        """Bind the data of a handle to the client."""
        raise NotImplementedError


class Bound:
    """The dispatcher of an object of plain data, apart from the data."""

    __slots__ = ("_dispatcher",)

    _dispatcher: Dispatcher

    def _bind(self, dispatcher: Dispatcher) -> Self:
        object.__setattr__(self, "_dispatcher", dispatcher)
        return self


@set_module("fal_async")
@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncRequestHandle(Bound):
    """A job in the queue.

    A handle is plain data: store `to_dict` anywhere, or pickle the handle, and continue with
    `AsyncClient.attach` in another process. A pickled handle contains neither client nor key; it
    uses the module-level client until it is attached to another.

    Attributes:
        request_id: The job's id.
        response_url: The URL of the job's output.
        status_url: The URL of the job's status.
        cancel_url: The URL that cancels the job.
        application: The endpoint id of the job.
        traceparent: The trace context of the submission; ``None`` without a hook for traces.

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
    traceparent: str | None = field(default=None, repr=False, compare=False)

    def _repr_html_(self) -> str:
        from fal_async._core.notebook import handle_html  # only notebooks call this

        return handle_html(self.application, self.request_id)

    @classmethod
    def from_request_id(
        cls, client: SupportsAttach[AsyncRequestHandle], application: str, request_id: str
    ) -> AsyncRequestHandle:
        """Return the handle of a job by its id, like `AsyncClient.get_handle`.

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
        """Return the handle as JSON values, for `AsyncClient.attach`."""
        data = {
            "request_id": self.request_id,
            "response_url": self.response_url,
            "status_url": self.status_url,
            "cancel_url": self.cancel_url,
            "application": self.application,
        }
        return data if self.traceparent is None else {**data, "traceparent": self.traceparent}

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return handle_schema(cls, cls._unpickle)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Callable[..., AsyncRequestHandle], tuple[Any, ...]]:
        return self._unpickle, (self.to_dict(),)

    @classmethod
    def _unpickle(cls, data: dict[str, str]) -> AsyncRequestHandle:
        return cls(**data)

    async def status(self, *, with_logs: bool = False, timeout: float | None = None) -> Status:
        """Return the current status of the job.

        Args:
            with_logs: Whether the status contains the job's log lines.
            timeout: The timeout of the call, retries included, in seconds; ``None`` disables it.

        Raises:
            FalClientTimeoutError: The timeout has passed.
            NotFoundError: The job is unknown or has expired.
        """
        timeout = seconds("timeout", timeout)
        dispatcher = await self._get_dispatcher()
        operation = queue.status(
            self.status_url,
            application=self.application,
            request_id=self.request_id,
            with_logs=with_logs,
        )
        with dispatcher.call("status", self.application, timeout=timeout, handle=self):
            return await dispatcher.execute(operation)

    async def iter_events(
        self, *, with_logs: bool = False, interval: float | None = None
    ) -> AsyncGenerator[Status, None]:
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
        dispatcher = await self._get_dispatcher()
        state = dispatcher.begin_call("iter_events", self.application, self)
        watcher = self._watch(dispatcher, state, with_logs=with_logs, interval=interval)
        error: BaseException | None = None
        try:
            async with aclosing(watcher.statuses()) as statuses:  # closed in order, not by the loop
                async for status in statuses:
                    yield status
        except BaseException as raised:
            error = raised
            raise
        finally:
            state.observer.end(error)

    async def get(
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
                validated against it. ``None`` returns a `Result`, or the plain value of an
                output that is not a JSON object.

        Raises:
            FalClientTimeoutError: The timeout has passed. The job continues.
            FalClientHTTPError: The job failed. The subclass is the kind of the error.
            InvalidResponseError: The output does not have the type `output`.
        """
        check_output_type(output)
        timeout = seconds("timeout", timeout)
        dispatcher = await self._get_dispatcher()
        await dispatcher.resources.lanes.get().turns.wait()
        with dispatcher.call("get", self.application, timeout=timeout, handle=self) as state:
            watcher = self._watch(dispatcher, state, interval=interval)
            try:
                while (status := await watcher.next_status()) is not None:
                    state.last = status
            finally:
                await watcher.aclose()
            return await self._fetch_result(state.last, output)

    async def cancel(self, *, timeout: float | None = None) -> Cancellation:
        """Cancel the job.

        Args:
            timeout: The timeout of the call, retries included, in seconds; ``None`` disables it.

        Returns:
            Whether the job was removed from the queue, is being cancelled, or had completed before.

        Raises:
            FalClientTimeoutError: The timeout has passed. The job may have been cancelled.
            NotFoundError: The job is unknown or has expired.
        """
        timeout = seconds("timeout", timeout)
        dispatcher = await self._get_dispatcher()
        operation = queue.cancel(
            self.cancel_url, application=self.application, request_id=self.request_id
        )
        with dispatcher.call("cancel", self.application, timeout=timeout, handle=self):
            return await dispatcher.execute(operation)

    def _watch(
        self,
        dispatcher: Dispatcher,
        state: CallState,
        *,
        with_logs: bool = False,
        interval: float | None,
        poll_immediately: bool = True,
    ) -> JobWatcher:
        return JobWatcher(
            dispatcher,
            state,
            self,
            with_logs=with_logs,
            interval=seconds("interval", interval),
            poll_immediately=poll_immediately,
        )

    async def _fetch_result(self, last: Status | None, output: type[T] | None) -> T:
        """Fetch the output of the completed job; raise the job's error if it failed."""
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
            return finalize_output(value, output, dispatcher, self.application)
        except InvalidResponseError as error:
            error.request_id = self.request_id
            raise

    async def _get_dispatcher(self) -> Dispatcher:
        if hasattr(self, "_dispatcher"):
            return self._dispatcher
        return await load_default_dispatcher()


def handle_schema(kind: type[Any], make: Callable[[dict[str, str]], Any]) -> CoreSchema:
    """Return the schema of handles, which are serialized as the data of `to_dict`.

    Args:
        kind: The class of the handles.
        make: Makes a handle from its data.
    """
    from pydantic_core import core_schema  # only pydantic itself calls this

    text = core_schema.typed_dict_field(core_schema.str_schema())
    names = ("request_id", "response_url", "status_url", "cancel_url", "application")
    fields: dict[str, core_schema.TypedDictField] = dict.fromkeys(names, text)
    fields["traceparent"] = core_schema.typed_dict_field(core_schema.str_schema(), required=False)
    data = core_schema.typed_dict_schema(fields)
    from_data = core_schema.no_info_after_validator_function(make, data)
    instance = core_schema.is_instance_schema(kind)
    return core_schema.json_or_python_schema(
        from_data,
        core_schema.union_schema([instance, from_data], mode="left_to_right"),
        serialization=core_schema.plain_serializer_function_ser_schema(
            kind.to_dict, return_schema=data
        ),
    )


def check_client(client: object) -> None:
    """Raise an error for an object that cannot bind handles, such as a client of httpx."""
    if not hasattr(client, "attach"):
        raise InvalidRequestError(
            f"client must be a client of fal_async, got {type(client).__name__}"
        )
