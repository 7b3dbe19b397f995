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

#: Bodies up to this size, in bytes, go out in one write with the head.
MAX_INLINE_BODY: Final = 65536
#: Ends a body that is sent in chunks.
LAST_CHUNK: Final = b"0\r\n\r\n"

_FRAMING: Final = frozenset({b"host", b"connection", b"content-length", b"transfer-encoding"})
_is_token = lru_cache(1024)(re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch)
_is_target = re.compile(rb"[!-~]+").fullmatch
_breaks_line = re.compile(rb"[\r\n\0]").search
_lower = lru_cache(1024)(bytes.lower)


class EncodedRequest(NamedTuple):
    """A request, ready to be sent.

    Attributes:
        head: The head, with the whole body when that is small: a view, whose repr shows nothing.
        body: What is left of the body.
        length: How long the body is, in bytes; ``None`` when it is sent in chunks.
        expects_body: Whether the response may have a body.
        last: Whether the connection ends with it.
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
    """Check the parts of a request and write its head.

    Args:
        method: The method.
        host: The host, with its port where that is not the scheme's own; for requests whose headers
            do not name it.
        target: Path and query.
        headers: Names and values.
        body: What follows the head; the headers say how long it is.
        query: A signed query, added to the target.

    Raises:
        LocalProtocolError: The request cannot be written, or could be read as another one.
    """
    lines = [_request_line(method, target, query)]
    framing = _add_headers(lines, headers)
    if b"host" not in framing:
        lines.insert(1, b"Host: %b" % host)
    lines.append(b"\r\n")
    head = memoryview(b"\r\n".join(lines))
    length = _length(framing)
    if isinstance(body, bytes):
        body = _framed(body, length)
        if len(body) <= MAX_INLINE_BODY:
            head, body = memoryview(b"".join((head, body))), b""
    return EncodedRequest(
        head=head,
        body=body,
        length=length,
        expects_body=method != "HEAD",
        closes_connection=b"close" in framing.get(b"connection", b"").lower(),
    )


def encode_chunk(part: bytes) -> bytes:
    """A part of a body as a chunk; nothing for an empty part, which would end the body."""
    return b"%x\r\n%b\r\n" % (len(part), part) if part else b""


def _add_headers(
    lines: list[bytes | memoryview], headers: Iterable[tuple[bytes, bytes | Secret]]
) -> dict[bytes, bytes]:
    """Write the headers; gives those that decide how long the body is, and the like."""
    framing: dict[bytes, bytes] = {}
    for name, value in headers:
        if isinstance(value, Secret):
            lines.append(memoryview(b"%b: %b" % (name, value.reveal().encode("ascii"))))
            continue
        if not _is_token(name) or _breaks_line(value):
            raise LocalProtocolError(f"the header {name!r} cannot be sent")
        lowered = _lower(name)
        if lowered in _FRAMING:
            if lowered in framing:
                raise LocalProtocolError(f"there may be only one header {name!r}")
            framing[lowered] = value
        lines.append(name + b": " + value)
    return framing


def _request_line(method: str, target: bytes, query: Secret | None) -> bytes | memoryview:
    word = method.encode("ascii", "replace")
    if not _is_token(word) or word == b"CONNECT":
        raise LocalProtocolError(f"the method {method!r} cannot be sent")
    if not _is_target(target):
        raise LocalProtocolError(f"the target {target!r} cannot be sent")
    if query is None:
        return word + b" " + target + b" HTTP/1.1"
    mark = b"&" if b"?" in target else b"?"
    return memoryview(
        b" ".join((word, target + mark + query.reveal().encode("ascii"), b"HTTP/1.1"))
    )


def _length(framing: dict[bytes, bytes]) -> int | None:
    """The length of the body as the headers announce it, ``None`` for chunks."""
    length, coding = framing.get(b"content-length"), framing.get(b"transfer-encoding")
    if coding is not None:
        if length is not None or coding.strip().lower() != b"chunked":
            raise LocalProtocolError("a body is sent with its length, or chunked, but not both")
        return None
    if length is None:
        return 0
    if not length.isdigit():
        raise LocalProtocolError(f"{length!r} is not a content-length")
    return int(length)


def _framed(body: bytes, length: int | None) -> bytes:
    if length is None:
        return encode_chunk(body) + LAST_CHUNK
    if len(body) != length:
        raise LocalProtocolError(f"the body has {len(body)} bytes instead of {length}")
    return body
