"""HTTP over WebSocket: messages of requests and responses."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_async._config import Hosts
from fal_async._protocol.endpoint import parse_endpoint
from fal_async._protocol.http_over_websocket import (
    BodyChunk,
    ResponseDecoder,
    ResponseEnd,
    ResponseStart,
    endpoint_url,
)
from fal_async.errors import InvalidResponseError


def start(request_id: str = "1", **fields: object) -> str:
    return orjson.dumps(
        {"type": "start", "request_id": request_id, "status": 200, **fields}
    ).decode()


def end(request_id: str = "1", **fields: object) -> str:
    return orjson.dumps({"type": "end", "request_id": request_id, "status": 200, **fields}).decode()


def test_response_has_start_body_and_end() -> None:
    frames = ResponseDecoder()
    headers = {"Content-Type": "application/json", "X-N": 5}
    assert not frames.within
    assert frames.read(start(headers=headers)) == ResponseStart(
        "1", 200, {"content-type": "application/json", "x-n": "5"}
    )
    assert frames.within
    assert frames.read('{"seed": ') == BodyChunk(b'{"seed": ')
    assert frames.read(b"1}") == BodyChunk(b"1}")
    assert frames.read(end(time_to_first_byte_seconds=0.5)) == ResponseEnd(0.5)
    assert not frames.within


def test_consecutive_responses_are_parsed() -> None:
    frames = ResponseDecoder()
    for request_id in ("1", "2"):
        assert frames.read(start(request_id, status=404)) == ResponseStart(request_id, 404)
        assert frames.read(end(request_id)) == ResponseEnd(None)


@pytest.mark.parametrize(
    "body",
    [
        start("1"),
        start("2"),
        '{"type": "image", "request_id": "1"}',
        '{"type": "end"}',
        '{"request_id": "1"}',
        '{"type": "end", "request_id": 1}',
        '{"type": ["end"], "request_id": "1"}',
        "{}",
        "[]",
        "{",
        "",
        "null",
        '"end"',
    ],
)
def test_ambiguous_body_is_parsed_as_body(body: str) -> None:
    frames = ResponseDecoder()
    frames.read(start("1"))
    assert frames.read(body) == BodyChunk(body.encode())
    assert frames.read(body.encode()) == BodyChunk(body.encode())
    assert frames.read(end("1")) == ResponseEnd(None)


def test_binary_end_message_is_body() -> None:
    frames = ResponseDecoder()
    frames.read(start("1"))
    assert frames.read(end("1").encode()) == BodyChunk(end("1").encode())


def test_end_of_another_response_is_an_error() -> None:
    frames = ResponseDecoder()
    frames.read(start("1"))
    with pytest.raises(
        InvalidResponseError, match="the response to '1' ended as that to '2'"
    ) as caught:
        frames.read(end("2"))
    assert caught.value.request_id == "1"


@pytest.mark.parametrize(
    "message",
    [
        "",
        "{}",
        end(),
        b"",
        start().encode(),
        start(status="200"),
        start(status=99),
        start(status=None),
        "chunk",
    ],
)
def test_response_without_start_is_an_error(message: str | bytes) -> None:
    with pytest.raises(InvalidResponseError, match="did not begin with its start"):
        ResponseDecoder().read(message)


@given(st.lists(st.binary(max_size=20) | st.text(max_size=50) | st.sampled_from([start(), end()])))
def test_any_message_gives_frames_or_our_error(messages: list[str | bytes]) -> None:
    frames = ResponseDecoder()
    try:
        for message in messages:
            frames.read(message)
    except InvalidResponseError:
        pass


def test_requests_use_the_ws_host() -> None:
    endpoint = parse_endpoint("fal-ai/flux/dev")
    assert endpoint_url(Hosts(), endpoint) == "wss://ws.fal.run/fal-ai/flux/dev"
    assert endpoint_url(Hosts.at("http://x:1"), endpoint) == "ws://x:1/ws/fal-ai/flux/dev"
