"""HTTP/1.1 requests as bytes. No I/O."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from fal_async._core.secrets import Secret
from fal_async._net.errors import LocalProtocolError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

__all__ = ["LAST_CHUNK", "EncodedRequest", "encode_chunk", "encode_request"]

#: Maximum size of a body that is sent in one write with the head, in bytes.
MAX_INLINE_BODY: Final = 65536
#: The end of a body that is sent in chunks.
LAST_CHUNK: Final = b"0\r\n\r\n"

_FRAMING: Final = frozenset({b"host", b"connection", b"content-length", b"transfer-encoding"})
#: Headers whose values are mostly those of the request before.
_REPEATED: Final = frozenset({b"user-agent", b"accept", b"content-type"})
_is_token = lru_cache(1024)(re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch)
_is_target = re.compile(rb"[!-~]+").fullmatch
_breaks_line = re.compile(rb"[\r\n\0]").search
_lower = lru_cache(1024)(bytes.lower)


class EncodedRequest(NamedTuple):
    """A request as bytes.

    Attributes:
        head: The head, with the whole body if that is small. A view, whose repr shows no content.
        body: The rest of the body.
        length: The length of the body, in bytes; ``None`` if it is sent in chunks.
        expects_body: Whether the response may have a body.
        closes_connection: Whether the connection closes after the response.
    """

    head: memoryview
    body: bytes | AsyncIterator[bytes]
    length: int | None
    expects_body: bool
    closes_connection: bool


def encode_request(
    method: str,
    host: bytes,
    target: bytes,
    headers: Iterable[tuple[bytes, bytes | Secret]],
    body: bytes | AsyncIterator[bytes],
    query: Secret | None = None,
) -> EncodedRequest:
    """Validate the parts of a request and encode its head.

    Args:
        method: The method.
        host: The value of the ``Host`` header, for requests without one.
        target: Path and query.
        headers: Names and values.
        body: The body. The headers must contain its length, or ``Transfer-Encoding: chunked``.
        query: A signed query, added to the target; ``None`` for none.

    Raises:
        LocalProtocolError: The request is not valid HTTP, or is ambiguous.
    """
    lines = [_encode_request_line(method, target, query)]
    framing = _encode_headers(headers, lines)
    if b"host" not in framing:
        lines.insert(1, b"Host: %b" % host)
    length: int | None = 0
    declared, coding = framing.get(b"content-length"), framing.get(b"transfer-encoding")
    if coding is not None:
        if declared is not None or coding.strip().lower() != b"chunked":
            raise LocalProtocolError(
                "the request must have a content-length or a chunked transfer-encoding, not both"
            )
        length = None
    elif declared is not None:
        if not declared.isdigit():
            raise LocalProtocolError(f"the content-length must be a number, got {declared!r}")
        length = int(declared)
    if isinstance(body, bytes):
        if length is None:
            body = encode_chunk(body) + LAST_CHUNK
        elif len(body) != length:
            raise LocalProtocolError(f"the body must have {length} bytes, got {len(body)}")
    lines.append(b"")
    if isinstance(body, bytes) and len(body) <= MAX_INLINE_BODY:
        lines.append(body)
        body = b""
    else:
        lines.append(b"")
    return EncodedRequest(
        head=memoryview(b"\r\n".join(lines)),
        body=body,
        length=length,
        expects_body=method != "HEAD",
        closes_connection=b"close" in framing.get(b"connection", b"").lower(),
    )


def encode_chunk(data: bytes) -> bytes:
    """Encode data as a chunk of a body; ``b""`` for no data, which would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def _encode_request_line(method: str, target: bytes, query: Secret | None) -> bytes | memoryview:
    raw_method = method.encode("ascii", "replace")
    if not _is_token(raw_method) or raw_method == b"CONNECT":
        raise LocalProtocolError(
            f"the method must be a token of HTTP other than CONNECT, got {method!r}"
        )
    if not _is_target(target):
        raise LocalProtocolError(
            f"the target must be visible ASCII characters without spaces, got {target!r}"
        )
    if query is None:
        return raw_method + b" " + target + b" HTTP/1.1"
    separator = b"&" if b"?" in target else b"?"
    return memoryview(
        b" ".join((raw_method, target + separator + query.reveal().encode("ascii"), b"HTTP/1.1"))
    )


def _encode_headers(
    headers: Iterable[tuple[bytes, bytes | Secret]], lines: list[bytes | memoryview]
) -> dict[bytes, bytes]:
    """Add the headers to the lines of the head; return those that decide about framing."""
    framing: dict[bytes, bytes] = {}
    for name, value in headers:
        if isinstance(value, Secret):
            lines.append(memoryview(b"%b: %b" % (name, value.reveal().encode("ascii"))))
            continue
        if name in _REPEATED:
            lines.append(_encode_repeated(name, value))
            continue
        lines.append(_encode_header(name, value))
        lowered = _lower(name)
        if lowered in _FRAMING:
            if lowered in framing:
                raise LocalProtocolError(f"the header {name!r} must not be repeated")
            framing[lowered] = value
    return framing


def _encode_header(name: bytes, value: bytes) -> bytes:
    if not _is_token(name):
        raise LocalProtocolError(f"the name of a header must be a token of HTTP, got {name!r}")
    if _breaks_line(value):
        raise LocalProtocolError(f"the header {name!r} must not contain line breaks or nulls")
    return name + b": " + value


_encode_repeated = lru_cache(256)(_encode_header)
