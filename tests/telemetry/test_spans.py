"""Spans and metrics of calls, with the exporters of the SDK."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import fal_async
from fal_async import AsyncClient, File, InvalidRequestError, NotFoundError, Upload
from fal_async.emulator import Emulator, Fault
from fal_async.telemetry import OTelHook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from opentelemetry.sdk.trace import ReadableSpan

    from fal_async.emulator import Job

ECHO = "acme/echo"
TRACED = "acme/traced"
STREAM = "acme/stream"


class Traces:
    """The finished spans and the metrics of a test."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._reader = InMemoryMetricReader()
        self.meters = MeterProvider([self._reader])

    def spans(self) -> dict[str, ReadableSpan]:
        """Return the finished spans by name, the last of each."""
        return {span.name: span for span in self._exporter.get_finished_spans()}

    def children(self, parent: ReadableSpan) -> list[str]:
        """Return the names of the children of a span, in the order of their ends."""
        found = self._exporter.get_finished_spans()
        return [span.name for span in found if span.parent == parent.context]

    def points(self) -> dict[str, list[Any]]:
        """Return the data points of the metrics by name."""
        data = self._reader.get_metrics_data()
        assert data is not None
        (resource,) = data.resource_metrics
        (scope,) = resource.scope_metrics
        return {metric.name: list(metric.data.data_points) for metric in scope.metrics}

    def close(self) -> None:
        """Stop the exporters."""
        self.provider.shutdown()
        self.meters.shutdown()


@pytest.fixture
def traces() -> Any:
    made = Traces()
    yield made
    made.close()


def hook(traces: Traces, **options: Any) -> OTelHook:
    return OTelHook(tracer_provider=traces.provider, meter_provider=traces.meters, **options)


