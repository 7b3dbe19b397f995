"""Server-sent events: bytes in, events out, by the rules of the WHATWG.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fal_async.errors import InvalidReplyError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MAX_EVENT_BYTES", "MAX_LINE_BYTES", "Event", "SSEDecoder"]

#: The longest line that is taken, in bytes: several large pictures as data URIs.
MAX_LINE_BYTES: Final = 64 * 1024 * 1024

#: The most that the data lines of one event may hold together, in bytes.
MAX_EVENT_BYTES: Final = 64 * 1024 * 1024

_BOM: Final = b"\xef\xbb\xbf"

# More digits than any time needs, and far fewer than `int` refuses to read.
_MAX_RETRY_DIGITS: Final = 18


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    Attributes:
        data: Its data lines, joined by line feeds.
        event: Its type; ``"message"`` when the server named none.
        id: The last id that was given, with this event or an earlier one; ``""`` before the first.
        retry: The reconnection time in force, in milliseconds; ``None`` while none was named.
    """

    data: str
    event: str = "message"
    id: str = ""
    retry: int | None = None


class SSEDecoder:
    r"""The decoder of one stream. Its cost is linear in the bytes, however they are cut.

    At the end of the stream there is nothing to call: an event that was begun and not ended by a
    blank line is discarded, as the rules ask, since it may be cut anywhere. `pending` tells whether
    that was so: a crashed app ends its stream as neatly as one that has finished.

    Args:
        max_line_bytes: The longest line that is taken, in bytes.
        max_event_bytes: The most that the data lines of one event may hold together, in bytes.

    Attributes:
        last_event_id: The id to name when the stream is opened again; ``""`` when there is none.
        retry: How long to wait before that, in milliseconds; ``None`` when the server did not say.

    Example:
        >>> decoder = SSEDecoder()
        >>> list(decoder.feed(b"data: 1\n\ndata: 2\n"))
        [Event(data='1', event='message', id='', retry=None)]
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
        self._partial = bytearray()
        self._data = bytearray()
        self._event = ""
        self._id = ""

    @property
    def pending(self) -> bool:
        """Whether an event was begun and not ended: once the stream is over, whether it was cut."""
        return bool(self._data) or (bool(self._partial) and not self._partial.startswith(b":"))

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Take the next bytes and yield the events that they complete.

        Iterate to the end before feeding on.

        Raises:
            InvalidReplyError: A line or an event is too long. The stream cannot be read on.
        """
        limit = self._max_line_bytes
        for line in self._whole_lines(chunk):
            if len(line) > limit:
                raise _too_long("a line", limit)
            if line:
                self._read_field(line)
            elif event := self._dispatch():
                yield event
        if len(self._partial) > limit:
            raise _too_long("a line", limit)

    def _whole_lines(self, chunk: bytes) -> list[bytes]:
        if self._at_start:
            chunk = self._without_bom(chunk)
        if not chunk:
            return []
        after_cr, self._after_cr = self._after_cr, chunk.endswith(b"\r")
        if after_cr:
            chunk = chunk.removeprefix(b"\n")
        lines = chunk.splitlines()  # of bytes: ends at CR, LF and CRLF, and at nothing else
        rest = lines.pop() if lines and not chunk.endswith((b"\r", b"\n")) else b""
        if lines and self._partial:
            lines[0] = bytes(self._partial) + lines[0]
            self._partial.clear()
        self._partial += rest
        return lines

    def _without_bom(self, chunk: bytes) -> bytes:
        head = bytes(self._partial) + chunk
        self._partial.clear()
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._partial += head
            return b""
        self._at_start = False
        return head.removeprefix(_BOM)

    def _read_field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data += value + b"\n"
            if len(self._data) > self._max_event_bytes + 1:
                raise _too_long("the data of an event", self._max_event_bytes)
        elif name == b"event":
            self._event = _text(value)
        elif name == b"id" and b"\0" not in value:
            self._id = _text(value)
        elif name == b"retry" and value.isdigit() and len(value) <= _MAX_RETRY_DIGITS:
            self.retry = int(value)

    def _dispatch(self) -> Event | None:
        self.last_event_id = self._id
        event, self._event = self._event, ""
        if not self._data:
            return None
        data = _text(self._data[:-1])
        self._data.clear()
        return Event(data, event or "message", self.last_event_id, self.retry)


def _text(value: bytes | bytearray) -> str:
    return value.decode("utf-8", "replace")


def _too_long(subject: str, limit: int) -> InvalidReplyError:
    return InvalidReplyError(f"{subject} in a stream of events is longer than {limit} bytes")
