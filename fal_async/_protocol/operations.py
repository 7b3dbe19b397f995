"""Every API call as a value: what is sent, how the reply is read, and when it may be sent again."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar, cast
from urllib.parse import urlencode

from fal_async._checks import check_flag, describe
from fal_async._protocol.bodies import encode_arguments, json_text, plain_arguments
from fal_async._protocol.endpoint import Endpoint, parse_path
from fal_async._protocol.failures import raise_for_status
from fal_async._protocol.origins import below
from fal_async._protocol.replies import (
    Reply,
    Submission,
    parse_cancellation,
    parse_output,
    parse_status,
    parse_submission,
)
from fal_async._protocol.retry import Retry
from fal_async.errors import InvalidReplyError, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from fal_async._config import Hosts
    from fal_async._secret import Secret
    from fal_async.types import Arguments, Cancellation, Stage, Status

__all__ = [
    "MAX_OUTPUT",
    "MAX_RESPONSE",
    "Content",
    "Credential",
    "Lane",
    "Operation",
    "Request",
    "cancel",
    "reading",
    "result",
    "run",
    "status",
    "stream",
    "submit",
    "watch",
]

T = TypeVar("T")
#: How long a URL may be, in characters: httpx takes no longer ones.
LONGEST_URL: Final = 65_536
#: How long the output of a model may be where it is read whole, in bytes, decompressed.
MAX_OUTPUT: Final = 512 * 1024 * 1024
#: The same for all other responses.
MAX_RESPONSE: Final = 64 * 1024 * 1024
_JSON = {"accept": "application/json", "content-type": "application/json"}


class Lane(Enum):
    """Which share of the connections a call draws on, and so how long it may be silent."""

    #: Calls that are over soon.
    CONTROL = auto()
    #: Cancellations, which are over soon as well, but must not wait behind other calls.
    CANCEL = auto()
    #: Calls that hold a connection for their whole life.
    HELD = auto()
    #: Waits on queue jobs.
    WATCH = auto()
    #: Files on their way out.
    UPLOAD = auto()
    #: Files on their way in.
    DOWNLOAD = auto()


class Credential(Enum):
    """What a call shows to be let in, and so where it may be sent."""

    #: The account's key, for the platform's own hosts.
    KEY = auto()
    #: A token for files, for the CDN.
    CDN_TOKEN = auto()
    #: Nothing: presigned and public URLs, wherever they lead.
    NONE = auto()


class Content(Protocol):
    """A body that is not held in memory; iterating over it again gives the same bytes again."""

    @property
    def size(self) -> int:
        """How many bytes it has."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]: ...


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent. The key is no part of it: it is added where the origin has been checked.

    Attributes:
        method: The method.
        url: Where to.
        headers: Names in lower case, and values.
        content: The body.
        signature: The query of a presigned URL, which lets in whoever has it; `url` is without it.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    content: bytes | Content = b""
    signature: Secret | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(Generic[T]):
    """One API call.

    Attributes:
        name: The word for it, for logs and errors.
        application: The endpoint id it is about.
        request: What is sent.
        parse: Reads the final reply, whatever its status: returns the value or raises the typed
            error.
        retry: When it may be sent again.
        lane: Which share of the connections it draws on.
        request_id: The id of the job it is about, when known.
        starts_job: Whether it starts something that costs money. Such a request is sent once: no
            layer below repeats it when it may have reached the platform. All others may be
            repeated, whatever their HTTP method.
        credential: What lets it in.
        max_body: How long the response may be, in bytes, decompressed; of an error, less is read.
        stage: What errors name as the stage of the call; ``None`` for an operation within another.
    """

    name: str
    application: str
    request: Request
    parse: Callable[[Reply], T]
    retry: Retry
    lane: Lane = Lane.CONTROL
    request_id: str | None = None
    starts_job: bool = False
    credential: Credential = Credential.KEY
    max_body: int = MAX_RESPONSE
    stage: Stage | None = None


def run(
    hosts: Hosts,
    endpoint: Endpoint,
    arguments: Arguments,
    *,
    method: str = "POST",
    path: str = "",
    headers: Mapping[str, str] | None = None,
) -> Operation[Any]:
    """Run an app directly. With GET the arguments become the query string.

    There a list repeats its name, what is nested is JSON, and ``None`` is left out.
    """
    method = _method(method)
    bodiless = method in {"GET", "HEAD"}
    query = _query_of(plain_arguments(arguments)) if bodiless else {}
    return Operation(
        name="run",
        application=str(endpoint),
        request=Request(
            method,
            _endpoint_url(hosts.run, endpoint, path, query),
            {**_JSON, "accept": "*/*", **(headers or {})},
            b"" if bodiless else encode_arguments(arguments),
        ),
        parse=reading(parse_output),
        max_body=MAX_OUTPUT,
        retry=Retry.ON_REFUSAL,
        lane=Lane.HELD,
        starts_job=True,
        stage="submit",
    )


def stream(
    hosts: Hosts,
    endpoint: Endpoint,
    arguments: Arguments,
    *,
    path: str = "",
    headers: Mapping[str, str] | None = None,
) -> Operation[None]:
    """Run an app directly and read its output as it comes."""
    return Operation(
        name="stream",
        application=str(endpoint),
        request=Request(
            "POST",
            _endpoint_url(hosts.run, endpoint, path, {}),
            {**_JSON, "accept": "text/event-stream", **(headers or {})},
            encode_arguments(arguments),
        ),
        parse=raise_for_status,
        retry=Retry.ON_REFUSAL,
        lane=Lane.HELD,
        starts_job=True,
        stage="submit",
    )