@pytest.fixture
async def observed(fal: Emulator, traces: Traces) -> AsyncIterator[AsyncClient]:
    async def stream(arguments: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        yield {"step": 1}
        yield {"step": 2}

    def traced(arguments: dict[str, Any], job: Job) -> dict[str, Any]:
        return {"traceparent": job.headers.get("traceparent")}

    fal.register(ECHO, lambda arguments: arguments)
    fal.register(STREAM, stream)
    fal.register(TRACED, traced)
    async with AsyncClient(fal.key, hosts=fal.hosts, hooks=hook(traces)) as client:
        yield client


def facts(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_run_is_one_client_span(observed: AsyncClient, traces: Traces, fal: Emulator) -> None:
    with traces.provider.get_tracer("app").start_as_current_span("request") as parent:
        result = await observed.run(ECHO, {"prompt": "a confidential prompt"})
    span = traces.spans()[f"generate_content {ECHO}"]
    assert span.kind is SpanKind.CLIENT
    assert span.parent == parent.get_span_context()
    assert span.status.status_code is StatusCode.UNSET
    found = facts(span)
    assert found["gen_ai.operation.name"] == "generate_content"
    assert found["gen_ai.provider.name"] == "fal_ai"
    assert found["gen_ai.request.model"] == ECHO
    assert found["gen_ai.response.id"] == found["fal.request_id"] == result.request_id
    assert (found["fal.call"], found["fal.outcome"], found["fal.attempts"]) == (
        "run",
        "succeeded",
        1,
    )
    assert (found["server.address"], found["fal.billable_units"]) == ("127.0.0.1", 1.0)
    assert traces.children(span) == ["run"]
    request = facts(traces.spans()["run"])
    assert (request["http.request.method"], request["http.response.status_code"]) == ("POST", 200)
    assert "confidential" not in "".join(each.to_json() for each in traces.spans().values())


async def test_subscribe_has_spans_of_its_parts(
    observed: AsyncClient, traces: Traces, fal: Emulator
) -> None:
    gate = fal.gate()

    async def slow(arguments: dict[str, Any]) -> dict[str, Any]:
        await gate.wait()
        return arguments

    def look(status: fal_async.Status) -> None:
        if isinstance(status, fal_async.InProgress):
            gate.open()

    fal.register(ECHO, slow)
    fal.fail(ECHO, Fault(route="result", status=503))
    arguments = {"file": Upload(b"...", "text/plain", "a.txt")}
    await observed.subscribe(ECHO, arguments, on_queue_update=look)
    span = traces.spans()[f"generate_content {ECHO}"]
    children = traces.children(span)
    assert children.count("result") == 2
    assert {"upload", "submit", "queue", "watch", "run", "result"} <= {*children}
    assert children.index("submit") < children.index("queue") < children.index("run")
    assert [event.name for event in span.events] == ["retry"]
    found = facts(span)
    assert found["fal.retries"] == 1
    assert found["fal.queue.seconds"] > 0
    assert found["fal.run.seconds"] > 0
    assert facts(traces.spans()["result"])["http.request.resend_count"] == 1


async def test_failed_calls_have_error_spans(observed: AsyncClient, traces: Traces) -> None:
    with pytest.raises(NotFoundError):
        await observed.run("acme/nothing", {})
    span = traces.spans()["generate_content acme/nothing"]
    assert span.status.status_code is StatusCode.ERROR
    assert facts(span)["error.type"] == "NotFoundError"
    assert facts(traces.spans()["run"])["error.type"] == "404"
    (point,) = traces.points()["gen_ai.client.inference.duration"]
    assert point.attributes["error.type"] == "NotFoundError"


async def test_collected_job_links_to_its_submission(
    observed: AsyncClient, traces: Traces, fal: Emulator
) -> None:
    handle = await observed.submit(ECHO, {})
    submitted = traces.spans()[f"generate_content {ECHO}"]
    stored = handle.to_dict()
    assert submitted.context is not None
    assert f"{submitted.context.trace_id:032x}" in stored["traceparent"]
    await observed.attach(stored).get()
    (link,) = traces.spans()[f"fetch_response {ECHO}"].links
    assert link.context.span_id == submitted.context.span_id
    await observed.result(ECHO, handle.request_id)
    assert traces.spans()[f"fetch_response {ECHO}"].links == ()


async def test_context_goes_to_own_apps_alone(
    traces: Traces, fal: Emulator, observed: AsyncClient
) -> None:
    assert await observed.run(TRACED, {}) == {"traceparent": None}
    own = observed.with_options(hooks=hook(traces, propagate_to=["acme/*"]))
    output = await own.subscribe(TRACED, {})
    span = traces.spans()[f"generate_content {TRACED}"]
    assert span.context is not None
    assert output["traceparent"].split("-")[1] == f"{span.context.trace_id:032x}"
    other = observed.with_options(hooks=hook(traces, propagate_to=["other/*"]))
    assert await other.run(TRACED, {}) == {"traceparent": None}


async def test_calls_are_measured(observed: AsyncClient, traces: Traces, fal: Emulator) -> None:
    async with observed.stream(STREAM, {}, path="") as events:
        assert len([event async for event in events]) == 2
    fal.fail(ECHO, Fault(route="result", status=503))
    await observed.subscribe(ECHO, {})
    file = File(url=fal.store(b"...", "text/plain"))._bind(observed._dispatcher)
    await file.read()
    points = traces.points()
    durations = {
        (point.attributes["gen_ai.operation.name"], point.attributes.get("gen_ai.request.model"))
        for point in points["gen_ai.client.inference.duration"]
    }
    assert durations == {
        ("generate_content", STREAM),
        ("generate_content", ECHO),
        ("download", None),
    }
    (first,) = points["gen_ai.client.inference.time_to_first_chunk"]
    assert (first.count, first.attributes["gen_ai.request.model"]) == (1, STREAM)
    assert [point.value for point in points["fal.client.retries"]] == [1]
    assert {point.value for point in points["fal.client.active_calls"]} == {0}
    received = {
        point.attributes.get("gen_ai.request.model"): point.value
        for point in points["fal.client.io"]
        if point.attributes["fal.direction"] == "received"
    }
    assert received[None] == 3
    stream_span = traces.spans()[f"generate_content {STREAM}"]
    assert facts(stream_span)["fal.events"] == 2
    assert facts(stream_span)["gen_ai.response.time_to_first_chunk"] > 0


async def test_cancelled_calls_end_their_spans(
    observed: AsyncClient, traces: Traces, fal: Emulator
) -> None:
    gate = fal.gate()

    async def slow(arguments: dict[str, Any]) -> dict[str, Any]:
        await gate.wait()
        return arguments

    fal.register("acme/slow", slow)

    async def run() -> None:
        await observed.run("acme/slow", {})

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await fal.wait_for_counters("acme/slow", executions=1)
        tasks.cancel_scope.cancel()
    span = traces.spans()["generate_content acme/slow"]
    assert facts(span)["fal.outcome"] == "cancelled"
    assert traces.children(span) == ["run"]


async def test_fastapi_requests_contain_calls(
    observed: AsyncClient, traces: Traces, fal: Emulator
) -> None:
    fastapi = pytest.importorskip("fastapi")
    app = fastapi.FastAPI()

    @app.post("/echo")  # type: ignore[untyped-decorator]  # as FastAPI is imported late
    async def echo() -> dict[str, Any]:
        return dict(await observed.run(ECHO, {"seed": 7}))

    FastAPIInstrumentor.instrument_app(
        app, tracer_provider=traces.provider, meter_provider=traces.meters
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        assert (await client.post("/echo")).json() == {"seed": 7}
    spans = traces.spans()
    server = spans["POST /echo"]
    assert server.kind is SpanKind.SERVER
    assert spans[f"generate_content {ECHO}"].parent == server.context


async def test_global_providers_are_the_default(fal: Emulator) -> None:
    fal.register(ECHO, lambda arguments: arguments)
    async with AsyncClient(fal.key, hosts=fal.hosts, hooks=OTelHook()) as client:
        handle = await client.submit(ECHO, {})  # without an SDK, there is no context
        assert handle.traceparent is None
        assert await handle.get() == {}


def test_patterns_are_validated() -> None:
    with pytest.raises(InvalidRequestError, match="propagate_to must be a list"):
        OTelHook(propagate_to="acme/*")
    with pytest.raises(InvalidRequestError, match="propagate_to must be endpoint ids"):
        OTelHook(propagate_to=[7])  # type: ignore[list-item]  # as the test is about


def test_missing_extra_is_named() -> None:
    code = """
import sys
sys.modules["opentelemetry"] = None
try:
    import fal_async.telemetry
except ImportError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=30
    )
    assert done.stdout == 'telemetry requires opentelemetry-api: pip install "fal-async[otel]"\n'
