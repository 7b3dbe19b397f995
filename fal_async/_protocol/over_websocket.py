"""HTTP replies carried over a WebSocket: a start, parts of the body, an end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from fal_async._protocol.bodies import decode_json
from fal_async.errors import InvalidReplyError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fal_async._config import Hosts
    from fal_async._protocol.endpoint import Endpoint

__all__ = ["Chunk", "End", "ReplyFrames", "Start", "carrier_url"]


@dataclass(frozen=True, slots=True)
class Start:
    """A reply begins.

    Attributes:
        request_id: The id of the request.
        status_code: The HTTP status.
        headers: Names in lower case.
    """

    request_id: str
    status_code: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of the body."""

    content: bytes


@dataclass(frozen=True, slots=True)
class End:
    """A reply is complete.

    Attributes:
        time_to_first_byte: How long the app took to begin, in seconds; ``None`` if not told.
    """

    time_to_first_byte: float | None = None


Frame: TypeAlias = Start | Chunk | End


class ReplyFrames:
    """Reads the messages of one connection, reply after reply.

    A text message is about the reply, not of it, when it is a JSON object with ``type`` and
    ``request_id``. Bodies may look like that, so such a message is taken for what it says only
    where that can be: a start between replies, an end within one.
    """

    def __init__(self) -> None:
        self._request_id: str | None = None

    @property
    def within(self) -> bool:
        """Whether a reply has begun and not ended."""
        return self._request_id is not None

    def read(self, message: str | bytes | bytearray) -> Frame:
        """What the next message is.

        Raises:
            InvalidReplyError: There is no place for it here.
        """
        meta = _meta(message)
        if self._request_id is None:
            return self._begin(meta)
        if meta is None or meta["type"] != "end":
            return Chunk(message.encode() if isinstance(message, str) else bytes(message))
        if meta["request_id"] != self._request_id:
            raise InvalidReplyError(
                f"the reply to {self._request_id!r} ended as that to {meta['request_id']!r}",
                request_id=self._request_id,
            )
        self._request_id = None
        seconds = meta.get("time_to_first_byte_seconds")
        return End(float(seconds) if isinstance(seconds, int | float) else None)

    def _begin(self, meta: Mapping[str, Any] | None) -> Start:
        status = None if meta is None or meta["type"] != "start" else meta.get("status")
        if meta is None or not isinstance(status, int) or not 100 <= status <= 999:
            raise InvalidReplyError("a reply over the WebSocket did not begin with its start")
        self._request_id = meta["request_id"]
        headers = meta.get("headers")
        fields = cast("dict[str, Any]", headers) if isinstance(headers, dict) else {}
        return Start(
            meta["request_id"],
            status,
            {name.lower(): str(value) for name, value in fields.items()},
        )


def _meta(message: str | bytes | bytearray) -> Mapping[str, Any] | None:
    if not isinstance(message, str) or not message.lstrip().startswith("{"):
        return None
    try:
        value = decode_json(message)
    except ValueError:
        return None
    is_meta = isinstance(value.get("type"), str) and isinstance(value.get("request_id"), str)
    return cast("Mapping[str, Any]", value) if is_meta else None


def carrier_url(hosts: Hosts, endpoint: Endpoint) -> str:
    """Where requests to an endpoint are carried over a WebSocket."""
    return f"{hosts.ws}/{endpoint}"
