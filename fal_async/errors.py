"""Every error of the library, by what the caller can do about it.

::

    FalClientError
    ├── MissingCredentialsError          set FAL_KEY or pass key=
    ├── InvalidRequestError              fix the call (also a ValueError); nothing was sent
    ├── ClientClosedError                use a client that is open
    ├── FalClientTimeoutError            your deadline passed (also a TimeoutError)
    ├── TransportError                   no response: the network, or a peer that broke off
    │   ├── ConnectionFailedError        nothing was sent, safe to repeat
    │   ├── StreamInterruptedError            the connection of a stream was lost on the way
    │   ├── RealtimeDisconnectedError    the socket has closed: connect again
    │   └── SubmitOutcomeUnknownError    a job may have been started, look before repeating
    ├── StreamError                      the app broke off the stream and says why
    ├── UploadError                      the file changed, or could not be read to its end
    ├── InvalidResponseError                a response that is not what the protocol says
    ├── RealtimeError                    the app ended the session (also a RuntimeError)
    └── FalClientHTTPError               the platform answered with an error status
        ├── AuthenticationError          401: the key is wrong
        ├── PermissionDeniedError        403: the key may not do this
        │   └── AccountLockedError       403: top up the balance, or ask support
        ├── NotFoundError                404: wrong endpoint or request id, or expired
        ├── InvalidInputError            400, 422: fix the arguments
        │   └── ContentPolicyError       422: the content was refused
        ├── RateLimitError               429: slow down
        ├── JobCancelledError            499: the job was cancelled
        └── ServerError                  5xx: not your fault
            └── StartTimeoutError        504: your start_timeout passed before a runner was free

Each error carries its facts as attributes, can be hashed, copied and pickled, and never holds a
key.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 -- pydantic reads the fields of dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import httpx

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
    "InvalidInputError",
    "InvalidRequestError",
    "InvalidResponseError",
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
    "UploadError",
]


class FalClientError(Exception):
    """The root of every error that the library raises.

    Attributes:
        stage: What the call was doing. ``"upload"``: it sent files, those of arguments included.
            ``"submit"``: it was about to hand a job over, or was refused one. ``"wait"``: it asked
            how a queue job stands. ``"job"``: the job itself, which runs while `run` and `stream`
            wait for it, or has ended with an error of its own. ``"result"``: it fetched or checked
            an output. ``"download"``: it received a file. ``None`` where none of these applies.
        started: Whether the call has started a job, or was about one that had been started: true
            or false where that is certain, ``None`` where it is not known. After false, the call
            can be repeated without being charged twice.
    """

    stage: Stage | None = None
    started: bool | None = None

    def __str__(self) -> str:
        # Text of peers may hold lone surrogates, which no log and no terminal takes.
        return self._describe().encode(errors="backslashreplace").decode()

    def _describe(self) -> str:
        return super().__str__()

    def __reduce__(self) -> tuple[Callable[..., Self], tuple[tuple[Any, ...], dict[str, Any]]]:
        return self._unpickle, (self.args, self.__dict__.copy())

    @classmethod
    def _unpickle(cls, args: tuple[Any, ...], attributes: dict[str, Any]) -> Self:
        error = cls.__new__(cls, *args)
        error.args = args
        error.__dict__.update(attributes)
        return error


class MissingCredentialsError(FalClientError):
    """No usable credentials were found; the message names every place that was looked at."""

    started: bool | None = False


class InvalidRequestError(FalClientError, ValueError):
    """The call itself is wrong. It was found before anything was sent."""

    started: bool | None = False


class ClientClosedError(FalClientError):
    """The client was closed before or during the call.

    Attributes:
        request_id: The id of the job that the call was about, or ``None``.
        uncancelled: The ids of jobs that the call has started and that could not be cancelled, so
            they may be running; empty as a rule.
    """

    def __init__(
        self, message: str, *, request_id: str | None = None, uncancelled: Sequence[str] = ()
    ) -> None:
        super().__init__(message)
        self.request_id = request_id
        self.uncancelled: tuple[str, ...] = tuple(uncancelled)


class FalClientTimeoutError(FalClientError, TimeoutError):
    """The deadline that the caller gave has passed.

    Attributes:
        timeout: The deadline, in seconds from the start of the call.
        request_id: The id of the job, or ``None`` when it was not known yet.
        last_status: The last status that was seen, or ``None``.
        waiting_for: The limit of the client that the call was waiting for, such as
            ``"limits.held (1000)"``: others of its calls had taken all of it, and nothing was sent
            meanwhile. ``None`` when the call was waiting for the platform.
        uncancelled: The ids of jobs that the call has started and that could not be cancelled, so
            they may be running; empty as a rule. It is empty for calls that leave jobs alone.
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
        super().__init__(timeout)  # a second one would be taken for the text of an OSError
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
    """The exchange broke before a whole response had arrived.

    Attributes:
        request_id: The id of the job that the exchange was about, or ``None``.
    """

    def __init__(self, message: str, *, request_id: str | None = None) -> None:
        super().__init__(message)
        self.request_id = request_id


