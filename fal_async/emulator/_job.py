"""One request to an endpoint, as its runner and as tests see it."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import orjson

from fal_async.emulator._gate import Gate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fal_async.emulator._replies import Reply
    from fal_async.types import LogLine

__all__ = ["Job", "JobStatus", "LogLevel"]

JobStatus: TypeAlias = Literal["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]
LogLevel: TypeAlias = Literal["STDERR", "STDOUT", "ERROR", "INFO", "WARN", "DEBUG"]


class Job:
    """A request to an endpoint, whether it came directly or through the queue.

    A runner that takes a second parameter receives it there; tests find those of the queue in `Emulator.jobs`.

    Attributes:
        request_id: The id that the client knows it by.
        endpoint: The id that was called, path included.
        path: What follows the registered id: ``"/"``, or a path that begins with a slash.
        method: The HTTP method of the call.
        query: The query string of the call.
        headers: The headers of the call, names in lower case.
        body: The body of the call.
        direct: Whether it was called directly, not through the queue.
        status: Where the job stands.
        logs: What the runner has written so far.
        executions: How many times a runner was started for it.
        inference_time: Seconds that the last run took; ``None`` before it ended.
        billable_units: What to charge; ``None`` stands for one unit if the run succeeds.
        reply: The answer of the runner, or of the platform in its place; ``None`` until there is one.
        cancellation: Opens when the caller asks to cancel, or hangs up on a direct run.
    """

    __slots__ = (
        "_loop",
        "_thread",
        "_watchers",
        "app",
        "billable_units",
        "body",
        "cancellation",
        "direct",
        "endpoint",
        "executions",
        "expires_at",
        "headers",
        "inference_time",
        "logs",
        "method",
        "path",
        "query",
        "reply",
        "request_id",
        "status",
    )

    def __init__(
        self,
        *,
        request_id: str,
        endpoint: str,
        app: str,
        path: str,
        method: str,
        query: str,
        headers: Mapping[str, str],
        body: bytes,
        direct: bool,
    ) -> None:
        self.request_id = request_id
        self.endpoint = endpoint
        self.app = app
        self.path = path
        self.method = method
        self.query = query
        self.headers = headers
        self.body = body
        self.direct = direct
        self.status: JobStatus = "IN_QUEUE"
        self.logs: list[LogLine] = []
        self.executions = 0
        self.inference_time: float | None = None
        self.billable_units: float | None = None
        self.reply: Reply | None = None
        self.expires_at: float | None = None
        self.cancellation = Gate()
        self._watchers: list[asyncio.Future[bool]] = []
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def __repr__(self) -> str:
        return f"<Job {self.request_id} of {self.endpoint}: {self.status}>"

    @property
    def cancelled(self) -> bool:
        """Whether the caller has asked to cancel it."""
        return self.cancellation.is_open

    @property
    def arguments(self) -> Any:
        """The decoded JSON body; ``None`` when there is none, or when it is not JSON."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None

    @property
    def tags(self) -> dict[str, str]:
        """The pairs of ``X-Fal-Tags``; malformed pairs are dropped, as the platform does."""
        pairs = (pair.partition("=") for pair in self.headers.get("x-fal-tags", "").split(","))
        return {
            key.strip(): value.strip() for key, equals, value in pairs if equals and key.strip()
        }

    @property
    def priority(self) -> Literal["normal", "low"]:
        """The place in the queue that was asked for; values that the platform does not know are ignored."""
        return "low" if self.headers.get("x-fal-queue-priority") == "low" else "normal"

    @property
    def error(self) -> tuple[str, str] | None:
        """The text and the type of the platform's error that ended it, or ``None``."""
        if self.reply is None or self.reply.status < 400:
            return None
        body = self.reply.json()
        error_type = body.get("error_type") if isinstance(body, dict) else None
        if error_type is None and self.reply.status >= 500:
            error_type = "runner_server_error"
        if error_type is None:
            return None
        text = body.get("detail") if isinstance(body, dict) else None
        return (
            text if isinstance(text, str) else f"Invalid status code: {self.reply.status}"
        ), error_type

    def log(self, message: str, level: LogLevel = "INFO") -> None:
        """Write a line that callers see in the job's status. Any thread may do so."""
        timestamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self.logs.append(
            {"message": message, "timestamp": timestamp, "level": level, "source": "USER"}
        )
        if threading.get_ident() == self._thread:
            self.changed()
        else:
            self._loop.call_soon_threadsafe(self.changed)

    def changed(self) -> None:
        """Wake everyone who watches the job. To be called in the emulator's loop."""
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            if not watcher.done():
                watcher.set_result(True)

    def watch(self) -> asyncio.Future[bool]:
        """A future that is True at the next change. To be called in the emulator's loop."""
        watcher = self._loop.create_future()
        self._watchers.append(watcher)
        return watcher
