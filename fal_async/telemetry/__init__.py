"""Traces and metrics of calls for OpenTelemetry.

It requires the extra ``otel``: ``pip install "fal-async[otel]"``. Programs configure the SDK and
its exporters themselves.
"""

from __future__ import annotations

try:
    from fal_async.telemetry._hook import OTelHook
except ModuleNotFoundError as _error:
    if (_error.name or "").partition(".")[0] != "opentelemetry":
        raise
    raise ImportError(
        'telemetry requires opentelemetry-api: pip install "fal-async[otel]"'
    ) from _error

from fal_async._core.annotations import make_resolvable

__all__ = ["OTelHook"]

make_resolvable(OTelHook)
