"""Cancellation and groups, tamed: work heard out, cleanup bounded, single failures bare."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Final, TypeVar, cast

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from anyio.abc import TaskGroup

__all__ = ["bounded_shield", "hear_out", "open_task_group", "within"]

T = TypeVar("T")
_log = logging.getLogger("fal_async")

_UNBOUNDED = cast("AbstractContextManager[object, bool]", nullcontext())
#: How long cleanup after a cancellation may take, in seconds.
CLEANUP: Final = 5.0


def within(seconds: float | None) -> AbstractContextManager[object, bool]:
    """A scope that is left after so many seconds; ``None`` is no scope, which costs nothing."""
    return _UNBOUNDED if seconds is None else anyio.move_on_after(seconds)


def bounded_shield(seconds: float = CLEANUP) -> anyio.CancelScope:
    """A scope for cleanup that needs I/O: out of reach of cancellation, but not for long."""
    return anyio.move_on_after(seconds, shield=True)


async def hear_out(
    work: Callable[[], Awaitable[T]], *, grace: float, abandoned: Callable[[T], Awaitable[None]]
) -> T:
    """Do work whose outcome must be known even if the caller leaves.

    Args:
        work: What to do.
        grace: How many seconds the work may go on once the caller has been cancelled.
        abandoned: Called with the outcome when the caller has left before it came; bounded as
            cleanup is.

    Returns:
        The outcome of the work.
    """
    outcomes: list[T] = []
    errors: list[Exception] = []
    shield = anyio.CancelScope(shield=True)
    done = anyio.Event()

    async def carry_on() -> None:
        with shield:
            try:
                outcomes.append(await work())
            except Exception as error:  # noqa: BLE001 -- raised again by the caller, outside of the group
                errors.append(error)
        done.set()

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(carry_on)
            try:
                await done.wait()
            except BaseException:
                shield.deadline = anyio.current_time() + grace
                _log.debug("a caller has left, and the answer to its call is waited for")
                raise
    except BaseException:
        if outcomes:
            with bounded_shield():
                await abandoned(outcomes[0])
        raise
    if errors:
        raise errors[0]
    return outcomes[0]


@asynccontextmanager
async def open_task_group() -> AsyncGenerator[TaskGroup, None]:
    """A task group whose first failure ends it and is raised as itself, not in a group."""
    failure: BaseException | None = None
    try:
        async with anyio.create_task_group() as group:
            yield group
    except BaseExceptionGroup as failures:
        failure = _first(failures)
    if failure is not None:
        try:
            raise failure
        finally:
            del failure  # its traceback refers to this frame


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error; a cancellation only where there is nothing else."""
    _, errors = failures.split(anyio.get_cancelled_exc_class())
    error = (errors or failures).exceptions[0]
    if isinstance(error, BaseExceptionGroup):
        return _first(cast("BaseExceptionGroup[BaseException]", error))
    return error
