"""`WebhookReceiver`: an ASGI app that receives callbacks."""

from __future__ import annotations

import inspect
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, Self

import anyio
import anyio.to_thread

from fal_async._core.annotations import set_module
from fal_async._core.checks import check_instance, check_number, describe
from fal_async._net.background import spawn
from fal_async._net.event_loops import PerLoop
from fal_async._net.tasks import open_task_group, shielded_cleanup
from fal_async.errors import InvalidRequestError, UnknownJobError, WebhookError
from fal_async.stores import MemoryStore
from fal_async.webhooks._asgi import (
    DisconnectedError,
    iter_body,
    read_body,
    send_response,
    status_code,
)
from fal_async.webhooks._webhooks import Webhooks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fal_async._net.background import BackgroundTask
    from fal_async.stores import Store
    from fal_async.webhooks._asgi import Receive, Scope, Send
    from fal_async.webhooks._event import WebhookEvent

__all__ = ["DONE", "WebhookReceiver", "event_key"]

_log = logging.getLogger("fal_async")

#: The lifetime of the mark of an event that is being handled, refreshed meanwhile, in seconds. When
#: its process has died, another delivery is handled after this time.
LEASE: Final = 60.0
RUNNING: Final = "running"
DONE: Final = "done"


def event_key(user_id: str | None, request_id: str) -> str:
    """Return the key of an event in the store of a receiver."""
    return f"fal-webhook:{user_id}:{request_id}"


