from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from fal_async._http.encoder import MAX_INLINE_BODY, EncodedRequest, encode_chunk
from fal_async._http.httpx_transport import encode_httpx_request
from fal_async._net.errors import LocalProtocolError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def parts() -> AsyncIterator[bytes]:
    yield b"one"
    yield b"two"


def written(
    method: str = "GET", url: str = "http://host/path?q=1", **options: Any
) -> EncodedRequest:
    return encode_httpx_request(httpx.Request(method, url, **options))


def test_a_request_is_its_line_and_headers_and_a_small_body_in_one_piece() -> None:
    request = written("POST", headers={"X-Name": "value"}, content=b"body")
    assert bytes(request.head) == (
        b"POST /path?q=1 HTTP/1.1\r\nHost: host\r\nX-Name: value\r\nContent-Length: 4\r\n\r\nbody"
    )
    assert request.body == b""


def test_a_big_body_is_left_for_later() -> None:
    content = b"x" * (MAX_INLINE_BODY + 1)
    request = written("PUT", content=content)
    assert bytes(request.head).endswith(b"\r\n\r\n")
    assert request.body == content


def test_a_stream_is_sent_in_chunks_or_with_the_length_that_it_announces() -> None:
    assert written("POST", content=parts()).length is None
    assert written("POST", content=parts(), headers={"Content-Length": "6"}).length == 6


def test_bytes_can_be_sent_in_chunks() -> None:
    request = httpx.Request(
        "POST", "http://host/", content=b"hello", headers={"Transfer-Encoding": "chunked"}
    )
    del request.headers["Content-Length"]
    assert bytes(encode_httpx_request(request).head).endswith(b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n")


def test_an_empty_part_is_no_chunk() -> None:
    assert (encode_chunk(b""), encode_chunk(b"0123456789abcdef!")) == (
        b"",
        b"11\r\n0123456789abcdef!\r\n",
    )


def test_the_host_is_named_even_if_the_headers_do_not() -> None:
    request = httpx.Request("GET", "http://host:8000/")
    del request.headers["Host"]
    assert bytes(encode_httpx_request(request).head) == b"GET / HTTP/1.1\r\nHost: host:8000\r\n\r\n"


def test_a_request_may_be_the_last_of_its_connection() -> None:
    assert written(headers={"Connection": "close"}).closes_connection
    assert not written(headers={"Connection": "keep-alive"}).closes_connection


@pytest.mark.parametrize("value", ["a\r\nX-Injected: yes", "a\nb", "a\rb", "a\0b"])
def test_a_header_value_cannot_begin_another_line(value: str) -> None:
    with pytest.raises(LocalProtocolError, match="X-Name"):
        written(headers={"X-Name": value})


@pytest.mark.parametrize("name", ["X\r\nY", "X Y", "X:", "", "X\0", "Ünicode"])
def test_a_header_name_is_a_token(name: str) -> None:
    headers = [(name.encode("latin-1"), b"value")]
    with pytest.raises(LocalProtocolError):
        written(headers=headers)


@pytest.mark.parametrize("method", ["GE T", "GET\r\nX: y", "", "CONNECT", "GÉT"])
def test_a_method_is_a_token_and_no_tunnel(method: str) -> None:
    with pytest.raises(LocalProtocolError):
        written(method)


@pytest.mark.parametrize("target", [b"/a b", b"/\r\nX: y", b"", b"/\0", b"/\xff"])
def test_a_target_has_no_spaces_or_control_characters(target: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        written(extensions={"target": target})


@pytest.mark.parametrize(
    "headers",
    [
        [("Content-Length", "4"), ("Transfer-Encoding", "chunked")],
        [("Content-Length", "4"), ("Content-Length", "4")],
        [("Content-Length", "5")],
        [("Content-Length", "+4")],
        [("Transfer-Encoding", "gzip")],
        [("Transfer-Encoding", "gzip, chunked")],
        [("Host", "a"), ("Host", "b"), ("Content-Length", "4")],
    ],
)
def test_a_body_has_exactly_one_meaning(headers: list[tuple[str, str]]) -> None:
    with pytest.raises(LocalProtocolError):
        written("POST", headers=headers, content=b"body")


def test_a_body_that_no_header_announces_is_refused() -> None:
    request = httpx.Request("POST", "http://host/", content=b"body")
    del request.headers["Content-Length"]
    with pytest.raises(LocalProtocolError):
        encode_httpx_request(request)


def test_a_synchronous_stream_is_refused() -> None:
    with pytest.raises(LocalProtocolError, match="synchronous"):
        written("POST", content=iter([b"one"]))
