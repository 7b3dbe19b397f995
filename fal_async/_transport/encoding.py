"""HTTP/1.1 requests as bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal

import httpx

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["Outgoing", "encode"]

#: Methods that may be repeated when a connection turns out to be dead (RFC 9110, section 9.2.2).
IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
#: Bodies up to this size, in bytes, go out in one piece with the head.
SMALL: Final = 65536

_is_token = lru_cache(1024)(re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch)
_is_target = re.compile(rb"[!-~\x80-\xff]+").fullmatch
_breaks_line = re.compile(rb"[\r\n\0]").search


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request, ready to be sent.

    Attributes:
        head: The head, with the whole body when that is small.
        body: What is left of the body: bytes, or a stream; ``None`` when nothing is left.
        length: How long the body says it is, in bytes; ``None`` when it is sent in chunks.
        is_head: Whether the reply has no body.
        repeatable: Whether it may be sent again when the peer cannot have acted on it.
        last: Whether the connection is closed after it.
    """

    head: bytes
    body: bytes | AsyncIterator[bytes] | None
    length: int | None
    is_head: bool
    repeatable: bool
    last: bool


def encode(request: httpx.Request) -> Outgoing:
    """Check a request and write its head.

    Raises:
        httpx.LocalProtocolError: The request cannot be written as HTTP/1.1, or would not be read as one request.
    """
    head, framing, last = _encode_head(request)
    stream = request.stream
    body: bytes | AsyncIterator[bytes] | None
    if isinstance(stream, httpx.ByteStream):
        content = b"".join(stream)
        if framing == "chunked":
            content = frame(content) + LAST_CHUNK
        elif len(content) != framing:
            raise httpx.LocalProtocolError(
                f"the body has {len(content)} bytes, content-length says {framing}"
            )
        head, body = (head + content, None) if len(content) <= SMALL else (head, content)
    elif isinstance(stream, httpx.AsyncByteStream):
        body = stream.__aiter__()
    else:
        raise httpx.LocalProtocolError(
            "the body is a synchronous stream; an async iterator is needed"
        )
    return Outgoing(
        head=head,
        body=body,
        length=None if framing == "chunked" else framing,
        is_head=request.method == "HEAD",
        repeatable=request.method in IDEMPOTENT and (body is None or isinstance(body, bytes)),
        last=last,
    )


#: Ends a body that is sent in chunks.
LAST_CHUNK: Final = b"0\r\n\r\n"


def frame(part: bytes) -> bytes:
    """A part of a body as a chunk."""
    return b"%x\r\n%b\r\n" % (len(part), part) if part else b""


def _encode_head(request: httpx.Request) -> tuple[bytes, int | Literal["chunked"], bool]:
    method = request.method.encode("ascii", "replace")
    target = request.extensions.get("target", request.url.raw_path)
    if not _is_token(method) or method == b"CONNECT":
        raise httpx.LocalProtocolError(f"{request.method!r} is not a method that can be sent")
    if not _is_target(target):
        raise httpx.LocalProtocolError(f"{target!r} is not a target that can be sent")
    lines = [b"%b %b HTTP/1.1" % (method, target)]
    special: dict[bytes, bytes] = {}
    for name, value in request.headers.raw:
        if not _is_token(name) or _breaks_line(value):
            raise httpx.LocalProtocolError(f"the header {name!r} cannot be sent")
        lowered = name.lower()
        if lowered in _SPECIAL:
            if lowered in special and lowered != b"connection":
                raise httpx.LocalProtocolError(f"there are several headers {name!r}")
            special[lowered] = value
        lines.append(b"%b: %b" % (name, value))
    if b"host" not in special:
        lines.insert(1, b"Host: %b" % request.url.netloc)
    lines.append(b"\r\n")
    last = b"close" in special.get(b"connection", b"").lower()
    return b"\r\n".join(lines), _framing(special), last


_SPECIAL = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection"})


def _framing(special: dict[bytes, bytes]) -> int | Literal["chunked"]:
    length, coding = special.get(b"content-length"), special.get(b"transfer-encoding")
    if coding is None:
        if length is None:
            return 0
        if length.isdigit():
            return int(length)
        raise httpx.LocalProtocolError(f"{length!r} is not a content-length")
    if length is not None or coding.strip().lower() != b"chunked":
        raise httpx.LocalProtocolError(
            "a body has either a content-length or the transfer-encoding chunked"
        )
    return "chunked"
