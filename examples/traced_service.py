"""Trace a call with OpenTelemetry, and count what happened with a hook of one's own."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

import fal_async
from fal_async import hooks
from fal_async.telemetry import OTelHook

MODEL = "fal-ai/flux/dev"


class Counts(Counter[str]):
    """A hook that counts requests, retries and calls by their outcome."""

    def __call__(self, event: hooks.Event) -> None:
        """Receive an event."""
        match event:
            case hooks.AttemptStarted():
                self["requests"] += 1
            case hooks.RetryScheduled():
                self["retries"] += 1
            case hooks.CallEnded(outcome=outcome):
                self[outcome] += 1


def print_name(span: object) -> str:
    """Return the line of a span: its name and its duration."""
    facts = json.loads(span.to_json())  # type: ignore[attr-defined]  # a span of the SDK
    return f"span: {facts['name']}\n"


async def main() -> None:
    """Run a job, and print its spans and the counts."""
    provider = TracerProvider()
    exporter = ConsoleSpanExporter(formatter=print_name)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    counts = Counts()
    traces = OTelHook(tracer_provider=provider)
    async with fal_async.AsyncClient(hooks=[traces, counts], user_agent="example/1.0") as client:
        with provider.get_tracer("example").start_as_current_span("work"):
            await client.subscribe(MODEL, {"prompt": "a lighthouse at dawn"})
        print("slots in use:", client.statistics().control.used)
    print(dict(counts))


if __name__ == "__main__":
    asyncio.run(main())
