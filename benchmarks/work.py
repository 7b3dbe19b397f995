"""Work of a leg and its measurement, inside the process of the leg."""

from __future__ import annotations

import gc
import http.client
import json
import resource
import time
from array import array
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from benchmarks.memory import forget_peak, memory, peak_memory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.benchmark import Measures

__all__ = ["Section", "Work", "cpu_time", "percentile"]


class Work:
    """The work of a leg.

    Attributes:
        url: The base URL of the stub.
        secure_url: The same over TLS; ``None`` if the stub does not serve it.
        counts_at_start: The counters of the stub before the leg.
    """

    def __init__(self, url: str, secure_url: str | None, numbers: Mapping[str, int]) -> None:
        self.url = url
        self.secure_url = secure_url
        self._numbers = numbers
        self.counts_at_start = self.counts()

    @property
    def base(self) -> str:
        """The base URL of the stub: TLS if the stub serves it."""
        return self.secure_url or self.url

    def __getitem__(self, name: str) -> int:
        """Return a size of the case."""
        return self._numbers[name]

    def counts(self) -> dict[str, Any]:
        """Return the counters of the stub."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=60)
        connection.request("GET", "/counts")
        counts: dict[str, Any] = json.loads(connection.getresponse().read())
        connection.close()
        return counts

    def section(self) -> Section:
        """Measure the body of a ``with`` block."""
        return Section(self)


class Section:
    """The measured part of a leg: wall clock, CPU of this process, and requests to the stub.

    Attributes:
        wall: Seconds from begin to end.
        cpu: Seconds of CPU that this process took, all threads, user and system.
        units: The number of requests, jobs or events, which the leg sets.
        latencies: Seconds of each of them, if the leg notes them.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self.wall = 0.0
        self.cpu = 0.0
        self.units = 0
        self.latencies = array("d")

    def __enter__(self) -> Self:
        self._before = self._work.counts()
        gc.collect()
        self._memory = memory()
        forget_peak()
        self._cpu_then = cpu_time()
        self._then = time.perf_counter()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.wall = time.perf_counter() - self._then
        self.cpu = cpu_time() - self._cpu_then
        self._peak = peak_memory()
        self._after = self._work.counts()

    def calls(self, route: str) -> int:
        """Return the number of requests to a route within the section."""
        calls: int = self._after["calls"].get(route, 0) - self._before["calls"].get(route, 0)
        return calls

    def measures(self) -> Measures:
        """Return the measures that all benchmarks share."""
        units = max(1, self.units or len(self.latencies))
        opened = self._after["connections"] - self._work.counts_at_start["connections"]
        measures: Measures = {
            "units": units,
            "wall_s": self.wall,
            "wall_us": 1e6 * self.wall / units,
            "cpu_us": 1e6 * self.cpu / units,
            "per_s": units / self.wall,
            "peak_mb": self._peak / 1e6,
            "growth_mb": (self._peak - self._memory) / 1e6,
            "stub_share": (self._after["cpu_s"] - self._before["cpu_s"]) / self.wall,
            "connections": opened,
        }
        if self.latencies:
            measures["p50_ms"] = 1e3 * percentile(self.latencies, 0.5)
            measures["p99_ms"] = 1e3 * percentile(self.latencies, 0.99)
        return measures


def percentile(values: array[float], share: float) -> float:
    """Return the value that a share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def cpu_time() -> float:
    """Return the CPU seconds of this process: all threads, user and system."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
