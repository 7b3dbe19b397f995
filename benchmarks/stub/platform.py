"""State of the stub: end times of jobs and request counters."""

from __future__ import annotations

import itertools
import resource
import time
from collections import Counter
from dataclasses import dataclass, field

import orjson

__all__ = ["Platform"]


@dataclass
class Platform:
    """The state that all connections share.

    Attributes:
        job_seconds: How long a queue job takes.
        deflates: Whether sockets compress for clients that offer it.
        failing_part: The part of uploads that fails every other time it comes; 0 for none.
        origin: The base URL for clients.
        calls: How often each route was called.
        connections: How many connections clients have opened.
        ends: When each job ends, on the monotonic clock of the machine.
    """

    job_seconds: float = 1
    deflates: bool = False
    failing_part: int = 0
    origin: str = ""
    calls: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    ends: dict[str, float] = field(default_factory=dict)
    _ids: itertools.count[int] = field(default_factory=itertools.count)

    def submit(self, app: str) -> bytes:
        job = f"job-{next(self._ids)}"
        self.ends[job] = time.monotonic() + self.job_seconds
        base = f"{self.origin}/queue/{app}/requests/{job}"
        return orjson.dumps(
            {
                "status": "IN_QUEUE",
                "request_id": job,
                "response_url": base,
                "status_url": f"{base}/status",
                "cancel_url": f"{base}/cancel",
                "queue_position": 0,
            }
        )

    def has_ended(self, job: str) -> bool:
        return self.ends[job] <= time.monotonic()

    def status(self, job: str) -> tuple[int, bytes]:
        body: dict[str, object] = {"status": "IN_PROGRESS", "request_id": job, "logs": None}
        if not self.has_ended(job):
            return 202, orjson.dumps(body)
        metrics = {"inference_time": self.job_seconds}
        return 200, orjson.dumps(body | {"status": "COMPLETED", "metrics": metrics})

    def result(self, job: str) -> bytes:
        """Return the output with its time; `time.monotonic` is the same clock in all processes."""
        return orjson.dumps({"seed": 7, "ended": self.ends[job]})

    def fails(self, part: str) -> bool:
        """Return whether this part fails."""
        if part != str(self.failing_part):
            return False
        self.calls["failing part"] += 1
        return self.calls["failing part"] % 2 == 1

    def counts(self) -> bytes:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        cpu = usage.ru_utime + usage.ru_stime
        return orjson.dumps(
            {
                "calls": self.calls,
                "connections": self.connections,
                "cpu_s": cpu,
            }
        )
