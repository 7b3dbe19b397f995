"""Submit, status, status stream, result and cancel operations; statuses and job URLs."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast
from urllib.parse import quote

from fal_async._core.checks import check_flag
from fal_async._protocol.logs import parse_logs
from fal_async._protocol.operation import (
    JSON_HEADERS,
    MAX_OUTPUT,
    Lane,
    Operation,
    Request,
    endpoint_url,
    response_parser,
)
from fal_async._protocol.origins import TrustedOrigins, append_path
from fal_async._protocol.response import MAX_EXCERPT, Response, parse_output, read_id, read_text
from fal_async._protocol.retry import Retry
from fal_async._protocol.serialization import decode_json, encode_arguments, object_or_empty
from fal_async.errors import InvalidResponseError
from fal_async.types import Cancellation, Completed, InProgress, Queued, Status, Unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fal_async._config import Hosts
    from fal_async._protocol.endpoint import Endpoint
    from fal_async._protocol.operation import T
    from fal_async._protocol.sse import Event
    from fal_async.types import Arguments, Stage

__all__ = [
    "JobUrls",
    "Submission",
    "cancel",
    "default_urls",
    "job_urls",
    "parse_cancellation",
    "parse_status",
    "parse_submission",
    "read_status",
    "read_status_event",
    "result",
    "status",
    "status_stream",
    "submit",
]


class JobUrls(NamedTuple):
    """The URLs of a job's status, result and cancellation."""

    status_url: str
    response_url: str
    cancel_url: str


def default_urls(hosts: Hosts, endpoint: Endpoint, request_id: str) -> JobUrls:
    """Return the URLs that follow from the ids of a job."""
    own = f"{hosts.queue}/{endpoint.app}/requests/{quote(request_id, safe='')}"
    return JobUrls(status_url=f"{own}/status", response_url=own, cancel_url=f"{own}/cancel")


def job_urls(hosts: Hosts, endpoint: Endpoint, submission: Submission) -> JobUrls:
    """Return the URLs in a submission, except that those at other origins are replaced."""
    default = default_urls(hosts, endpoint, submission.request_id)
    queue = _trusted_origins(hosts.queue)

    def checked(named: object, fallback: str) -> str:
        return named if isinstance(named, str) and queue.contains(named) else fallback

    return JobUrls(
        status_url=checked(submission.status_url, default.status_url),
        response_url=checked(submission.response_url, default.response_url),
        cancel_url=checked(submission.cancel_url, default.cancel_url),
    )


#: Parsing the base URL costs as much as the rest of a handle.
_trusted_origins = lru_cache(maxsize=16)(TrustedOrigins)


_CANCELLATIONS: Final[Mapping[int, str]] = {202: "CANCELLATION_REQUESTED", 400: "ALREADY_COMPLETED"}


class Submission(NamedTuple):
    """The response to a submit, with the URLs as received: their origins are not checked."""

    request_id: str
    status_url: str | None = None
    response_url: str | None = None
    cancel_url: str | None = None


def parse_submission(response: Response) -> Submission:
    """Parse the response to a submit; only the request id is required."""
    try:
        body = response.json_object()
    except InvalidResponseError:
        if response.request_id is None:
            raise
        body = {}  # the job exists, and its id is enough to fetch the result
    request_id = read_id(body.get("request_id")) or response.request_id
    if request_id is None:
        raise InvalidResponseError(
            "the response to a submit must contain a request id, got "
            f"{response.text[:MAX_EXCERPT]!r}",
            body=response.body,
        )
    return Submission(
        request_id=request_id,
        status_url=read_text(body.get("status_url")),
        response_url=read_text(body.get("response_url")),
        cancel_url=read_text(body.get("cancel_url")),
    )


def parse_status(response: Response) -> Status:
    """Parse the response to a status request."""
    return read_status(response.json_object())


def read_status(raw: Mapping[str, Any]) -> Status:
    """Parse a status object; an unknown status becomes `Unknown`."""
    match raw.get("status"):
        case "IN_QUEUE":
            position = raw.get("queue_position")
            return Queued(position if type(position) is int and position >= 0 else None)
        case "IN_PROGRESS":
            return InProgress(parse_logs(raw.get("logs")))
        case "COMPLETED":
            return Completed(
                logs=parse_logs(raw.get("logs")),
                metrics=object_or_empty(raw.get("metrics")),
                error=read_text(raw.get("error")),
                error_type=read_text(raw.get("error_type")),
            )
        case _:
            return Unknown(dict(raw))


