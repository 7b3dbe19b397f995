"""`Job`, and the jobs that the platform keeps."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from fal_async.emulator._gate import Gate
from fal_async.emulator._json import decode_or_none
from fal_async.emulator._options import is_true

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fal_async.emulator._responses import Response
    from fal_async.types import LogLine, Priority

__all__ = ["Job", "JobStatus", "LogLevel"]


_TAG = re.compile(r"(?!fal\.)([a-z0-9._-]{1,64})=([ -~]{0,256})")


JobStatus: TypeAlias = Literal["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]


LogLevel: TypeAlias = Literal["STDERR", "STDOUT", "ERROR", "INFO", "WARN", "DEBUG"]


class Job:
    """A request to an endpoint, whether it came directly or through the queue.

    A runner that takes a second parameter receives it there, an ASGI app in its scope as
    ``request.state.job``; tests find those of the queue in `Emulator.jobs`.

    Attributes:
        request_id: The id that the client knows it by.
        endpoint: The id that was called, path included.
        app: The id without its path.
        path: What follows the registered id, with a slash in front.
        method: The HTTP method of the call.
        query: The query string of the call.
        headers: The headers of the call, names in lower case.
        body: The body of the call.
        direct: Whether it was called directly, not through the queue.
        status: Where it stands.
        logs: The lines that were written so far.
        executions: How many times a runner was started for it.
        inference_time: Seconds that the last run took; ``None`` before it ended.
        billable_units: What a run that succeeds costs; a runner may change it.
        response: The answer of the runner, or of the platform in its place; ``None`` while there is
            none, and always for a direct run.
        expires_at: When the platform forgets it, by its clock; ``None`` while it is not completed.
        cancellation: Opens when the caller calls it off, or hangs up on a direct run.
    """

    __slots__ = (
        "_loop",
        "_ring",
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
        "priority",
        "query",
        "request_id",
        "response",
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
        ring: Callable[[], None],
    ) -> None:
        self.request_id: str = request_id
        self.endpoint: str = endpoint
        self.app: str = app
        self.path: str = path
        self.method: str = method
        self.query: str = query
        self.headers: Mapping[str, str] = headers
        self.body: bytes = body
        self.direct: bool = direct
        #: The place in the queue that was asked for; what the platform does not know is ignored.
        self.priority: Priority = (
            "low" if headers.get("x-fal-queue-priority") == "low" else "normal"
        )
        self.status: JobStatus = "IN_QUEUE"
        self.logs: list[LogLine] = []
        self.executions: int = 0
        self.inference_time: float | None = None
        self.billable_units: float = 1
        self.response: Response | None = None
        self.expires_at: float | None = None
        self.cancellation: Gate = Gate()
        self._ring = ring
        self._watchers: list[asyncio.Future[bool]] = []
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def __repr__(self) -> str:
        return f"<Job {self.request_id} of {self.endpoint}: {self.status}>"

    @property
    def cancelled(self) -> bool:
        """Whether the caller has called it off, or hung up on a direct run."""
        return self.cancellation.is_open

    @property
    def arguments(self) -> Any:
        """The decoded JSON body; ``None`` when there is none, or when it is not JSON."""
        return decode_or_none(self.body)

    @property
    def tags(self) -> dict[str, str]:
        """The pairs of ``X-Fal-Tags``; what is no pair as it should be, the platform drops."""
        pairs = (pair.strip() for pair in self.headers.get("x-fal-tags", "").split(","))
        return {tag[1]: tag[2] for pair in pairs if (tag := _TAG.fullmatch(pair))}

    def log(self, message: str, level: LogLevel = "INFO", **fields: Any) -> None:
        """Write a line that callers see in the job's status. Any thread may do so.

        Args:
            message: The text of the line.
            level: Its severity.
            fields: More of the line's fields, such as ``labels={"step": 3}``, as JSON values.
        """
        timestamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"message": message, "timestamp": timestamp, "level": level, "source": "USER"}
        self.logs.append(cast("LogLine", line | fields))
        if threading.get_ident() == self._thread:
            self.notify()
        else:
            with contextlib.suppress(RuntimeError):  # the emulator has been stopped
                self._loop.call_soon_threadsafe(self.notify)

    def request_cancellation(self) -> None:
        """Let the runner know that nobody wants the result. To be called in the emulator's loop."""
        self.cancellation.open()
        self._ring()

    def notify(self) -> None:
        """Wake everyone who watches it. To be called in the emulator's loop."""
        self._ring()
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            if not watcher.done():
                watcher.set_result(True)

    def watch(self) -> asyncio.Future[bool]:
        """A future that is True at the next change. To be called in the emulator's loop."""
        watcher: asyncio.Future[bool] = self._loop.create_future()
        self._watchers.append(watcher)
        return watcher


