"""Cancellation and groups, tamed: work heard out, cleanup bounded, single failures bare."""

from __future__ import annotations

import logging
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    nullcontext,
)
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar, cast

import anyio

from fal_async._net.background import spawn
from fal_async.errors import ClientClosedError, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from anyio.abc import TaskGroup

__all__ = [
    "AbandonedResultHandler",
    "ConnectionContext",
    "abandoned_result_handler",
    "on_abandoned_result",
    "open_task_group",
    "optional_timeout",
    "run_to_completion",
    "shielded_cleanup",
]

T = TypeVar("T")
F = TypeVar("F", bound="Callable[..., Any]")
_log = logging.getLogger("fal_async")

_NO_TIMEOUT = cast("AbstractContextManager[anyio.CancelScope | None, bool]", nullcontext())
#: How long cleanup after a cancellation may take, in seconds.
CLEANUP: Final = 5.0


def optional_timeout(
    seconds: float | None,
) -> AbstractContextManager[anyio.CancelScope | None, bool]:
    """Cancel a block after this time, in seconds; ``None`` disables it without a cost."""
    return _NO_TIMEOUT if seconds is None else anyio.move_on_after(seconds)


def shielded_cleanup(seconds: float = CLEANUP) -> anyio.CancelScope:
    """A scope for cleanup that needs I/O: out of reach of cancellation, but not for long."""
    return anyio.move_on_after(seconds, shield=True)


async def run_to_completion(
    work: Callable[[], Awaitable[T]],
    *,
    patience: Callable[[], float],
    abandoned: Callable[[T], Awaitable[None]],
) -> T:
    """Do work whose outcome must be known even if the caller leaves: in the background.

    Args:
        work: A coroutine function. It goes on when the caller has been cancelled.
        patience: Gives how long a caller who was cancelled waits for the end of the work and of
            `abandoned`, in seconds; also their grace period when the event loop ends.
        abandoned: Called with the outcome, in the background, when the caller has left before it
            came.

    Returns:
        The outcome of the work.
    """
    call = _Call(work, abandoned)
    task = spawn(call.run, grace=patience)
    try:
        await task.wait()
    except BaseException as error:
        call.left = True
        _log.debug("a caller has left, and its call is finished in the background")
        if call.outcomes:
            task = spawn(abandoned, call.outcomes[0], grace=patience)
        if not isinstance(error, GeneratorExit):  # then nothing can be awaited any more
            with shielded_cleanup(patience()):
                await task.wait()
        raise
    if call.outcomes:
        return call.outcomes[0]
    raise call.error or task.error or ClientClosedError("the event loop has ended")


class _Call(Generic[T]):
    """Work that goes on when its caller has left; the outcome, if it came before, in a list."""

    def __init__(
        self, work: Callable[[], Awaitable[T]], abandoned: Callable[[T], Awaitable[None]]
    ) -> None:
        self.outcomes: list[T] = []
        self.error: Exception | None = None
        self.left = False
        self._work = work
        self._abandoned = abandoned

    async def run(self) -> None:
        try:
            self.outcomes.append(await self._work())
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is looked at
            self.error = error
        finally:
            if self.left and not self.outcomes:
                reason = self.error or "it was cut short"
                _log.warning("a call whose caller has left came to nothing: %s", reason)
        if self.left and self.outcomes:
            await self._abandoned(self.outcomes[0])


@asynccontextmanager
async def open_task_group() -> AsyncGenerator[TaskGroup, None]:
    """A task group whose first failure ends it and is raised as itself, not in a group."""
    failure: BaseException | None = None
    try:
        async with anyio.create_task_group() as group:
            yield group
    except BaseExceptionGroup as failures:
        failure = _first_error(failures)
    if failure is not None:
        try:
            raise failure
        finally:
            del failure  # its traceback refers to this frame


def _first_error(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error; a cancellation only where there is nothing else."""
    _, errors = failures.split(anyio.get_cancelled_exc_class())
    error = (errors or failures).exceptions[0]
    if isinstance(error, BaseExceptionGroup):
        return _first_error(cast("BaseExceptionGroup[BaseException]", error))
    return error


class _Closable(Protocol):
    async def close(self) -> None: ...


C = TypeVar("C", bound=_Closable)


class ConnectionContext(AbstractAsyncContextManager[C]):
    """Opens a connection on entry, and closes it on exit.

    In between it holds no task, cancel scope or generator. So fixtures, exit stacks and pairs of
    functions may enter it in one task and exit it in another, or never.

    Args:
        connect: Opens the connection.
    """

    def __init__(self, connect: Callable[[], Awaitable[C]]) -> None:
        self._connect: Callable[[], Awaitable[C]] | None = connect
        self._connection: C | None = None

    async def __aenter__(self) -> C:
        connect, self._connect = self._connect, None
        if connect is None:
            raise InvalidRequestError(
                "this context manager can be entered once; call the method again for another one"
            )
        self._connection = connection = await connect()
        return connection

    async def __aexit__(self, *exc_info: object) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with shielded_cleanup():
                await connection.close()


@dataclass(frozen=True, slots=True)
class AbandonedResultHandler:
    """Handles results of a method that are ready after their caller is gone.

    Attributes:
        handle: Called with the object whose method it is, and the result.
        is_redelivered: Whether the object returns the result from the next call. If so, the handler
            also gets errors of this library.
    """

    handle: Callable[[Any, Any], Awaitable[None]]
    is_redelivered: bool


def on_abandoned_result(
    handle: Callable[[Any, Any], Awaitable[None]], *, is_redelivered: bool = False
) -> Callable[[F], F]:
    """Decorate a method with a handler for results that its caller cannot receive.

    A thread that waits for a coroutine can be interrupted at the moment at which the result is
    ready.
    """

    def decorate(method: F) -> F:
        vars(method)["abandoned_result_handler"] = AbandonedResultHandler(handle, is_redelivered)
        return method

    return decorate


def abandoned_result_handler(function: Callable[..., object]) -> AbandonedResultHandler | None:
    """Return the handler that `on_abandoned_result` set, or ``None``."""
    handler: AbandonedResultHandler | None = getattr(function, "abandoned_result_handler", None)
    return handler
