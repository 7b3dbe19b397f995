"""Responses: lenient headers, submissions, statuses and outputs."""

from __future__ import annotations

import math
from contextlib import nullcontext, suppress
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fal_async._protocol.queue import (
    parse_cancellation,
    parse_status,
    parse_submission,
    read_status,
)
from fal_async._protocol.response import Response, parse_output
from fal_async.errors import InvalidResponseError
from fal_async.types import Completed, InProgress, Queued, Status, Unknown

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


def response(status: int = 200, body: Any = None, /, **headers: str) -> Response:
    return Response(
        status_code=status,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        body=body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body),
    )


@pytest.mark.parametrize(
    ("status", "ok"), [(199, False), (200, True), (204, True), (299, True), (300, False)]
)
def test_success_is_any_2xx_status(status: int, ok: bool) -> None:
    assert response(status).ok is ok


@pytest.mark.parametrize("name", ["x-fal-needs-retry", "x-fal-retryable"])
@pytest.mark.parametrize(
    ("value", "asks"),
    [
        ("1", True),
        ("true", True),
        ("True", True),
        (" 1 ", True),
        ("0", False),
        ("false", False),
        ("FALSE", False),
        ("", None),
        ("yes", None),
        ("2", None),
    ],
)
def test_both_retry_headers_are_parsed(name: str, value: str, asks: bool | None) -> None:
    assert Response(status_code=500, headers={name: value}).needs_retry is asks


def test_missing_retry_header_means_unknown() -> None:
    assert response(500).needs_retry is None


@pytest.mark.parametrize(
    ("new", "old", "asks"), [("0", "true", False), ("1", "false", True), ("?", "true", True)]
)
def test_newer_retry_header_wins(new: str, old: str, asks: bool) -> None:
    assert response(500, x_fal_needs_retry=new, x_fal_retryable=old).needs_retry is asks


NOW = "Wed, 21 Oct 2015 07:28:00 GMT"


@pytest.mark.parametrize(
    ("value", "delay"),
    [
        ("0", 0.0),
        ("7", 7.0),
        ("1.5", 1.5),
        (" 20 ", 20.0),
        ("1e3", 1000.0),
        ("Wed, 21 Oct 2015 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2015 09:28:30 +0200", 30.0),
        ("Wednesday, 21-Oct-15 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2015 07:00:00 GMT", 0.0),
        ("", None),
        (".", None),
        ("1.", None),
        ("inf", None),
        ("nan", None),
        ("1e999", None),
        ("9" * 400, None),
        ("-1", None),
        ("+1", None),
        ("1_0", None),
        ("１２", None),  # noqa: RUF001 -- digits, but not those of HTTP
        ("٣", None),
        ("1, 2", None),
        ("soon", None),
        ("Wed, 21 Oct 2015", None),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
        ("Wed, 21 Oct 99999 07:28:00 GMT", None),
        ("Wed, 21 Oct 2015 07:28:00 +999999999999999999", None),
        ("Wed, 21 Oct 2015 07:28:00 -0000", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, delay: float | None) -> None:
    assert response(429, retry_after=value, date=NOW).retry_after == delay


@pytest.mark.parametrize("date", [None, "", "now", ","])
def test_retry_after_date_needs_the_response_date(date: str | None) -> None:
    headers = {"retry-after": NOW} | ({} if date is None else {"date": date})
    assert Response(status_code=429, headers=headers).retry_after is None


@given(st.text(), st.text())
@example("0\x1f", "")  # which `strip` removes, and `float` does not
def test_any_retry_after_is_finite_or_none(value: str, date: str) -> None:
    delay = response(503, retry_after=value, date=date).retry_after
    assert delay is None or 0 <= delay < math.inf


@pytest.mark.parametrize(("value", "missed"), [("user", True), (" User", True), ("app", False)])
def test_missed_start_deadline_has_a_header(value: str, missed: bool) -> None:
    assert response(504, x_fal_request_timeout_type=value).is_start_timeout is missed


def test_empty_request_id_is_none() -> None:
    assert response(200, x_fal_request_id="").request_id is None
    assert response(200, x_fal_request_id="abc").request_id == "abc"


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        ("application/json", "application/json"),
        ("Application/JSON ; charset=utf-8", "application/json"),
        ("", ""),
    ],
)
def test_content_type_omits_its_parameters(header: str, kind: str) -> None:
    assert response(200, content_type=header).content_type == kind


