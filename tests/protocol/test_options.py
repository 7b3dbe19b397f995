"""Platform options: validation of values that the platform would drop silently."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_async._core.checks import seconds
from fal_async._protocol.options import (
    merge_headers,
    platform_headers,
    start_timeout_within,
    submit_query,
)
from fal_async.errors import InvalidRequestError


@pytest.mark.parametrize("value", [1, 0.001, 1e9, 120.0])
def test_duration_is_kept_unchanged(value: float) -> None:
    assert seconds("timeout", value) == value


def test_missing_duration_sets_no_limit() -> None:
    assert seconds("timeout", None) is None


@pytest.mark.parametrize(
    "value", [0, -1, -0.0, math.inf, -math.inf, math.nan, 10**400, True, False, "5", b"5", [1], 1j]
)
def test_invalid_duration_is_refused_by_name(value: object) -> None:
    with pytest.raises(InvalidRequestError, match="client_timeout"):
        seconds("client_timeout", value)


def test_headers_are_lowercased_and_last_wins() -> None:
    merged = merge_headers({"X-Fal-Tags": "a=1", "x-one": "1"}, {"X-FAL-TAGS": "b=2"}, {})
    assert merged == {"x-fal-tags": "b=2", "x-one": "1"}


def test_header_values_are_stripped() -> None:
    assert merge_headers({"x-one": " \ta b\t "}) == {"x-one": "a b"}


@pytest.mark.parametrize("headers", [[("x-one", "1")], "x-one: 1", 1])
def test_headers_must_be_a_mapping(headers: Any) -> None:
    with pytest.raises(InvalidRequestError, match="headers must be a mapping"):
        merge_headers({}, headers)


@pytest.mark.parametrize("name", ["", "x y", "x:y", "x\r\ny", "x\x00", "é", "x(y)", None, 1, b"x"])
def test_invalid_header_name_is_refused(name: Any) -> None:
    with pytest.raises(InvalidRequestError, match="is not a header name"):
        merge_headers({name: "1"})


@pytest.mark.parametrize(
    "value",
    ["a\rb", "a\nb", "a\r\nx: y", "a\x00b", "a\x7f", "é", "\ud800", "\u2028", None, 1, b"x"],
)
def test_invalid_header_value_is_refused_unseen(value: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        merge_headers({"x-secret": value})
    assert str(caught.value) == "the value of the header 'x-secret' must be printable ASCII text"


@pytest.mark.parametrize(
    "name",
    [
        "CONNECTION",
        "Host",
        "Keep-Alive",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
        "content-length",
    ],
)
def test_framing_headers_are_reserved(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="transport"):
        merge_headers({name: "5"})


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=8), max_size=3))
def test_merged_headers_have_no_controls(headers: dict[str, str]) -> None:
    try:
        merged = merge_headers(headers)
    except InvalidRequestError:
        return
    for name, value in merged.items():
        assert name == name.lower()
        assert not any(ord(char) < 32 and char != "\t" for char in name + value)
        assert (name + value).isascii()


def test_default_options_add_no_headers() -> None:
    assert platform_headers() == {}


@pytest.mark.parametrize(
    ("options", "headers"),
    [
        ({"hint": "gpu-7"}, {"x-fal-runner-hint": "gpu-7"}),
        ({"priority": "low"}, {"x-fal-queue-priority": "low"}),
        ({"priority": "normal"}, {"x-fal-queue-priority": "normal"}),
        (
            {"start_timeout": 30},
            {"x-fal-request-start-timeout": "30.0", "x-fal-request-timeout": "30.0"},
        ),
        (
            {"start_timeout": 0.11},
            {"x-fal-request-start-timeout": "0.11", "x-fal-request-timeout": "0.11"},
        ),
        ({"tags": {"team": "a b", "env": "x=y"}}, {"x-fal-tags": "team=a b,env=x=y"}),
        ({"tags": {}}, {}),
        ({"no_retry": True}, {"x-fal-no-retry": "1"}),
        ({"no_retry": False}, {}),
        ({"store_io": True}, {"x-fal-store-io": "1"}),
        ({"store_io": False}, {"x-fal-store-io": "0"}),
        (
            {"expires_in": 1},
            {"x-fal-object-lifecycle-preference": '{"expiration_duration_seconds":1}'},
        ),
        (
            {"expires_in": 3600},
            {"x-fal-object-lifecycle-preference": '{"expiration_duration_seconds":3600}'},
        ),
    ],
)
def test_each_option_has_its_header(options: dict[str, Any], headers: dict[str, str]) -> None:
    assert platform_headers(**options) == headers


@pytest.mark.parametrize(
    "options",
    [
        {"priority": "high"},
        {"priority": "LOW"},
        {"priority": ["low"]},
        {"start_timeout": 0.1},
        {"start_timeout": 0},
        {"start_timeout": -3},
        {"start_timeout": True},
        {"start_timeout": math.inf},
        {"start_timeout": "30"},
        {"tags": {"": "x"}},
        {"tags": {"Team": "x"}},
        {"tags": {"fal.x": "x"}},
        {"tags": {"k" * 65: "x"}},
        {"tags": {"k": "a,b"}},
        {"tags": {"k": "é"}},
        {"tags": {"k": "a\nb"}},
        {"tags": {"k": "x" * 257}},
        {"tags": {"k": 7}},
        {"tags": {7: "k"}},
        {"tags": {f"k{n}": "x" for n in range(11)}},
        {"tags": {f"k{n}": "x" * 250 for n in range(5)}},
        {"expires_in": 0},
        {"expires_in": -1},
        {"expires_in": 1.5},
        {"expires_in": True},
    ],
)
def test_option_ignored_by_platform_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError):
        platform_headers(**options)


def test_tags_may_use_the_full_size_limit() -> None:
    tags = {f"{n}": "x" * 100 for n in range(9)} | {"k" * 64: "x" * 32}
    assert len(platform_headers(tags=tags)["x-fal-tags"]) == 1024
    with pytest.raises(InvalidRequestError, match="1024 bytes in all"):
        platform_headers(tags={**tags, "k" * 64: "x" * 33})
    assert platform_headers(tags={"k": "x" * 256})


@pytest.mark.parametrize(
    ("start_timeout", "client_timeout", "expected"),
    [
        (None, None, None),
        (5.0, None, 5.0),
        (5.0, 60.0, 5.0),
        (None, 60.0, 60.0),
        (None, 1.0, 1.0),
        (None, 0.1, None),
        (None, 0.05, None),
    ],
)
def test_start_timeout_defaults_to_client_timeout(
    start_timeout: float | None, client_timeout: float | None, expected: float | None
) -> None:
    assert start_timeout_within(start_timeout, client_timeout) == expected


def test_submit_query_contains_the_options() -> None:
    assert submit_query() == {}
    assert submit_query(webhook_url="HTTPS://me.example/hook?x=1", max_queue_length=0) == {
        "fal_webhook": "HTTPS://me.example/hook?x=1",
        "fal_max_queue_length": 0,
    }


@pytest.mark.parametrize(
    "url",
    [
        "",
        "me.example/hook",
        "ftp://me.example",
        "https://",
        "https:///hook",
        "https://?x",
        "https://me.example/a b",
        "https://me.example/\r\nx",
        "https://me.example\\hook",
        "https://me.example/\ud800",
        7,
    ],
)
def test_webhook_url_must_be_absolute(url: object) -> None:
    with pytest.raises(InvalidRequestError, match="webhook_url"):
        submit_query(webhook_url=cast("str", url))


@pytest.mark.parametrize("length", [-1, 2.5, True, "3"])
def test_queue_length_must_be_an_integer(length: object) -> None:
    with pytest.raises(InvalidRequestError, match="max_queue_length"):
        submit_query(max_queue_length=cast("int", length))
