"""Cancelling a call at its first wait, its second, and so on until it gets through."""

from __future__ import annotations

import types
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Generator

T = TypeVar("T")

#: More waits than any call under test has.
ENOUGH = 200


async def cancel_everywhere(
    call: Callable[[], Coroutine[Any, Any, object]],
) -> AsyncIterator[int]:
    """Run the call again and again, each time cancelled one wait later; yields after each."""
    for number in range(1, ENOUGH):
        if await _cancelled_at(number, call):
            yield number
        else:
            return
    raise AssertionError("the call never got through")


async def _cancelled_at(number: int, call: Callable[[], Coroutine[Any, Any, object]]) -> bool:
    with anyio.CancelScope() as scope:
        await _watched(call(), number, scope)
    return scope.cancel_called


@types.coroutine
def _watched(
    call: Coroutine[Any, Any, T], number: int, scope: anyio.CancelScope
) -> Generator[Any, Any, T]:
    """Step through the call as ``await`` would; cancel the scope at its nth wait."""
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
            answer = yield trap
        except BaseException as error:  # noqa: BLE001 -- raised again on the waiting thread
            send = partial(call.throw, error)
        else:
            send = partial(call.send, answer)