def read_status_event(event: Event) -> Status:
    """Parse an event of a status stream."""
    try:
        raw: Any = decode_json(event.data)
    except ValueError as error:
        raise InvalidResponseError(
            f"a status event must be JSON, got {event.data[:80]!r}"
        ) from error
    if not isinstance(raw, dict):
        raise InvalidResponseError(f"a status event must be a JSON object, got {event.data[:80]!r}")
    return read_status(cast("dict[str, Any]", raw))


def parse_cancellation(response: Response) -> Cancellation:
    """Parse the response to a cancel request for a job that was cancelled or had ended."""
    status = read_text(response.json_object().get("status")) if response.body else None
    return Cancellation(status or _CANCELLATIONS.get(response.status_code, "OK"))


def submit(
    hosts: Hosts,
    endpoint: Endpoint,
    arguments: Arguments,
    *,
    path: str = "",
    headers: Mapping[str, str] | None = None,
    query: Mapping[str, Any] | None = None,
) -> Operation[Submission]:
    """Submit a job to the queue.

    With a maximum queue length, a full queue must raise an error at once, so the request is retried
    only if nothing was sent.
    """
    query = query or {}
    return Operation(
        name="submit",
        application=endpoint.id,
        request=Request(
            "POST",
            endpoint_url(hosts.queue, endpoint, path, query),
            {**JSON_HEADERS, **(headers or {})},
            encode_arguments(arguments),
        ),
        parse=response_parser(parse_submission),
        retry=Retry.IF_NOT_SENT if "fal_max_queue_length" in query else Retry.IF_REJECTED,
        is_billable=True,
        stage="submit",
    )


def status(
    url: str, *, application: str, request_id: str, with_logs: bool = False
) -> Operation[Status]:
    """Fetch the status of a job."""
    url = _logs(url, with_logs)
    return _job_operation("status", "GET", url, parse_status, application, request_id, stage="wait")


def status_stream(
    url: str, *, application: str, request_id: str, with_logs: bool = False
) -> Operation[None]:
    """Open the status stream of a job, whose URL is below that of its status.

    If the stream cannot be opened, the caller polls, so the request is not retried.
    """
    return Operation(
        name="watch",
        application=application,
        request=Request(
            "GET", _logs(append_path(url, "stream"), with_logs), {"accept": "text/event-stream"}
        ),
        parse=response_parser(lambda _: None, request_id),
        retry=Retry.IF_NOT_SENT,
        lane=Lane.WATCH,
        request_id=request_id,
        stage="wait",
    )


def result(url: str, *, application: str, request_id: str, failed: bool = False) -> Operation[Any]:
    """Fetch the output of a job that has ended.

    An error may be that of the job itself, which the platform replays. If the job has failed
    (`failed`), the first error with a request id is the error of the job.
    """
    operation = _job_operation(
        "result", "GET", url, parse_output, application, request_id, stage="result"
    )
    retry = Retry.FAILED_RESULT if failed else Retry.RESULT
    return replace(operation, retry=retry, max_body=MAX_OUTPUT)


def cancel(url: str, *, application: str, request_id: str) -> Operation[Cancellation]:
    """Cancel a job. A job that has already ended is not an error."""
    read = response_parser(parse_cancellation, request_id)

    def parse(response: Response) -> Cancellation:
        if response.status_code == 400 and b"ALREADY_COMPLETED" in response.body:
            return parse_cancellation(response)
        return read(response)

    return Operation(
        name="cancel",
        application=application,
        request=Request("PUT", url, {"accept": "application/json"}),
        parse=parse,
        retry=Retry.IDEMPOTENT,
        lane=Lane.CANCEL,
        request_id=request_id,
    )


def _job_operation(
    name: str,
    method: str,
    url: str,
    parse: Callable[[Response], T],
    application: str,
    request_id: str,
    *,
    stage: Stage,
) -> Operation[T]:
    return Operation(
        name=name,
        application=application,
        request=Request(method, url, {"accept": "*/*"}),
        parse=response_parser(parse, request_id),
        retry=Retry.IDEMPOTENT,
        request_id=request_id,
        stage=stage,
    )


def _logs(url: str, with_logs: bool) -> str:  # noqa: FBT001 -- mirrors the public parameter
    if not check_flag("with_logs", with_logs):
        return url
    return f"{url}&logs=1" if "?" in url else f"{url}?logs=1"
