"""The exception hierarchy, ordered by what the caller can do about an error.

::

    FalClientError
    ├── MissingCredentialsError          set FAL_KEY or pass key=
    ├── InvalidRequestError              fix the call (also a ValueError); nothing was sent
    ├── ClientClosedError                use a client that is open
    ├── FalClientTimeoutError            your deadline passed (also a TimeoutError)
    ├── TransportError                   no response: the network or the peer failed
    │   ├── ConnectionFailedError        nothing was sent: safe to retry
    │   ├── StreamInterruptedError       the connection of a stream was lost
    │   ├── RealtimeDisconnectedError    the WebSocket is closed: connect again
    │   └── SubmitOutcomeUnknownError    a job may have started: check before you retry
    ├── StreamError                      the app ended the stream with an error
    ├── UploadError                      the file changed, or could not be read to its end
    ├── InvalidResponseError             a response that violates the protocol
    ├── RealtimeError                    the app ended the session (also a RuntimeError)
    ├── WebhookError                     a callback that was not accepted
    │   ├── InvalidWebhookSignatureError it is not from the platform (also a ValueError)
    │   │   └── ForeignWebhookError      it is, but for another account
    │   ├── InvalidWebhookEventError     it is, but holds no event that is known
    │   ├── UnverifiedWebhookError       keys or account were unavailable: have it sent again
    │   └── UnknownJobError              your callback does not know the job yet: likewise
    └── FalClientHTTPError               the platform returned an error status
        ├── AuthenticationError          401: the key is wrong
        ├── PermissionDeniedError        403: the key may not do this
        │   └── AccountLockedError       403: top up the balance, or ask support
        ├── NotFoundError                404: wrong endpoint or request id, or expired
        ├── InvalidInputError            400, 422: fix the arguments
        │   └── ContentPolicyError       422: a content policy rejected the content
        ├── RateLimitError               429: slow down
        ├── JobCancelledError            499: the job was cancelled
        └── ServerError                  5xx: the platform or the runner failed
            └── StartTimeoutError        504: no runner was free within start_timeout

Errors carry their details as attributes, can be hashed, copied, pickled and written as JSON, and
never hold a key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from fal_async._core.annotations import make_resolvable
from fal_async._core.exceptions import ErrorDetail, FalClientError, read_attribute
from fal_async._core.http_errors import (
    AccountLockedError,
    AuthenticationError,
    ContentPolicyError,
    FalClientHTTPError,
    ForeignWebhookError,
    InvalidInputError,
    InvalidWebhookEventError,
    InvalidWebhookSignatureError,
    JobCancelledError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    StartTimeoutError,
    UnknownJobError,
    UnverifiedWebhookError,
    WebhookError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fal_async._core.status import Stage, Status

__all__ = [
    "AccountLockedError",
    "AuthenticationError",
    "ClientClosedError",
    "ConnectionFailedError",
    "ContentPolicyError",
    "ErrorDetail",
    "FalClientError",
    "FalClientHTTPError",
    "FalClientTimeoutError",
    "ForeignWebhookError",
    "InvalidInputError",
    "InvalidRequestError",
    "InvalidResponseError",
    "InvalidWebhookEventError",
    "InvalidWebhookSignatureError",
    "JobCancelledError",
    "MissingCredentialsError",
    "NotFoundError",
    "PermissionDeniedError",
    "RateLimitError",
    "RealtimeDisconnectedError",
    "RealtimeError",
    "ServerError",
    "StartTimeoutError",
    "StreamError",
    "StreamInterruptedError",
    "SubmitOutcomeUnknownError",
    "TransportError",
    "UnknownJobError",
    "UnverifiedWebhookError",
    "UploadError",
    "WebhookError",
    "from_dict",
]


class MissingCredentialsError(FalClientError):
    """No usable credentials were found; the message lists the sources that were searched."""

    started: bool | None = False

    @property
    def final(self) -> bool:
        """Whether the same call fails again until its arguments, the key or the account change."""
        return True


class InvalidRequestError(FalClientError, ValueError):
    """An argument of the call is invalid. Nothing was sent."""

    started: bool | None = False

    @property
    def final(self) -> bool:
        """Whether the same call fails again until its arguments, the key or the account change."""
        return True


class ClientClosedError(FalClientError):
    """The client was closed before or during the call.

    Attributes:
        request_id: The id of the job, or ``None``.
        uncancelled: The ids of jobs that the call started and could not cancel. They may be
            running. Usually empty.
    """

    def __init__(
        self, message: str, *, request_id: str | None = None, uncancelled: Sequence[str] = ()
    ) -> None:
        super().__init__(message)
        self.request_id = request_id
        self.uncancelled: tuple[str, ...] = tuple(uncancelled)


class FalClientTimeoutError(FalClientError, TimeoutError):
    """The deadline of the call has passed.

    Attributes:
        timeout: The deadline, in seconds from the start of the call.
        request_id: The id of the job, or ``None`` when it was not known yet.
        last_status: The last status of the job, or ``None``.
        waiting_for: The limit of the client that the call was waiting for, such as
            ``"limits.held (1000)"``: other calls had used it up, and nothing was sent meanwhile.
            ``None`` if the call was waiting for the platform.
        uncancelled: The ids of jobs that the call started and could not cancel. They may be
            running. Usually empty, and always empty for calls that do not cancel jobs.
    """

    def __init__(
        self,
        timeout: float,
        request_id: str | None = None,
        last_status: Status | None = None,
        *,
        waiting_for: str | None = None,
        uncancelled: Sequence[str] = (),
    ) -> None:
        super().__init__(timeout)  # a second argument would become the text of the OSError
        self.timeout = timeout
        self.request_id = request_id
        self.last_status = last_status
        self.waiting_for = waiting_for
        self.uncancelled: tuple[str, ...] = tuple(uncancelled)

    def _describe(self) -> str:
        subject = "request" if self.request_id is None else f"request {self.request_id}"
        seen = "" if self.last_status is None else f", last seen {self.last_status!r}"
        text = f"{subject} timed out after {self.timeout:g} seconds{seen}"
        if self.waiting_for is None:
            return text
        unsent = "nothing was sent, because " if self.started is False else ""
        return f"{text}; {unsent}other calls of this client had used up {self.waiting_for}"


class TransportError(FalClientError):
    """The request failed before a complete response was received.

    Attributes:
        request_id: The id of the job, or ``None``.
    """

    def __init__(self, message: str, *, request_id: str | None = None) -> None:
        super().__init__(message)
        self.request_id = request_id


class ConnectionFailedError(TransportError):
    """The connection could not be established, so nothing was sent."""

    started: bool | None = False


class StreamInterruptedError(TransportError):
    """The connection of a stream was lost before its end. Earlier events were delivered.

    Attributes:
        events: The number of events, or chunks of bytes, that were received.
    """

    stage: Stage | None = "job"
    started: bool | None = True

    def __init__(self, reason: str, events: int, *, request_id: str | None = None) -> None:
        super().__init__(reason, request_id=request_id)
        self.events = events

    def _describe(self) -> str:
        return f"the stream broke off after {self.events} events: {self.args[0]}"


class RealtimeDisconnectedError(TransportError):
    """The WebSocket of a session was closed by either side, or its connection was lost.

    Attributes:
        close_code: The close code, such as 1000 for a normal closure; 1006 if the connection was
            lost without a close frame.
        close_reason: The reason in the close frame; may be empty.
    """

    stage: Stage | None = "job"

    def __init__(self, close_code: int = 1006, close_reason: str = "") -> None:
        super().__init__(close_reason)
        self.close_code = close_code
        self.close_reason = close_reason

    def _describe(self) -> str:
        reason = f": {self.close_reason}" if self.close_reason else ""
        return f"the socket is closed (code {self.close_code}){reason}"


class SubmitOutcomeUnknownError(TransportError):
    """A request that starts a billable job was sent, and its response was lost.

    A retry could start (and bill) a second job, so the library does not retry: the caller decides.
    ``client.requests.list`` shows whether the job exists, some time after it was received.

    Attributes:
        application: The endpoint id of the call.
        reason: The cause, for people.
        request_id: The id of the job, if the response headers were received: the result can be
            fetched with it. Usually ``None``.
    """

    def __init__(self, application: str, reason: str, *, request_id: str | None = None) -> None:
        super().__init__(reason, request_id=request_id)
        self.application = application
        self.reason = reason

    def _describe(self) -> str:
        known = f" as {self.request_id!r}" if self.request_id else ""
        return (
            f"the call that starts a job on {self.application!r} was sent, but its response was "
            f"lost ({self.reason}); the job may be running{known}, so it was not sent again"
        )


class UploadError(FalClientError):
    """The file of an upload changed meanwhile, or could not be read to its end.

    Attributes:
        uploaded: The number of bytes that were uploaded.
        size: The expected number of bytes; ``None`` if it is unknown.
    """

    stage: Stage | None = "upload"
    started: bool | None = False

    def __init__(self, reason: str, uploaded: int = 0, size: int | None = None) -> None:
        super().__init__(reason)
        self.uploaded = uploaded
        self.size = size


class InvalidResponseError(FalClientError):
    """A complete response violates the protocol, or does not match the type of ``output=``.

    Attributes:
        request_id: The id of the request, or ``None``.
        body: The decoded output that failed validation, or the bytes that cannot be decoded;
            ``None`` if there is neither.
    """

    def __init__(self, message: str, *, request_id: str | None = None, body: Any = None) -> None:
        super().__init__(message)
        self.request_id = request_id
        self.body: Any = body


class StreamError(FalClientError):
    """The app sent an error event. The events before it were delivered.

    Attributes:
        message: The error message, for people.
        payload: The whole event: decoded JSON, or text.
        request_id: The id of the request, or ``None``.
    """

    stage: Stage | None = "job"
    started: bool | None = True

    def __init__(self, message: str, payload: Any, *, request_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.payload = payload
        self.request_id = request_id


class RealtimeError(FalClientError, RuntimeError):
    """The app of a realtime session sent an error, which ends the session.

    Attributes:
        error: The kind of error, such as ``"INTERNAL_ERROR"``, or ``"TIMEOUT"`` for a session that
            was idle for too long or has reached its maximum duration.
        reason: The error message, for people; may be empty.
        payload: The whole message.
    """

    stage: Stage | None = "job"
    started: bool | None = True

    def __init__(
        self, error: str, reason: str = "", payload: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(error, reason)
        self.error = error
        self.reason = reason
        self.payload: Mapping[str, Any] = dict(payload or {})

    def _describe(self) -> str:
        return f"{self.error}: {self.reason}" if self.reason else self.error


def from_dict(data: Mapping[str, Any]) -> FalClientError:
    """Return the error that `FalClientError.to_dict` has written.

    An error of a class that this version does not know is a `FalClientError`.

    Args:
        data: The error as JSON values.

    Raises:
        InvalidRequestError: The data is not the data of an error.

    Example:
        >>> stored = fal_async.NotFoundError("no such request", 404).to_dict()
        >>> fal_async.errors.from_dict(stored)
        NotFoundError('no such request')
    """
    if not isinstance(cast("object", data), Mapping) or not isinstance(data.get("type"), str):
        raise InvalidRequestError("data must be that of an error, with its 'type'")
    found = globals().get(data["type"])
    is_known = isinstance(found, type) and issubclass(found, FalClientError)
    kind = cast("type[FalClientError]", found) if is_known else FalClientError
    error = kind.__new__(kind)
    attributes: dict[str, Any] = {}
    try:
        error.args = read_attribute("args", data.get("args", [data.get("message", "")]))
        for name, value in data.items():
            # The names of methods and properties, such as `final`, are no attributes.
            if name in {"stage", "started"} or not (name[:1] == "_" or hasattr(kind, name)):
                attributes[name] = read_attribute(name, value)
    except (TypeError, ValueError, LookupError) as reason:
        raise InvalidRequestError(f"data must be that of an error: {reason}") from reason
    del attributes["type"]
    if isinstance(error, FalClientHTTPError):
        attributes["response_headers"] = {}
    elif not isinstance(error, StreamError):
        attributes.pop("message", None)
    error.__dict__.update(attributes)
    return error


for _public in [globals()[_name] for _name in __all__]:
    make_resolvable(_public)