class ConnectionFailedError(TransportError):
    """No connection could be made, so nothing was sent."""

    started: bool | None = False


class StreamInterruptedError(TransportError):
    """The connection of a stream was lost before its end. What had arrived was delivered.

    Attributes:
        events: How many events, or chunks of bytes, had arrived.
    """

    stage: Stage | None = "job"
    started: bool | None = True

    def __init__(self, reason: str, events: int, *, request_id: str | None = None) -> None:
        super().__init__(reason, request_id=request_id)
        self.events = events

    def _describe(self) -> str:
        return f"the stream broke off after {self.events} events: {self.args[0]}"


class RealtimeDisconnectedError(TransportError):
    """The socket of a session is closed, by either side or by a broken network.

    Attributes:
        close_code: The code of the close, such as 1000 for a normal one; 1006 when the connection
            was lost without a word.
        close_reason: What the other side gave as its reason; may be empty.
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
    """A call that starts a paid job was sent, and its response was lost.

    The platform has no way to ask whether the job exists, and sending the call again could start
    (and bill) a second one. So the library does not: whether to repeat is for the caller to decide.

    Attributes:
        application: The endpoint id that was called.
        reason: What broke, in words.
        request_id: The id of the job, where the beginning of the response still told it: then the
            job
            can be collected. ``None`` as a rule.
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
    """What was to be uploaded is not what it was: it changed, or could not be read to its end.

    Attributes:
        uploaded: How many bytes had been uploaded.
        size: How many bytes there should have been; ``None`` when that was not known.
    """

    stage: Stage | None = "upload"
    started: bool | None = False

    def __init__(self, reason: str, uploaded: int = 0, size: int | None = None) -> None:
        super().__init__(reason)
        self.uploaded = uploaded
        self.size = size


class InvalidResponseError(FalClientError):
    """A response arrived whole, but it is not what the protocol says it should be.

    Attributes:
        request_id: The id of the request, or ``None``.
        body: What came instead of an output: the decoded output that does not match what was asked
            for, or the bytes that cannot be decoded; ``None`` where nothing was to be had.
    """

    def __init__(self, message: str, *, request_id: str | None = None, body: Any = None) -> None:
        super().__init__(message)
        self.request_id = request_id
        self.body: Any = body


class StreamError(FalClientError):
    """The app sent an error in the midst of a stream. What came before it was delivered.

    Attributes:
        message: What went wrong, for people.
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
    """The app of a realtime session answered with an error. The session is over after it.

    Attributes:
        error: The kind of error, such as ``"INTERNAL_ERROR"``, or ``"TIMEOUT"`` for a session that
            was idle for too long or has come to its end.
        reason: What went wrong, for people; may be empty.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorDetail:
    """One thing that is wrong with the input of a model.

    Attributes:
        message: The text for people.
        type: The kind of problem, for programs, such as ``"image_too_small"``.
        loc: Where it is, such as ``("body", "image_url")``.
        ctx: Facts about the limit that was broken, such as ``{"min_width": 64}``.
        url: A page that explains the kind, or ``None``.
    """

    message: str
    type: str
    loc: tuple[str | int, ...] = ()
    ctx: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)
    url: str | None = None


