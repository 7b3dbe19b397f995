"""Framing of HTTP responses on a WebSocket: a start, chunks of the body, an end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from fal_async._protocol.serialization import decode_json, object_or_empty
from fal_async.errors import InvalidResponseError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fal_async._config import Hosts
    from fal_async._protocol.endpoint import Endpoint

__all__ = ["BodyChunk", "ResponseDecoder", "ResponseEnd", "ResponseStart", "endpoint_url"]


@dataclass(frozen=True, slots=True)
class ResponseStart:
    """The start of a response.

    Attributes:
        request_id: The id of the request.
        status_code: The HTTP status.
        headers: The response headers, with names in lower case.
    """

    request_id: str
    status_code: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class BodyChunk:
    """A chunk of the body."""

    content: bytes


@dataclass(frozen=True, slots=True)
class ResponseEnd:
    """The end of a response.

    Attributes:
        time_to_first_byte: The time until the app responded, in seconds; ``None`` if unknown.
    """

    time_to_first_byte: float | None = None


Frame: TypeAlias = ResponseStart | BodyChunk | ResponseEnd


class ResponseDecoder:
    """A decoder of the messages of one connection.

    A text message is a control message if it is a JSON object with ``type`` and ``request_id``.
    Chunks of bodies may look the same, so a start is only valid between responses, and an end only
    within one.
    """

    def __init__(self) -> None:
        self._request_id: str | None = None

    @property
    def within(self) -> bool:
        """True if a response has started and not ended."""
        return self._request_id is not None

    def read(self, message: str | bytes | memoryview) -> Frame:
        """Decode the next message.

        Raises:
            InvalidResponseError: The message is invalid at this point.
        """
        meta = _meta(message)
        if self._request_id is None:
            status = None if meta is None or meta["type"] != "start" else meta.get("status")
            if meta is None or not isinstance(status, int) or not 100 <= status <= 999:
                raise InvalidResponseError(
                    "a response over the WebSocket did not begin with its start"
                )
            self._request_id = request_id = meta["request_id"]
            headers = object_or_empty(meta.get("headers"))
            lowered = {name.lower(): str(value) for name, value in headers.items()}
            return ResponseStart(request_id, status, lowered)
        if meta is None or meta["type"] != "end":
            return BodyChunk(message.encode() if isinstance(message, str) else bytes(message))
        if meta["request_id"] != self._request_id:
            raise InvalidResponseError(
                f"the response to {self._request_id!r} ended as that to {meta['request_id']!r}",
                request_id=self._request_id,
            )
        self._request_id = None
        seconds = meta.get("time_to_first_byte_seconds")
        return ResponseEnd(float(seconds) if isinstance(seconds, int | float) else None)


def _meta(message: str | bytes | memoryview) -> Mapping[str, Any] | None:
    if not isinstance(message, str) or not message.lstrip().startswith("{"):
        return None
    try:
        value = decode_json(message)
    except ValueError:
        return None
    is_meta = isinstance(value.get("type"), str) and isinstance(value.get("request_id"), str)
    return cast("Mapping[str, Any]", value) if is_meta else None


def endpoint_url(hosts: Hosts, endpoint: Endpoint) -> str:
    """Return the URL for requests to an endpoint over a WebSocket."""
    return f"{hosts.ws}/{endpoint}"