def submit(
    hosts: Hosts,
    endpoint: Endpoint,
    arguments: Arguments,
    *,
    path: str = "",
    headers: Mapping[str, str] | None = None,
    query: Mapping[str, Any] | None = None,
) -> Operation[Submission]:
    """Put a job into the queue.

    A caller who bounds the queue's length wants to hear of a full queue at once, so only what was
    never sent is repeated then.
    """
    query = query or {}
    return Operation(
        name="submit",
        application=str(endpoint),
        request=Request(
            "POST",
            _endpoint_url(hosts.queue, endpoint, path, query),
            {**_JSON, **(headers or {})},
            encode_arguments(arguments),
        ),
        parse=reading(parse_submission),
        retry=Retry.UNSENT if "fal_max_queue_length" in query else Retry.ON_REFUSAL,
        starts_job=True,
        stage="submit",
    )


def status(
    url: str, *, application: str, request_id: str, with_logs: bool = False
) -> Operation[Status]:
    """Ask once how a job stands."""
    url = _logs(url, with_logs)
    return _about_job("status", "GET", url, parse_status, application, request_id, stage="wait")


def watch(
    url: str, *, application: str, request_id: str, with_logs: bool = False
) -> Operation[None]:
    """Open the stream of a job's statuses, which stands below the URL of its status.

    Waiting falls back to polling when the stream cannot be had, so opening it is tried once.
    """
    return Operation(
        name="watch",
        application=application,
        request=Request(
            "GET", _logs(below(url, "stream"), with_logs), {"accept": "text/event-stream"}
        ),
        parse=reading(_ignore, request_id),
        retry=Retry.UNSENT,
        lane=Lane.WATCH,
        request_id=request_id,
        stage="wait",
    )


def result(url: str, *, application: str, request_id: str, failed: bool = False) -> Operation[Any]:
    """Fetch the output of a job that has ended.

    An error may be the job's own, replayed. When its status has told already that it `failed`, the
    first one that the platform names is taken for that.
    """
    operation = _about_job(
        "result", "GET", url, parse_output, application, request_id, stage="result"
    )
    retry = Retry.SETTLED if failed else Retry.REPLAYED
    return replace(operation, retry=retry, max_body=MAX_OUTPUT)


def cancel(url: str, *, application: str, request_id: str) -> Operation[Cancellation]:
    """Ask for a job to be cancelled; that it had ended already is an answer, not an error."""
    read = reading(parse_cancellation, request_id)

    def parse(reply: Reply) -> Cancellation:
        if reply.status_code == 400 and b"ALREADY_COMPLETED" in reply.body:
            return parse_cancellation(reply)
        return read(reply)

    return Operation(
        name="cancel",
        application=application,
        request=Request("PUT", url, {"accept": "application/json"}),
        parse=parse,
        retry=Retry.SAFE,
        lane=Lane.CANCEL,
        request_id=request_id,
    )


def _about_job(
    name: str,
    method: str,
    url: str,
    parse: Callable[[Reply], T],
    application: str,
    request_id: str,
    *,
    stage: Stage,
) -> Operation[T]:
    return Operation(
        name=name,
        application=application,
        request=Request(method, url, {"accept": "*/*"}),
        parse=reading(parse, request_id),
        retry=Retry.SAFE,
        request_id=request_id,
        stage=stage,
    )


def reading(parse: Callable[[Reply], T], request_id: str | None = None) -> Callable[[Reply], T]:
    """A reader of whole replies: what `parse` makes of success, the typed error of the rest."""

    def read(reply: Reply) -> T:
        raise_for_status(reply, request_id=request_id)
        try:
            return parse(reply)
        except InvalidReplyError as error:  # the job may be well, and is found by its id
            error.request_id = error.request_id or request_id
            raise

    return read


def _ignore(_: Reply) -> None:
    """The body is read by whoever opened the stream."""


def _is_method(method: str) -> bool:
    return method.isalpha() and method.isascii()


def _method(method: str) -> str:
    if not isinstance(cast("object", method), str) or not _is_method(method):
        raise InvalidRequestError(f"{describe(method)} is not an HTTP method")
    return method.upper()


def _query_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: [json_text(item) for item in _items(value)]
        for name, value in arguments.items()
        if value is not None
    }


def _items(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else [value]


def _endpoint_url(base: str, endpoint: Endpoint, path: str, query: Mapping[str, Any]) -> str:
    whole = f"{base}/{endpoint}"
    if not isinstance(cast("object", path), str) or path or query:
        encoded, own_query = parse_path(path)
        whole = f"{whole}/{encoded}" if encoded else whole
        queries = "&".join(filter(None, (own_query, _encode_query(query))))
        whole = f"{whole}?{queries}" if queries else whole
    if len(whole) > LONGEST_URL:
        raise InvalidRequestError(f"a URL has at most {LONGEST_URL} characters, not {len(whole)}")
    return whole


def _encode_query(query: Mapping[str, Any]) -> str:
    try:
        return urlencode(query, doseq=True)
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            f"a URL cannot hold {error.object!r}: half of a surrogate pair is no text"
        ) from error


def _logs(url: str, with_logs: bool) -> str:  # noqa: FBT001 -- mirrors the public parameter
    if not check_flag("with_logs", with_logs):
        return url
    return f"{url}&logs=1" if "?" in url else f"{url}?logs=1"
