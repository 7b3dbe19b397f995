"""Frames are cut and built as RFC 6455 says; websockets' own parser is the judge."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from fal_async._websocket import frames as module
from fal_async._websocket.frames import (
    BINARY,
    MAX_COPIED,
    TEXT,
    ChunkedFrame,
    FrameContent,
    FrameReader,
    encode_frame,
)

if TYPE_CHECKING:
    from collections.abc import Generator

SIZES = [0, 1, 125, 126, 127, 65535, 65536, 70000]

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
    """What a server of websockets reads."""
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


def whole_frame(first: int, payload: bytes) -> bytes:
    frame = encode_frame(first, payload)
    assert isinstance(frame, bytes)
    return frame


def cut(parts: list[bytes], max_size: int | None = None) -> list[FrameContent]:
    cutter = FrameReader(max_size)
    return [piece for part in parts for piece in cutter.feed(part)]


def cut_into_room(parts: list[bytes]) -> list[FrameContent]:
    """What comes out when what fits is received to where there is room."""
    cutter = FrameReader(None)
    pieces: list[FrameContent] = []
    for part in parts:
        rest = part
        while rest:
            room = cutter.buffer
            if room is None:
                pieces += cutter.feed(rest)
                break
            size = min(len(room), len(rest))
            room[:size] = rest[:size]
            pieces += cutter.buffer_updated(size)
            rest = rest[size:]
    return pieces


def test_a_message_of_any_size_becomes_one_masked_frame() -> None:
    for size in SIZES:
        for first, opcode in ((TEXT, Opcode.TEXT), (BINARY, Opcode.BINARY)):
            frame = parse(whole_frame(first, b"a" * size))
            assert (frame.opcode, frame.data, frame.fin) == (opcode, b"a" * size, True)


def test_masks_differ_from_frame_to_frame() -> None:
    assert len({whole_frame(BINARY, b"")[2:6] for _ in range(100)}) > 90


def test_whole_messages_come_out_without_their_heads_and_all_else_with_it() -> None:
    assert cut([STREAM]) == [
        (TEXT, b"one"),
        (BINARY, b"x" * 200),
        (0, b"\x89\x01?"),
        (0, b"\x01\x02tw"),
        (0, b"\x8a\x00"),
        (0, b"\x80\x01o"),
        (BINARY, b""),
        (0, b"\x88\x02\x03\xe8"),
    ]


def test_a_message_within_a_fragmented_one_is_left_to_the_parser() -> None:
    assert cut([b"\x01\x01a" + b"\x81\x01b" + b"\x80\x01c" + b"\x81\x01d"]) == [
        (0, b"\x01\x01a"),
        (0, b"\x81\x01b"),
        (0, b"\x80\x01c"),
        (TEXT, b"d"),
    ]


def test_messages_of_any_size_survive_being_cut_anywhere() -> None:
    for size in SIZES:
        stream = Frame(Opcode.BINARY, b"m" * size).serialize(mask=False) * 2
        step = max(1, len(stream) // 50)
        for at in [*range(1, min(30, len(stream))), *range(30, len(stream), step)]:
            assert cut([stream[:at], stream[at:]]) == [(BINARY, b"m" * size)] * 2


def test_the_frames_are_the_same_byte_by_byte_and_cut_at_every_offset() -> None:
    whole = cut([STREAM])
    assert cut([STREAM[at : at + 1] for at in range(len(STREAM))]) == whole
    for at in range(len(STREAM)):
        assert cut([STREAM[:at], STREAM[at:]]) == whole


def test_what_is_too_long_is_not_waited_for() -> None:
    head = Frame(Opcode.BINARY, b"x" * 1000).serialize(mask=False)[:4]
    assert cut([b"\x81\x01a" + head, b"xx", b"y"], max_size=999) == [
        (TEXT, b"a"),
        (0, head),
        (0, b"xx"),
        (0, b"y"),
    ]
    assert cut([head], max_size=1000) == []


def test_a_masked_frame_is_left_to_the_parser_with_all_that_follows() -> None:
    masked = whole_frame(TEXT, b"no")
    assert cut([b"\x81\x01a" + masked, b"\x81\x01b"]) == [
        (TEXT, b"a"),
        (0, masked),
        (0, b"\x81\x01b"),
    ]


def test_there_is_room_for_the_rest_of_a_long_message_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_BUFFER", 30_000)
    message = b"m" * 70_000
    stream = Frame(Opcode.BINARY, message).serialize(mask=False)
    cutter = FrameReader(None)
    assert list(cutter.feed(stream[:5])) == []
    assert cutter.buffer is None  # nobody knows how much
    assert list(cutter.feed(stream[5:10_010])) == []
    sizes: list[int] = []
    pieces: list[FrameContent] = []
    while (room := cutter.buffer) is not None:
        sizes.append(len(room))
        room[:] = b"m" * len(room)
        pieces += cutter.buffer_updated(len(room))
    assert sizes == [20_000, 30_000, 10_000]
    assert pieces == [(BINARY, message)]


def test_an_announcement_alone_takes_little_memory() -> None:
    cutter = FrameReader(None)
    assert list(cutter.feed(b"\x82\x7f" + (2**62).to_bytes(8, "big") + b"x")) == []
    assert cutter.buffer is not None
    assert len(cutter.buffer) < module.MAX_BUFFER


@given(
    st.lists(st.integers(0, 3 * MAX_COPIED), max_size=5), st.lists(st.integers(1, 9000), max_size=9)
)
def test_messages_are_the_same_whole_in_pieces_and_received_to_their_room(
    sizes: list[int], cuts: list[int]
) -> None:
    messages = [bytes([number]) * size for number, size in enumerate(sizes)]
    stream = b"".join(Frame(Opcode.BINARY, each).serialize(mask=False) for each in messages)
    parts, rest = [], stream
    for size in cuts:
        parts.append(rest[:size])
        rest = rest[size:]
    for pieces in (cut([stream]), cut([*parts, rest]), cut_into_room([*parts, rest])):
        assert pieces == [(BINARY, message) for message in messages]


@pytest.mark.parametrize("size", [65_537, 200_003])
@pytest.mark.parametrize("step", [20, 1000, 65_536])
def test_a_long_message_becomes_the_same_frame_part_by_part(size: int, step: int) -> None:
    long, parts = ChunkedFrame(TEXT, b"a" * size), []
    while left := len(long):
        parts.append(long.read(step))
        assert 0 < len(parts[-1]) <= step
        assert len(long) == left - len(parts[-1])
    frame = parse(b"".join(parts))
    assert (frame.opcode, frame.data, frame.fin) == (Opcode.TEXT, b"a" * size, True)


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=8))
def test_garbage_never_breaks_the_cutter_and_nothing_of_it_is_lost(
    garbage: bytes, cuts: list[int]
) -> None:
    edges = [0, *sorted(min(at, len(garbage)) for at in cuts), len(garbage)]
    parts = [garbage[a:b] for a, b in itertools.pairwise(edges)]
    pieces = cut(parts, max_size=200)
    assert list(_merged(pieces)) == list(_merged(cut([garbage], max_size=200)))
    assert sum(len(data) for _, data in pieces) <= len(garbage)


def _merged(pieces: list[FrameContent]) -> list[FrameContent]:
    """Where the bytes for the parser are divided is of no matter."""
    merged: list[FrameContent] = []
    for first, data in pieces:
        if merged and first == 0 == merged[-1][0]:
            merged[-1] = (0, merged[-1][1] + data)
        else:
            merged.append((first, data))
    return merged
