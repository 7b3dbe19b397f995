"""Endpoints that are called by WebSocket, and the tokens that open them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, TypeVar

from fal_async.emulator._asgi import AsgiRunner
from fal_async.emulator._inputs import positional
from fal_async.emulator._realtime import Habits, RealtimeRunner
from fal_async.emulator._record import Counters
from fal_async.emulator._registry import Endpoint, parse_id
from fal_async.emulator._runner import NoRunner
from fal_async.emulator._sockets import FunctionSocketRunner

if TYPE_CHECKING:
    from collections.abc import Callable

    from fal_async.emulator._platform import Platform
    from fal_async.emulator._sockets import SocketRunner

    F = TypeVar("F", bound=Callable[..., Any])

__all__ = ["SocketKeeper"]

#: An ASGI app takes the scope, and the two ends of the exchange.
_ASGI_PARAMETERS = 3


class SocketKeeper:
    """The part of an `Emulator` that has to do with sockets."""

    _platform: Platform

    def realtime(
        self,
        endpoint_id: str,
        *,
        buffering: int | None = None,
        session_timeout: float | None = None,
        max_batch_size: int = 1,
        timings: bool = False,
    ) -> Callable[[F], F]:
        """Put a realtime function behind an endpoint id, beside a runner that it has or will have.

        The function takes an input, or, by its annotation, an iterator of inputs; and it gives an
        output, or, as a generator or by its annotation, an iterator of outputs. In the order of
        these cases: each input is answered; one input is answered by many outputs; many inputs are
        answered by one output at their end; outputs are sent as they come. Inputs are validated
        where they are annotated with a pydantic model. The `Job` may be its second parameter.

        Args:
            endpoint_id: The id, without ``/realtime``.
            buffering: How many inputs wait before the oldest is dropped; ``None`` for any number.
                Clients may say otherwise, by ``max_buffering``.
            session_timeout: Seconds without an input after which a session ends; ``None`` for
                never.
            max_batch_size: How many inputs that wait the function is given at once, each as an
                argument of its own, for one output; it receives no `Job` if there are several.
            timings: Whether the time that it took is told after each answer.

        Raises:
            InvalidRequestError: The id has no owner and alias, or the function takes an iterator
                and is not async.
        """
        habits = Habits(
            buffering=buffering,
            session_timeout=session_timeout,
            max_batch_size=max_batch_size,
            timings=timings,
        )

        def decorate(function: F) -> F:
            self._put(endpoint_id, RealtimeRunner(function, self._platform.threads, habits))
            return function

        return decorate

    def websocket(self, endpoint_id: str) -> Callable[[F], F]:
        """Put an app with a protocol of its own behind an endpoint id, beside a runner.

        The app is an async function of a `Socket`, or of a `Socket` and the `Job`, or an ASGI app.
        When it raises, the connection is cut.

        Args:
            endpoint_id: The id. Calls of longer ids that begin with it are for it, too.

        Raises:
            InvalidRequestError: The id has no owner and alias, or the function is not async.
        """

        def decorate(app: F) -> F:
            is_asgi = len(positional(app)) == _ASGI_PARAMETERS
            self._put(endpoint_id, AsgiRunner(app) if is_asgi else FunctionSocketRunner(app))
            return app

        return decorate

    def revoke_tokens(self) -> None:
        """Let all tokens that were given out be as if they had expired; open sockets stay open."""
        self._platform.tokens.revoke()

    def _put(self, endpoint_id: str, runner: SocketRunner) -> None:
        normal = str(parse_id(endpoint_id))
        earlier = self._platform.registry.get(normal)
        if earlier is None:
            endpoint = Endpoint(id=normal, runner=NoRunner(), socket=runner, counters=Counters())
        else:
            endpoint = dataclasses.replace(earlier, socket=runner)
        self._platform.registry.add(endpoint)
