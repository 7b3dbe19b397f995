"""`Job`, and the jobs that the platform keeps."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import threading
import traceback
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

from fal_async.emulator._gate import Gate
from fal_async.emulator._json import decode_or_none, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fal_async.emulator._responses import Response
    from fal_async.emulator._settings import Settings
    from fal_async.types import LogLine, Priority

__all__ = ["Job", "JobStatus", "LogLevel"]

logger = logging.getLogger("fal_async.emulator")

JobStatus: TypeAlias = Literal["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]
LogLevel: TypeAlias = Literal["STDERR", "STDOUT", "ERROR", "INFO", "WARN", "DEBUG"]

_TAG = re.compile(r"(?!fal\.)([a-z0-9._-]{1,64})=([ -~]{0,256})")

#: Seconds for which results are kept: small ones, and those of at least so many bytes.
_RETENTION: Final = 3600.0
_RETENTION_OF_LARGE: Final = 360.0
_LARGE: Final = 10_000


class Job:
    """A request to an endpoint, direct or through the queue.

    A runner with a second parameter receives the job there. An ASGI app finds it in its scope, as
    ``request.state.job``. Tests find the jobs of the queue in `Emulator.jobs`.

    Attributes:
        request_id: The id by which the client knows the job.
        user_id: The id of the account that started the job.
        gateway_request_id: The id of the latest run: that of the job, and another after a retry.
        endpoint: The called endpoint id, path included.
        app: The endpoint id without its path.
        path: The path after the registered endpoint id, with a leading slash.
        method: The HTTP method of the request.
        query: The query string of the request.
        headers: The headers of the request, names in lower case.
        body: The body of the request.
        direct: Whether the request was direct, not through the queue.
        priority: The priority in the queue.
        status: The current status.
        logs: The log lines so far.
        executions: The number of runs so far, retries included.
        inference_time: The duration of the last run, in seconds. ``None`` before a run has ended.
        billable_units: The cost of a successful run. A runner may change it.
        response: The response of the runner, or of the platform in its place. ``None`` before the
            job has completed, and always for direct runs.
        expires_at: The time at which the platform forgets the job, by the emulator's clock.
            ``None`` before the job has completed.
        cancellation: A gate that opens when the caller cancels the job, or disconnects during a
            direct run.

    Example:
        >>> from fal_async.emulator import Emulator
        >>> with Emulator() as fal:
        ...     @fal.endpoint("acme/upscale")
        ...     async def upscale(arguments: dict[str, int], job: Job) -> dict[str, int]:
        ...         job.log("Upscaling")
        ...         return {"width": arguments["width"] * 2}
    """

    __slots__ = (
        "_loop",
        "_on_change",
        "_on_crash",
        "_thread",
        "_waiters",
        "app",
        "billable_units",
        "body",
        "cancellation",
        "direct",
        "endpoint",
        "executions",
        "expires_at",
        "gateway_request_id",
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
        "user_id",
    )

    def __init__(
        self,
        *,
        request_id: str,
        user_id: str,
        endpoint: str,
        app: str,
        path: str,
        method: str,
        query: str,
        headers: Mapping[str, str],
        body: bytes,
        direct: bool,
        on_change: Callable[[], None],
        on_crash: Callable[[BaseException], None],
    ) -> None:
        self.request_id: str = request_id
        self.gateway_request_id: str = request_id
        self.user_id: str = user_id
        self.endpoint: str = endpoint
        self.app: str = app
        self.path: str = path
        self.method: str = method
        self.query: str = query
        self.headers: Mapping[str, str] = headers
        self.body: bytes = body
        self.direct: bool = direct
        # The platform ignores unknown priorities.
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
        self._on_change = on_change
        self._on_crash = on_crash
        self._waiters: list[asyncio.Future[bool]] = []
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def __repr__(self) -> str:
        return f"<Job {self.request_id} of {self.endpoint}: {self.status}>"

    @property
    def cancelled(self) -> bool:
        """True if the caller has cancelled the job, or disconnected during a direct run."""
        return self.cancellation.is_open

    @property
    def arguments(self) -> Any:
        """The decoded JSON body. ``None`` if there is no body, or if it is not valid JSON."""
        return decode_or_none(self.body)

    @property
    def tags(self) -> dict[str, str]:
        """The tags in ``X-Fal-Tags``. As on the platform, invalid tags are dropped."""
        pairs = (pair.strip() for pair in self.headers.get("x-fal-tags", "").split(","))
        return {tag[1]: tag[2] for pair in pairs if (tag := _TAG.fullmatch(pair))}

    def log(self, message: str, level: LogLevel = "INFO", **fields: Any) -> None:
        """Write a log line, which callers see in the job's status. Any thread may call this.

        Args:
            message: The text of the line.
            level: The severity of the line.
            fields: Further fields of the line, such as ``labels={"step": 3}``, as JSON values.
        """
        timestamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"message": message, "timestamp": timestamp, "level": level, "source": "USER"}
        self.logs.append(cast("LogLine", line | fields))
        if threading.get_ident() == self._thread:
            self._notify()
        else:
            with contextlib.suppress(RuntimeError):  # the emulator has stopped
                self._loop.call_soon_threadsafe(self._notify)

    # The methods below must be called in the emulator's event loop.

    def _report_crash(self, error: BaseException) -> None:
        """Write an exception of the runner to the logs of this process and of the job."""
        logger.error(
            "The runner of %s crashed in request %s", self.endpoint, self.request_id, exc_info=error
        )
        text = "".join(traceback.format_exception(error))
        self.log(encode({"traceback": text}).decode(), "ERROR")
        self._on_crash(error)

    def _request_cancellation(self) -> None:
        """Open `cancellation`, so that the runner can stop."""
        self.cancellation.open()
        self._on_change()

    def _notify(self) -> None:
        """Wake the tasks that wait for a change."""
        self._on_change()
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(True)

    def _wait_for_change(self) -> asyncio.Future[bool]:
        """Return a future whose result is True at the next change."""
        waiter: asyncio.Future[bool] = self._loop.create_future()
        self._waiters.append(waiter)
        return waiter


class Jobs:
    """Jobs of the queue by request id, until they expire.

    Args:
        settings: The clock, and how many times faster than on the platform results expire.
    """

    def __init__(self, settings: Settings) -> None:
        self._by_id: dict[str, Job] = {}
        self._settings = settings
        # Completed jobs in the order in which they expire, by the size of their results.
        self._large: deque[Job] = deque()
        self._small: deque[Job] = deque()

    def add(self, job: Job) -> None:
        """Add a submitted job."""
        self._by_id[job.request_id] = job

    def get(self, request_id: str) -> Job | None:
        """Return a job, or ``None`` if it is unknown or has expired."""
        for completed in (self._large, self._small):
            while completed and self._has_expired(completed[0]):
                self.remove(completed.popleft().request_id)
        job = self._by_id.get(request_id)
        return None if job is None or self._has_expired(job) else job

    def complete(self, job: Job, response: Response) -> None:
        """Complete a job, and start the time for which its result is kept."""
        is_large = len(response.body) >= _LARGE
        job.response = response
        job.status = "COMPLETED"
        retention = _RETENTION_OF_LARGE if is_large else _RETENTION
        job.expires_at = self._settings.clock() + retention / self._settings.speed
        (self._large if is_large else self._small).append(job)
        job._notify()

    def snapshot(self) -> dict[str, Job]:
        """Return the jobs that have not expired."""
        return {name: job for name, job in list(self._by_id.items()) if not self._has_expired(job)}

    def remove(self, request_id: str) -> None:
        """Remove a job."""
        self._by_id.pop(request_id, None)

    def clear(self) -> None:
        """Remove all jobs."""
        self._by_id.clear()
        self._large.clear()
        self._small.clear()

    def _has_expired(self, job: Job) -> bool:
        return job.expires_at is not None and job.expires_at <= self._settings.clock()
