"""Cancellation of a call at each of its waits."""

from __future__ import annotations

import types
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Generator

T = TypeVar("T")

#: Limit of the waits of one call, more than any test needs.
MAX_WAITS = 200


async def cancel_everywhere(
    call: Callable[[], Coroutine[Any, Any, object]],
) -> AsyncIterator[int]:
    """Cancel the call at its first wait, at its second, and so on until it completes.

    Yields the number of the wait after each cancelled call.
    """
    for number in range(1, MAX_WAITS):
        if await _cancelled_at(number, call):
            yield number
        else:
            return
    raise AssertionError(f"the call must complete within {MAX_WAITS} waits")


async def _cancelled_at(number: int, call: Callable[[], Coroutine[Any, Any, object]]) -> bool:
    with anyio.CancelScope() as scope:
        await _cancel_at_wait(call(), number, scope)
    return scope.cancel_called


@types.coroutine
def _cancel_at_wait(
    call: Coroutine[Any, Any, T], number: int, scope: anyio.CancelScope
) -> Generator[Any, Any, T]:
    """Await the call, and cancel the scope at the wait of this number."""
    waits = 0
    send: Callable[[], Any] = partial(call.send, None)
    while True:
        try:
            trap = send()
        except StopIteration as stop:
            result: T = stop.value
            return result
        waits += 1
        if waits == number:
            scope.cancel()
        try:
            value = yield trap
        except BaseException as error:  # noqa: BLE001 -- raised again in the call
            send = partial(call.throw, error)
        else:
            send = partial(call.send, value)
