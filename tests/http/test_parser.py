"""Response parser: any chunking, repairs, limits and reuse of connections."""

from __future__ import annotations

import pytest

from fal_async._http.parser import MAX_HEADERS, MAX_INFORMATIONAL, ResponseParser
from fal_async._net.errors import RemoteProtocolError

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"

# Response, its body, and whether the connection may be used again.
RESPONSES = [
    pytest.param(SIZED + b"hello", b"hello", True, id="sized"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", True, id="empty"),
    pytest.param(CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", b"hello", True, id="chunked"),
    pytest.param(
        CHUNKED + b"2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\nX: y\r\n\r\n", b"hello", True, id="trailers"
    ),
    pytest.param(CHUNKED + b"5  \r\nhello\r\n0 ;a=b\r\n\r\n", b"hello", True, id="chunk-spaces"),
    pytest.param(b"HTTP/1.1 204 No Content\r\nA: b\r\n\r\n", b"", True, id="204"),
    pytest.param(b"HTTP/1.1 304 Same\r\nContent-Length: 9\r\n\r\n", b"", True, id="304"),
    pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + SIZED + b"hello", b"hello", True, id="100"),
    pytest.param(
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 2 + SIZED + b"hello",
        b"hello",
        True,
        id="103",
    ),
    pytest.param(
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
        b"hello",
        False,
        id="close",
    ),
    pytest.param(
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", False, id="http-1.0"
    ),
    pytest.param(
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
        b"hello",
        True,
        id="http-1.0-keep-alive",
    ),
    pytest.param(
        b"HTTP/1.1 200 OK\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 5\r\n\r\nhello",
        b"hello",
        True,
        id="upgrade-offered",
    ),
]

# Responses that end with their connection.
UNTIL_CLOSE = [
    pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", id="http-1.1"),
    pytest.param(b"HTTP/1.0 200 OK\r\n\r\n", id="http-1.0"),
    pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", id="coding"),
    pytest.param(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", id="chunked-inside"
    ),
]

GARBAGE = [
    b"garbage\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"ICY 200 OK\r\n\r\n",
    b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nName: val\0ue\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" * (MAX_INFORMATIONAL + 1) + SIZED,
]

# Invalid responses with a single possible meaning.
REPAIRABLE = [
    pytest.param(b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", id="no-cr"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 5\n\r\nhello", id="one-cr-less"),
    pytest.param(b"HTTP/1.1 200 OK\nContent-Length: 5\r\n\nhello", id="mixed"),
    pytest.param(b"HTTP/1.1  200\t OK\r\nContent-Length: 5\r\n\r\nhello", id="spaces"),
    pytest.param(b"HTTP/1.1 200 O\x01K\nA: \x01\nContent-Length: 5\n\nhello", id="controls"),
    pytest.param(b"HTTP/1.1 200 OK\r\nA : b\r\nContent-Length : 5\r\n\r\nhello", id="colon"),
    pytest.param(b"HTTP/1.1 200 OK\r\nA: b\r\n\tc\r\nContent-Length: 5\r\n\r\nhello", id="fold"),
    pytest.param(SIZED[:-2] + b"Content-Length: 5\r\n\r\nhello", id="two-lengths"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello", id="length-list"),
    pytest.param(b"HTTP/1.1 100 Continue\n\nHTTP/1.1 200 OK\nContent-Length: 5\n\nhello", id="100"),
    pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + SIZED[:-2] + b"\nhello", id="100-strict"),
    pytest.param(
        b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\r\nhello\r\n0\r\n\r\n", id="chunks"
    ),
]

# Invalid responses that are ambiguous.
AMBIGUOUS = [
    b"HTTP/1.1 200 OK\nContent-Length: 1\nContent-Length: 2\n\n",
    b"HTTP/1.1 200 OK\nContent-Length: 1, 2\n\n",
    b"HTTP/1.1 200 OK\nContent-Length: 1\nTransfer-Encoding: chunked\n\n",
    b"HTTP/1.1 200 OK\nContent-Length : 1\nTransfer-Encoding : chunked\n\n",
    b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nTransfer-Encoding: identity\n\n",
    b"HTTP/1.1 200 OK\nContent-Length: 1\n 2\n\n",
    b"HTTP/1.1 200 OK\nTransfer-Encoding:\n chunked\n\n",
    b"HTTP/1.1 200 OK\nContent-Length: +1\n\n",
    b"HTTP/1.1 200 OK\nContent-Length: 0x1\n\n",
    b"HTTP/1.1 200 OK\nContent-Length:\n\n",
    b"HTTP/1.1 200 OK\n Content-Length: 1\n\n",
    b"HTTP/1.1 200 OK\nA: b\rContent-Length: 1\n\n",
    b"HTTP/1.1 200 OK\nContent\0-Length: 1\n\n",
    b"HTTP/1.1 200 OK\nContent Length: 1\n\n",
    b"HTTP/1.1 200 OK\nno header\n\n",
    b"HTTP/1.1 200 OK\n: nameless\n\n",
    b"HTTP/1.1 200OK\nContent-Length: 1\n\n",
]

BAD_CHUNKS = [b"x\r\n", b"-5\r\nhello\r\n", b"5\nhello\n", b"5\r\nhelloX", b"fffffffffffffffff\r\n"]


def parser(*, bodiless: bool = False, max_header_bytes: int = 65536) -> ResponseParser:
    return ResponseParser(no_body=bodiless, max_header_bytes=max_header_bytes)


def fed(*chunks: bytes, bodiless: bool = False) -> ResponseParser:
    response = parser(bodiless=bodiless)
    for chunk in chunks:
        response.feed(chunk)
    return response


@pytest.mark.parametrize(("raw", "body", "reusable"), RESPONSES)
def test_response_is_parsed_in_any_chunking(raw: bytes, body: bytes, reusable: bool) -> None:
    cuts = [[raw[:i], raw[i:]] for i in range(1, len(raw))]
    for chunks in [[raw], [raw[i : i + 1] for i in range(len(raw))], *cuts]:
        response = fed(*chunks)
        assert response.failure is None
        assert response.complete
        assert (response.read_body(), response.reusable) == (body, reusable)


@pytest.mark.parametrize(("raw", "body", "reusable"), RESPONSES)
def test_trailing_bytes_prevent_reuse(raw: bytes, body: bytes, reusable: bool) -> None:
    for junk in (b"H", b"HTTP/1.1 200 OK\r\n", raw, b"garbage"):
        for chunks in ([raw + junk], [raw, junk], [raw[:-1], raw[-1:] + junk]):
            response = fed(*chunks)
            assert (response.complete, response.read_body(), response.failure) == (True, body, None)
            assert not response.reusable


@pytest.mark.parametrize(("raw", "body", "reusable"), RESPONSES)
def test_truncated_response_is_an_error(raw: bytes, body: bytes, reusable: bool) -> None:
    for end in range(1, len(raw)):
        response = fed(raw[:end], b"")
        assert not response.complete
        assert isinstance(response.failure, RemoteProtocolError)


def test_body_of_known_length_is_not_copied() -> None:
    chunk = b"ello"
    response = fed(SIZED + b"h")
    assert response.read_body() == b"h"
    response.feed(chunk)
    assert (response.complete, response.reusable) == (True, True)
    assert response.read_body() is chunk


@pytest.mark.parametrize("head", UNTIL_CLOSE)
def test_response_without_length_ends_at_eof(head: bytes) -> None:
    response = fed(head + b"hel", b"lo")
    assert (response.complete, response.read_body()) == (False, b"hello")
    response.feed(b"")
    assert (response.complete, response.reusable, response.failure) == (True, False, None)


@pytest.mark.parametrize("raw", REPAIRABLE)
def test_repaired_head_prevents_reuse(raw: bytes) -> None:
    cuts = [[raw[:i], raw[i:]] for i in range(1, len(raw))]
    for chunks in [[raw], [raw[i : i + 1] for i in range(len(raw))], *cuts]:
        response = fed(*chunks)
        assert response.failure is None
        assert (response.status, response.complete, response.read_body()) == (200, True, b"hello")
        assert not response.reusable
        assert response._llhttp is None


@pytest.mark.parametrize("raw", REPAIRABLE)
def test_truncated_repaired_response_is_an_error(raw: bytes) -> None:
    for end in range(1, len(raw)):
        response = fed(raw[:end], b"")
        assert not response.complete
        assert isinstance(response.failure, RemoteProtocolError)


def test_repaired_headers_keep_their_meaning() -> None:
    response = fed(b"HTTP/1.1 200\nA : b \n\t c\nB:\x7fd\x01e\nLocation: /caf\xc3\xa9\n\n")
    assert response.headers == [(b"A", b"b c"), (b"B", b"d e"), (b"Location", b"/caf\xc3\xa9")]


@pytest.mark.slow
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_repaired_head_has_a_size_limit(end: bytes) -> None:
    response = fed(b"HTTP/1.1 200 OK\n")
    for _ in range(10_000):
        response.feed(b"Name: value" + end)
        if response.failure is not None:
            return
    raise AssertionError("nothing stopped it")


@pytest.mark.parametrize("raw", [*GARBAGE, *AMBIGUOUS])
def test_invalid_http_is_an_error(raw: bytes) -> None:
    for chunks in ([raw, b""], [*(raw[i : i + 1] for i in range(len(raw))), b""]):
        response = fed(*chunks)
        assert isinstance(response.failure, RemoteProtocolError)
        assert not response.has_head
        assert not response.reusable


@pytest.mark.parametrize("chunk", BAD_CHUNKS)
def test_data_before_an_invalid_chunk_is_kept(chunk: bytes) -> None:
    response = fed(CHUNKED + b"2\r\nhi\r\n" + chunk)
    assert response.read_body()[:2] == b"hi"
    assert isinstance(response.failure, RemoteProtocolError)
    assert not response.complete


def test_informational_responses_are_skipped() -> None:
    response = fed(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 404 Not Found\r\nA: b\r\n")
    assert not response.has_head
    response.feed(b"A: c\r\nContent-Length: 0\r\n\r\n")
    assert (response.status, response.reason, response.http_version) == (404, b"Not Found", "1.1")
    assert response.headers == [(b"A", b"b"), (b"A", b"c"), (b"Content-Length", b"0")]


def test_trailers_are_not_headers() -> None:
    response = fed(CHUNKED + b"0\r\nX: y\r\n\r\n")
    assert response.headers == [(b"Transfer-Encoding", b"chunked")]


@pytest.mark.parametrize("framing", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
def test_head_response_has_no_body(framing: bytes) -> None:
    raw = b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n"
    for end in range(1, len(raw)):
        response = fed(raw[:end], raw[end:], bodiless=True)
        assert (response.complete, response.read_body()) == (True, b"")
    assert fed(raw, bodiless=True).reusable


@pytest.mark.parametrize("junk", [b"h", b"hello", b"5", b"5\r\nhello\r\n", b"0\r\n\r\n", SIZED])
@pytest.mark.parametrize("framing", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
def test_unexpected_body_prevents_reuse(framing: bytes, junk: bytes) -> None:
    response = fed(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n" + junk, bodiless=True)
    assert (response.complete, response.read_body(), response.failure) == (True, b"", None)
    assert not response.reusable


def test_head_is_limited_in_bytes_and_lines() -> None:
    long = b"HTTP/1.1 200 OK\r\nName: " + b"x" * 70000
    many = b"HTTP/1.1 200 OK\r\n" + b"a:\r\n" * (MAX_HEADERS + 2)
    for raw in (long, many, long + b"\r\nContent-Length: 0\r\n\r\n", many + b"\r\n"):
        for size in (len(raw), 1000):
            response = parser()
            for begin in range(0, len(raw), size):
                response.feed(raw[begin : begin + size])
            assert isinstance(response.failure, RemoteProtocolError)


def test_head_limit_is_exact_in_any_chunking() -> None:
    response = parser(max_header_bytes=100)
    response.feed(b"HTTP/1.1 200 OK\r\nName: " + b"x" * 100 + b"\r\nContent-Length: 2\r\n\r\nok")
    assert isinstance(response.failure, RemoteProtocolError)
    response = parser(max_header_bytes=100)
    response.feed(b"HTTP/1.1 200 OK\r\nName: " + b"x" * 20 + b"\r\nContent-Length: 1000\r\n\r\n")
    response.feed(b"x" * 1000)
    assert response.complete


@pytest.mark.parametrize("flood", [b"X-Trailer: y\r\n", b"1;" + b"x" * 100])
def test_trailers_and_extensions_are_limited(flood: bytes) -> None:
    response = fed(CHUNKED, b"0\r\n" if flood.startswith(b"X") else b"")
    for _ in range(10000):
        response.feed(flood)
        if response.failure is not None:
            return
    raise AssertionError("nothing stopped it")


def test_finished_response_releases_its_parser() -> None:
    for response in (fed(SIZED + b"hello"), fed(b"garbage"), fed(SIZED, b"")):
        assert response._llhttp is None