def test_invalid_utf8_text_is_decoded_leniently() -> None:
    assert response(200, b"a\xffb").text == "a\ufffdb"


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe\xff", b"<html>", b"[" * 100_000])
def test_invalid_json_error_names_the_request(body: bytes) -> None:
    with pytest.raises(InvalidResponseError, match="must be JSON") as caught:
        response(200, body, x_fal_request_id="abc").json()
    assert (caught.value.request_id, caught.value.body) == ("abc", body)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("body", [[], None, "a", 1])
def test_non_object_body_is_an_error(body: object) -> None:
    with pytest.raises(InvalidResponseError, match="must be a JSON object"):
        response(200, orjson.dumps(body)).json_object()


URLS = {
    "status_url": "https://queue.fal.run/a/b/requests/abc/status",
    "response_url": "https://queue.fal.run/a/b/requests/abc",
    "cancel_url": "https://queue.fal.run/a/b/requests/abc/cancel",
}


def test_submission_contains_id_and_urls() -> None:
    submission = parse_submission(
        response(200, {"request_id": "abc", "status": "IN_QUEUE", "queue_position": 0, **URLS})
    )
    assert submission.request_id == "abc"
    assert submission.status_url == URLS["status_url"]
    assert submission.response_url == URLS["response_url"]
    assert submission.cancel_url == URLS["cancel_url"]


@pytest.mark.parametrize("urls", [{}, dict.fromkeys(URLS), dict.fromkeys(URLS, 7)])
def test_submission_urls_are_optional(urls: dict[str, object]) -> None:
    submission = parse_submission(response(200, {"request_id": "abc", **urls}))
    assert (submission.status_url, submission.response_url, submission.cancel_url) == (None,) * 3


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"request_id":""}',
        b'{"request_id":7}',
        b'{"request_id":"\\ud800x"}',
        b'{"request_id":"a\\nb"}',
        b"",
        b"<html>",
        b"[]",
    ],
)
def test_header_replaces_a_missing_request_id(body: bytes) -> None:
    assert parse_submission(response(200, body, x_fal_request_id="abc")).request_id == "abc"


@pytest.mark.parametrize(
    "body", [b"{}", b'{"request_id":7}', b'{"request_id":"\\ud800x"}', b"", b"<html>", b"[]"]
)
def test_missing_request_id_is_an_error(body: bytes) -> None:
    with pytest.raises(InvalidResponseError) as caught:
        parse_submission(response(200, body))
    assert caught.value.body is not None


STATUSES: list[tuple[dict[str, Any], Status]] = [
    ({"status": "IN_QUEUE", "queue_position": 3}, Queued(3)),
    ({"status": "IN_QUEUE", "queue_position": 0, "logs": None, "metrics": {}}, Queued(0)),
    ({"status": "IN_QUEUE"}, Queued(None)),
    ({"status": "IN_QUEUE", "queue_position": None}, Queued(None)),
    ({"status": "IN_QUEUE", "queue_position": True}, Queued(None)),
    ({"status": "IN_QUEUE", "queue_position": False}, Queued(None)),
    ({"status": "IN_QUEUE", "queue_position": -1}, Queued(None)),
    ({"status": "IN_QUEUE", "queue_position": "3"}, Queued(None)),
    ({"status": "IN_QUEUE", "queue_position": 3.5}, Queued(None)),
    ({"status": "IN_PROGRESS"}, InProgress([])),
    ({"status": "IN_PROGRESS", "logs": None}, InProgress([])),
    ({"status": "IN_PROGRESS", "logs": []}, InProgress([])),
    (
        {"status": "IN_PROGRESS", "logs": [{"message": "a", "level": None}, "b"]},
        InProgress([{"message": "a"}, {"message": "b"}]),
    ),
    ({"status": "COMPLETED"}, Completed([], {})),
    (
        {"status": "COMPLETED", "logs": [], "metrics": {"inference_time": 0.5}},
        Completed([], {"inference_time": 0.5}),
    ),
    (
        {"status": "COMPLETED", "error": "boom", "error_type": "runner_disconnected"},
        Completed([], {}, "boom", "runner_disconnected"),
    ),
    (
        {"status": "COMPLETED", "metrics": [1], "error": {"a": 1}, "error_type": ""},
        Completed([], {}),
    ),
    ({"status": "PAUSED", "x": 1}, Unknown({"status": "PAUSED", "x": 1})),
    ({"status": "completed"}, Unknown({"status": "completed"})),
    ({"status": ["COMPLETED"]}, Unknown({"status": ["COMPLETED"]})),
    ({"status": None}, Unknown({"status": None})),
    ({}, Unknown({})),
]


@pytest.mark.parametrize(("raw", "status"), STATUSES)
def test_status_is_parsed_leniently(raw: dict[str, Any], status: Status) -> None:
    assert read_status(raw) == status
    assert parse_status(response(202, raw)) == status


@pytest.mark.parametrize("body", [b"[]", b"", b"null", b"{"])
def test_non_object_status_is_an_error(body: bytes) -> None:
    with pytest.raises(InvalidResponseError):
        parse_status(response(200, body))


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "status": st.sampled_from(["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]) | json_values,
            "queue_position": json_values,
            "logs": json_values | st.lists(st.dictionaries(st.just("message"), json_values)),
            "metrics": json_values,
            "error": json_values,
            "error_type": json_values,
        },
    )
)
@settings(max_examples=50)
def test_any_json_object_is_a_valid_status(raw: dict[str, Any]) -> None:
    status = read_status(raw)
    assert isinstance(status, Queued | InProgress | Completed | Unknown)
    known = raw.get("status") in ("IN_QUEUE", "IN_PROGRESS", "COMPLETED")
    assert isinstance(status, Unknown) is not known


