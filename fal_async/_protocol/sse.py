"""Server-sent events decoder, by the specification of the WHATWG.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, cast

from fal_async.errors import InvalidResponseError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["MAX_EVENT_BYTES", "MAX_LINE_BYTES", "Event", "SSEDecoder"]

#: The maximum length of a line, in bytes: several large images as data URIs.
MAX_LINE_BYTES: Final = 64 * 1024 * 1024

#: The maximum total size of the data lines of an event, in bytes.
MAX_EVENT_BYTES: Final = 64 * 1024 * 1024

_BOM: Final = b"\xef\xbb\xbf"
# The operator `in` finds an integer eight times as fast as bytes.
_LF, _CR = b"\n\r"

# More digits than any time needs, and far fewer than `int` rejects.
_MAX_RETRY_DIGITS: Final = 18


class Event(NamedTuple):
    """One event.

    Attributes:
        data: The data lines, joined by line feeds.
        event: The type; ``"message"`` by default.
        id: The last id of this or an earlier event; ``""`` before the first.
        retry: The current reconnection time, in milliseconds; ``None`` if there was none.
    """

    data: bytes
    event: str = "message"
    id: str = ""
    retry: int | None = None

    @property
    def text(self) -> str:
        """The data as text, with U+FFFD for invalid UTF-8."""
        return _text(self.data)


# `Event.__new__` takes half as long again.
_event = cast("Callable[..., Event]", tuple.__new__)  # pyright: ignore[reportUnknownMemberType]


class SSEDecoder:
    r"""A decoder of one stream. Its cost is linear in the bytes, for chunks of any size.

    As specified, an event without a blank line at its end is discarded, since it may be truncated.
    Check `pending` at the end of the stream: an app that crashed closes its connection normally.

    Args:
        max_line_bytes: The maximum length of a line, in bytes.
        max_event_bytes: The maximum total size of several data lines of an event, in bytes. A
            single data line is limited by `max_line_bytes` only.

    Attributes:
        last_event_id: The id to send on reconnection; ``""`` if there is none.
        retry: The reconnection time, in milliseconds; ``None`` if there was none.

    Example:
        >>> decoder = SSEDecoder()
        >>> list(decoder.feed(b"data: 1\n\ndata: 2\n"))
        [Event(data=b'1', event='message', id='', retry=None)]
        >>> decoder.pending
        True
    """

    def __init__(
        self, *, max_line_bytes: int = MAX_LINE_BYTES, max_event_bytes: int = MAX_EVENT_BYTES
    ) -> None:
        self.last_event_id = ""
        self.retry: int | None = None
        self._max_line_bytes = max_line_bytes
        self._max_event_bytes = max_event_bytes
        self._at_start = True
        self._after_cr = False
        self._partial: list[bytes] = []
        self._partial_size = 0
        self._data: list[bytes] = []
        self._data_size = 0
        self._event = ""
        self._id = ""

    @property
    def pending(self) -> bool:
        """True if an event is incomplete. At the end of the stream: whether it was truncated."""
        return bool(self._data) or (bool(self._partial) and not self._partial[0].startswith(b":"))

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Return the events that a chunk completes.

        Raises:
            InvalidResponseError: A line or an event is too long. The iterator raises it after the
                events before it.
        """
        events: list[Event] = []
        try:
            self._read(chunk, events)
        except InvalidResponseError as error:
            return _raise_after(events, error)
        return iter(events)

    def _read(self, chunk: bytes, events: list[Event]) -> None:
        """Append the events of a chunk. Most consist of one data line, and need few steps."""
        first, *rest = chunk.split(b"\n\ndata: ")
        if not rest or _CR in chunk:
            self._read_lines(chunk, events)
            return
        self._read_lines(first + b"\n\n", events)
        last = rest.pop()
        limit = self._max_line_bytes - len(b"data: ")
        for data in rest:
            if _LF in data or len(data) > limit:
                self._read_lines(b"data: %b\n\n" % data, events)
            else:
                events.append(_event(Event, (data, "message", self._id, self.retry)))
        self._read_lines(b"data: " + last, events)

    def _read_lines(self, chunk: bytes, events: list[Event]) -> None:
        """Append the events that the lines of a chunk complete."""
        limit = self._max_line_bytes
        data = self._data
        for line in self._complete_lines(chunk):
            if line:
                if len(line) > limit:
                    raise _too_long("a line", limit)
                if line[:6] == b"data: " and not data:  # most lines
                    data.append(line[6:])
                else:
                    self._read_field(line)
                continue
            kind, self._event = self._event, ""
            self.last_event_id = self._id
            if data:
                content = data[0] if len(data) == 1 else b"\n".join(data)
                data.clear()
                events.append(_event(Event, (content, kind or "message", self._id, self.retry)))
        if self._partial_size > limit:
            raise _too_long("a line", limit)

    def _complete_lines(self, chunk: bytes) -> list[bytes]:
        if self._at_start:
            chunk = self._pop_partial(chunk)
            if len(chunk) < len(_BOM) and _BOM.startswith(chunk):
                self._buffer_partial(chunk)
                return []
            self._at_start = False
            chunk = chunk.removeprefix(_BOM)
        if self._after_cr and chunk:
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        if _LF not in chunk and _CR not in chunk:
            self._buffer_partial(chunk)
            return []
        self._after_cr = chunk.endswith(b"\r")
        lines = chunk.splitlines()  # of bytes, so only at CR, LF and CRLF
        rest = b"" if self._after_cr or chunk.endswith(b"\n") else lines.pop()
        if self._partial:
            lines[0] = self._pop_partial(lines[0])
        self._buffer_partial(rest)
        return lines

    def _buffer_partial(self, part: bytes) -> None:
        """Keep an incomplete line."""
        if part:
            self._partial.append(part)
            self._partial_size += len(part)

    def _pop_partial(self, end: bytes) -> bytes:
        whole = b"".join([*self._partial, end])
        self._partial.clear()
        self._partial_size = 0
        return whole

    def _read_field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            if len(self._data) < 2:  # single data lines are not counted
                self._data_size = sum(len(line) + 1 for line in self._data)
            self._data.append(value)
            self._data_size += len(value) + 1
            if self._data_size > self._max_event_bytes + 1:
                raise _too_long("the data of an event", self._max_event_bytes)
        elif name == b"event":
            self._event = _text(value)
        elif name == b"id" and b"\0" not in value:
            self._id = _text(value)
        elif name == b"retry" and value.isdigit() and len(value) <= _MAX_RETRY_DIGITS:
            self.retry = int(value)


def _raise_after(events: list[Event], error: InvalidResponseError) -> Iterator[Event]:
    yield from events
    raise error


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _too_long(subject: str, limit: int) -> InvalidResponseError:
    return InvalidResponseError(f"{subject} in a stream of events is longer than {limit} bytes")
