"""The exceptions of the messages of the platform: error responses, and webhooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self

from fal_async._core.annotations import set_module
from fal_async._core.exceptions import ErrorDetail, FalClientError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import httpx

__all__ = [
    "AccountLockedError",
    "AuthenticationError",
    "ContentPolicyError",
    "FalClientHTTPError",
    "ForeignWebhookError",
    "InvalidInputError",
    "InvalidWebhookEventError",
    "InvalidWebhookSignatureError",
    "JobCancelledError",
    "NotFoundError",
    "PermissionDeniedError",
    "RateLimitError",
    "ServerError",
    "StartTimeoutError",
    "UnknownJobError",
    "UnverifiedWebhookError",
    "WebhookError",
]

#: Statuses of the kind 4xx after which the same call may succeed.
_PASSING: Final = frozenset({408, 409, 425, 429, 499})


@set_module("fal_async.errors")
class FalClientHTTPError(FalClientError):
    """The platform returned a response with an error status.

    Attributes:
        message: The error message, always a string.
        status_code: The HTTP status code.
        error_type: The platform's name for the error, or ``None``.
        details: The validation errors of the input; empty for errors of another kind.
        request_id: The id of the request, or ``None``.
        retry_after: The number of seconds that the platform asks to wait, or ``None``.
        retryable: Whether the same call may succeed later, according to the platform.
        response_headers: The response headers, with names in lower case.
        body: The response body as decoded JSON, or as text.

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
    def final(self) -> bool:
        """Whether the same call fails again until its arguments, the key or the account change."""
        status = self.status_code
        return 400 <= status < 500 and status not in _PASSING and not self.retryable

    @property
    def response(self) -> httpx.Response:
        """The response as an `httpx.Response`, made from the status, the headers and the body.

        It has no request, whose headers would hold the key.
        """
        if self._response is None:
            import httpx  # slower to import than this package; a value, so no input or output

            transfer_headers = {"content-encoding", "content-length", "transfer-encoding"}
            headers = {
                name: value
                for name, value in self.response_headers.items()
                if name.lower() not in transfer_headers
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
        details = [f"HTTP {self.status_code}"]
        if self.error_type is not None:
            details.append(self.error_type)
        if self.request_id is not None:
            details.append(f"request {self.request_id}")
        return f"{self.message} ({', '.join(details)})"


@set_module("fal_async.errors")
class AuthenticationError(FalClientHTTPError):
    """The credentials are invalid or have expired."""


@set_module("fal_async.errors")
class PermissionDeniedError(FalClientHTTPError):
    """The credentials are valid but do not permit the call."""


@set_module("fal_async.errors")
class AccountLockedError(PermissionDeniedError):
    """The account is locked, usually because its balance is used up."""


@set_module("fal_async.errors")
class NotFoundError(FalClientHTTPError):
    """The endpoint or the request does not exist, or the result has expired."""


@set_module("fal_async.errors")
class InvalidInputError(FalClientHTTPError):
    """The model rejected the input; `details` lists the validation errors."""


@set_module("fal_async.errors")
class ContentPolicyError(InvalidInputError):
    """A content policy rejected the input or the output."""


@set_module("fal_async.errors")
class RateLimitError(FalClientHTTPError):
    """Too many requests are running or waiting."""


@set_module("fal_async.errors")
class JobCancelledError(FalClientHTTPError):
    """The job was cancelled, so it has no result."""


@set_module("fal_async.errors")
class ServerError(FalClientHTTPError):
    """The platform or the runner failed."""


@set_module("fal_async.errors")
class StartTimeoutError(ServerError):
    """The job did not start within `start_timeout`."""


@set_module("fal_async.errors")
class WebhookError(FalClientError):
    """A callback of the platform was not accepted."""


@set_module("fal_async.errors")
class InvalidWebhookSignatureError(WebhookError, ValueError):
    """The callback is not from the platform, was changed on its way, or is too old.

    Respond with status 401.
    """


@set_module("fal_async.errors")
class ForeignWebhookError(InvalidWebhookSignatureError):
    """The platform has signed the callback for another account.

    The platform signs for all accounts with the same keys, so anybody with an account can have such
    callbacks sent to you.

    Attributes:
        user_id: The account that the callback is signed for.
    """

    def __init__(self, message: str, user_id: str) -> None:
        super().__init__(message)
        self.user_id = user_id


@set_module("fal_async.errors")
class InvalidWebhookEventError(WebhookError):
    """The signature of the callback is valid, but its body is no event that the library knows.

    Attributes:
        body: The body.
    """

    def __init__(self, message: str, body: bytes = b"") -> None:
        super().__init__(message)
        self.body = body


@set_module("fal_async.errors")
class UnverifiedWebhookError(WebhookError):
    """The callback could not be checked: the keys, or the account, were not available.

    Respond with status 503, so that the platform sends it again.
    """


@set_module("fal_async.errors")
class UnknownJobError(WebhookError):
    """The job of a callback is not known yet; raised by the ``on_event`` of a receiver.

    A callback can arrive before the response to the submit. The receiver then responds with status
    503, and the platform sends the callback again.
    """
