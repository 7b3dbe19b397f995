"""Frames of RFC 6455, compared with the parser of websockets."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from fal_async._websocket import frames as module
from fal_async._websocket.frames import (
    BINARY,
    FRAMES_AT_ONCE,
    MAX_COPIED,
    RAW,
    TEXT,
    ChunkedFrame,
    FrameContent,
    FrameReader,
    encode_frame,
    random_masks,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

SIZES = [0, 1, 125, 126, 127, 65535, 65536, 70000]

MASKS = random_masks()
SingleFrame: TypeAlias = tuple[int, bytes | memoryview]

STREAM = b"".join(
    Frame(opcode, data, fin).serialize(mask=False)
    for opcode, data, fin in [
        (Opcode.TEXT, b"one", True),
        (Opcode.BINARY, b"x" * 200, True),
        (Opcode.PING, b"?", True),
        (Opcode.TEXT, b"tw", False),
        (Opcode.PONG, b"", True),
        (Opcode.CONT, b"o", True),
        (Opcode.BINARY, b"", True),
        (Opcode.CLOSE, b"\x03\xe8", True),
    ]
)


def parse(frame: bytes) -> Frame:
    """Parse a frame as a server does."""
    reader = StreamReader()
    reader.feed_data(frame)
    parser: Generator[None, None, Frame] = Frame.parse(reader.read_exact, mask=True)
    try:
        next(parser)
    except StopIteration as stop:
        assert not reader.buffer
        parsed: Frame = stop.value
        return parsed
    raise AssertionError("the frame is not complete")


def whole_frame(first_byte: int, payload: bytes) -> bytes:
    frame = encode_frame(first_byte, payload, next(MASKS))
    assert isinstance(frame, bytes)
    return frame


def single_frames(contents: Iterable[FrameContent]) -> list[SingleFrame]:
    """Return the frames with their kinds, and binary messages one by one."""
    frames: list[SingleFrame] = []
    for content in contents:
        if isinstance(content, list):
            assert 1 <= len(content) <= FRAMES_AT_ONCE
            frames += [(BINARY, payload) for payload in content]
        else:
            frames.append(content)
    return frames


def read_frames(parts: list[bytes], max_size: int | None = None) -> list[SingleFrame]:
    reader = FrameReader(max_size)
    return [frame for part in parts for frame in single_frames(reader.feed(part))]


def read_into_buffers(parts: list[bytes]) -> list[SingleFrame]:
    """Read frames, and receive into the buffer of the reader where it has one."""
    reader = FrameReader(None)
    contents: list[SingleFrame] = []
    for part in parts:
        rest = part
        while rest:
            buffer = reader.buffer
            if buffer is None:
                contents += single_frames(reader.feed(rest))
                break
            size = min(len(buffer), len(rest))
            buffer[:size] = rest[:size]
            contents += single_frames(reader.buffer_updated(size))
            rest = rest[size:]
    return contents


def test_message_is_encoded_as_masked_frame() -> None:
    for size in SIZES:
        for first_byte, opcode in ((TEXT, Opcode.TEXT), (BINARY, Opcode.BINARY)):
            frame = parse(whole_frame(first_byte, b"a" * size))
            assert (frame.opcode, frame.data, frame.fin) == (opcode, b"a" * size, True)


def test_each_frame_has_its_own_mask() -> None:
    masks = random_masks(), random_masks()
    assert len({next(each) for each in masks for _ in range(1000)}) > 1990


def test_binary_messages_are_read_in_groups() -> None:
    parts = [
        Frame(Opcode.BINARY, b"m" * (100 + number)).serialize(mask=False)
        for number in range(2 * FRAMES_AT_ONCE + 1)
    ]
    text = Frame(Opcode.TEXT, b"text").serialize(mask=False)
    groups = [
        content if isinstance(content, tuple) else len(content)
        for content in FrameReader(None).feed(b"".join([*parts, text, parts[0], parts[1]]))
    ]
    assert groups == [FRAMES_AT_ONCE, FRAMES_AT_ONCE, 1, (TEXT, b"text"), 2]


def test_only_whole_messages_are_decoded() -> None:
    assert read_frames([STREAM]) == [
        (TEXT, b"one"),
        (BINARY, b"x" * 200),
        (RAW, b"\x89\x01?"),
        (RAW, b"\x01\x02tw"),
        (RAW, b"\x8a\x00"),
        (RAW, b"\x80\x01o"),
        (BINARY, b""),
        (RAW, b"\x88\x02\x03\xe8"),
    ]


def test_message_between_fragments_goes_to_parser() -> None:
    assert read_frames([b"\x01\x01a" + b"\x81\x01b" + b"\x80\x01c" + b"\x81\x01d"]) == [
        (RAW, b"\x01\x01a"),
        (RAW, b"\x81\x01b"),
        (RAW, b"\x80\x01c"),
        (TEXT, b"d"),
    ]


def test_messages_may_be_split_anywhere() -> None:
    for size in SIZES:
        stream = Frame(Opcode.BINARY, b"m" * size).serialize(mask=False) * 2
        step = max(1, len(stream) // 50)
        for at in [*range(1, min(30, len(stream))), *range(30, len(stream), step)]:
            assert read_frames([stream[:at], stream[at:]]) == [(BINARY, b"m" * size)] * 2


def test_frames_may_arrive_byte_by_byte() -> None:
    whole = read_frames([STREAM])
    assert read_frames([STREAM[at : at + 1] for at in range(len(STREAM))]) == whole
    for at in range(len(STREAM)):
        assert read_frames([STREAM[:at], STREAM[at:]]) == whole


def test_too_long_frame_goes_to_parser_at_once() -> None:
    head = Frame(Opcode.BINARY, b"x" * 1000).serialize(mask=False)[:4]
    assert read_frames([b"\x81\x01a" + head, b"xx", b"y"], max_size=999) == [
        (TEXT, b"a"),
        (RAW, head),
        (RAW, b"xx"),
        (RAW, b"y"),
    ]
    assert read_frames([head], max_size=1000) == []


def test_masked_frame_goes_to_parser() -> None:
    masked = whole_frame(TEXT, b"no")
    assert read_frames([b"\x81\x01a" + masked, b"\x81\x01b"]) == [
        (TEXT, b"a"),
        (RAW, masked),
        (RAW, b"\x81\x01b"),
    ]


def test_buffers_match_rest_of_long_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_BUFFER", 30_000)
    message = b"m" * 70_000
    stream = Frame(Opcode.BINARY, message).serialize(mask=False)
    reader = FrameReader(None)
    assert list(reader.feed(stream[:5])) == []
    assert reader.buffer is None  # the length is not known yet
    assert list(reader.feed(stream[5:10_010])) == []
    sizes: list[int] = []
    contents: list[SingleFrame] = []
    while (buffer := reader.buffer) is not None:
        sizes.append(len(buffer))
        buffer[:] = b"m" * len(buffer)
        contents += single_frames(reader.buffer_updated(len(buffer)))
    assert sizes == [20_000, 30_000, 10_000]
    assert contents == [(BINARY, message)]


def test_recycled_buffer_serves_next_long_frames() -> None:
    reader = FrameReader(None)

    def read(size: int) -> memoryview:
        stream = Frame(Opcode.BINARY, bytes([size % 256]) * size).serialize(mask=False)
        assert list(reader.feed(stream[:1000])) == []
        [(kind, payload)] = single_frames(reader.feed(stream[1000:]))
        assert isinstance(payload, memoryview)
        assert kind == BINARY
        assert bytes(payload) == stream[-size:]
        return payload

    first = read(50_000)
    reader.reuse(first)
    shorter = read(40_000)
    assert shorter.obj is first.obj
    kept = read(40_000)
    assert kept.obj is not first.obj
    for size in (50_001, 24_999):  # too long, and far too short
        reader.reuse(first)
        assert read(size).obj is not first.obj


def test_long_payload_is_view_of_received_bytes() -> None:
    long, short = (Frame(Opcode.BINARY, b"m" * n).serialize(mask=False) for n in (20_000, 100))
    reader = FrameReader(None)
    stream = long + short
    [(_, payload), (_, copy)] = single_frames(reader.feed(stream))
    assert isinstance(payload, memoryview)
    assert payload.obj is stream
    assert (bytes(payload), copy) == (b"m" * 20_000, b"m" * 100)
    # Not if it would keep much more memory than its own size.
    assert all(isinstance(payload, bytes) for _, payload in single_frames(reader.feed(long * 3)))


def test_announced_length_takes_little_memory() -> None:
    reader = FrameReader(None)
    assert list(reader.feed(b"\x82\x7f" + (2**62).to_bytes(8, "big") + b"x")) == []
    assert reader.buffer is not None
    assert len(reader.buffer) < module.MAX_BUFFER


@given(
    st.lists(st.integers(0, 3 * MAX_COPIED), max_size=5),
    st.lists(st.integers(1, 9000), max_size=9),
)
def test_splitting_and_buffers_keep_messages(sizes: list[int], cuts: list[int]) -> None:
    messages = [bytes([number]) * size for number, size in enumerate(sizes)]
    stream = b"".join(Frame(Opcode.BINARY, each).serialize(mask=False) for each in messages)
    parts, rest = [], stream
    for size in cuts:
        parts.append(rest[:size])
        rest = rest[size:]
    for contents in (
        read_frames([stream]),
        read_frames([*parts, rest]),
        read_into_buffers([*parts, rest]),
    ):
        assert contents == [(BINARY, message) for message in messages]


@pytest.mark.parametrize("size", [65_537, 200_003])
@pytest.mark.parametrize("step", [20, 1000, 65_536])
def test_chunked_frame_is_one_masked_frame(size: int, step: int) -> None:
    long, parts = ChunkedFrame(TEXT, b"a" * size, next(MASKS)), []
    while left := len(long):
        parts.append(long.read(step))
        assert 0 < len(parts[-1]) <= step
        assert len(long) == left - len(parts[-1])
    frame = parse(b"".join(parts))
    assert (frame.opcode, frame.data, frame.fin) == (Opcode.TEXT, b"a" * size, True)


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=8))
def test_reader_keeps_every_byte_of_garbage(garbage: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(at, len(garbage)) for at in cuts), len(garbage)]
    parts = [garbage[a:b] for a, b in itertools.pairwise(edges)]
    contents = read_frames(parts, max_size=200)
    assert list(_merged(contents)) == list(_merged(read_frames([garbage], max_size=200)))
    assert sum(len(data) for _, data in contents) <= len(garbage)


def _merged(contents: list[SingleFrame]) -> list[SingleFrame]:
    """Join adjacent bytes for the parser, whose division does not matter."""
    merged: list[SingleFrame] = []
    for first_byte, data in contents:
        if merged and first_byte == RAW == merged[-1][0]:
            merged[-1] = (RAW, bytes(merged[-1][1]) + data)
        else:
            merged.append((first_byte, data))
    return merged
