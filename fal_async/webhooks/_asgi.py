"""Callbacks as requests of ASGI: their bodies, and the statuses of responses."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from fal_async.errors import (
    InvalidWebhookEventError,
    InvalidWebhookSignatureError,
    WebhookError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

__all__ = [
    "DETAILS",
    "DisconnectedError",
    "Receive",
    "Scope",
    "Send",
    "iter_body",
    "read_body",
    "send_response",
    "status_code",
]

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

#: The texts of responses. The reasons are logged, since they are of no use to a forger.
DETAILS: Final = {
    200: "received",
    400: "the body is no event",
    401: "the signature is invalid",
    405: "the method must be POST",
    413: "the body is too large",
    500: "the event was not handled",
    503: "not now: send it again",
}


class DisconnectedError(Exception):
    """The peer has disconnected within its request."""


def status_code(error: WebhookError) -> int:
    """Return the status of the response to a callback that was not accepted."""
    if isinstance(error, InvalidWebhookSignatureError):
        return 401
    # All others may succeed when the platform sends the callback again.
    return 400 if isinstance(error, InvalidWebhookEventError) else 503


async def iter_body(receive: Receive) -> AsyncGenerator[bytes, None]:
    """Iterate over the body of a request.

    Raises:
        DisconnectedError: The peer has disconnected before its end.
    """
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise DisconnectedError
        yield message.get("body", b"")
        more = message.get("more_body", False)


async def read_body(chunks: AsyncIterator[bytes], length: str | None, limit: int) -> bytes | None:
    """Read the body of a request; ``None`` for one that is too large, which is not read to its end.

    Args:
        chunks: The body.
        length: The value of the Content-Length header; ``None`` if there is none.
        limit: The maximum size, in bytes.
    """
    if length is not None and length.isdecimal() and int(length) > limit:
        return None
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > limit:
            return None
    return bytes(body)


async def send_response(send: Send, status: int) -> None:
    """Send a response with the text of its status."""
    body = json.dumps({"detail": DETAILS[status]}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    if status == 405:
        headers.append((b"allow", b"POST"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