#: Why the queue may try another runner, by the names that ``X-Fal-Retry-Config`` has for it.
RetryReason: TypeAlias = Literal["server_error", "timeout", "connection_error"]


#: Seconds that a result is kept, and for how long one of so many bytes is.
_RETENTION = 3600.0


_RETENTION_OF_LARGE = 360.0


_LARGE_RESULT = 10_000


_BY_ERROR_TYPE: dict[str | None, RetryReason] = {
    "request_timeout": "timeout",
    "runner_incomplete_response": "server_error",
    "runner_disconnected": "server_error",
    "runner_connection_error": "connection_error",
    "runner_connection_refused": "connection_error",
    "runner_connection_timeout": "connection_error",
}


_BY_STATUS: dict[int, RetryReason] = {503: "server_error", 504: "server_error"}


def retry_reason(response: Response) -> RetryReason | None:
    """Why another runner might do better, if it might; what the app says in a header wins."""
    trouble = _BY_ERROR_TYPE.get(response.error_type) or _BY_STATUS.get(response.status)
    said = response.header("x-fal-needs-retry")
    if said is None:
        return trouble
    return (trouble or "server_error") if is_true(said) else None


def is_large(response: Response) -> bool:
    """Whether a result is kept for the shorter time only."""
    return len(response.body) >= _LARGE_RESULT


def retention(response: Response) -> float:
    """Seconds that a result is kept."""
    return _RETENTION_OF_LARGE if is_large(response) else _RETENTION


class Jobs:
    """Jobs by id; those that have expired are gone."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._by_id: dict[str, Job] = {}
        self._clock = clock
        # Two, so that each is in the order in which its jobs expire.
        self._large: deque[Job] = deque()
        self._small: deque[Job] = deque()

    def add(self, job: Job) -> None:
        """Keep a job that was accepted."""
        self._by_id[job.request_id] = job

    def get(self, request_id: str) -> Job | None:
        """The job, unless it never was or is no more."""
        self._sweep()
        job = self._by_id.get(request_id)
        if job is None or self._has_expired(job):
            return None
        return job

    def complete(self, job: Job, response: Response) -> None:
        """End a job; the time that its result is kept begins."""
        job.response = response
        job.status = "COMPLETED"
        job.expires_at = self._clock() + retention(response)
        (self._large if is_large(response) else self._small).append(job)
        job.notify()

    def snapshot(self) -> dict[str, Job]:
        """All jobs that are kept."""
        return {name: job for name, job in list(self._by_id.items()) if not self._has_expired(job)}

    def forget(self, request_id: str) -> None:
        """Drop a job."""
        self._by_id.pop(request_id, None)

    def clear(self) -> None:
        """Drop all jobs."""
        self._by_id.clear()
        self._large.clear()
        self._small.clear()

    def _has_expired(self, job: Job) -> bool:
        return job.expires_at is not None and job.expires_at <= self._clock()

    def _sweep(self) -> None:
        for ended in (self._large, self._small):
            while ended and self._has_expired(ended[0]):
                self.forget(ended.popleft().request_id)
