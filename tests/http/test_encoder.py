"""Request encoder: heads, bodies and refused input."""

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


def test_small_request_is_one_buffer() -> None:
    request = written("POST", headers={"X-Name": "value"}, content=b"body")
    assert bytes(request.head) == (
        b"POST /path?q=1 HTTP/1.1\r\nHost: host\r\nX-Name: value\r\nContent-Length: 4\r\n\r\nbody"
    )
    assert request.body == b""


def test_large_body_is_sent_separately() -> None:
    content = b"x" * (MAX_INLINE_BODY + 1)
    request = written("PUT", content=content)
    assert bytes(request.head).endswith(b"\r\n\r\n")
    assert request.body == content


def test_stream_is_chunked_or_has_its_length() -> None:
    assert written("POST", content=parts()).length is None
    assert written("POST", content=parts(), headers={"Content-Length": "6"}).length == 6


def test_bytes_may_be_sent_in_chunks() -> None:
    request = httpx.Request(
        "POST", "http://host/", content=b"hello", headers={"Transfer-Encoding": "chunked"}
    )
    del request.headers["Content-Length"]
    assert bytes(encode_httpx_request(request).head).endswith(b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n")


def test_empty_part_sends_no_chunk() -> None:
    assert (encode_chunk(b""), encode_chunk(b"0123456789abcdef!")) == (
        b"",
        b"11\r\n0123456789abcdef!\r\n",
    )


def test_missing_host_header_is_added() -> None:
    request = httpx.Request("GET", "http://host:8000/")
    del request.headers["Host"]
    assert bytes(encode_httpx_request(request).head) == b"GET / HTTP/1.1\r\nHost: host:8000\r\n\r\n"


def test_request_may_close_its_connection() -> None:
    assert written(headers={"Connection": "close"}).closes_connection
    assert not written(headers={"Connection": "keep-alive"}).closes_connection


@pytest.mark.parametrize("value", ["a\r\nX-Injected: yes", "a\nb", "a\rb", "a\0b"])
def test_header_value_cannot_inject_a_header(value: str) -> None:
    with pytest.raises(LocalProtocolError, match="X-Name"):
        written(headers={"X-Name": value})


@pytest.mark.parametrize("name", ["X\r\nY", "X Y", "X:", "", "X\0", "Ünicode"])
def test_header_name_must_be_a_token(name: str) -> None:
    headers = [(name.encode("latin-1"), b"value")]
    with pytest.raises(LocalProtocolError):
        written(headers=headers)


@pytest.mark.parametrize("method", ["GE T", "GET\r\nX: y", "", "CONNECT", "GÉT"])
def test_invalid_methods_are_refused(method: str) -> None:
    with pytest.raises(LocalProtocolError):
        written(method)


@pytest.mark.parametrize("target", [b"/a b", b"/\r\nX: y", b"", b"/\0", b"/\xff"])
def test_target_has_no_spaces_or_controls(target: bytes) -> None:
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
def test_body_must_be_unambiguous(headers: list[tuple[str, str]]) -> None:
    with pytest.raises(LocalProtocolError):
        written("POST", headers=headers, content=b"body")


def test_length_of_an_unannounced_body_is_added() -> None:
    request = httpx.Request("POST", "http://host/", content=b"body")
    del request.headers["Content-Length"]
    head = bytes(encode_httpx_request(request).head)
    assert head.endswith(b"content-length: 4\r\n\r\nbody")


def test_synchronous_stream_is_refused() -> None:
    with pytest.raises(LocalProtocolError, match="synchronous"):
        written("POST", content=iter([b"one"]))
