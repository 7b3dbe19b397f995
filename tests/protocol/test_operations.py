"""Every API call as a value: where it goes, what it carries, how its reply is read."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import orjson
import pytest
from pydantic import BaseModel, Field

from fal_async import errors
from fal_async._config import Hosts
from fal_async._protocol import operations
from fal_async._protocol.endpoint import parse_endpoint
from fal_async._protocol.operations import LONGEST_URL, Credential, Lane, Operation, Request
from fal_async._protocol.replies import Reply
from fal_async._protocol.retry import Retry
from fal_async.errors import InvalidReplyError, InvalidRequestError
from fal_async.types import Completed, InProgress, Queued, Result

if TYPE_CHECKING:
    from collections.abc import Callable

HOSTS = Hosts()
FLUX = parse_endpoint("fal-ai/flux/dev")
URL = "https://queue.fal.run/fal-ai/flux/requests/abc"
JOB: dict[str, Any] = {"application": "fal-ai/flux/dev", "request_id": "abc"}


def reply(status: int, body: object = None) -> Reply:
    return Reply(
        status_code=status,
        headers={"content-type": "application/json"},
        body=b"" if body is None else orjson.dumps(body),
    )


def test_a_run_is_posted_to_the_whole_id() -> None:
    operation = operations.run(HOSTS, FLUX, {"prompt": "a cat"}, headers={"x-fal-tags": "a=b"})
    assert operation.request == Request(
        "POST",
        "https://fal.run/fal-ai/flux/dev",
        {"accept": "*/*", "content-type": "application/json", "x-fal-tags": "a=b"},
        b'{"prompt":"a cat"}',
    )
    assert operation.retry is Retry.ON_REFUSAL
    assert operation.lane is Lane.HELD
    assert operation.starts_job
    assert operation.application == "fal-ai/flux/dev"


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("", "https://fal.run/fal-ai/flux/dev"),
        ("/image-to-image/", "https://fal.run/fal-ai/flux/dev/image-to-image"),
        ("a b?x=1", "https://fal.run/fal-ai/flux/dev/a%20b?x=1"),
    ],
)
def test_a_path_is_added_to_the_id(path: str, url: str) -> None:
    assert operations.run(HOSTS, FLUX, {}, path=path).request.url == url


@pytest.mark.parametrize(
    ("application", "url"),
    [
        ("123-app", "https://fal.run/123/app"),
        ("/workflows/me/mine/", "https://fal.run/workflows/me/mine"),
    ],
)
def test_ids_are_put_in_order(application: str, url: str) -> None:
    assert operations.run(HOSTS, parse_endpoint(application), {}).request.url == url


def test_hosts_may_have_a_path_of_their_own() -> None:
    hosts = Hosts.at("http://127.0.0.1:8000")
    assert operations.run(hosts, FLUX, {}).request.url == (
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
def test_a_get_run_carries_its_arguments_in_the_query(
    arguments: Any, query: list[tuple[str, str]]
) -> None:
    request = operations.run(HOSTS, FLUX, arguments, method="get").request
    assert request.method == "GET"
    assert request.content == b""
    assert parse_qsl(urlsplit(request.url).query, keep_blank_values=True) == query


def test_a_head_run_has_no_body_either() -> None:
    request = operations.run(HOSTS, FLUX, {"a": 1}, method="HEAD").request
    assert (request.url, request.content) == ("https://fal.run/fal-ai/flux/dev?a=1", b"")


def test_a_get_run_adds_to_the_query_of_its_path() -> None:
    request = operations.run(HOSTS, FLUX, {"b": 2}, method="GET", path="x?a=1").request
    assert request.url == "https://fal.run/fal-ai/flux/dev/x?a=1&b=2"


@pytest.mark.parametrize("method", ["PUT", "patch", "DELETE", "OPTIONS"])
def test_other_methods_carry_a_body(method: str) -> None:
    request = operations.run(HOSTS, FLUX, {"a": 1}, method=method).request
    assert (request.method, request.content) == (method.upper(), b'{"a":1}')


@pytest.mark.parametrize("method", ["", "GE T", "GET\r\n", "GÉT", "P0ST"])
def test_what_is_no_method_is_refused(method: str) -> None:
    with pytest.raises(InvalidRequestError, match="not an HTTP method"):
        operations.run(HOSTS, FLUX, {}, method=method)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_arguments_that_are_no_json_are_refused(method: str) -> None:
    with pytest.raises(InvalidRequestError):
        operations.run(HOSTS, FLUX, {"a": object()}, method=method)


def test_a_query_that_is_no_text_is_refused() -> None:
    for arguments in ({"a": "\ud800"}, {"\ud800": 1}, {"a": ["x", "\udc80"]}):
        with pytest.raises(InvalidRequestError, match="half of a surrogate pair"):
            operations.run(HOSTS, FLUX, arguments, method="GET")
    url = operations.run(HOSTS, FLUX, {"a": [2**70, "é"]}, method="GET").request.url
    assert url.endswith("?a=1180591620717411303424&a=%C3%A9")


def test_a_url_that_no_transport_takes_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="at most 65536 characters"):
        operations.run(HOSTS, FLUX, {"prompt": "x" * 70_000}, method="GET")
    room = LONGEST_URL - len("https://queue.fal.run/fal-ai/flux/dev/")
    assert len(operations.submit(HOSTS, FLUX, {}, path="x" * room).request.url) == LONGEST_URL
    with pytest.raises(InvalidRequestError):
        operations.submit(HOSTS, FLUX, {}, path="x" * (room + 1))


def test_a_caller_may_choose_what_is_accepted() -> None:
    operation = operations.run(HOSTS, FLUX, {}, headers={"accept": "image/png"})
    assert operation.request.headers["accept"] == "image/png"


def test_a_run_reads_its_output_or_its_error() -> None:
    parse = operations.run(HOSTS, FLUX, {}).parse
    assert parse(reply(200, {"seed": 7})) == Result({"seed": 7})
    with pytest.raises(errors.InvalidInputError):
        parse(reply(422, {"detail": "no"}))
    with pytest.raises(errors.FalClientHTTPError, match="redirect"):
        parse(reply(307))


def test_a_stream_is_a_run_that_is_read_as_it_comes() -> None:
    operation = operations.stream(HOSTS, FLUX, {"a": 1}, path="/stream", headers={"x-a": "b"})
    assert operation.request == Request(
        "POST",
        "https://fal.run/fal-ai/flux/dev/stream",
        {"accept": "text/event-stream", "content-type": "application/json", "x-a": "b"},
        b'{"a":1}',
    )
    assert (operation.retry, operation.lane) == (Retry.ON_REFUSAL, Lane.HELD)
    operation.parse(reply(200))
    with pytest.raises(errors.InvalidInputError):
        operation.parse(reply(422))


def test_a_submit_is_posted_to_the_queue() -> None:
    operation = operations.submit(
        HOSTS, FLUX, {"a": 1}, path="x", headers={"x-fal-tags": "a=b"}, query={"fal_webhook": "u/?"}
    )
    assert operation.request == Request(
        "POST",
        "https://queue.fal.run/fal-ai/flux/dev/x?fal_webhook=u%2F%3F",
        {"accept": "application/json", "content-type": "application/json", "x-fal-tags": "a=b"},
        b'{"a":1}',
    )
    assert operation.retry is Retry.ON_REFUSAL
    assert operation.lane is Lane.CONTROL
    assert operation.starts_job


def test_a_webhook_does_not_collide_with_the_query_of_a_path() -> None:
    operation = operations.submit(HOSTS, FLUX, {}, path="x?a=1", query={"fal_webhook": "u"})
    assert operation.request.url == "https://queue.fal.run/fal-ai/flux/dev/x?a=1&fal_webhook=u"


def test_a_bounded_submit_is_not_repeated_on_a_full_queue() -> None:
    operation = operations.submit(HOSTS, FLUX, {}, query={"fal_max_queue_length": 0})
    assert operation.request.url == "https://queue.fal.run/fal-ai/flux/dev?fal_max_queue_length=0"
    assert operation.retry is Retry.UNSENT


def test_a_submit_reads_its_submission() -> None:
    parse = operations.submit(HOSTS, FLUX, {}).parse
    assert parse(reply(200, {"request_id": "abc"})).request_id == "abc"
    assert parse(reply(201, {"request_id": "abc"})).request_id == "abc"
    with pytest.raises(InvalidReplyError):
        parse(reply(200, {}))
    with pytest.raises(errors.RateLimitError):
        parse(reply(429))


@pytest.mark.parametrize(
    ("url", "with_logs", "asked", "streamed"),
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
def test_the_stream_of_statuses_stands_below_the_status(
    url: str, with_logs: bool, asked: str, streamed: str
) -> None:
    status = operations.status(url, with_logs=with_logs, **JOB)
    watch = operations.watch(url, with_logs=with_logs, **JOB)
    assert (status.request.method, status.request.url) == ("GET", asked)
    assert (watch.request.method, watch.request.url) == ("GET", streamed)
    assert watch.request.headers == {"accept": "text/event-stream"}
    assert (status.retry, status.lane) == (Retry.SAFE, Lane.CONTROL)
    assert (watch.retry, watch.lane) == (Retry.UNSENT, Lane.WATCH)


def test_logs_and_failures_are_not_taken_for_granted() -> None:
    assert operations.status(URL, **JOB).request.url == URL
    assert operations.watch(URL, **JOB).request.url == f"{URL}/stream"
    assert operations.result(URL, **JOB).retry is Retry.REPLAYED


def test_calls_have_names_for_logs_and_errors() -> None:
    calls: list[Callable[..., Operation[Any]]] = [
        operations.run,
        operations.submit,
        operations.stream,
    ]
    about: list[Callable[..., Operation[Any]]] = [
        operations.status,
        operations.watch,
        operations.result,
        operations.cancel,
    ]
    names = [call(HOSTS, FLUX, {}).name for call in calls]
    names += [call(URL, **JOB).name for call in about]
    assert names == ["run", "submit", "stream", "status", "watch", "result", "cancel"]


def test_a_status_is_read_from_its_json_whatever_the_success() -> None:
    parse = operations.status(f"{URL}/status", **JOB).parse
    assert parse(reply(202, {"status": "IN_QUEUE", "queue_position": 1})) == Queued(1)
    assert parse(reply(200, {"status": "IN_PROGRESS"})) == InProgress([])
    assert parse(reply(202, {"status": "COMPLETED"})) == Completed([], {})


@pytest.mark.parametrize(("failed", "retry"), [(False, Retry.REPLAYED), (True, Retry.SETTLED)])
def test_a_result_is_fetched_from_its_url(failed: bool, retry: Retry) -> None:
    operation = operations.result(URL, failed=failed, **JOB)
    assert operation.request == Request("GET", URL, {"accept": "*/*"})
    assert operation.retry is retry
    assert not operation.starts_job
    assert operation.parse(reply(200, {"seed": 7})) == {"seed": 7}


@pytest.mark.parametrize(
    ("status", "body", "answer"),
    [
        (200, {"status": "OK"}, "OK"),
        (202, {"status": "CANCELLATION_REQUESTED"}, "CANCELLATION_REQUESTED"),
        (400, {"status": "ALREADY_COMPLETED"}, "ALREADY_COMPLETED"),
    ],
)
def test_every_answer_to_a_cancel_but_an_error_is_a_value(
    status: int, body: object, answer: str
) -> None:
    operation = operations.cancel(f"{URL}/cancel", **JOB)
    assert operation.request == Request("PUT", f"{URL}/cancel", {"accept": "application/json"})
    assert operation.retry is Retry.SAFE
    assert operation.parse(reply(status, body)) == answer


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, {"status": "NOT_FOUND"}, errors.NotFoundError),
        (400, {"detail": "bad"}, errors.InvalidInputError),
        (500, {"status": "ALREADY_COMPLETED"}, errors.ServerError),
    ],
)
def test_a_cancel_that_went_wrong_is_an_error(
    status: int, body: object, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        operations.cancel(f"{URL}/cancel", **JOB).parse(reply(status, body))


@pytest.mark.parametrize(
    "build", [operations.status, operations.watch, operations.result, operations.cancel]
)
def test_errors_about_a_job_name_it(build: Callable[..., Operation[Any]]) -> None:
    operation = build(URL, **JOB)
    assert operation.request_id == "abc"
    assert operation.application == "fal-ai/flux/dev"
    with pytest.raises(errors.NotFoundError) as caught:
        operation.parse(reply(404, {"status": "NOT_FOUND"}))
    assert caught.value.request_id == "abc"


@pytest.mark.parametrize("build", [operations.status, operations.result, operations.cancel])
@pytest.mark.parametrize(("headers", "name"), [({}, "abc"), ({"x-fal-request-id": "own"}, "own")])
def test_what_cannot_be_read_about_a_job_names_it_too(
    build: Callable[..., Operation[Any]], headers: dict[str, str], name: str
) -> None:
    page = Reply(status_code=200, headers=headers, body=b"<html>")
    with pytest.raises(InvalidReplyError) as caught:
        build(URL, **JOB).parse(page)
    assert caught.value.request_id == name


@pytest.mark.parametrize(
    "operation",
    [
        operations.run(HOSTS, FLUX, {}),
        operations.submit(HOSTS, FLUX, {}),
        operations.stream(HOSTS, FLUX, {}),
        operations.status(URL, **JOB),
        operations.watch(URL, **JOB),
        operations.result(URL, **JOB),
        operations.cancel(URL, **JOB),
    ],
    ids=lambda operation: operation.name,
)
def test_no_operation_carries_a_credential(operation: Operation[Any]) -> None:
    assert "authorization" not in operation.request.headers
    assert all(name == name.lower() for name in operation.request.headers)
    assert operation.starts_job is (operation.name in {"run", "stream", "submit"})
    assert operation.credential is Credential.KEY
    assert (operation.retry in {Retry.ON_REFUSAL, Retry.UNSENT}) or not operation.starts_job
