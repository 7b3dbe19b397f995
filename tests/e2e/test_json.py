"""JSON: every call reads and writes exactly what Python's own `json` does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.responses import Response

import fal_async.sync as fal_client
from fal_async import AsyncClient, Completed, FalClientHTTPError, InvalidResponseError
from fal_async.emulator import AppError, Emulator, Job, Socket

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Values outside the JSON standard that apps may send.
ODD: dict[str, Any] = {
    "large": [2**64, -(2**63) - 1, 10**40, 2**64 - 1, -(2**63)],
    "numbers": [float("nan"), float("inf"), -float("inf"), -0.0, 1e-320],
    "halves": ["\ud83d", "\ude00", "\ud83d \ude00"],
    "digits": "12345678901234567890123",
    "deep": json.loads("[" * 300 + "]" * 300),
    "é\u2028\x00\x7f": None,
}
TEXT = json.dumps(ODD)

WORDS = st.text(st.characters(codec=None, categories=None), max_size=4)  # surrogates, too
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(2**63) | WORDS | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)


def same(one: object, other: object) -> bool:
    """Equal in type and value; NaN is as good as NaN."""
    return repr(one) == repr(other)


@pytest.fixture
def odd(fal: Emulator) -> None:
    """An app that responds with nonstandard JSON to every request."""

    @fal.endpoint("acme/odd")
    def output(arguments: dict[str, Any], job: Job) -> Response:
        job.log("\ud800")
        return Response(TEXT, media_type="application/json")

    @fal.endpoint("acme/odd/stream")
    def stream(arguments: dict[str, Any]) -> Response:
        return Response(f"data: {TEXT}\n\ndata: NaN\n\n", media_type="text/event-stream")

    @fal.websocket("acme/live")
    async def live(socket: Socket) -> None:
        async for _ in socket:
            await socket.send(TEXT)

    @fal.endpoint("acme/wrong")
    def wrong(arguments: dict[str, Any]) -> None:
        raise AppError(422, [{"loc": ["body", 2**70], "msg": "no", "type": "x", "ctx": ODD}])


@pytest.mark.usefixtures("odd")
async def test_outputs_are_parsed_like_python_json(client: AsyncClient) -> None:
    assert same(dict(await client.run("acme/odd", {})), ODD)
    assert same(dict(await client.subscribe("acme/odd", {}, with_logs=True)), ODD)
    handle = await client.submit("acme/odd", {})
    assert same(dict(await handle.get()), ODD)
    status = await handle.status(with_logs=True)
    assert isinstance(status, Completed)
    assert [line["message"] for line in status.logs or ()] == ["\ud800"]


@pytest.mark.usefixtures("odd")
async def test_events_and_messages_are_parsed_alike(client: AsyncClient) -> None:
    async with client.stream("acme/odd", {}) as events:
        assert same([event async for event in events], [ODD, float("nan")])
    async with client.realtime("acme/live", use_jwt=False) as session:
        await session.send({})
        assert same(await session.recv(), ODD)


@pytest.mark.usefixtures("odd")
async def test_websocket_responses_are_parsed_alike(client: AsyncClient) -> None:
    async with client.http_over_websocket("acme/odd") as requests:
        response = await requests.request({"big": 2**70})
        assert same(dict(response.result), ODD)


@pytest.mark.usefixtures("odd")
async def test_errors_are_parsed_like_outputs(client: AsyncClient) -> None:
    for call in (client.run, client.subscribe):
        with pytest.raises(FalClientHTTPError) as caught:
            await call("acme/wrong", {})
        (problem,) = caught.value.details
        assert problem.loc == ("body", 2**70)
        assert same(problem.ctx, ODD)


async def test_undecodable_output_is_kept_in_the_error(fal: Emulator, client: AsyncClient) -> None:
    body = b"[" * 100_000

    @fal.endpoint("acme/odd")
    def output(arguments: dict[str, Any]) -> Response:
        return Response(body, media_type="application/json")

    for call in (client.run, client.subscribe):
        with pytest.raises(InvalidResponseError) as caught:
            await call("acme/odd", {})
        assert caught.value.body == body
        assert caught.value.request_id is not None


@pytest.fixture
def blocking(fal: Emulator) -> Iterator[fal_client.SyncClient]:
    with fal_client.SyncClient(fal.key, hosts=fal.hosts) as client:
        yield client


def test_serialized_values_survive_a_round_trip(
    fal: Emulator, blocking: fal_client.SyncClient
) -> None:
    received: list[Any] = []

    @fal.endpoint("acme/echo")
    def echo(arguments: dict[str, Any]) -> dict[str, Any]:
        received.append(arguments)
        return arguments

    @given(st.dictionaries(WORDS, VALUES, max_size=3))
    @settings(max_examples=40)
    def check(arguments: dict[str, Any]) -> None:
        text = json.dumps(arguments)
        if "NaN" in text or "Infinity" in text:
            return  # refused, because JSON cannot represent them
        result = blocking.run("acme/echo", arguments)
        assert same(received.pop(), json.loads(text))
        assert same(dict(result), json.loads(text))

    check()


def test_parsed_values_reach_the_caller(fal: Emulator, blocking: fal_client.SyncClient) -> None:
    texts: list[str] = []

    @fal.endpoint("acme/raw")
    def raw(arguments: dict[str, Any]) -> Response:
        return Response(texts[-1], media_type="application/json")

    @fal.endpoint("acme/raw/stream")
    def stream(arguments: dict[str, Any]) -> Response:
        return Response(f"data: {texts[-1]}\n\n", media_type="text/event-stream")

    @fal.endpoint("acme/function")
    def function(arguments: dict[str, Any]) -> Any:
        return json.loads(texts[-1])

    @given(VALUES)
    @settings(max_examples=30)
    def check(value: object) -> None:
        texts.append(json.dumps(value))
        expected = json.loads(texts[-1])
        for output in (
            blocking.run("acme/raw", {}),
            blocking.subscribe("acme/raw", {}),
            *blocking.stream("acme/raw", {}),
            blocking.run("acme/function", {}),
        ):
            assert same(dict(output) if isinstance(output, dict) else output, expected)

    check()
