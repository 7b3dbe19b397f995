"""Recorded requests and counters, which tests read from any thread, and waits for conditions."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import anyio
import anyio.to_thread

from fal_async.emulator._json import decode_or_none

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Counters", "RecordedRequest", "Route"]

#: The kind of a request. ``runner`` is the platform's own request to a runner, and ``webhook`` one
#: to a webhook.
Route: TypeAlias = Literal[
    "run",
    "stream",
    "submit",
    "status",
    "status_stream",
    "result",
    "cancel",
    "runner",
    "webhook",
    "realtime",
    "socket",
    "over_websocket",
    "token",
    "key_set",
    "user",
    "cdn_token",
    "initiate",
    "upload",
    "put",
    "begin_parts",
    "part",
    "sign_part",
    "complete",
    "download",
    "models",
    "prices",
    "estimate",
    "requests",
    "billing_events",
    "meta",
    "control",
    "other",
]

#: How many requests are kept, and how many bytes of each body.
_MAX_REQUESTS = 10_000
_MAX_BODY = 65_536
#: Seconds between two evaluations of a condition without a notification: it may depend on anything.
_INTERVAL = 0.1


@dataclass(slots=True, kw_only=True)
class RecordedRequest:
    """A request that the emulator received.

    Attributes:
        route: The kind of request.
        endpoint: The endpoint id in the URL; ``""`` if there is none.
        method: The HTTP method.
        host: The host of the platform: run, queue, rest, cdn, ws or platform; or control, which is
            the emulator itself.
        path: The path of the URL, as the client sent it.
        query: The query string.
        headers: The headers, names in lower case, credentials included.
        body: The body, limited to its first 64 KiB.
        request_id: The request id in the URL, or that of the job that the request started. ``None``
            if there is none.
        status: The HTTP status of the response; 101 for an accepted WebSocket. ``None`` before the
            response has started.
        warnings: Mistakes of the client that the platform accepts, such as an ``Authorization``
            header on a request to a presigned URL.
    """

    route: Route
    endpoint: str
    method: str
    host: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes = b""
    request_id: str | None = None
    status: int | None = None
    warnings: list[str] = field(default_factory=list[str])

    @property
    def arguments(self) -> Any:
        """The decoded JSON body. ``None`` if it is not valid JSON."""
        return decode_or_none(self.body)


@dataclass(slots=True, kw_only=True)
class Counters:
    """The counters of one endpoint.

    Attributes:
        executions: The number of runs that were started.
        running: The number of runs in progress.
        queued: The number of jobs in the queue.
        completed: The number of jobs of the queue that have completed, failures included.
        cancelled: The number of jobs of the queue that were cancelled before they completed.
        requests: The number of requests of each route.
    """

    executions: int = 0
    running: int = 0
    queued: int = 0
    completed: int = 0
    cancelled: int = 0
    requests: Counter[Route] = field(default_factory=Counter["Route"])

    def __str__(self) -> str:
        names = ("executions", "running", "queued", "completed", "cancelled")
        counts = [f"{name}={getattr(self, name)}" for name in names]
        routes = [f"{route}={count}" for route, count in self.requests.items()]
        return f"{' '.join(counts)}, requests: {' '.join(routes) or 'none'}"

    def clear(self) -> None:
        """Reset the counters, except for the current numbers of running and queued jobs."""
        self.executions = self.completed = self.cancelled = 0
        self.requests.clear()


class Recorder:
    """Records requests, and notifies the waits for conditions of every change."""

    def __init__(self) -> None:
        self.requests: deque[RecordedRequest] = deque(maxlen=_MAX_REQUESTS)
        self.routes: Counter[Route] = Counter()
        self.unexpected: deque[RecordedRequest] = deque(maxlen=_MAX_REQUESTS)
        self.errors: deque[BaseException] = deque(maxlen=_MAX_REQUESTS)
        self._condition = threading.Condition()
        self._version = 0
        self._waiters = 0

    def add(self, request: RecordedRequest) -> None:
        """Record a request."""
        request.body = request.body[:_MAX_BODY]
        self.requests.append(request)
        self.routes[request.route] += 1

    def clear(self) -> None:
        """Remove all requests."""
        self.requests.clear()
        self.unexpected.clear()
        self.errors.clear()
        self.routes.clear()

    def notify(self) -> None:
        """Make all waits evaluate their conditions."""
        self._version += 1
        # A wait that starts after this check evaluates its condition first, and misses nothing.
        if self._waiters:
            with self._condition:
                self._condition.notify_all()

    def wait(
        self,
        predicate: Callable[[], bool],
        timeout: float | None,
        describe: Callable[[], str],
        cancelled: threading.Event | None = None,
    ) -> None:
        """Block this thread until the predicate is true.

        Args:
            predicate: The condition.
            timeout: The maximum time to wait, in seconds. ``None`` disables the timeout.
            describe: Describes the state, for the error.
            cancelled: Ends the wait when it is set.

        Raises:
            TimeoutError: The predicate is still false after the timeout.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        with self._condition:
            self._waiters += 1
        try:
            version = self._version
            # The lock is not held here: the predicate may use the emulator.
            while not (predicate() or (cancelled is not None and cancelled.is_set())):
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    raise TimeoutError(
                        f"the condition is still false after {timeout:g} seconds: {describe()}"
                    )
                with self._condition:
                    if self._version == version:
                        self._condition.wait(min(remaining, _INTERVAL))
                version = self._version
        finally:
            with self._condition:
                self._waiters -= 1

    async def wait_async(
        self, predicate: Callable[[], bool], timeout: float | None, describe: Callable[[], str]
    ) -> None:
        """Wait as `wait` does, without blocking the event loop."""
        cancelled = threading.Event()
        try:
            await anyio.to_thread.run_sync(
                partial(self.wait, predicate, timeout, describe, cancelled),
                abandon_on_cancel=True,
                limiter=anyio.CapacityLimiter(1),
            )
        finally:
            cancelled.set()  # ends the thread if the wait was cancelled
            self.notify()
