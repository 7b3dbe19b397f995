"""HTTP replies carried over a WebSocket, message by message."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_async._config import Hosts
from fal_async._protocol.endpoint import parse_endpoint
from fal_async._protocol.over_websocket import Chunk, End, ReplyFrames, Start, carrier_url
from fal_async.errors import InvalidReplyError


def start(request_id: str = "1", **fields: object) -> str:
    return orjson.dumps(
        {"type": "start", "request_id": request_id, "status": 200, **fields}
    ).decode()


def end(request_id: str = "1", **fields: object) -> str:
    return orjson.dumps({"type": "end", "request_id": request_id, "status": 200, **fields}).decode()


def test_a_reply_is_a_start_parts_and_an_end() -> None:
    frames = ReplyFrames()
    headers = {"Content-Type": "application/json", "X-N": 5}
    assert not frames.within
    assert frames.read(start(headers=headers)) == Start(
        "1", 200, {"content-type": "application/json", "x-n": "5"}
    )
    assert frames.within
    assert frames.read('{"seed": ') == Chunk(b'{"seed": ')
    assert frames.read(b"1}") == Chunk(b"1}")
    assert frames.read(end(time_to_first_byte_seconds=0.5)) == End(0.5)
    assert not frames.within


def test_replies_follow_one_another() -> None:
    frames = ReplyFrames()
    for request_id in ("1", "2"):
        assert frames.read(start(request_id, status=404)) == Start(request_id, 404)
        assert frames.read(end(request_id)) == End(None)


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
def test_a_body_that_looks_like_something_else_is_body(body: str) -> None:
    frames = ReplyFrames()
    frames.read(start("1"))
    assert frames.read(body) == Chunk(body.encode())
    assert frames.read(body.encode()) == Chunk(body.encode())
    assert frames.read(end("1")) == End(None)


def test_an_end_in_binary_is_body() -> None:
    frames = ReplyFrames()
    frames.read(start("1"))
    assert frames.read(end("1").encode()) == Chunk(end("1").encode())


def test_the_end_of_another_reply_is_an_error() -> None:
    frames = ReplyFrames()
    frames.read(start("1"))
    with pytest.raises(InvalidReplyError, match="the reply to '1' ended as that to '2'") as caught:
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
def test_a_reply_that_does_not_begin_with_its_start_is_an_error(message: str | bytes) -> None:
    with pytest.raises(InvalidReplyError, match="did not begin with its start"):
        ReplyFrames().read(message)


@given(st.lists(st.binary(max_size=20) | st.text(max_size=50) | st.sampled_from([start(), end()])))
def test_garbage_gives_frames_or_an_error_of_ours(messages: list[str | bytes]) -> None:
    frames = ReplyFrames()
    try:
        for message in messages:
            frames.read(message)
    except InvalidReplyError:
        pass


def test_requests_are_carried_at_the_ws_host() -> None:
    endpoint = parse_endpoint("fal-ai/flux/dev")
    assert carrier_url(Hosts(), endpoint) == "wss://ws.fal.run/fal-ai/flux/dev"
    assert carrier_url(Hosts.at("http://x:1"), endpoint) == "ws://x:1/ws/fal-ai/flux/dev"
