"""App stream events and error events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from fal_async._protocol.serialization import decode_json, json_text
from fal_async.errors import StreamError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fal_async._protocol.sse import Event

__all__ = ["read_events"]

#: The last event of streams in the style of OpenAI, which is not JSON.
_DONE: Final = b"[DONE]"
#: The keys of error events. An event without any of them is no error, as most are not.
_ERROR_KEYS: Final = frozenset({"error", "error_type", "type"})


def read_events(events: Iterable[Event], *, request_id: str | None = None) -> Iterator[Any]:
    """Yield the data of each event, as decoded JSON or else as text.

    The ``[DONE]`` that some apps send at the end is omitted.

    Raises:
        StreamError: An event is an error, by its type or its data.
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
    """Return the text of an event, or its JSON if only the encoding is invalid."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        text = data.decode("utf-8", "replace")
    try:
        return decode_json(text)
    except ValueError:
        return text


def _is_error(value: object) -> bool:
    """Return whether an event is an error of a workflow, the platform or the app."""
    if not isinstance(value, dict) or _ERROR_KEYS.isdisjoint(value):  # pyright: ignore[reportUnknownArgumentType]
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
