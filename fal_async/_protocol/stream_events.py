"""The events of an app's stream: what each one carries, and whether it is an error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from fal_async._protocol.serialization import decode_json, json_text
from fal_async.errors import StreamError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fal_async._protocol.sse import Event

__all__ = ["read_events"]

#: The last event of streams in the style of OpenAI: not JSON, and nothing that the app has made.
_DONE: Final = b"[DONE]"


def read_events(events: Iterable[Event], *, request_id: str | None = None) -> Iterator[Any]:
    """The decoded JSON of each event that has data, or its text where it is not JSON.

    The ``[DONE]`` that some apps send at the end is not an event of theirs, and is left out.

    Raises:
        StreamError: An event is an error: it is named so, or is an object that says so.
    """
    for data, kind, _, _ in events:
        if not data:
            continue
        try:
            value: Any = decode_json(data)
        except ValueError:
            if data == _DONE:
                continue
            value = _read_text(data)
        if kind == "error" or _is_error(value):
            raise StreamError(_reason(value) or json_text(value), value, request_id=request_id)
        yield value


def _read_text(data: bytes) -> Any:
    """The text of an event, or its JSON where only the encoding is wrong."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        text = data.decode("utf-8", "replace")
    try:
        return decode_json(text)
    except ValueError:
        return text


def _is_error(value: object) -> bool:
    """Whether it is a workflow's error, the platform's, or an app's object with an ``error``."""
    if not isinstance(value, dict):
        return False
    fields = cast("Mapping[str, Any]", value)
    error = fields.get("error")
    if error and isinstance(error, str | dict):
        return True
    return fields.get("type") in ("error", "x-fal-error") or "error_type" in fields


def _reason(value: object) -> str:
    fields = cast("Mapping[str, Any]", value if isinstance(value, dict) else {})
    for name in ("message", "detail", "reason", "error"):
        reason: object = fields.get(name)
        if reason:
            return json_text(reason)
    return ""
