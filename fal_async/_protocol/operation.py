"""`Request`, `Operation`, `Lane`, `Credential`: one API call as a value."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar, cast
from urllib.parse import urlencode

from fal_async._protocol.endpoint import Endpoint, parse_path
from fal_async._protocol.error_mapping import raise_for_status
from fal_async.errors import (
    ConnectionFailedError,
    InvalidRequestError,
    InvalidResponseError,
    SubmitOutcomeUnknownError,
    TransportError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from fal_async._core.secrets import Secret
    from fal_async._protocol.response import Response
    from fal_async._protocol.retry import NetworkFailure, Retry
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
    #: Uploads of files.
    UPLOAD = auto()
    #: Downloads of files.
    DOWNLOAD = auto()


class Credential(Enum):
    """The credential of a call, which determines the origins that it may be sent to."""

    #: The account's key, for the platform's own hosts.
    KEY = auto()
    #: A short-lived token, for the CDN.
    CDN_TOKEN = auto()
    #: None: presigned and public URLs, of any origin.
    NONE = auto()


class Content(Protocol):
    """A body that is not held in memory. Each iteration yields the same bytes."""

    @property
    def size(self) -> int:
        """The number of bytes."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]: ...


# These values are not frozen, since that would double the cost of making them.


@dataclass(slots=True)
class Request:
    """An HTTP request without the key, which the dispatcher adds for trusted origins.

    Attributes:
        method: The method.
        url: The URL.
        headers: The request headers, names in lower case.
        content: The body.
        signature: The query of a presigned URL, which permits the request. `url` is without it.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    content: bytes | Content = b""
    signature: Secret | None = None


@dataclass(slots=True, kw_only=True)
class Operation(Generic[T]):
    """One API call.

    Attributes:
        name: The name of the operation, for logs and errors.
        application: The endpoint id.
        request: The request.
        parse: Parses the last response, of any status: returns the value or raises the typed error.
        retry: The rule by which the request may be retried.
        lane: The share of the connections that the request uses.
        request_id: The id of the job; ``None`` if it is unknown.
        is_billable: Whether the request starts something that costs money. Such a request is sent
            once: no lower layer repeats it if it may have reached the platform. All others may be
            repeated, whatever their HTTP method.
        credential: The credential that the request needs.
        max_body: The maximum size of the response, in bytes, decompressed. Less is read of an
            error.
        stage: The stage of the call, for errors; ``None`` for an operation within another.
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

    def transport_error(self, failure: NetworkFailure) -> TransportError:
        """Return the error of a call whose last attempt had no response."""
        if not failure.sent:
            return ConnectionFailedError(
                f"cannot send {self.name} of {self.application!r}: {failure.reason}",
                request_id=self.request_id,
            )
        if self.is_billable:
            return SubmitOutcomeUnknownError(
                self.application, failure.reason, request_id=failure.request_id
            )
        return TransportError(
            f"{self.name} of {self.application!r} had no response: {failure.reason}",
            request_id=self.request_id,
        )


def response_parser(
    parse: Callable[[Response], T], request_id: str | None = None
) -> Callable[[Response], T]:
    """Make a parser of responses, which raises the typed error of an error response."""

    def read(response: Response) -> T:
        raise_for_status(response, request_id=request_id)
        try:
            return parse(response)
        except InvalidResponseError as error:
            error.request_id = error.request_id or request_id  # the job may have succeeded
            raise

    return read


def endpoint_url(base: str, endpoint: Endpoint, path: str, query: Mapping[str, Any]) -> str:
    whole = f"{base}/{endpoint.id}"
    if not isinstance(cast("object", path), str) or path or query:
        encoded, own_query = parse_path(path)
        try:
            encoded_query = urlencode(query, doseq=True)
        except UnicodeEncodeError as error:
            raise InvalidRequestError(
                f"a query parameter must be encodable in UTF-8, got {error.object!r}"
            ) from error
        whole = f"{whole}/{encoded}" if encoded else whole
        queries = "&".join(filter(None, (own_query, encoded_query)))
        whole = f"{whole}?{queries}" if queries else whole
    if len(whole) > MAX_URL_LENGTH:
        raise InvalidRequestError(
            f"a URL must have at most {MAX_URL_LENGTH} characters, got {len(whole)}"
        )
    return whole
