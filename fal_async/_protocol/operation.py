"""`Request`, `Operation`, `Lane`, `Credential`: one API call as a value."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar, cast
from urllib.parse import urlencode

from fal_async._protocol.endpoint import Endpoint, parse_path
from fal_async._protocol.error_mapping import raise_for_status
from fal_async.errors import InvalidRequestError, InvalidResponseError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from fal_async._core.secrets import Secret
    from fal_async._protocol.response import Response
    from fal_async._protocol.retry import Retry
    from fal_async.types import Stage

__all__ = [
    "MAX_OUTPUT",
    "MAX_RESPONSE",
    "Content",
    "Credential",
    "Lane",
    "Operation",
    "Request",
    "response_parser",
]

T = TypeVar("T")


#: The maximum length of a URL, in characters: that of httpx.
MAX_URL_LENGTH: Final = 65_536


#: The maximum size of an output that is read at once, in bytes, decompressed.
MAX_OUTPUT: Final = 512 * 1024 * 1024


#: The maximum size of other responses, in bytes, decompressed.
MAX_RESPONSE: Final = 64 * 1024 * 1024


JSON_HEADERS = {"accept": "application/json", "content-type": "application/json"}


class Lane(Enum):
    """The share of the connections that a call uses, which also determines its read timeout."""

    #: Short calls.
    CONTROL = auto()
    #: Cancellations, which are short as well, but must not wait for other calls.
    CANCEL = auto()
    #: Calls that use a connection for their whole duration.
    HELD = auto()
    #: Waits on queue jobs.
    WATCH = auto()
    #: Files on their way out.
    UPLOAD = auto()
    #: Files on their way in.
    DOWNLOAD = auto()


class Credential(Enum):
    """The credential of a call, which determines the origins that it may be sent to."""

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
        """Return the number of bytes."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]: ...


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request without the key, which the dispatcher adds for trusted origins.

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
        parse: Reads the final response, whatever its status: returns the value or raises the typed
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
    parse: Callable[[Response], T]
    retry: Retry
    lane: Lane = Lane.CONTROL
    request_id: str | None = None
    is_billable: bool = False
    credential: Credential = Credential.KEY
    max_body: int = MAX_RESPONSE
    stage: Stage | None = None


def response_parser(
    parse: Callable[[Response], T], request_id: str | None = None
) -> Callable[[Response], T]:
    """Make a parser of responses, which raises the typed error of an error response."""

    def read(response: Response) -> T:
        raise_for_status(response, request_id=request_id)
        try:
            return parse(response)
        except (
            InvalidResponseError
        ) as error:  # the job may have succeeded, and the id identifies it
            error.request_id = error.request_id or request_id
            raise

    return read


def endpoint_url(base: str, endpoint: Endpoint, path: str, query: Mapping[str, Any]) -> str:
    whole = f"{base}/{endpoint}"
    if not isinstance(cast("object", path), str) or path or query:
        encoded, own_query = parse_path(path)
        whole = f"{whole}/{encoded}" if encoded else whole
        queries = "&".join(filter(None, (own_query, _encode_query(query))))
        whole = f"{whole}?{queries}" if queries else whole
    if len(whole) > MAX_URL_LENGTH:
        raise InvalidRequestError(
            f"a URL must have at most {MAX_URL_LENGTH} characters, got {len(whole)}"
        )
    return whole


def _encode_query(query: Mapping[str, Any]) -> str:
    try:
        return urlencode(query, doseq=True)
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            f"a URL cannot hold {error.object!r}: half of a surrogate pair is no text"
        ) from error
