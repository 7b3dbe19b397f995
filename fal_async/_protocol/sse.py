"""Server-sent events: bytes in, events out, by the rules of the WHATWG.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, cast

from fal_async.errors import InvalidResponseError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["MAX_EVENT_BYTES", "MAX_LINE_BYTES", "Event", "SSEDecoder"]

#: The longest line that is taken, in bytes: several large pictures as data URIs.
MAX_LINE_BYTES: Final = 64 * 1024 * 1024

#: The most that the data lines of one event may hold together, in bytes.
MAX_EVENT_BYTES: Final = 64 * 1024 * 1024

_BOM: Final = b"\xef\xbb\xbf"

# More digits than any time needs, and far fewer than `int` refuses to read.
_MAX_RETRY_DIGITS: Final = 18


class Event(NamedTuple):
    """One event.

    Attributes:
        data: Its data lines, joined by line feeds.
        event: Its type; ``"message"`` when the server named none.
        id: The last id that was given, with this event or an earlier one; ``""`` before the first.
        retry: The reconnection time in force, in milliseconds; ``None`` while none was named.
    """

    data: bytes
    event: str = "message"
    id: str = ""
    retry: int | None = None

    @property
    def text(self) -> str:
        """The data as text, with U+FFFD for what is not UTF-8."""
        return _text(self.data)


# `Event` has a `__new__` of its own, which takes half as long again.
_event = cast("Callable[..., Event]", tuple.__new__)  # pyright: ignore[reportUnknownMemberType]


class SSEDecoder:
    r"""The decoder of one stream. Its cost is linear in the bytes, however they are cut.

    At the end of the stream there is nothing to call: an event that was begun and not ended by a
    blank line is discarded, as the rules ask, since it may be cut anywhere. `pending` tells whether
    that was so: a crashed app ends its stream as neatly as one that has finished.

    Args:
        max_line_bytes: The longest line that is taken, in bytes.
        max_event_bytes: The most that the data lines of one event may hold together, in bytes, if
            there are several; a single one may always be as long as a line.

    Attributes:
        last_event_id: The id to name when the stream is opened again; ``""`` when there is none.
        retry: How long to wait before that, in milliseconds; ``None`` when the server did not say.

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
        """Whether an event was begun and not ended: once the stream is over, whether it was cut."""
        return bool(self._data) or (bool(self._partial) and not self._partial[0].startswith(b":"))

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Take the next bytes and give the events that they complete.

        Raises:
            InvalidResponseError: After those events: a line or an event is too long. The stream
                cannot
                be read on.
        """
        events: list[Event] = []
        try:
            self._read(chunk, events)
        except InvalidResponseError as error:
            return _raise_after(events, error)
        return iter(events)

    def _read(self, chunk: bytes, events: list[Event]) -> None:
        """All at once: with generators within generators an event would cost a quarter more."""
        limit = self._max_line_bytes
        data = self._data
        for line in self._whole_lines(chunk):
            if line:
                if len(line) > limit:
                    raise _too_long("a line", limit)
                if line[:6] == b"data: " and not data:  # most lines; every step here is felt
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

    def _whole_lines(self, chunk: bytes) -> list[bytes]:
        if self._at_start:
            chunk = self._without_bom(chunk)
        if self._after_cr and chunk:
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        if b"\n" not in chunk and b"\r" not in chunk:
            self._buffer_partial(chunk)
            return []
        self._after_cr = chunk.endswith(b"\r")
        lines = chunk.splitlines()  # of bytes: ends at CR, LF and CRLF, and at nothing else
        rest = b"" if self._after_cr or chunk.endswith(b"\n") else lines.pop()
        if self._partial:
            lines[0] = self._take_partial(lines[0])
        self._buffer_partial(rest)
        return lines

    def _buffer_partial(self, part: bytes) -> None:
        """Keep a part of a line that has no end yet."""
        if part:
            self._partial.append(part)
            self._partial_size += len(part)

    def _take_partial(self, end: bytes) -> bytes:
        whole = b"".join([*self._partial, end])
        self._partial.clear()
        self._partial_size = 0
        return whole

    def _without_bom(self, chunk: bytes) -> bytes:
        head = self._take_partial(chunk)
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._buffer_partial(head)
            return b""
        self._at_start = False
        return head.removeprefix(_BOM)

    def _read_field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._add_data(value)
        elif name == b"event":
            self._event = _text(value)
        elif name == b"id" and b"\0" not in value:
            self._id = _text(value)
        elif name == b"retry" and value.isdigit() and len(value) <= _MAX_RETRY_DIGITS:
            self.retry = int(value)

    def _add_data(self, value: bytes) -> None:
        if len(self._data) < 2:  # `feed` does not count what is a single line in the end
            self._data_size = sum(len(line) + 1 for line in self._data)
        self._data.append(value)
        self._data_size += len(value) + 1
        if self._data_size > self._max_event_bytes + 1:
            raise _too_long("the data of an event", self._max_event_bytes)


def _raise_after(events: list[Event], error: InvalidResponseError) -> Iterator[Event]:
    yield from events
    raise error


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _too_long(subject: str, limit: int) -> InvalidResponseError:
    return InvalidResponseError(f"{subject} in a stream of events is longer than {limit} bytes")
