"""`OTelHook`: spans and metrics of calls for OpenTelemetry."""

from __future__ import annotations

from fnmatch import fnmatchcase
from time import monotonic
from typing import TYPE_CHECKING

from opentelemetry import metrics, trace

from fal_async._core.annotations import set_module
from fal_async._core.checks import check_sequence, describe
from fal_async._version import __version__
from fal_async.errors import InvalidRequestError
from fal_async.hooks import CallEnded, CallStarted, StreamEventReceived
from fal_async.telemetry import _attributes as names
from fal_async.telemetry._metrics import CallMetrics
from fal_async.telemetry._spans import CallSpans

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from fal_async.hooks import Call, Event

__all__ = ["OTelHook"]


@set_module("fal_async.telemetry")
class OTelHook:
    """A hook that makes spans and metrics of calls with the API of OpenTelemetry.

    Each call has one span of the kind CLIENT, over all its requests and retries, with the
    attributes of the conventions for generative AI. Its children are the requests, the waits for
    slots, the time in the queue, the run, and each file. A later call that fetches the output of a
    job links to the span of its submission. Neither arguments nor outputs nor keys are recorded.

    Args:
        tracer_provider: Makes the tracer; ``None`` uses the global provider.
        meter_provider: Makes the meter; ``None`` uses the global provider.
        propagate_to: The endpoint ids of your own apps, such as ``"my-team/*"``: requests that run
            them carry the header ``traceparent``. By default none does.

    Raises:
        InvalidRequestError: `propagate_to` is not a list of patterns.

    Example:
        >>> from fal_async.telemetry import OTelHook
        >>> client = fal_async.AsyncClient(hooks=OTelHook(propagate_to=["my-team/*"]))
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        propagate_to: Sequence[str] = (),
    ) -> None:
        check_sequence("propagate_to", propagate_to)
        for pattern in propagate_to:
            if not isinstance(pattern, str):  # pyright: ignore[reportUnnecessaryIsInstance] -- untyped callers
                raise InvalidRequestError(
                    f"propagate_to must be endpoint ids or patterns, got {describe(pattern)}"
                )
        self._patterns = tuple(propagate_to)
        self._tracer = trace.get_tracer("fal_async", __version__, tracer_provider)
        self._metrics = CallMetrics(metrics.get_meter("fal_async", __version__, meter_provider))
        self._calls: dict[int, tuple[CallSpans, float]] = {}

    def __call__(self, event: Event) -> None:
        """Receive an event."""
        call = event.call
        if isinstance(event, CallStarted):
            self._calls[call.id] = CallSpans(self._tracer, call), monotonic()
            self._metrics.start(call)
            return
        if isinstance(event, CallEnded):
            spans, _ = self._calls.pop(call.id)
            self._metrics.end(event)
            spans.end(event)
            return
        spans, began = self._calls[call.id]
        if isinstance(event, StreamEventReceived) and event.count == 1:
            seconds = monotonic() - began
            self._metrics.receive_first_event(call, seconds)
            spans.span.set_attribute(names.TIME_TO_FIRST_CHUNK, seconds)
        spans.add(event)

    def traceparent(self, call: Call) -> str | None:
        """Return the W3C trace context of a call; the handle of its job keeps it."""
        spans, _ = self._calls[call.id]
        return spans.traceparent()

    def propagates_to(self, application: str) -> bool:
        """Return whether requests to an app carry the trace context in a header."""
        return any(fnmatchcase(application, pattern) for pattern in self._patterns)
