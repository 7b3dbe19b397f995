"""Event stream parser: the same events in any chunking, limits and errors."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fal_async._protocol.sse import Event, SSEDecoder
from fal_async.errors import InvalidResponseError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

BOM = b"\xef\xbb\xbf"

#: Description, bytes and events of each stream.
CASES: list[tuple[str, bytes, list[Event]]] = [
    ("nothing", b"", []),
    (
        "three data lines of one event (WHATWG's first example)",
        b"data: YHOO\ndata: +2\ndata: 10\n\n",
        [Event(b"YHOO\n+2\n10")],
    ),
    (
        "comment, id, id reset and one kept space (WHATWG's second example)",
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event",
        [Event(b"first event", id="1"), Event(b"second event")],
    ),
    (
        "empty data, and an event that is never ended (WHATWG's third example)",
        b"data\n\ndata\ndata\n\ndata:",
        [Event(b""), Event(b"\n")],
    ),
    (
        "one space after the colon is optional (WHATWG's fourth example)",
        b"data:test\n\ndata: test\n\n",
        [Event(b"test"), Event(b"test")],
    ),
    (
        "named events (WHATWG's introduction)",
        b"event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\ndata: 1\n\n",
        [Event(b"73857293", "add"), Event(b"2153", "remove"), Event(b"1")],
    ),
    ("line feeds", b"data: a\ndata: b\n\n", [Event(b"a\nb")]),
    ("carriage returns", b"data: a\rdata: b\r\r", [Event(b"a\nb")]),
    ("both", b"data: a\r\ndata: b\r\n\r\n", [Event(b"a\nb")]),
    ("all three mixed", b"data: a\rdata: b\r\ndata: c\n\r\n", [Event(b"a\nb\nc")]),
    (
        "an LF after CR LF is a line of its own",
        b"data: a\r\n\ndata: b\n\r",
        [Event(b"a"), Event(b"b")],
    ),
    ("one byte order mark", BOM + b"data: a\n\n", [Event(b"a")]),
    ("two byte order marks", BOM + BOM + b"data: lost\n\ndata: a\n\n", [Event(b"a")]),
    ("a byte order mark later on", b"data: a\n\n" + BOM + b"data: lost\n\n", [Event(b"a")]),
    ("a byte order mark in data", b"data: " + BOM + b"\n\n", [Event(BOM)]),
    ("half a byte order mark", b"\xef\xbbdata: lost\n\ndata: a\n\n", [Event(b"a")]),
    ("comments", b":\n: keep-alive\n:data: x\n\ndata: a\n: between\ndata: b\n\n", [Event(b"a\nb")]),
    ("unknown fields and other spellings", b"foo: 1\nData: 2\n data: 3\ndata : 4\n\n", []),
    ("colons in the value", b"data: a: b:\n\n", [Event(b"a: b:")]),
    ("tabs are kept", b"data:\tx\n\n", [Event(b"\tx")]),
    ("no event without data", b"event: ping\nid: 7\n\ndata: a\n\n", [Event(b"a", id="7")]),
    ("blank lines", b"\n\n\n\ndata: a\n\n\n\n", [Event(b"a")]),
    ("the last type wins", b"event: a\nevent: b\ndata: 1\n\n", [Event(b"1", "b")]),
    ("an empty type is no type", b"event: a\nevent\ndata: 1\n\n", [Event(b"1")]),
    ("an id stays", b"id: 1\ndata: a\n\ndata: b\n\n", [Event(b"a", id="1"), Event(b"b", id="1")]),
    ("an id with NUL is ignored", b"id: 1\nid: 2\0\ndata: a\n\n", [Event(b"a", id="1")]),
    ("NUL in data is kept", b"data: \0\n\n", [Event(b"\0")]),
    (
        "retry",
        b"retry: 1500\ndata: a\n\ndata: b\n\n",
        [Event(b"a", retry=1500), Event(b"b", retry=1500)],
    ),
    ("retry with leading zeros", b"retry: 007\ndata: a\n\n", [Event(b"a", retry=7)]),
    (
        "retry that is not of ASCII digits alone",
        b"retry: +1\nretry: -1\nretry: 1_0\nretry: 1.5\nretry:  1\nretry: 1 \nretry:\nretry\n"
        + "retry: \u0661\u00b2\n".encode()
        + b"data: a\n\n",
        [Event(b"a")],
    ),
    ("retry beyond reason", b"retry: " + b"9" * 5000 + b"\ndata: a\n\n", [Event(b"a")]),
    (
        "codepoints of two, three and four bytes",
        "data: é€🦊\n\n".encode(),
        [Event("é€🦊".encode())],
    ),
    ("bytes that are not UTF-8", b"data: a\xff\xfeb\xc3\n\n", [Event(b"a\xff\xfeb\xc3")]),
    (
        "a codepoint cut by a line end",
        b"data: \xe2\x82\ndata: \xac\n\n",
        [Event(b"\xe2\x82\n\xac")],
    ),
    (
        "other separators do not end a line",
        "data: a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg\x1dh\x1ei\n\n".encode(),
        [Event("a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg\x1dh\x1ei".encode())],
    ),
]


def decode(chunks: Iterable[bytes]) -> list[Event]:
    decoder = SSEDecoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)]


def bytewise(stream: bytes) -> list[bytes]:
    return [stream[at : at + 1] for at in range(len(stream))]


@pytest.fixture(params=CASES, ids=[name for name, _, _ in CASES])
def case(request: pytest.FixtureRequest) -> tuple[bytes, list[Event]]:
    _, stream, events = request.param
    return stream, events


def test_whole_stream_is_decoded(case: tuple[bytes, list[Event]]) -> None:
    stream, events = case
    assert decode([stream]) == events


def test_stream_is_decoded_byte_by_byte(case: tuple[bytes, list[Event]]) -> None:
    stream, events = case
    assert decode(bytewise(stream)) == events


def test_stream_is_decoded_in_any_two_chunks(case: tuple[bytes, list[Event]]) -> None:
    stream, events = case
    for at in range(len(stream)):
        assert decode([stream[:at], b"", stream[at:]]) == events


def reference(stream: bytes) -> list[Event]:
    """Decode a whole stream by the rules of the WHATWG."""
    *lines, _ = re.split(rb"\r\n|\r|\n", stream.removeprefix(BOM))
    events: list[Event] = []
    data, event, sticky = b"", b"", Event(b"")
    for line in lines:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            data += value + b"\n"
        elif name == b"event":
            event = value
        elif name == b"id" and b"\0" not in value:
            sticky = sticky._replace(id=value.decode("utf-8", "replace"))
        elif name == b"retry" and re.fullmatch(b"[0-9]{1,18}", value):
            sticky = sticky._replace(retry=int(value))
        elif not line:
            if data:
                kind = event.decode("utf-8", "replace") or "message"
                events.append(sticky._replace(data=data[:-1], event=kind))
            data, event = b"", b""
    return events


SYNTAX = [
    b"data",
    b"event",
    b"id",
    b"retry",
    b":",
    b": ",
    b"\n",
    b"\r",
    b"\r\n",
    b"\n\n",
    b"data: ",
]
CONTENT = [
    BOM,
    b"\0",
    b"x",
    b"17",
    b"\xc3\xa9",
    "🦊".encode(),
    b"\xe2\x80\xa8",
    b"\xff",
    b"\xe2\x82",
]
FRAGMENTS = st.sampled_from(SYNTAX) | st.sampled_from(CONTENT) | st.binary(max_size=3)
STREAMS = st.lists(FRAGMENTS, max_size=40).map(b"".join)


def cut(stream: bytes, lengths: list[int]) -> list[bytes]:
    chunks = []
    for length in lengths:
        chunks.append(stream[:length])
        stream = stream[length:]
    return [*chunks, stream]


@given(STREAMS, st.lists(st.integers(0, 9), max_size=30))
@example(BOM + b"data: a\r\n\r\ndata: b\r\r", [1, 1, 6, 2])
def test_any_chunking_gives_the_same_events(stream: bytes, lengths: list[int]) -> None:
    assert decode(cut(stream, lengths)) == reference(stream)


def outcome(chunks: Iterable[bytes]) -> tuple[list[Event], str | None]:
    decoder = SSEDecoder(max_line_bytes=12, max_event_bytes=15)
    events: list[Event] = []
    try:
        for chunk in chunks:
            events.extend(decoder.feed(chunk))
    except InvalidResponseError as error:
        return events, str(error)
    return events, None


@given(STREAMS, st.lists(st.integers(0, 9), max_size=30))
def test_limits_are_independent_of_chunking(stream: bytes, lengths: list[int]) -> None:
    # `extend` keeps what a failing generator has yielded, so the events before the error count too.
    assert outcome(cut(stream, lengths)) == outcome([stream]) == outcome(bytewise(stream))


@pytest.mark.parametrize("cutter", [lambda stream: [stream], bytewise], ids=["whole", "bytewise"])
@pytest.mark.parametrize(
    ("stream", "events", "complaint"),
    [
        (b"data: 123456\n\n", [Event(b"123456")], None),
        (b"data: 1\n\ndata: 1234567", [Event(b"1")], "line"),
        (b"data: 1\n\n:90123456789012\n\n", [Event(b"1")], "line"),
        (b"data: 12345\ndata: 12345\ndata: 123\n\n", [Event(b"12345\n12345\n123")], None),
        (b"data: 12345\ndata: 12345\ndata: 1234\n\n", [], "event"),
        (b"data: 1234\ndata: 1234\ndata: 1234\ndata\n\n", [Event(b"1234\n1234\n1234\n")], None),
        (b"data\n" * 16 + b"\n", [Event(b"\n" * 15)], None),
        (b"data\n" * 17 + b"\n", [], "event"),
    ],
)
def test_oversized_event_keeps_earlier_events(
    cutter: Callable[[bytes], list[bytes]],
    stream: bytes,
    events: list[Event],
    complaint: str | None,
) -> None:
    seen, error = outcome(cutter(stream))
    assert seen == events
    assert error is None if complaint is None else complaint in str(error)


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_any_bytes_give_events_or_nothing(chunks: list[bytes]) -> None:
    assert all(isinstance(event, Event) for event in decode(chunks))


@pytest.mark.parametrize(
    ("stream", "pending"),
    [
        (b"", False),
        (b"data: a\n\n", False),
        (b"data: a\r\n\r\n", False),
        (b"data: a\n\n: keep-al", False),
        (b"data: a\n\nretry: 5\n", False),
        (b"data: a\n\ndat", True),
        (b"data: a\n\ndata: b", True),
        (b"data: a\n\ndata: b\n", True),
        (b"data: a\n\ndata: b\n: keep-alive\n", True),
    ],
)
def test_truncated_event_is_reported(stream: bytes, pending: bool) -> None:
    decoder = SSEDecoder()
    complete = stream.count(b"\n\n") + stream.count(b"\r\n\r\n")
    assert len(list(decoder.feed(stream))) == complete
    assert decoder.pending is pending


def test_last_id_and_reconnect_delay_are_kept() -> None:
    decoder = SSEDecoder()
    assert (decoder.last_event_id, decoder.retry) == ("", None)
    assert list(decoder.feed(b"retry: 250\nid: 41\n\nid: 42\ndata: unfinished\n")) == []
    assert (decoder.last_event_id, decoder.retry) == ("41", 250)
    assert list(decoder.feed(b"\n")) == [Event(b"unfinished", id="42", retry=250)]
    assert decoder.last_event_id == "42"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("é€🦊\u2028".encode(), "é€🦊\u2028"),
        (b"a\xff\xfeb\xc3", "a\ufffd\ufffdb\ufffd"),
        (b"\xe2\x82\n\xac", "\ufffd\n\ufffd"),
    ],
)
def test_text_error_names_the_invalid_utf8(data: bytes, text: str) -> None:
    assert Event(data).text == text


def test_bare_cr_ends_an_event_immediately() -> None:
    assert decode([b"data: a\r\r"]) == [Event(b"a")]


@pytest.mark.parametrize("size", [16 * 1024, 64 * 1024])
def test_ten_megabyte_line_arrives_in_chunks(size: int) -> None:
    picture = b"A" * 10_000_000
    stream = b"data: " + picture + b"\n\n"
    chunks = (stream[at : at + size] for at in range(0, len(stream), size))
    [event] = decode(chunks)
    assert event.data == picture
