"""Realtime sessions: URLs, tokens and messages."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import msgpack  # type: ignore[import-untyped]  # it has none
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from fal_async._config import Hosts
from fal_async._core.secrets import Secret
from fal_async._protocol.endpoint import parse_endpoint
from fal_async._protocol.realtime import (
    ErrorMessage,
    MetaMessage,
    SessionTimeout,
    Unauthorized,
    create_path_token,
    create_token,
    decode_message,
    parse_token,
    realtime_url,
    runner_url,
    with_token,
)
from fal_async._protocol.response import Response
from fal_async._protocol.serialization import encode_msgpack
from fal_async.errors import FalClientHTTPError, InvalidRequestError, InvalidResponseError

HOSTS = Hosts()
LOCAL = Hosts.at("http://127.0.0.1:8000")

TIMINGS = {"type": "x-fal-message", "action": "timings", "timing": 0.1}
CRASH = {"type": "x-fal-error", "error": "INTERNAL_ERROR", "reason": "boom"}
TIMEOUT = {"type": "x-fal-error", "error": "TIMEOUT", "reason": "no inputs, reconnect when needed!"}
UNAUTHORIZED = {"status": "error", "error": "Unauthorized"}


MEANINGS: list[tuple[Any, Any]] = [
    ({"seed": 1}, {"seed": 1}),
    ({}, {}),
    ([1, 2], [1, 2]),
    ("x-fal-error", "x-fal-error"),
    (7, 7),
    (None, None),
    (False, False),
    ({"type": "image"}, {"type": "image"}),
    ({"type": 1}, {"type": 1}),
    ({"status": "error", "error": "Bad"}, {"status": "error", "error": "Bad"}),
    (TIMINGS, MetaMessage(TIMINGS)),
    (CRASH, ErrorMessage("INTERNAL_ERROR", "boom", CRASH)),
    ({"type": "x-fal-error"}, ErrorMessage("UNKNOWN_ERROR", "", {"type": "x-fal-error"})),
    (
        {"type": "x-fal-error", "error": 5, "reason": None},
        ErrorMessage("5", "", {"type": "x-fal-error", "error": 5, "reason": None}),
    ),
    (TIMEOUT, SessionTimeout("no inputs, reconnect when needed!", TIMEOUT)),
    (UNAUTHORIZED, Unauthorized(UNAUTHORIZED)),
]


@pytest.mark.parametrize(("value", "message"), MEANINGS)
def test_text_and_msgpack_messages_are_equivalent(value: Any, message: Any) -> None:
    assert decode_message(orjson.dumps(value).decode()) == message
    assert decode_message(msgpack.packb(value)) == message


def test_invalid_json_text_is_kept_as_text() -> None:
    assert decode_message("hello, {") == "hello, {"
    assert decode_message("") == ""


def test_bytes_and_text_stay_distinct() -> None:
    value = {"image": b"\xff\xd8\x00", "text": "é—", "list": [b"", ""], "n": 2**63, "x": 0.5}
    assert decode_message(msgpack.packb(value)) == value
    assert msgpack.unpackb(encode_msgpack(value)) == value


def test_map_keys_may_be_any_type() -> None:
    value = {1: "a", None: "b", b"c": "d"}
    assert decode_message(msgpack.packb(value)) == value
    assert msgpack.unpackb(encode_msgpack({"map": {1: 2}}), strict_map_key=False) == {"map": {1: 2}}


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xc1",
        b"\x81\xa1a",
        b"\xa1\xff",
        b"\xd9",
        b"\x91" * 100_000,
    ],
)
def test_invalid_msgpack_is_an_invalid_response(message: bytes) -> None:
    with pytest.raises(
        InvalidResponseError, match=f"a message of {len(message)} bytes is not msgpack"
    ):
        decode_message(message)


@given(st.binary(max_size=200) | st.text(max_size=100))
def test_any_bytes_give_a_message_or_our_error(garbage: bytes | str) -> None:
    try:
        decode_message(garbage)
    except InvalidResponseError:
        assert isinstance(garbage, bytes)


def test_custom_decoder_raises_its_own_errors() -> None:
    assert decode_message(b'{"a": 1}', orjson.loads) == {"a": 1}
    assert decode_message(orjson.dumps(CRASH), orjson.loads) == decode_message(
        orjson.dumps(CRASH).decode()
    )
    assert decode_message('{"a": 1}', lambda _: "not called") == {"a": 1}
    with pytest.raises(orjson.JSONDecodeError):
        decode_message(b"{", orjson.loads)


class Inner(BaseModel):
    image: bytes


class Prompt(BaseModel):
    inner: Inner
    negative: str = Field(alias="negativePrompt")


@dataclass
class Size:
    width: int


def test_arguments_may_be_a_mapping_or_model() -> None:
    assert msgpack.unpackb(encode_msgpack(MappingProxyType({"a": OrderedDict(b=1)}))) == {
        "a": {"b": 1}
    }
    model = Prompt(inner=Inner(image=b"\xff"), negativePrompt="no")
    assert msgpack.unpackb(encode_msgpack(model)) == {
        "inner": {"image": b"\xff"},
        "negativePrompt": "no",
    }
    assert msgpack.unpackb(
        encode_msgpack({"size": Size(1), "images": (bytearray(b"a"), memoryview(b"b"))})
    ) == {
        "size": {"width": 1},
        "images": [b"a", b"b"],
    }
    many = {str(number): number for number in range(70_000)}
    assert msgpack.unpackb(encode_msgpack(many)) == many
    some = {str(number): number for number in range(16)}
    assert msgpack.unpackb(encode_msgpack(some)) == some


@pytest.mark.parametrize("arguments", [None, [1], "text", b"bytes", 5, object()])
def test_non_mapping_arguments_are_refused(arguments: object) -> None:
    with pytest.raises(InvalidRequestError):
        encode_msgpack(arguments)


CIRCLE: dict[str, Any] = {}
CIRCLE["circle"] = CIRCLE


@pytest.mark.parametrize(
    "arguments", [{"a": object()}, {"a": {1, 2}}, {"a": 2**70}, {"a": "\ud800"}, CIRCLE]
)
def test_unserializable_arguments_are_refused(arguments: object) -> None:
    with pytest.raises(InvalidRequestError, match="cannot encode the arguments as msgpack"):
        encode_msgpack(arguments)


@pytest.mark.parametrize(
    ("application", "path", "url"),
    [
        ("fal-ai/lcm", "/realtime", "wss://fal.run/fal-ai/lcm/realtime"),
        ("fal-ai/lcm/realtime", "/realtime", "wss://fal.run/fal-ai/lcm/realtime"),
        ("fal-ai/lcm/turbo/realtime", "realtime", "wss://fal.run/fal-ai/lcm/turbo/realtime"),
        ("fal-ai/lcm/turbo", "/realtime/", "wss://fal.run/fal-ai/lcm/turbo/realtime"),
        ("fal-ai/lcm/notrealtime", "/realtime", "wss://fal.run/fal-ai/lcm/notrealtime/realtime"),
        ("fal-ai/lcm", "", "wss://fal.run/fal-ai/lcm"),
        ("fal-ai/lcm", "/a b?x=1", "wss://fal.run/fal-ai/lcm/a%20b?x=1"),
        ("fal-ai/lcm/realtime", "/realtime?x=1", "wss://fal.run/fal-ai/lcm/realtime?x=1"),
        ("workflows/me/flow", "/realtime", "wss://fal.run/workflows/me/flow/realtime"),
        ("owner/realtime", "/realtime", "wss://fal.run/owner/realtime/realtime"),
    ],
)
def test_path_is_appended_once(application: str, path: str, url: str) -> None:
    assert realtime_url(HOSTS, parse_endpoint(application), path=path) == url


def test_query_contains_token_and_buffering() -> None:
    url = realtime_url(LOCAL, parse_endpoint("a/b"), max_buffering=60, path="/r?x=1")
    assert url == "ws://127.0.0.1:8000/run/a/b/r?x=1&max_buffering=60"
    assert with_token(url, Secret("t+/=")) == f"{url}&fal_jwt_token=t%2B%2F%3D"
    assert with_token("ws://x/a", Secret("t")) == "ws://x/a?fal_jwt_token=t"


@pytest.mark.parametrize("value", [0, 61, -1, True, 1.5, "5"])
def test_invalid_buffering_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRequestError, match="from 1 to 60"):
        realtime_url(HOSTS, parse_endpoint("a/b"), max_buffering=value)


def test_websocket_url_contains_the_app_path() -> None:
    assert runner_url(HOSTS, parse_endpoint("a/b")) == "wss://fal.run/a/b"
    assert runner_url(HOSTS, parse_endpoint("a/b/ws"), path="/ws") == "wss://fal.run/a/b/ws/ws"


def test_token_request_names_the_app_alias() -> None:
    operation = create_token(HOSTS, parse_endpoint("fal-ai/lcm/turbo"), token_expiration=60)
    request = operation.request
    assert (request.method, request.url) == ("POST", "https://rest.fal.ai/tokens/")
    assert isinstance(request.content, bytes)
    assert orjson.loads(request.content) == {"allowed_apps": ["lcm"], "token_expiration": 60}
    assert operation.parse(Response(status_code=201, body=b'"abc"')) == "abc"
    with pytest.raises(FalClientHTTPError):
        operation.parse(Response(status_code=401, body=b'{"detail": "no"}'))


@pytest.mark.parametrize(
    ("application", "path", "app"),
    [
        ("fal-ai/lcm", "/realtime", "fal-ai/lcm/realtime"),
        ("fal-ai/lcm/realtime", "/realtime", "fal-ai/lcm/realtime"),
        ("fal-ai/lcm/turbo", "stream", "fal-ai/lcm/turbo/stream"),
        ("fal-ai/lcm/turbo", "", "fal-ai/lcm/turbo"),
    ],
)
def test_path_token_names_owner_and_path(application: str, path: str, app: str) -> None:
    endpoint = parse_endpoint(application)
    operation = create_path_token(HOSTS, endpoint, expires_in=60, path=path)
    assert operation.request.url == "https://rest.fal.ai/tokens/realtime"
    assert isinstance(operation.request.content, bytes)
    assert orjson.loads(operation.request.content) == {"allowed_apps": [app], "duration": 60}


@pytest.mark.parametrize(
    ("expires_in", "path"), [(0, ""), (-1, ""), (1.5, ""), (60, "a?b=c"), (60, "../other")]
)
def test_invalid_path_token_is_refused(expires_in: Any, path: str) -> None:
    with pytest.raises(InvalidRequestError):
        create_path_token(HOSTS, parse_endpoint("a/b"), expires_in=expires_in, path=path)


@pytest.mark.parametrize("seconds", [0, -1, True])
def test_token_lifetime_must_be_positive(seconds: int) -> None:
    with pytest.raises(InvalidRequestError, match="token_expiration"):
        create_token(HOSTS, parse_endpoint("a/b"), token_expiration=seconds)


@pytest.mark.parametrize(
    "body", [b'"a.b.c"', b'{"token": "a.b.c"}', b'{"token": "a.b.c", "detail": "x"}']
)
def test_token_is_a_string_or_within_an_object(body: bytes) -> None:
    assert parse_token(Response(status_code=200, body=body)) == "a.b.c"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            b'{"detail": "Apps are not allowed"}',
            "the platform returned no token: Apps are not allowed",
        ),
        (b'{"detail": "a.b.c"}', "the platform returned no token"),
        (b'{"token": 5}', "the platform returned no token"),
        (b'""', "the platform returned no token"),
        (b'"a token"', "the platform returned no token"),
        (b"null", "the platform returned no token"),
        (b"[]", "the platform returned no token"),
        (b"<html>", "the platform returned no token"),
        (b"", "the platform returned no token"),
    ],
)
def test_invalid_token_response_is_refused(body: bytes, text: str) -> None:
    with pytest.raises(InvalidResponseError) as caught:
        parse_token(Response(status_code=200, body=body))
    assert str(caught.value) == text
