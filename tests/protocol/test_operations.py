"""Operations: target, content and parser of every API request."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import orjson
import pytest
from pydantic import BaseModel, Field

from fal_async import errors
from fal_async._config import Hosts
from fal_async._protocol import inference, queue
from fal_async._protocol.endpoint import parse_endpoint
from fal_async._protocol.operation import MAX_URL_LENGTH, Credential, Lane, Operation, Request
from fal_async._protocol.response import Response
from fal_async._protocol.retry import Retry
from fal_async.errors import InvalidRequestError, InvalidResponseError
from fal_async.types import Completed, InProgress, Queued

if TYPE_CHECKING:
    from collections.abc import Callable

HOSTS = Hosts()
FLUX = parse_endpoint("fal-ai/flux/dev")
URL = "https://queue.fal.run/fal-ai/flux/requests/abc"
JOB: dict[str, Any] = {"application": "fal-ai/flux/dev", "request_id": "abc"}


def response(status: int, body: object = None) -> Response:
    return Response(
        status_code=status,
        headers={"content-type": "application/json"},
        body=b"" if body is None else orjson.dumps(body),
    )


def test_run_posts_to_the_full_id() -> None:
    operation = inference.run(HOSTS, FLUX, {"prompt": "a cat"}, headers={"x-fal-tags": "a=b"})
    assert operation.request == Request(
        "POST",
        "https://fal.run/fal-ai/flux/dev",
        {"accept": "*/*", "content-type": "application/json", "x-fal-tags": "a=b"},
        b'{"prompt":"a cat"}',
    )
    assert operation.retry is Retry.IF_REJECTED
    assert operation.lane is Lane.HELD
    assert operation.is_billable
    assert operation.application == "fal-ai/flux/dev"


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("", "https://fal.run/fal-ai/flux/dev"),
        ("/image-to-image/", "https://fal.run/fal-ai/flux/dev/image-to-image"),
        ("a b?x=1", "https://fal.run/fal-ai/flux/dev/a%20b?x=1"),
    ],
)
def test_path_is_appended_to_the_id(path: str, url: str) -> None:
    assert inference.run(HOSTS, FLUX, {}, path=path).request.url == url


@pytest.mark.parametrize(
    ("application", "url"),
    [
        ("123-app", "https://fal.run/123/app"),
        ("/workflows/me/mine/", "https://fal.run/workflows/me/mine"),
    ],
)
def test_ids_are_normalized(application: str, url: str) -> None:
    assert inference.run(HOSTS, parse_endpoint(application), {}).request.url == url


def test_hosts_may_include_a_path() -> None:
    hosts = Hosts.at("http://127.0.0.1:8000")
    assert inference.run(hosts, FLUX, {}).request.url == (
        "http://127.0.0.1:8000/run/fal-ai/flux/dev"
    )


class Color(enum.Enum):
    RED = "red"


class Input(BaseModel):
    size: int = Field(alias="s")
    flag: bool = True


@pytest.mark.parametrize(
    ("arguments", "query"),
    [
        ({}, []),
        ({"prompt": "a cat & co?"}, [("prompt", "a cat & co?")]),
        ({"n": 3, "x": 1.5, "ü": "é"}, [("n", "3"), ("x", "1.5"), ("ü", "é")]),
        ({"yes": True, "no": False}, [("yes", "true"), ("no", "false")]),
        ({"none": None, "empty": ""}, [("empty", "")]),
        (
            {"ids": [1, "two", True, None]},
            [("ids", "1"), ("ids", "two"), ("ids", "true"), ("ids", "null")],
        ),
        ({"ids": (1, 2), "none": []}, [("ids", "1"), ("ids", "2")]),
        ({"size": {"w": 1, "h": [2]}}, [("size", '{"w":1,"h":[2]}')]),
        ({"points": [{"x": 1}, [2, 3]]}, [("points", '{"x":1}'), ("points", "[2,3]")]),
        ({"color": Color.RED}, [("color", "red")]),
        (Input(s=7), [("s", "7"), ("flag", "true")]),
    ],
)
def test_get_run_sends_arguments_in_the_query(arguments: Any, query: list[tuple[str, str]]) -> None:
    request = inference.run(HOSTS, FLUX, arguments, method="get").request
    assert request.method == "GET"
    assert request.content == b""
    assert parse_qsl(urlsplit(request.url).query, keep_blank_values=True) == query


def test_head_run_has_no_body() -> None:
    request = inference.run(HOSTS, FLUX, {"a": 1}, method="HEAD").request
    assert (request.url, request.content) == ("https://fal.run/fal-ai/flux/dev?a=1", b"")


def test_get_run_extends_the_query_of_its_path() -> None:
    request = inference.run(HOSTS, FLUX, {"b": 2}, method="GET", path="x?a=1").request
    assert request.url == "https://fal.run/fal-ai/flux/dev/x?a=1&b=2"


@pytest.mark.parametrize("method", ["PUT", "patch", "DELETE", "OPTIONS"])
def test_other_methods_send_a_body(method: str) -> None:
    request = inference.run(HOSTS, FLUX, {"a": 1}, method=method).request
    assert (request.method, request.content) == (method.upper(), b'{"a":1}')


@pytest.mark.parametrize("method", ["", "GE T", "GET\r\n", "GÉT", "P0ST"])
def test_invalid_method_is_refused(method: str) -> None:
    with pytest.raises(InvalidRequestError, match="not an HTTP method"):
        inference.run(HOSTS, FLUX, {}, method=method)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_unserializable_arguments_are_refused(method: str) -> None:
    with pytest.raises(InvalidRequestError):
        inference.run(HOSTS, FLUX, {"a": object()}, method=method)


def test_invalid_query_text_is_refused() -> None:
    for arguments in ({"a": "\ud800"}, {"\ud800": 1}, {"a": ["x", "\udc80"]}):
        with pytest.raises(InvalidRequestError, match="encodable in UTF-8"):
            inference.run(HOSTS, FLUX, arguments, method="GET")
    url = inference.run(HOSTS, FLUX, {"a": [2**70, "é"]}, method="GET").request.url
    assert url.endswith("?a=1180591620717411303424&a=%C3%A9")


def test_invalid_url_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="at most 65536 characters"):
        inference.run(HOSTS, FLUX, {"prompt": "x" * 70_000}, method="GET")
    available = MAX_URL_LENGTH - len("https://queue.fal.run/fal-ai/flux/dev/")
    assert len(queue.submit(HOSTS, FLUX, {}, path="x" * available).request.url) == MAX_URL_LENGTH
    with pytest.raises(InvalidRequestError):
        queue.submit(HOSTS, FLUX, {}, path="x" * (available + 1))


def test_caller_may_set_the_accept_header() -> None:
    operation = inference.run(HOSTS, FLUX, {}, headers={"accept": "image/png"})
    assert operation.request.headers["accept"] == "image/png"


def test_run_parses_its_output_or_error() -> None:
    parse = inference.run(HOSTS, FLUX, {}).parse
    assert parse(response(200, {"seed": 7})).value == {"seed": 7}
    with pytest.raises(errors.InvalidInputError):
        parse(response(422, {"detail": "no"}))
    with pytest.raises(errors.FalClientHTTPError, match="redirect"):
        parse(response(307))


def test_stream_is_an_unread_run() -> None:
    operation = inference.stream(HOSTS, FLUX, {"a": 1}, path="/stream", headers={"x-a": "b"})
    assert operation.request == Request(
        "POST",
        "https://fal.run/fal-ai/flux/dev/stream",
        {"accept": "text/event-stream", "content-type": "application/json", "x-a": "b"},
        b'{"a":1}',
    )
    assert (operation.retry, operation.lane) == (Retry.IF_REJECTED, Lane.HELD)
    operation.parse(response(200))
    with pytest.raises(errors.InvalidInputError):
        operation.parse(response(422))


def test_submit_posts_to_the_queue() -> None:
    operation = queue.submit(
        HOSTS, FLUX, {"a": 1}, path="x", headers={"x-fal-tags": "a=b"}, query={"fal_webhook": "u/?"}
    )
    assert operation.request == Request(
        "POST",
        "https://queue.fal.run/fal-ai/flux/dev/x?fal_webhook=u%2F%3F",
        {"accept": "application/json", "content-type": "application/json", "x-fal-tags": "a=b"},
        b'{"a":1}',
    )
    assert operation.retry is Retry.IF_REJECTED
    assert operation.lane is Lane.CONTROL
    assert operation.is_billable


def test_webhook_keeps_the_query_of_a_path() -> None:
    operation = queue.submit(HOSTS, FLUX, {}, path="x?a=1", query={"fal_webhook": "u"})
    assert operation.request.url == "https://queue.fal.run/fal-ai/flux/dev/x?a=1&fal_webhook=u"


def test_limited_submit_fails_on_full_queue() -> None:
    operation = queue.submit(HOSTS, FLUX, {}, query={"fal_max_queue_length": 0})
    assert operation.request.url == "https://queue.fal.run/fal-ai/flux/dev?fal_max_queue_length=0"
    assert operation.retry is Retry.IF_NOT_SENT


def test_submit_parses_its_submission() -> None:
    parse = queue.submit(HOSTS, FLUX, {}).parse
    assert parse(response(200, {"request_id": "abc"})).request_id == "abc"
    assert parse(response(201, {"request_id": "abc"})).request_id == "abc"
    with pytest.raises(InvalidResponseError):
        parse(response(200, {}))
    with pytest.raises(errors.RateLimitError):
        parse(response(429))


@pytest.mark.parametrize(
    ("url", "with_logs", "status_url", "stream_url"),
    [
        (f"{URL}/status", False, f"{URL}/status", f"{URL}/status/stream"),
        (f"{URL}/status", True, f"{URL}/status?logs=1", f"{URL}/status/stream?logs=1"),
        (f"{URL}/status/", False, f"{URL}/status/", f"{URL}/status/stream"),
        (
            f"{URL}/status?a=b",
            True,
            f"{URL}/status?a=b&logs=1",
            f"{URL}/status/stream?a=b&logs=1",
        ),
    ],
)
def test_status_stream_extends_the_status_url(
    url: str, with_logs: bool, status_url: str, stream_url: str
) -> None:
    status = queue.status(url, with_logs=with_logs, **JOB)
    watch = queue.status_stream(url, with_logs=with_logs, **JOB)
    assert (status.request.method, status.request.url) == ("GET", status_url)
    assert (watch.request.method, watch.request.url) == ("GET", stream_url)
    assert watch.request.headers == {"accept": "text/event-stream"}
    assert (status.retry, status.lane) == (Retry.IDEMPOTENT, Lane.CONTROL)
    assert (watch.retry, watch.lane) == (Retry.IF_NOT_SENT, Lane.WATCH)


def test_logs_and_error_fields_are_optional() -> None:
    assert queue.status(URL, **JOB).request.url == URL
    assert queue.status_stream(URL, **JOB).request.url == f"{URL}/stream"
    assert queue.result(URL, **JOB).retry is Retry.RESULT


def test_operations_have_readable_names() -> None:
    calls: list[Callable[..., Operation[Any]]] = [
        inference.run,
        queue.submit,
        inference.stream,
    ]
    about: list[Callable[..., Operation[Any]]] = [
        queue.status,
        queue.status_stream,
        queue.result,
        queue.cancel,
    ]
    names = [call(HOSTS, FLUX, {}).name for call in calls]
    names += [call(URL, **JOB).name for call in about]
    assert names == ["run", "submit", "stream", "status", "watch", "result", "cancel"]


def test_status_accepts_any_success_code() -> None:
    parse = queue.status(f"{URL}/status", **JOB).parse
    assert parse(response(202, {"status": "IN_QUEUE", "queue_position": 1})) == Queued(1)
    assert parse(response(200, {"status": "IN_PROGRESS"})) == InProgress([])
    assert parse(response(202, {"status": "COMPLETED"})) == Completed([], {})


@pytest.mark.parametrize(("failed", "retry"), [(False, Retry.RESULT), (True, Retry.FAILED_RESULT)])
def test_result_is_fetched_from_its_url(failed: bool, retry: Retry) -> None:
    operation = queue.result(URL, failed=failed, **JOB)
    assert operation.request == Request("GET", URL, {"accept": "*/*"})
    assert operation.retry is retry
    assert not operation.is_billable
    assert operation.parse(response(200, {"seed": 7})).value == {"seed": 7}


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (200, {"status": "OK"}, "OK"),
        (202, {"status": "CANCELLATION_REQUESTED"}, "CANCELLATION_REQUESTED"),
        (400, {"status": "ALREADY_COMPLETED"}, "ALREADY_COMPLETED"),
    ],
)
def test_cancel_response_becomes_a_value(status: int, body: object, outcome: str) -> None:
    operation = queue.cancel(f"{URL}/cancel", **JOB)
    assert operation.request == Request("PUT", f"{URL}/cancel", {"accept": "application/json"})
    assert operation.retry is Retry.IDEMPOTENT
    assert operation.parse(response(status, body)) == outcome


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, {"status": "NOT_FOUND"}, errors.NotFoundError),
        (400, {"detail": "bad"}, errors.InvalidInputError),
        (500, {"status": "ALREADY_COMPLETED"}, errors.ServerError),
    ],
)
def test_failed_cancel_is_an_error(status: int, body: object, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        queue.cancel(f"{URL}/cancel", **JOB).parse(response(status, body))


@pytest.mark.parametrize("build", [queue.status, queue.status_stream, queue.result, queue.cancel])
def test_job_errors_carry_the_request_id(build: Callable[..., Operation[Any]]) -> None:
    operation = build(URL, **JOB)
    assert operation.request_id == "abc"
    assert operation.application == "fal-ai/flux/dev"
    with pytest.raises(errors.NotFoundError) as caught:
        operation.parse(response(404, {"status": "NOT_FOUND"}))
    assert caught.value.request_id == "abc"


@pytest.mark.parametrize("build", [queue.status, queue.result, queue.cancel])
@pytest.mark.parametrize(("headers", "name"), [({}, "abc"), ({"x-fal-request-id": "own"}, "own")])
def test_parse_errors_carry_the_request_id(
    build: Callable[..., Operation[Any]], headers: dict[str, str], name: str
) -> None:
    page = Response(status_code=200, headers=headers, body=b"<html>")
    with pytest.raises(InvalidResponseError) as caught:
        build(URL, **JOB).parse(page)
    assert caught.value.request_id == name


@pytest.mark.parametrize(
    "operation",
    [
        inference.run(HOSTS, FLUX, {}),
        queue.submit(HOSTS, FLUX, {}),
        inference.stream(HOSTS, FLUX, {}),
        queue.status(URL, **JOB),
        queue.status_stream(URL, **JOB),
        queue.result(URL, **JOB),
        queue.cancel(URL, **JOB),
    ],
    ids=lambda operation: operation.name,
)
def test_no_operation_carries_a_credential(operation: Operation[Any]) -> None:
    assert "authorization" not in operation.request.headers
    assert all(name == name.lower() for name in operation.request.headers)
    assert operation.is_billable is (operation.name in {"run", "stream", "submit"})
    assert operation.credential is Credential.KEY
    assert (operation.retry in {Retry.IF_REJECTED, Retry.IF_NOT_SENT}) or not operation.is_billable
