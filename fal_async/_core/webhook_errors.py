"""The exceptions of webhooks."""

from __future__ import annotations

from fal_async._core.annotations import set_module
from fal_async._core.exceptions import FalClientError

__all__ = [
    "ForeignWebhookError",
    "InvalidWebhookEventError",
    "InvalidWebhookSignatureError",
    "UnknownJobError",
    "UnverifiedWebhookError",
    "WebhookError",
]


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
