"""`CallMetrics`: the measurements of calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fal_async.telemetry import _attributes as names
from fal_async.telemetry._spans import call_attributes

if TYPE_CHECKING:
    from opentelemetry.metrics import Histogram, Meter

    from fal_async.hooks import Call, CallEnded

__all__ = ["CallMetrics"]

#: The upper bounds of the buckets of durations, in seconds.
BOUNDS: Final = (
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
    163.84, 327.68,
)  # fmt: skip


class CallMetrics:
    """The measurements of all calls of a hook.

    Args:
        meter: Makes the instruments.
    """

    def __init__(self, meter: Meter) -> None:
        def duration(name: str, description: str) -> Histogram:
            return meter.create_histogram(
                name, "s", description, explicit_bucket_boundaries_advisory=BOUNDS
            )

        self._duration = duration("gen_ai.client.inference.duration", "Duration of a call")
        self._first = duration(
            "gen_ai.client.inference.time_to_first_chunk", "Time until the first event of a stream"
        )
        self._queue = duration("fal.client.queue.duration", "Time of a job in the queue")
        self._slot = duration("fal.client.slot.duration", "Time in which a call waited for slots")
        self._active = meter.create_up_down_counter(
            "fal.client.active_calls", "{call}", "Calls now"
        )
        self._retries = meter.create_counter("fal.client.retries", "{retry}", "Retries")
        self._bytes = meter.create_counter("fal.client.io", "By", "Bytes sent and received")

    def start(self, call: Call) -> None:
        """Count a call that has started."""
        self._active.add(1, call_attributes(call))

    def receive_first_event(self, call: Call, seconds: float) -> None:
        """Record the time until the first event of a stream."""
        self._first.record(seconds, call_attributes(call))

    def end(self, event: CallEnded) -> None:
        """Record the measurements of a call that has ended."""
        attributes = call_attributes(event.call)
        self._active.add(-1, attributes)
        for direction, count in (("sent", event.bytes_sent), ("received", event.bytes_received)):
            self._bytes.add(count, {**attributes, names.DIRECTION: direction})
        if event.retries:
            self._retries.add(event.retries, attributes)
        if event.seconds_in_slot:
            self._slot.record(event.seconds_in_slot, attributes)
        if event.seconds_in_queue is not None:
            self._queue.record(event.seconds_in_queue, attributes)
        if event.error is not None:
            attributes[names.ERROR_TYPE] = type(event.error).__name__
        self._duration.record(event.seconds, attributes)
