"""Heads of responses that break the rules in a way that leaves no doubt of what was meant. No I/O.

An output that was paid for is not lost because a server forgets a carriage return (RFC 9112,
section 2.2) or folds a header (5.2). What could be read in two ways remains an error: two lengths,
a length beside chunks, a name or a line that is none.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["repair_head"]

_PREFIX: Final = b"HTTP/1."
_END: Final = re.compile(rb"\r?\n\r?\n")
_is_status_line = re.compile(rb"(HTTP/1\.[01])[ \t]+([1-9][0-9][0-9])(?:[ \t]+(.*))?").fullmatch
_is_name = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})
#: Control characters, which no value of a header has; tabs are allowed.
_CONTROLS: Final = bytes(
    32 if (code < 32 and code != 9) or code == 127 else code for code in range(256)
)


def repair_head(received: bytes) -> bytes | None:
    """Write the head of a response, and those of interim responses before it, as they should be.

    Args:
        received: All that has arrived of the response.

    Returns:
        The same with a correct head; ``None`` when the head is not complete.

    Raises:
        ValueError: The head cannot be read, or could be read in two ways.
    """
    heads: list[bytes] = []
    rest = received
    while True:
        if not rest.startswith(_PREFIX) and not _PREFIX.startswith(rest):
            raise ValueError("the status line is missing")
        end = _END.search(rest)
        if end is None:
            return None
        lines = [line.removesuffix(b"\r") for line in rest[: end.start()].split(b"\n")]
        rest = rest[end.end() :]
        status = _is_status_line(lines[0])
        if status is None:
            raise ValueError("the status line cannot be read")
        version, code, reason = status.groups(b"")
        heads.append(b"\r\n".join([b"%b %b %b" % (version, code, reason), *_fields(lines[1:])]))
        if not code.startswith(b"1") or code == b"101":
            return b"\r\n\r\n".join([*heads, rest])


def _fields(lines: list[bytes]) -> list[bytes]:
    fields: list[bytes] = []
    lengths: set[bytes] = set()
    codings = 0
    for name, value in _unfold(lines):
        lowered = name.lower()
        if lowered == b"content-length":
            lengths.update(part.strip() for part in value.split(b","))
            continue
        codings += lowered == b"transfer-encoding"
        fields.append(b"%b: %b" % (name, value.translate(_CONTROLS)))
    if len(lengths) + codings > 1 or not all(length.isdigit() for length in lengths):
        raise ValueError("the length of the body is not clear")
    return fields + [b"Content-Length: " + length for length in lengths]


def _unfold(lines: list[bytes]) -> list[tuple[bytes, bytes]]:
    fields: list[tuple[bytes, bytes]] = []
    for line in lines:
        if b"\r" in line or b"\0" in line:
            raise ValueError("a header has a carriage return or a zero in it")
        if line.startswith((b" ", b"\t")):
            if not fields or fields[-1][0].lower() in _FRAMING:
                raise ValueError("a line is folded where none may be")
            name, value = fields[-1]
            fields[-1] = name, value + b" " + line.strip(b" \t")
            continue
        name, colon, value = line.partition(b":")
        name = name.rstrip(b" \t")
        if not colon or not _is_name(name):
            raise ValueError("a line is no header")
        fields.append((name, value.strip(b" \t")))
    return fields
