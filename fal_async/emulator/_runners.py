"""From what a user registers to the runner that it stands for."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from fal_async.emulator._asgi import AsgiRunner
from fal_async.emulator._functions import FunctionRunner
from fal_async.emulator._inputs import positional
from fal_async.emulator._streams import StreamRunner

if TYPE_CHECKING:
    from fal_async.emulator._runner import Runner
    from fal_async.emulator._sockets import SocketRunner
    from fal_async.emulator._threads import Threads

#: An ASGI app, or a function of the arguments, or a function of the arguments and the `Job`.
RunnerFunction: TypeAlias = Callable[..., Any]

#: An ASGI app takes the scope, and the two ends of the exchange.
_ASGI_PARAMETERS = 3


def runner_of(
    target: RunnerFunction, threads: Threads, *, heartbeat: float | None = None
) -> Runner:
    """The runner that a registered object stands for."""
    if len(positional(target)) == _ASGI_PARAMETERS:
        return AsgiRunner(target)
    function = _function_of(target)
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        return StreamRunner(target, threads, heartbeat=heartbeat)
    return FunctionRunner(target, threads, is_async=inspect.iscoroutinefunction(function))


def socket_of(runner: Runner) -> SocketRunner | None:
    """What serves WebSockets where this runner stands, if it can."""
    return runner if isinstance(runner, AsgiRunner) else None


def _function_of(target: RunnerFunction) -> RunnerFunction:
    """What runs when the target is called: an object's method, what a partial is made of."""
    while isinstance(target, functools.partial):
        target = target.func
    return target if inspect.isroutine(target) else type(target).__call__