@set_module("fal_async.webhooks")
class WebhookReceiver:
    """An ASGI app that receives the callbacks of the platform.

    It is a route of Starlette and FastAPI, or the whole app of uvicorn and hypercorn. Each callback
    is verified and then handled by `on_event`, once for each job, although the platform may send it
    several times. The response is a success only after `on_event` has returned. Until then the
    platform sends the callback again, so that no event is lost:

    - 200: `on_event` has returned, for this delivery or an earlier one.
    - 401: The signature is invalid.
    - 400: The body is no event. 413: It is larger than `Webhooks.max_body`. 405: The method is not
      POST.
    - 503: The keys cannot be fetched, `on_event` has raised `UnknownJobError`, or it is still
      running after `respond_within` seconds. It continues in the background.
    - 500: `on_event` has raised another error, which is logged.

    Used as an async context manager, or as a whole app, the receiver waits for running calls of
    `on_event` when it is closed.

    Args:
        on_event: Handles an event. A coroutine function, or a function that is called in a worker
            thread. It may raise `UnknownJobError` for a job that is not recorded yet.
        webhooks: Verifies the callbacks.
        store: Remembers the events that were handled. ``None`` remembers them in the memory of this
            process.
        respond_within: The longest time until the response, in seconds. The platform waits for 15.
        remember_for: The time that an event is remembered after it was handled, in seconds.
        grace_period: The longest time that running calls of `on_event` have at the end, in seconds.

    Raises:
        InvalidRequestError: An argument is invalid.

    Example:
        >>> async def on_event(event: fal_async.webhooks.WebhookEvent) -> None:
        ...     print(event.request_id, event.ok)
        >>> webhooks = fal_async.webhooks.Webhooks(user_id="user_2abc")
        >>> app = fal_async.webhooks.WebhookReceiver(on_event, webhooks=webhooks)
    """

    def __init__(
        self,
        on_event: Callable[[WebhookEvent], Awaitable[object] | object],
        *,
        webhooks: Webhooks,
        store: Store | None = None,
        respond_within: float = 12.0,
        remember_for: float = 86400.0,
        grace_period: float = 30.0,
    ) -> None:
        if not callable(on_event):
            raise InvalidRequestError(f"on_event must be a function, got {describe(on_event)}")
        self._on_event: Callable[[WebhookEvent], Any] = on_event
        calls = (on_event, getattr(on_event, "__call__", None))  # noqa: B004 -- of an object
        self._is_async = any(map(inspect.iscoroutinefunction, calls))
        self._webhooks = check_instance("webhooks", webhooks, Webhooks)
        self._store = MemoryStore() if store is None else store
        seconds = " of seconds"
        self._respond_within = check_number("respond_within", respond_within, unit=seconds)
        self._remember_for = check_number("remember_for", remember_for, unit=seconds)
        self._grace_period = check_number("grace_period", grace_period, zero=True, unit=seconds)
        self._running: PerLoop[set[BackgroundTask]] = PerLoop(set)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, or the life cycle of a server."""
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await self.aclose()
            await send({"type": "lifespan.shutdown.complete"})
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})
        else:
            status = 503
            try:
                with anyio.move_on_after(self._respond_within):
                    status = await self._receive(scope, receive)
            except DisconnectedError:
                return
            await send_response(send, status)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Wait until all running calls of `on_event` have returned.

        Calls that have not after `grace_period` seconds are cancelled. The platform sends their
        callbacks again.
        """
        running = self._running.get()
        with anyio.move_on_after(self._grace_period):
            while running:
                await next(iter(running)).wait()
        for task in running:
            task.cancel()
        while running:
            await next(iter(running)).wait()

    async def _receive(self, scope: Scope, receive: Receive) -> int:
        """Verify a callback and have it handled; return the status of the response."""
        if scope["method"] != "POST":
            return 405
        headers: list[tuple[bytes, bytes]] = list(scope["headers"])
        lengths = [value for name, value in headers if name.lower() == b"content-length"]
        length = lengths[0].decode("latin-1") if lengths else None
        async with aclosing(iter_body(receive)) as chunks:
            body = await read_body(chunks, length, self._webhooks.max_body)
        if body is None:
            return 413
        try:
            query = scope.get("query_string", b"").decode("latin-1")
            event = await self._webhooks.unwrap(body, headers, query=query)
        except WebhookError as error:
            status = status_code(error)
            _log.warning("A callback was refused with status %d: %s", status, error)
            return status
        # In the background, where it continues when the time is up.
        statuses: list[int] = []
        running = self._running.get()

        async def work() -> None:
            try:
                statuses.append(await self._process(event))
            finally:
                running.discard(task)

        task = spawn(work, grace_period=self._grace_period)
        running.add(task)
        await task.wait()
        return statuses[0] if statuses else 503  # the store failed, or the loop has ended

    async def _process(self, event: WebhookEvent) -> int:
        """Call `on_event`, unless that was done before; return the status of the response."""
        key = event_key(event.user_id, event.request_id)
        if not await self._store.add(key, RUNNING, expires_in=LEASE):
            return 200 if await self._store.get(key) == DONE else 503

        async def refresh_lease() -> None:
            while True:
                await anyio.sleep(LEASE / 3)
                try:
                    await self._store.set(key, RUNNING, expires_in=LEASE)
                except Exception as error:  # noqa: BLE001 -- of any store
                    _log.warning("The mark of a running event cannot be refreshed: %s", error)

        status = 500
        try:
            async with open_task_group() as group:
                group.start_soon(refresh_lease)
                if self._is_async:
                    outcome = self._on_event(event)
                else:
                    # In a list, since the thread of trio returns no coroutine.
                    [outcome] = await anyio.to_thread.run_sync(lambda: [self._on_event(event)])
                if inspect.isawaitable(outcome):
                    await outcome
                group.cancel_scope.cancel()
            await self._store.set(key, DONE, expires_in=self._remember_for)
            status = 200
        except UnknownJobError as error:
            _log.info("The job %s is not known yet: %s", event.request_id, error)
            status = 503
        except Exception:  # noqa: BLE001 -- of the caller's function
            _log.exception("The event of job %s was not handled", event.request_id)
        finally:
            if status != 200:
                with shielded_cleanup():
                    await self._store.delete(key)
        return status
