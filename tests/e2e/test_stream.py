"""`stream`: events, errors, interruptions and early exits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import orjson
import pytest
from pydantic import BaseModel
from starlette.responses import Response, StreamingResponse

from fal_async import (
    AsyncClient,
    AuthenticationError,
    EventStream,
    FalClientTimeoutError,
    InvalidInputError,
    InvalidRequestError,
    InvalidResponseError,
    StreamError,
    StreamInterruptedError,
    SubmitOutcomeUnknownError,
    WorkflowEvent,
)
from fal_async.emulator import AppError, Emulator, Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

COUNT = "acme/count"
E = TypeVar("E", bound=Exception)


class Step(BaseModel):
    step: int


@pytest.fixture(autouse=True)
def count(fal: Emulator) -> None:
    @fal.endpoint(COUNT)
    def count(arguments: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for step in range(arguments["steps"]):
            yield {"step": step}


def serve(fal: Emulator, body: bytes, media_type: str = "text/event-stream") -> None:
    @fal.endpoint("acme/raw")
    def raw(arguments: dict[str, Any]) -> Response:
        return Response(body, media_type=media_type)


async def collect(stream: EventStream[Any]) -> list[Any]:
    with anyio.fail_after(10):
        return [event async for event in stream]


async def collect_until(error: type[E], stream: EventStream[Any]) -> tuple[list[Any], E]:
    """The events before the error, and the error."""
    seen: list[Any] = []
    try:
        with anyio.fail_after(10):
            async for event in stream:
                seen.append(event)  # noqa: PERF401 -- events before an error must be kept
    except error as caught:
        return seen, caught
    pytest.fail(f"the stream ended without {error.__name__}")


async def test_events_arrive_decoded_in_order(fal: Emulator, client: AsyncClient) -> None:
    stream = client.stream(COUNT, {"steps": 100}, path="")

    assert await collect(stream) == [{"step": step} for step in range(100)]
    assert stream.request_id is not None
    assert stream.response_headers["content-type"].startswith("text/event-stream")
    assert fal.count("run") + fal.count("stream") == 1


async def test_default_path_is_stream(fal: Emulator, client: AsyncClient) -> None:
    @fal.endpoint("acme/other/stream")
    def other(arguments: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield arguments

    assert await collect(client.stream("acme/other", {"n": 1})) == [{"n": 1}]


async def test_event_media_type_is_case_insensitive(fal: Emulator, client: AsyncClient) -> None:
    serve(fal, b"data: 1\n\n", "Text/Event-Stream; Charset=UTF-8")

    assert await collect(client.stream("acme/raw", {}, path="")) == [1]


async def test_stream_is_a_context_manager(fal: Emulator, client: AsyncClient) -> None:
    gate = fal.gate()

    @fal.endpoint("acme/endless")
    async def endless(arguments: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        yield {"n": 1}
        await gate.wait()

    async with client.stream("acme/endless", {}, path="") as events:
        assert events.request_id is not None
        assert await anext(events) == {"n": 1}
    await fal.wait_for_async(lambda: fal.connections == 0)
    await events.aclose()
    gate.open()


async def test_early_exit_closes_the_connection(fal: Emulator, client: AsyncClient) -> None:
    gate = fal.gate()

    @fal.endpoint("acme/endless")
    async def endless(arguments: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        yield {"n": 1}
        await gate.wait()

    async for _ in client.stream("acme/endless", {}, path=""):
        break

    await fal.wait_for_async(lambda: fal.connections == 0)
    gate.open()


async def test_cancelled_reader_closes_the_connection(fal: Emulator, client: AsyncClient) -> None:
    gate = fal.gate()

    @fal.endpoint("acme/endless")
    async def endless(arguments: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        yield {"n": 1}
        await gate.wait()

    for steps in range(12):
        async with anyio.create_task_group() as group:

            async def read() -> None:
                async with client.stream("acme/endless", {}, path="") as events:
                    async for _ in events:
                        pass

            group.start_soon(read)
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
    await fal.wait_for_async(lambda: fal.connections == 0)
    gate.open()
    assert len(await collect(client.stream(COUNT, {"steps": 3}, path=""))) == 3


async def test_error_status_raises_the_typed_error(fal: Emulator, client: AsyncClient) -> None:
    @fal.endpoint("acme/strict")
    def strict(arguments: dict[str, Any]) -> None:
        raise AppError(422, [{"loc": ["body", "steps"], "msg": "too many", "type": "less_than"}])

    with pytest.raises(InvalidInputError, match="steps: too many"):
        await collect(client.stream("acme/strict", {}, path=""))
    with pytest.raises(AuthenticationError):
        await collect(client.with_options(key="wrong:key").stream(COUNT, {"steps": 1}, path=""))


async def test_events_are_validated(client: AsyncClient) -> None:
    stream = client.stream(COUNT, {"steps": 2}, path="", output=Step)

    assert await collect(stream) == [Step(step=0), Step(step=1)]
    with pytest.raises(InvalidResponseError):
        await collect(client.stream(COUNT, {"steps": 2}, path="", output=list[int]))


async def test_text_is_kept_and_empty_events_skipped(fal: Emulator, client: AsyncClient) -> None:
    serve(
        fal,
        b": hello\n\ndata: {}\n\ndata:\n\ndata: plain\n\nevent: event\ndata: 1\n\ndata: [DONE]\n\n",
    )

    assert await collect(client.stream("acme/raw", {}, path="")) == [{}, "plain", 1]


async def test_final_sentinel_is_not_an_event(fal: Emulator, client: AsyncClient) -> None:
    serve(fal, b'data: {"step": 1}\n\nevent: done\ndata: [DONE]\n\ndata: {"step": 2}\n\n')

    expected = [{"step": 1}, {"step": 2}]
    assert await collect(client.stream("acme/raw", {}, path="")) == expected
    typed = client.stream("acme/raw", {}, path="", output=Step)
    assert await collect(typed) == [Step(step=1), Step(step=2)]


async def test_text_like_the_sentinel_is_an_event(fal: Emulator, client: AsyncClient) -> None:
    serve(fal, b'data: "[DONE]"\n\ndata: ["DONE"]\n\ndata: [DONE].\n\n')

    expected = ["[DONE]", ["DONE"], "[DONE]."]
    assert await collect(client.stream("acme/raw", {}, path="")) == expected


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (b'event: error\ndata: {"detail": "out of paint"}\n\n', "out of paint"),
        (b"event: error\ndata: out of paint\n\n", "out of paint"),
        (b'data: {"output": "", "partial": false, "error": "out of paint"}\n\n', "out of paint"),
        (b'data: {"type": "error", "node_id": "n", "message": "out of paint"}\n\n', "out of paint"),
        (b'data: {"detail": "out of paint", "error_type": "request_timeout"}\n\n', "out of paint"),
        (b'data: {"error": {"status": 422}}\n\n', '{"status":422}'),
        (b'data: {"error": "out of \xff paint"}\n\n', "out of \ufffd paint"),
    ],
)
async def test_error_event_follows_earlier_events(
    fal: Emulator, client: AsyncClient, event: bytes, message: str
) -> None:
    serve(fal, b'data: {"output": "a", "partial": true, "error": null}\n\n' + event)
    seen, error = await collect_until(StreamError, client.stream("acme/raw", {}, path=""))

    assert len(seen) == 1
    assert error.message == message
    assert error.request_id is not None


async def test_object_like_an_error_is_an_event(fal: Emulator, client: AsyncClient) -> None:
    events: list[Any] = [
        {"error": None},
        {"error": ""},
        {"error": {}},
        {"error": 0.1},
        {"type": ["error"]},
        {"type": {"error": 1}},
        ["error"],
        "error",
    ]
    serve(fal, b"".join(b"data: %s\n\n" % orjson.dumps(event) for event in events))

    assert await collect(client.stream("acme/raw", {}, path="")) == events


async def test_second_reader_is_refused(fal: Emulator, client: AsyncClient) -> None:
    gate = fal.gate()

    @fal.endpoint("acme/gated")
    async def gated(arguments: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        await gate.wait()
        yield {"n": 1}

    seen: list[Any] = []

    async def read() -> None:
        seen.extend([event async for event in stream])

    stream = client.stream("acme/gated", {}, path="")
    async with anyio.create_task_group() as group:
        group.start_soon(read)
        for _ in range(2):  # while the stream opens, and while it is read
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(InvalidRequestError, match="another task"):
                await anext(stream)
            await fal.wait_for_async(lambda: fal.connections == 1)
        gate.open()
    assert seen == [{"n": 1}]
    assert fal.counters("acme/gated").executions == 1


@pytest.mark.parametrize("opened", [False, True])
async def test_close_from_another_task_ends_the_stream(
    fal: Emulator, client: AsyncClient, *, opened: bool
) -> None:
    gate, end = fal.gate(), fal.gate()

    @fal.endpoint("acme/gated")
    async def gated(arguments: dict[str, Any]) -> AsyncIterator[bytes]:
        if opened:
            yield b"data: 1\n\ndata: half"
        await gate.wait()
        yield b"data: 2\n\n"
        await end.wait()

    seen: list[Any] = []

    async def read() -> None:
        async for event in stream:
            seen.append(event)
            arrived.set()

    stream = client.stream("acme/gated", {}, path="")
    arrived = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(read)
        if opened:
            await arrived.wait()
        await anyio.wait_all_tasks_blocked()
        await stream.aclose()
        gate.open()
    assert await collect(stream) == []
    await fal.wait_for_async(lambda: fal.connections == 0)
    end.open()
    assert len(seen) == opened


async def test_workflow_yields_its_steps(fal: Emulator, client: AsyncClient) -> None:
    steps: list[dict[str, Any]] = [
        {"type": "submit", "node_id": "a", "app_id": "fal-ai/flux", "request_id": "1"},
        {"type": "completion", "node_id": "a", "output": {"n": 1}},
        {"type": "output", "output": {"n": 1}},
    ]

    @fal.endpoint("workflows/acme/flow")
    def flow(arguments: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield from steps

    assert await collect(client.stream("workflows/acme/flow", {}, path="")) == steps


async def test_workflow_events_are_typed(fal: Emulator, client: AsyncClient) -> None:
    steps: list[dict[str, Any]] = [
        {"type": "submit", "node_id": "draw", "app_id": "acme/draw", "request_id": "abc"},
        {"type": "completion", "node_id": "draw", "output": {"seed": 7}},
        {"type": "news of tomorrow", "more": 1},
        {"type": "output", "output": None},
        {"type": "error", "node_id": "last", "message": "out of paint", "error": {"status": 500}},
    ]

    @fal.endpoint("workflows/acme/flow")
    def flow(arguments: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield from steps

    stream = client.stream("workflows/acme/flow", {}, path="", output=WorkflowEvent)
    seen, error = await collect_until(StreamError, stream)

    assert seen == [
        WorkflowEvent(type="submit", node_id="draw", app_id="acme/draw", request_id="abc"),
        WorkflowEvent(type="completion", node_id="draw", output={"seed": 7}),
        WorkflowEvent(type="news of tomorrow"),
        WorkflowEvent(type="output"),
    ]
    assert (error.message, error.payload) == ("out of paint", steps[-1])


async def test_other_content_type_yields_bytes(fal: Emulator, client: AsyncClient) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for part in (b"\x89PNG", b"\x00", b"\xff"):
            yield part

    @fal.endpoint("acme/picture")
    def picture(arguments: dict[str, Any]) -> Response:
        return StreamingResponse(parts(), media_type="image/png")

    chunks = await collect(client.stream("acme/picture", {}, path=""))

    assert b"".join(chunks) == b"\x89PNG\x00\xff"


@pytest.mark.parametrize("reset", [False, True])
async def test_dropped_connection_reports_the_progress(
    fal: Emulator, client: AsyncClient, *, reset: bool
) -> None:
    serve(fal, b"data: 1\n\ndata: 2\n\ndata: 3\n\n")
    fal.fail("acme/raw", Fault(cut=20, reset=reset))
    seen, error = await collect_until(
        StreamInterruptedError, client.stream("acme/raw", {}, path="")
    )

    assert seen == [1, 2]
    assert error.events == 2
    assert "after 2 events" in str(error)


async def test_partial_event_means_interruption(fal: Emulator, client: AsyncClient) -> None:
    serve(fal, b"data: 1\n\ndata: 2\n")

    with pytest.raises(StreamInterruptedError, match="after 1 events: it ended within an event"):
        await collect(client.stream("acme/raw", {}, path=""))


async def test_idle_stream_times_out(fal: Emulator, client: AsyncClient) -> None:
    gate = fal.gate()

    @fal.endpoint("acme/silent")
    async def silent(arguments: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        yield {"n": 1}
        await gate.wait()

    for timeout, idle_timeout in ((None, 0.2), (0.2, None), (9, 0.2)):
        stream = client.stream(
            "acme/silent", {}, path="", timeout=timeout, idle_timeout=idle_timeout
        )
        seen, error = await collect_until(FalClientTimeoutError, stream)
        assert seen == [{"n": 1}]
        assert error.timeout == 0.2
        assert error.request_id is not None
    await fal.wait_for_async(lambda: fal.connections == 0)
    gate.open()


async def test_lost_stream_response_is_not_retried(fal: Emulator, client: AsyncClient) -> None:
    fal.fail(COUNT, Fault(drop_response=True, times=3))

    with pytest.raises(SubmitOutcomeUnknownError):
        await collect(client.stream(COUNT, {"steps": 1}, path=""))
    assert fal.counters(COUNT).executions == 1


async def test_megabyte_event_arrives_complete(fal: Emulator, client: AsyncClient) -> None:
    serve(fal, b'data: {"image": "' + b"a" * 2**20 + b'"}\n\n')

    (event,) = await collect(client.stream("acme/raw", {}, path=""))

    assert len(event["image"]) == 2**20