def test_deeply_nested_log_is_accepted() -> None:
    deep = orjson.loads(b"[" * 1000 + b"]" * 1000)
    status = read_status({"status": "IN_PROGRESS", "logs": [{"message": deep}]})
    assert isinstance(status, InProgress)
    (line,) = status.logs
    assert line["message"] in {"a value of type list", "[" * 1000 + "]" * 1000}


@pytest.mark.parametrize(
    ("status", "body", "cancelled"),
    [
        (200, {"status": "OK"}, "OK"),
        (202, {"status": "CANCELLATION_REQUESTED"}, "CANCELLATION_REQUESTED"),
        (400, {"status": "ALREADY_COMPLETED"}, "ALREADY_COMPLETED"),
        (200, {"success": True}, "OK"),
        (202, {"success": True}, "CANCELLATION_REQUESTED"),
        (200, None, "OK"),
        (204, None, "OK"),
        (202, None, "CANCELLATION_REQUESTED"),
        (400, {"detail": "ALREADY_COMPLETED"}, "ALREADY_COMPLETED"),
        (200, {"status": 7}, "OK"),
    ],
)
def test_cancel_response_is_parsed(status: int, body: object, cancelled: str) -> None:
    assert parse_cancellation(response(status, body)) == cancelled


JSON = "application/json"


@pytest.mark.parametrize(
    ("kind", "body", "output"),
    [
        (JSON, b'{"a":1}', {"a": 1}),
        (JSON, b"[1,2]", [1, 2]),
        (JSON, b'"a"', "a"),
        (JSON, b"7.5", 7.5),
        (JSON, b"true", True),
        (JSON, b"null", None),
        (JSON, b"", None),
        ("", b"", None),
        ("", b'{"a":1}', {"a": 1}),
        ("Application/Problem+JSON; charset=utf-8", b'{"a":1}', {"a": 1}),
        ("text/json", b"[1]", [1]),
        ("text/plain", b"caf\xc3\xa9", "café"),
        ("text/plain", b"7", "7"),
        ("text/plain", b"", ""),
        ("text/html; charset=utf-8", b"<p>", "<p>"),
        ("application/octet-stream", b"\x00\xff", b"\x00\xff"),
        ("application/octet-stream", b"", b""),
        ("image/png", b"\x89PNG", b"\x89PNG"),
        ("application/x-ndjson", b"{}\n{}\n", b"{}\n{}\n"),
    ],
)
def test_content_type_selects_the_output_parser(kind: str, body: bytes, output: object) -> None:
    read = parse_output(response(200, body, content_type=kind))
    assert read.value == output
    assert type(read.value) is type(output)


def test_empty_204_response_is_none() -> None:
    assert parse_output(response(204)).value is None


@pytest.mark.parametrize(
    ("body", "value"),
    [(b'{"a":Infinity}', math.inf), (b'\xef\xbb\xbf{"a":1}', 1), (b'{"a":"\\ud800"}', "\ud800")],
)
def test_nonstandard_json_is_preserved(body: bytes, value: object) -> None:
    assert parse_output(response(200, body, content_type=JSON)).value["a"] == value


@pytest.mark.parametrize("kind", [JSON, "", "application/problem+json"])
def test_broken_json_output_raises_our_error(kind: str) -> None:
    with pytest.raises(InvalidResponseError):
        parse_output(response(200, b'{"a":', content_type=kind))


def test_result_carries_request_metadata() -> None:
    result = parse_output(
        Response(
            status_code=200,
            headers={"x-fal-request-id": "abc", "x-fal-billable-units": "1.50000000"},
            body=b'{"seed":7}',
            retries=2,
        )
    )
    assert result.value == {"seed": 7}
    assert (result.request_id, result.billable_units, result.retries) == ("abc", 1.5, 2)
    assert result.headers["x-fal-billable-units"] == "1.50000000"


@pytest.mark.parametrize(
    ("header", "units"),
    [("42", 42.0), ("0", 0.0), ("nan", None), ("inf", None), ("", None), ("-1", None), ("x", None)],
)
def test_billable_units_are_finite_or_none(header: str, units: float | None) -> None:
    assert parse_output(response(200, {}, x_fal_billable_units=header)).billable_units == units


@given(st.binary(), st.sampled_from([JSON, "", "text/plain", "image/png"]), st.text())
def test_any_body_is_an_output_or_our_error(body: bytes, kind: str, units: str) -> None:
    lenient = suppress(InvalidResponseError) if kind in {JSON, ""} else nullcontext()
    with lenient:
        parse_output(response(200, body, content_type=kind, x_fal_billable_units=units))
