"""HTTP/1.1 requests as bytes. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from fal_async._net.errors import LocalProtocolError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from fal_async._core.secrets import Secret

__all__ = [
    "LAST_CHUNK",
    "EncodedHeaders",
    "EncodedRequest",
    "encode_chunk",
    "encode_headers",
    "encode_request",
]

#: Maximum size of a body that is sent in one write with the head, in bytes.
MAX_INLINE_BODY: Final = 65536
#: The end of a body that is sent in chunks.
LAST_CHUNK: Final = b"0\r\n\r\n"

_FRAMING: Final = frozenset({b"host", b"connection", b"content-length", b"transfer-encoding"})
#: Methods whose requests have a body, even an empty one.
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
_is_token = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_breaks_line = re.compile(rb"[\r\n\0]").search


class EncodedHeaders(NamedTuple):
    """The headers of a request as bytes.

    Attributes:
        lines: A line for each header, with its line break.
        length: The length of the body that they declare, in bytes; ``None`` if they do not.
        is_chunked: Whether they declare that the body is sent in chunks.
        closes_connection: Whether the connection closes after the response.
    """

    lines: bytes
    length: int | None
    is_chunked: bool
    closes_connection: bool


@dataclass(slots=True)
class EncodedRequest:
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


def encode_headers(host: bytes, headers: Iterable[tuple[bytes, bytes]]) -> EncodedHeaders:
    """Validate and encode headers.

    Args:
        host: The value of the ``Host`` header, unless it is among the headers.
        headers: Names and values.

    Raises:
        LocalProtocolError: A header is not valid HTTP, or the headers are ambiguous.
    """
    lines: list[bytes] = []
    framing: dict[bytes, bytes] = {}
    for name, value in headers:
        if not _is_token(name):
            raise LocalProtocolError(f"the name of a header must be a token of HTTP, got {name!r}")
        if _breaks_line(value):
            raise LocalProtocolError(f"the header {name!r} must not contain line breaks or nulls")
        lines.append(b"%b: %b\r\n" % (name, value))
        lowered = name.lower()
        if lowered in _FRAMING:
            if lowered in framing:
                raise LocalProtocolError(f"the header {name!r} must not be repeated")
            framing[lowered] = value
    length, coding = framing.get(b"content-length"), framing.get(b"transfer-encoding")
    if coding is not None and (length is not None or coding.strip().lower() != b"chunked"):
        raise LocalProtocolError(
            "the request must have a content-length or a chunked transfer-encoding, not both"
        )
    if length is not None and not length.isdigit():
        raise LocalProtocolError(f"the content-length must be a number, got {length!r}")
    if b"host" not in framing:
        lines.insert(0, b"Host: %b\r\n" % host)
    return EncodedHeaders(
        lines=b"".join(lines),
        length=None if length is None else int(length),
        is_chunked=coding is not None,
        closes_connection=b"close" in framing.get(b"connection", b"").lower(),
    )


def encode_request(
    method: str,
    target: bytes,
    headers: EncodedHeaders,
    body: bytes | AsyncIterator[bytes],
    *,
    authorization: Secret | None = None,
    query: Secret | None = None,
) -> EncodedRequest:
    """Encode a request.

    Args:
        method: The method.
        target: Path and query, in visible ASCII characters.
        headers: The headers. If they do not declare the length of the body, it is added.
        body: The body. Chunks need headers that declare their length, or that they are chunked.
        authorization: The value of the ``Authorization`` header; ``None`` for none.
        query: A signed query, added to the target; ``None`` for none.

    Raises:
        LocalProtocolError: The method is not valid HTTP, or the body has another length.
    """
    length = headers.length
    parts: list[bytes | memoryview] = [_encode_method(method), target]
    if query is not None:
        parts += b"&" if b"?" in target else b"?", memoryview(query.reveal().encode("ascii"))
    parts += b" HTTP/1.1\r\n", headers.lines
    if authorization is not None:
        parts.append(memoryview(b"authorization: %b\r\n" % authorization.reveal().encode("ascii")))
    if isinstance(body, bytes):
        if headers.is_chunked:
            body = encode_chunk(body) + LAST_CHUNK
        elif length is None:
            length = len(body)
            if body or method in _WITH_BODY:
                parts.append(b"content-length: %d\r\n" % length)
        elif length != len(body):
            raise LocalProtocolError(f"the body must have {length} bytes, got {len(body)}")
    elif length is None and not headers.is_chunked:
        length = 0
    parts.append(b"\r\n")
    if isinstance(body, bytes) and len(body) <= MAX_INLINE_BODY:
        parts.append(body)
        body = b""
    return EncodedRequest(
        memoryview(b"".join(parts)), body, length, method != "HEAD", headers.closes_connection
    )


def encode_chunk(data: bytes) -> bytes:
    """Encode data as a chunk of a body; ``b""`` for no data, which would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


@lru_cache(maxsize=64)
def _encode_method(method: str) -> bytes:
    encoded = method.encode("ascii", "replace")
    if not _is_token(encoded) or encoded == b"CONNECT":
        raise LocalProtocolError(
            f"the method must be a token of HTTP other than CONNECT, got {method!r}"
        )
    return encoded + b" "
