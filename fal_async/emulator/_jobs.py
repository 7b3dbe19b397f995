"""The jobs of the queue, for as long as the platform keeps them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from fal_async.emulator._policy import is_large, retention

if TYPE_CHECKING:
    from collections.abc import Callable

    from fal_async.emulator._job import Job
    from fal_async.emulator._replies import Reply


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

    def complete(self, job: Job, reply: Reply) -> None:
        """End a job; the time that its result is kept begins."""
        job.reply = reply
        job.status = "COMPLETED"
        job.expires_at = self._clock() + retention(reply)
        (self._large if is_large(reply) else self._small).append(job)
        job.changed()

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
