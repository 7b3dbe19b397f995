"""The events of an app's stream: what each one carries, and whether it is an error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import orjson

from fal_async.errors import StreamError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fal_async._protocol.sse import Event

__all__ = ["DONE", "read_event"]

#: What some apps send as the last event of a stream.
DONE: Final = "[DONE]"


def read_event(event: Event, *, request_id: str | None = None) -> Any:
    """The decoded JSON of an event, or its text where it is not JSON.

    Raises:
        StreamError: The event is an error: it is named so, or is an object that says so.
    """
    value = _decode(event.data)
    fields = _fields(value)
    if event.event == "error" or _is_error(fields):
        raise StreamError(_reason(fields) or str(value), value, request_id=request_id)
    return value


def _decode(data: str) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return data


def _fields(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def _is_error(fields: Mapping[str, Any]) -> bool:
    """Whether an object is a workflow's error, the platform's, or an app's with an ``error``."""
    error = fields.get("error")
    return (
        fields.get("type") in {"error", "x-fal-error"}
        or "error_type" in fields
        or (isinstance(error, str) and error != "")
        or bool(_fields(error))
    )


def _reason(fields: Mapping[str, Any]) -> str:
    for name in ("message", "detail", "reason", "error"):
        value: object = fields.get(name)
        if value:
            return value if isinstance(value, str) else _text(value)
    return ""


def _text(value: object) -> str:
    return orjson.dumps(value).decode()
