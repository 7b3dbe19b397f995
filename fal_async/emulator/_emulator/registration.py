"""Registration of endpoints: functions, ASGI apps, realtime functions and WebSocket apps."""

from __future__ import annotations

import dataclasses
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, TypeVar

from fal_async.emulator._history import Price
from fal_async.emulator._recorder import Counters
from fal_async.emulator._registry import Endpoint, parse_id
from fal_async.emulator._runners.asgi import AsgiRunner
from fal_async.emulator._runners.base import NoRunner, is_asgi_app
from fal_async.emulator._runners.functions import make_runner
from fal_async.emulator._runners.realtime import RealtimeOptions, RealtimeRunner
from fal_async.emulator._runners.sockets import FunctionSocketRunner
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fal_async.emulator._runners.functions import RunnerFunction
    from fal_async.emulator._runners.sockets import SocketRunner
    from fal_async.emulator._state import PlatformState

    F = TypeVar("F", bound=Callable[..., Any])
    RunnerT = TypeVar("RunnerT", bound=RunnerFunction)

__all__ = ["RegistrationMixin"]


class RegistrationMixin:
    """Registers the endpoints of an `Emulator`."""

    _platform: PlatformState

    def register(
        self,
        endpoint_id: str,
        runner: RunnerFunction,
        *,
        concurrency: int | None = None,
        timeout: float | None = None,
        heartbeat: float | None = None,
        auth: bool = True,
    ) -> None:
        """Register an endpoint, and replace an earlier one of the same id.

        Args:
            endpoint_id: The endpoint id. It also serves longer ids that begin with it, unless a
                longer id is registered for them.
            runner: A function of the arguments, a function of the arguments and the `Job`, or an
                ASGI app. Functions that are not async run in threads. The items of a generator are
                the events of a stream. A first parameter that is annotated with a pydantic model
                receives the validated arguments. An ASGI app also serves WebSockets. It finds the
                `Job` in the state of its scope, which Starlette and FastAPI offer as
                ``request.state.job``.
            concurrency: The maximum number of concurrent runs of the endpoint. ``None`` for no
                limit.
            timeout: The time after which a run is cancelled and the response is a 504, in seconds.
                ``None`` disables the timeout.
            heartbeat: The time without events after which the stream of a generator sends a
                comment, in seconds. ``None`` disables heartbeats.
            auth: Whether requests need a key.

        Raises:
            InvalidRequestError: The endpoint id has no owner and alias.
        """
        endpoint_id = str(parse_id(endpoint_id))
        earlier = self._platform.registry.get(endpoint_id)
        runner_object = make_runner(runner, self._platform.threads, heartbeat=heartbeat)
        socket = earlier.socket if earlier else None
        endpoint = Endpoint(
            id=endpoint_id,
            runner=runner_object,
            socket=runner_object if isinstance(runner_object, AsgiRunner) else socket,
            counters=Counters() if earlier is None else earlier.counters,
            limit=concurrency,
            private=auth,
            timeout=timeout,
        )
        self._platform.registry.add(endpoint)

    def endpoint(
        self,
        endpoint_id: str,
        *,
        concurrency: int | None = None,
        timeout: float | None = None,
        heartbeat: float | None = None,
        auth: bool = True,
    ) -> Callable[[RunnerT], RunnerT]:
        """Register an endpoint with a decorator. The parameters are those of `register`."""

        def decorator(runner: RunnerT) -> RunnerT:
            self.register(
                endpoint_id,
                runner,
                concurrency=concurrency,
                timeout=timeout,
                heartbeat=heartbeat,
                auth=auth,
            )
            return runner

        return decorator

    def set_price(
        self,
        endpoint_id: str,
        unit_price: Decimal | float | str,
        *,
        unit: str = "image",
        currency: str = "USD",
    ) -> None:
        """Set the price of an endpoint, which the platform API tells.

        A run costs its billable units times this price. `Job.billable_units` is 1 unless the runner
        changes it.

        Args:
            endpoint_id: The endpoint id.
            unit_price: The price of one unit.
            unit: The unit, such as ``"image"`` or ``"second"``.
            currency: The currency, such as ``"USD"``.

        Raises:
            InvalidRequestError: The endpoint id has no owner and alias, or the price is not a
                number of at least 0.

        Example:
            >>> from fal_async.emulator import Emulator
            >>> with Emulator() as fal:
            ...     fal.register("acme/paint", lambda arguments: arguments)
            ...     fal.set_price("acme/paint", "0.025", unit="image")
        """
        try:
            amount = Decimal(str(unit_price))
        except InvalidOperation:
            amount = Decimal("NaN")
        if not (amount.is_finite() and amount >= 0):
            raise InvalidRequestError(
                f"unit_price must be a number of at least 0, got {unit_price!r}"
            )
        price = Price(unit_price=amount, unit=unit, currency=currency)
        self._platform.prices[str(parse_id(endpoint_id))] = price

    def realtime(
        self,
        endpoint_id: str,
        *,
        buffering: int | None = None,
        session_timeout: float | None = None,
        max_batch_size: int = 1,
        timings: bool = False,
    ) -> Callable[[F], F]:
        """Register a realtime function with a decorator, besides a runner of the same endpoint.

        The annotations of the function select one of four kinds:

        - One input, one output: the function is called for each input.
        - One input, an iterator of outputs, or a generator: all outputs of the first input are
          sent.
        - An iterator of inputs, one output: the output is sent when the inputs have ended.
        - An iterator of inputs, an iterator of outputs: outputs are sent as they are produced.

        Inputs are validated if they are annotated with a pydantic model. A second parameter
        receives the `Job`.

        Args:
            endpoint_id: The endpoint id, without ``/realtime``.
            buffering: The number of waiting inputs above which the oldest is dropped. ``None`` for
                no limit. Clients can override it with ``max_buffering``.
            session_timeout: The time without an input after which a session ends, in seconds.
                ``None`` disables the timeout.
            max_batch_size: The maximum number of waiting inputs for one call of the function. Each
                is a separate argument. Above 1, the function receives no `Job`.
            timings: Whether each output is followed by the time that it took.

        Raises:
            InvalidRequestError: The endpoint id has no owner and alias, or the function takes an
                iterator and is not async.

        Example:
            >>> from fal_async.emulator import Emulator
            >>> with Emulator() as fal:
            ...     @fal.realtime("acme/live")
            ...     async def live(arguments: dict[str, int]) -> dict[str, int]:
            ...         return {"next": arguments["number"] + 1}
        """
        options = RealtimeOptions(
            buffering=buffering,
            session_timeout=session_timeout,
            max_batch_size=max_batch_size,
            timings=timings,
        )

        def decorator(function: F) -> F:
            runner = RealtimeRunner(function, self._platform.threads, options)
            self._add_socket(endpoint_id, runner)
            return function

        return decorator

    def websocket(self, endpoint_id: str) -> Callable[[F], F]:
        """Register a WebSocket app with a decorator, besides a runner of the same endpoint.

        The app is an async function of a `Socket`, an async function of a `Socket` and the `Job`,
        or an ASGI app. If it raises an exception, the connection is closed.

        Args:
            endpoint_id: The endpoint id. It also serves longer ids that begin with it.

        Raises:
            InvalidRequestError: The endpoint id has no owner and alias, or the function is not
                async.
        """

        def decorator(app: F) -> F:
            runner = AsgiRunner(app) if is_asgi_app(app) else FunctionSocketRunner(app)
            self._add_socket(endpoint_id, runner)
            return app

        return decorator

    def _add_socket(self, endpoint_id: str, runner: SocketRunner) -> None:
        endpoint_id = str(parse_id(endpoint_id))
        endpoint = self._platform.registry.get(endpoint_id)
        endpoint = endpoint or Endpoint(id=endpoint_id, runner=NoRunner(), counters=Counters())
        self._platform.registry.add(dataclasses.replace(endpoint, socket=runner))
