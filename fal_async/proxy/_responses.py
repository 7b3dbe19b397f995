"""Responses to visitors: of the platform, as it sent them, and of the proxy itself."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from fal_async._http.response import ExchangeFailed
from fal_async._protocol.response import is_event_stream
from fal_async._protocol.serialization import encode_json
from fal_async.errors import (
    ClientClosedError,
    MissingCredentialsError,
    StreamInterruptedError,
    SubmitOutcomeUnknownError,
    TransportError,
)
from fal_async.proxy._request import Rejection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, MutableMapping

    from fal_async._http.response import StreamedResponse
    from fal_async._protocol.response import Response
    from fal_async.errors import FalClientError

    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

__all__ = [
    "EXPOSED",
    "rejection_from_error",
    "send_body",
    "send_head",
    "send_rejection",
    "stream_response",
]

_log = logging.getLogger("fal_async")

#: The response headers that pages of other origins may read.
EXPOSED: Final = (
    "retry-after",
    "x-fal-billable-units",
    "x-fal-error-type",
    "x-fal-needs-retry",
    "x-fal-request-id",
    "x-fal-request-timeout-type",
)
#: Headers of the platform that visitors receive, besides those that begin with ``x-fal-``.
_RETURNED: Final = frozenset(
    {"cache-control", "content-disposition", "content-type", "retry-after"}
)
_NOT_RETURNED: Final = frozenset({"x-fal-cdn-token", "x-fal-stop-runner", "x-fal-target-url"})


async def send_head(send: Send, response: Response) -> None:
    """Send status and headers of a response of the platform that is here completely."""
    headers = _returned_headers(response.headers)
    headers.append((b"content-length", b"%d" % len(response.body)))
    await _start(send, response.status_code, headers)


async def send_body(send: Send, response: Response) -> None:
    """Send the body of such a response."""
    await send({"type": "http.response.body", "body": response.body})


async def stream_response(send: Send, response: StreamedResponse) -> None:
    """Send a response of the platform as it arrives, no faster than the visitor receives it.

    Raises:
        StreamInterruptedError: The response was truncated. The server closes the connection then,
            so that the visitor does not see a normal end.
    """
    headers = _returned_headers(response.headers)
    length = response.headers.get("content-length")
    if length is not None and "content-encoding" not in response.headers:
        headers.append((b"content-length", length.encode("latin-1")))
    if is_event_stream(response.headers):
        headers.append((b"x-accel-buffering", b"no"))  # nginx would delay events
    await _start(send, response.status_code, headers)
    try:
        while (chunk := await response.next_chunk()) is not None:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    except ExchangeFailed as error:
        raise StreamInterruptedError(str(error), 0) from error.__cause__
    await send({"type": "http.response.body"})


async def send_rejection(send: Send, rejection: Rejection) -> None:
    """Send a response of the proxy itself, in the form of the official server proxy."""
    body = encode_json(rejection.body)
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        **rejection.headers,
    }
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await _start(send, rejection.status, raw)
    await send({"type": "http.response.body", "body": body})


def rejection_from_error(error: FalClientError) -> Rejection | None:
    """Return the response for a request that was not forwarded, or had no response.

    ``None`` for other errors, which the service must see.
    """
    match error:
        case StreamInterruptedError():
            return None
        case SubmitOutcomeUnknownError():
            # The official client sends a request again after a 502, and would pay for it twice.
            rejection = Rejection(500, "Internal Server Error")
        case TransportError():
            rejection = Rejection(502, "Bad Gateway")
        case ClientClosedError():
            rejection = Rejection(503, "Service Unavailable")
        case MissingCredentialsError():
            rejection = Rejection(401, "Unauthorized")
        case _:
            return None
    _log.warning("Cannot forward a request of a visitor: %s", error)
    return rejection


def _returned_headers(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in headers.items()
        if name in _RETURNED or (name.startswith("x-fal-") and name not in _NOT_RETURNED)
    ]


async def _start(send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
