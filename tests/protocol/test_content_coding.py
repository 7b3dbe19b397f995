"""Content codings: streaming decompression, truncation and limits."""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fal_async._protocol.content_coding import (
    CHUNK_SIZE,
    MAX_CODINGS,
    CodingError,
    ContentDecoder,
    content_codings,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def bare_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


def two_members(data: bytes) -> bytes:
    middle = len(data) // 2
    return gzip.compress(data[:middle]) + gzip.compress(data[middle:])


def padded(data: bytes) -> bytes:
    return gzip.compress(data) + b"\0" * 600


#: Ways to compress, with the name of the coding.
WAYS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("x-gzip", two_members),
    ("GZIP", padded),
    ("deflate", zlib.compress),
    ("deflate", bare_deflate),
    ("identity", bytes),
    ("aws-chunked", bytes),
]
DATA = st.binary(max_size=2000) | st.integers(1, 300_000).map(bytes)


def decode(header: str, chunks: Sequence[bytes]) -> bytes:
    """Decompress as a reader does."""
    decoder = ContentDecoder(content_codings(header))
    decoded = bytearray()
    for chunk in chunks:
        decoder.feed(chunk)
        while (output := decoder.step()) is not None:
            assert len(output) <= max(CHUNK_SIZE, len(chunk))
            decoded += output
    decoder.finish()
    return bytes(decoded)


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@given(
    data=DATA, ways=st.lists(st.sampled_from(WAYS), max_size=MAX_CODINGS), size=st.integers(1, 9999)
)
def test_compressed_data_decodes_in_any_chunking(
    data: bytes, ways: list[tuple[str, Callable[[bytes], bytes]]], size: int
) -> None:
    body = data
    for _, compress in ways:
        body = compress(body)
    assert decode(", ".join(name for name, _ in ways), cut(body, size)) == data


@pytest.mark.parametrize(("name", "compress"), WAYS[:1] + WAYS[3:5])
@pytest.mark.parametrize("outer", [False, True])
def test_every_truncation_is_an_error(
    name: str, compress: Callable[[bytes], bytes], outer: bool
) -> None:
    body = compress(b"a whole output that was paid for")
    for end in range(1, len(body)):
        inner = body[:end]
        header, sent = (f"{name}, gzip", gzip.compress(inner)) if outer else (name, inner)
        with pytest.raises(CodingError):
            decode(header, [sent])


def test_truncated_later_member_is_an_error() -> None:
    first, second = gzip.compress(b"one"), gzip.compress(b"two")
    for end in range(1, len(second)):
        with pytest.raises(CodingError):
            decode("gzip", [first + second[:end]])


@pytest.mark.parametrize(("name", "compress"), [WAYS[0], WAYS[3]])
def test_corrupt_data_is_an_error(name: str, compress: Callable[[bytes], bytes]) -> None:
    body = compress(b"an output")
    with pytest.raises(CodingError, match="damaged"):
        decode(name, [body[:-1] + bytes([body[-1] ^ 1])])


@pytest.mark.parametrize(("name", "compress"), [WAYS[0], WAYS[3], WAYS[4]])
@pytest.mark.parametrize("split", [False, True])
def test_only_zeros_may_follow_the_stream(
    name: str, compress: Callable[[bytes], bytes], split: bool
) -> None:
    body = compress(b"an output")
    for garbage in (b"x", b"\x1fx", b"\0x", b"HTTP/1.1 200 OK"):
        with pytest.raises(CodingError, match=r"followed by something else|truncated"):
            decode(name, [body, garbage] if split else [body + garbage])
    assert decode(name, [body, b"\0" * 9] if split else [body + b"\0" * 9]) == b"an output"


@pytest.mark.parametrize("name", ["br", "zstd", "gzip, br", "BR", "compress"])
def test_unsupported_coding_is_named(name: str) -> None:
    with pytest.raises(CodingError, match=name.split()[-1].lower()):
        content_codings(name)


def test_number_of_codings_is_limited() -> None:
    assert len(content_codings("gzip," * MAX_CODINGS)) == MAX_CODINGS
    with pytest.raises(CodingError, match="more than 5 times"):
        content_codings("gzip, " * (MAX_CODINGS + 1))


def test_empty_body_is_not_truncated() -> None:
    assert decode("gzip, deflate", []) == b""


def test_bomb_is_decoded_in_bounded_chunks() -> None:
    bomb = gzip.compress(gzip.compress(bytes(50_000_000)))
    decoder = ContentDecoder(("gzip", "gzip"))
    decoder.feed(bomb)
    for _ in range(20):
        output = decoder.step()
        assert output is not None
        assert len(output) <= CHUNK_SIZE
    assert decoder._between < 20 * CHUNK_SIZE


def test_endless_intermediate_output_is_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fal_async._protocol.content_coding.MAX_BETWEEN", 100_000)
    empty_members = gzip.compress(b"") * 10_000
    with pytest.raises(CodingError, match="expands to more than"):
        decode("gzip, gzip", [gzip.compress(empty_members)])