class FalClientHTTPError(FalClientError):
    """The platform answered, with an error status.

    Attributes:
        message: What went wrong, always one string.
        status_code: The HTTP status.
        error_type: The platform's name for the error, or ``None``.
        problems: What is wrong with the input, item by item; empty when the error is of another
            kind.
        request_id: The id of the request, or ``None``.
        retry_after: How many seconds the platform asks to wait, or ``None``.
        retryable: Whether the platform says that the same call may succeed later.
        response_headers: The headers of the response, names in lower case.
        body: The response's decoded JSON, or its text.

    Example:
        >>> error = fal_async.FalClientHTTPError("too small", 422, body={"detail": "too small"})
        >>> error.response.json()
        {'detail': 'too small'}
    """

    _response: httpx.Response | None = None

    def __init__(
        self,
        message: str,
        status_code: int,
        response_headers: Mapping[str, str] | None = None,
        response: httpx.Response | None = None,
        error_type: str | None = None,
        *,
        details: Sequence[ErrorDetail] = (),
        request_id: str | None = None,
        retry_after: float | None = None,
        retryable: bool = False,
        body: Any = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status_code = status_code
        self.error_type = error_type
        self.details: tuple[ErrorDetail, ...] = tuple(details)
        self.request_id = request_id
        self.retry_after = retry_after
        self.retryable = retryable
        self.response_headers: Mapping[str, str] = dict(response_headers or {})
        self.body = body
        if response is not None:
            self._response = response

    @property
    def response(self) -> httpx.Response:
        """The response for code that reads httpx's, made of the status, the headers and the body.

        It knows no request, so that no key is in it.
        """
        if self._response is None:
            import httpx  # slower to import than this package; a value, so no input or output

            about_the_wire = {"content-encoding", "content-length", "transfer-encoding"}
            headers = {
                name: value
                for name, value in self.response_headers.items()
                if name.lower() not in about_the_wire
            }
            if isinstance(self.body, str) or self.body is None:
                self._response = httpx.Response(
                    self.status_code, headers=headers, text=self.body or self.message
                )
            else:
                self._response = httpx.Response(self.status_code, headers=headers, json=self.body)
        return self._response

    def __reduce__(self) -> tuple[Callable[..., Self], tuple[tuple[Any, ...], dict[str, Any]]]:
        unpickle, (args, attributes) = super().__reduce__()
        attributes.pop("_response", None)  # its request may hold the key
        return unpickle, (args, attributes)

    def _describe(self) -> str:
        facts = [f"HTTP {self.status_code}"]
        if self.error_type is not None:
            facts.append(self.error_type)
        if self.request_id is not None:
            facts.append(f"request {self.request_id}")
        return f"{self.message} ({', '.join(facts)})"


class AuthenticationError(FalClientHTTPError):
    """The credentials are wrong or have expired."""


class PermissionDeniedError(FalClientHTTPError):
    """The credentials are known but may not do this."""


class AccountLockedError(PermissionDeniedError):
    """The account is locked, most often because its balance is used up."""


class NotFoundError(FalClientHTTPError):
    """There is no such endpoint or request, or the request's result has expired."""


class InvalidInputError(FalClientHTTPError):
    """The model refuses the input; `details` says what is wrong with it, item by item."""


class ContentPolicyError(InvalidInputError):
    """The input or the output was refused by a content policy."""


class RateLimitError(FalClientHTTPError):
    """Too many requests run or wait at this moment."""


class JobCancelledError(FalClientHTTPError):
    """The job was cancelled, so there is no result."""


class ServerError(FalClientHTTPError):
    """The platform or the runner failed."""


class StartTimeoutError(ServerError):
    """The job did not start within the `start_timeout` that was asked for."""
