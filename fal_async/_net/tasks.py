"""Timeouts, shielded cleanup, task groups, and work and results that outlast their caller."""

from __future__ import annotations

import logging
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    nullcontext,
)
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, cast

import anyio

from fal_async._net.background import spawn
from fal_async.errors import ClientClosedError, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from anyio.abc import TaskGroup

    from fal_async._net.background import BackgroundTask

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
#: Maximum duration of cleanup after a cancellation, in seconds.
CLEANUP_TIMEOUT: Final = 5.0


def optional_timeout(
    seconds: float | None,
) -> AbstractContextManager[anyio.CancelScope | None, bool]:
    """Return a scope that is cancelled after this time, in seconds.

    ``None`` disables the timeout, and costs nothing.
    """
    return _NO_TIMEOUT if seconds is None else anyio.move_on_after(seconds)


def shielded_cleanup(seconds: float = CLEANUP_TIMEOUT) -> anyio.CancelScope:
    """Return a scope for cleanup that needs I/O, shielded from cancellation for a limited time."""
    return anyio.move_on_after(seconds, shield=True)


async def run_to_completion(
    work: Callable[[BackgroundTask], Awaitable[T]],
    *,
    grace_period: Callable[[], float],
    on_abandoned: Callable[[T], Awaitable[None]],
) -> T:
    """Do work in the background, so that it completes even if the caller is cancelled.

    Args:
        work: A coroutine function; called with the background task that does the work.
        grace_period: Returns the time, in seconds, that a cancelled caller waits for the work and
            for `on_abandoned`. They have the same time when the event loop ends.
        on_abandoned: Called with the result, in the background, if the caller was cancelled before
            it received the result.

    Returns:
        The result of the work.

    Raises:
        ClientClosedError: The work was cancelled.
    """
    results: list[T] = []
    error: Exception | None = None
    is_abandoned = False

    async def run() -> None:
        nonlocal error
        try:
            results.append(await work(task))
        except Exception as raised:  # noqa: BLE001 -- raised by the caller below
            error = raised
        finally:
            if is_abandoned and not results:
                reason = error or "it was cancelled"
                _log.warning("A call whose caller was cancelled has failed: %s", reason)
        if is_abandoned and results:
            await on_abandoned(results[0])

    task = spawn(run, grace_period=grace_period)
    try:
        await task.wait()
    except BaseException as raised:
        is_abandoned = True
        _log.debug("The caller was cancelled. Its call completes in the background")
        if results:
            task = spawn(on_abandoned, results[0], grace_period=grace_period)
        if not isinstance(raised, GeneratorExit):  # a closed coroutine cannot wait
            with shielded_cleanup(grace_period()):
                await task.wait()
        raise
    if results:
        return results[0]
    raise (
        error
        or task.error
        or ClientClosedError("the client or its event loop was closed before the response")
    )


@asynccontextmanager
async def open_task_group() -> AsyncGenerator[TaskGroup, None]:
    """Open a task group that raises its first error bare, not in an exception group."""
    error: BaseException | None = None
    try:
        async with anyio.create_task_group() as group:
            yield group
    except BaseExceptionGroup as exceptions:
        error = _first_error(exceptions)
    if error is not None:
        try:
            raise error
        finally:
            del error  # its traceback refers to this frame


def _first_error(exceptions: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error, or a cancellation if there is nothing else."""
    _, errors = exceptions.split(anyio.get_cancelled_exc_class())
    error = (errors or exceptions).exceptions[0]
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

    def decorator(method: F) -> F:
        vars(method)["abandoned_result_handler"] = AbandonedResultHandler(handle, is_redelivered)
        return method

    return decorator


def abandoned_result_handler(function: Callable[..., object]) -> AbandonedResultHandler | None:
    """Return the handler that `on_abandoned_result` set, or ``None``."""
    handler: AbandonedResultHandler | None = getattr(function, "abandoned_result_handler", None)
    return handler
