"""What happened, for tests to read from any thread."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Counters", "RecordedRequest", "Route"]

#: What a call is for. ``runner`` is not a call: it is the platform's own call of a runner.
Route: TypeAlias = Literal[
    "run", "stream", "submit", "status", "status_stream", "result", "cancel", "runner", "other"
]

#: How many requests are remembered, and how much of each body.
_REMEMBERED = 10_000
_BODY_BYTES = 65_536


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
        status: The HTTP status of the answer; ``None`` while there is none.
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

    @property
    def arguments(self) -> Any:
        """The decoded JSON body; ``None`` when it is not JSON."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None


@dataclass(slots=True, kw_only=True)
class Counters:
    """What happened at one endpoint so far.

    Attributes:
        executions: How many times a runner was started.
        running: How many runs are going on.
        queued: How many jobs wait in the queue.
        completed: How many jobs of the queue ended, in whatever way.
        cancelled: How many jobs of the queue were asked to stop in time.
        requests: How many requests of each route arrived.
    """

    executions: int = 0
    running: int = 0
    queued: int = 0
    completed: int = 0
    cancelled: int = 0
    requests: Counter[Route] = field(default_factory=Counter)

    def clear(self) -> None:
        """Count from nothing again; what runs and what waits are facts, and stay."""
        self.executions = self.completed = self.cancelled = 0
        self.requests.clear()


class Record:
    """The log of requests, and the bell that rings whenever something happened."""

    def __init__(self) -> None:
        self.requests: deque[RecordedRequest] = deque(maxlen=_REMEMBERED)
        self.routes: Counter[Route] = Counter()
        self._bell = threading.Condition()
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

    def ring(self) -> None:
        """Have everyone who waits look again."""
        # Whoever begins to listen after this check looks once before waiting, and so sees what happened.
        if self._listeners:
            with self._bell:
                self._bell.notify_all()

    def wait_for(
        self, predicate: Callable[[], bool], timeout: float | None, given_up: threading.Event
    ) -> bool:
        """Block this thread until the predicate holds; whether it did before the timeout, in seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._bell:
            self._listeners += 1
            try:
                while not (holds := predicate()) and not given_up.is_set():
                    left = None if deadline is None else deadline - time.monotonic()
                    if left is not None and left <= 0:
                        return False
                    self._bell.wait(left)
            finally:
                self._listeners -= 1
        return holds

    def give_up(self, given_up: threading.Event) -> None:
        """Have one who waits leave."""
        given_up.set()
        with self._bell:
            self._bell.notify_all()
