"""What happened, for tests to read from any thread."""

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

#: What a call is for. ``runner`` is no call of a client: it is the platform's own call of a runner.
Route: TypeAlias = Literal[
    "run",
    "stream",
    "submit",
    "status",
    "status_stream",
    "result",
    "cancel",
    "runner",
    "realtime",
    "socket",
    "over_websocket",
    "token",
    "cdn_token",
    "initiate",
    "upload",
    "put",
    "begin_parts",
    "part",
    "sign_part",
    "complete",
    "download",
    "other",
]

#: How many requests are remembered, and how many bytes of each body.
_REMEMBERED = 10_000
_BODY_BYTES = 65_536
#: A predicate may be about something that rings no bell; so it is asked every so many seconds.
_LOOK_AGAIN = 0.1


@dataclass(slots=True, kw_only=True)
class RecordedRequest:
    """A request that arrived.

    Attributes:
        route: What it was for.
        endpoint: The id in its URL; ``""`` when there is none.
        method: The HTTP method.
        host: Which of the platform's hosts it was for: run, queue, rest, cdn or ws.
        path: The path of its URL, as the client sent it.
        query: The query string.
        headers: Its headers, names in lower case, credentials included.
        body: Its body, of a long one the first 64 KiB.
        request_id: The id in its URL or of the job that it began; ``None`` when there is none.
        status: The HTTP status of the answer, 101 for a WebSocket that was accepted; ``None`` while
            there is none.
        warnings: Faults of the client which the platform lets pass, such as an ``Authorization``
            header that was sent to a presigned URL.
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
        """The decoded JSON body; ``None`` when it is not JSON."""
        return decode_or_none(self.body)


@dataclass(slots=True, kw_only=True)
class Counters:
    """What happened at one endpoint so far.

    Attributes:
        executions: How many times a runner was started.
        running: How many runs are going on.
        queued: How many jobs wait in the queue.
        completed: How many jobs of the queue ended, in whatever way.
        cancelled: How many jobs of the queue were called off before they had ended.
        requests: How many requests of each route arrived.
    """

    executions: int = 0
    running: int = 0
    queued: int = 0
    completed: int = 0
    cancelled: int = 0
    requests: Counter[Route] = field(default_factory=Counter["Route"])

    def clear(self) -> None:
        """Count from nothing again; what runs and what waits are facts, and stay."""
        self.executions = self.completed = self.cancelled = 0
        self.requests.clear()


class Recorder:
    """The log of requests, and the bell that rings whenever something happened."""

    def __init__(self) -> None:
        self.requests: deque[RecordedRequest] = deque(maxlen=_REMEMBERED)
        self.routes: Counter[Route] = Counter()
        self._condition = threading.Condition()
        self._rings = 0
        self._listeners = 0

    def add(self, request: RecordedRequest) -> None:
        """Remember a request."""
        request.body = request.body[:_BODY_BYTES]
        self.requests.append(request)
        self.routes[request.route] += 1

    def clear(self) -> None:
        """Forget all requests."""
        self.requests.clear()
        self.routes.clear()

    def notify(self) -> None:
        """Have everyone who waits look again."""
        self._rings += 1
        # Whoever begins to listen after this check looks once before waiting, and so sees it all.
        if self._listeners:
            with self._condition:
                self._condition.notify_all()

    def wait(self, predicate: Callable[[], bool], timeout: float | None) -> None:
        """Block this thread until the predicate holds.

        Raises:
            TimeoutError: It does not within so many seconds.
        """
        self._wait(predicate, timeout, threading.Event())

    async def wait_async(self, predicate: Callable[[], bool], timeout: float | None) -> None:
        """The same for a task, in any event loop."""
        cancelled = threading.Event()
        wait = partial(self._wait, predicate, timeout, cancelled)
        try:
            await anyio.to_thread.run_sync(
                wait, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
            )
        finally:
            cancelled.set()  # an abandoned thread must not stay behind
            self.notify()

    def _wait(
        self, predicate: Callable[[], bool], timeout: float | None, cancelled: threading.Event
    ) -> None:
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        self._listen(1)
        try:
            heard = self._rings
            while not (predicate() or cancelled.is_set()):  # without the lock: it may call us
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"it did not come to be so within {timeout:g} seconds")
                with self._condition:
                    if self._rings == heard:
                        self._condition.wait(min(left, _LOOK_AGAIN))
                heard = self._rings
        finally:
            self._listen(-1)

    def _listen(self, change: int) -> None:
        with self._condition:
            self._listeners += change
