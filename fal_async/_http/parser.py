"""HTTP/1.1 responses: bytes in, a head and chunks of a body out. No I/O."""

from __future__ import annotations

import re
from typing import Final

import httptools

from fal_async._net.errors import RemoteProtocolError

__all__ = ["ResponseParser"]

#: Maximum number of interim responses (status 1xx) before the final one.
MAX_INFORMATIONAL: Final = 16
#: Maximum number of headers of one response, trailers included. Platforms send about 20.
MAX_HEADERS: Final = 512


class ResponseParser:
    """Parses one response with llhttp, which is strict about heads and chunks.

    A head that llhttp rejects is repaired if its meaning is not in doubt. A receiver that parses a
    response differently from its sender would take the end of it for the next response. So a
    connection with a repaired response carries no other request.

    The rest of a body of known length needs no parsing, and is not copied either.

    Args:
        no_body: Whether the response has no body, as after a HEAD request.
        max_header_bytes: Maximum length of the head, in bytes.
        may_upgrade: Whether the peer may switch to another protocol.

    Attributes:
        started: Whether a byte has arrived.
        status: The status code.
        reason: The reason phrase.
        headers: Names and values, as received.
        has_head: Whether status and headers are complete.
        http_version: The version, such as ``"1.1"``.
        body_chunks: Chunks of the body that have arrived and have not been read.
        complete: Whether the whole response has arrived.
        reusable: Whether the connection can carry another request after the response.
        failure: The reason why the rest of the response cannot be parsed, or ``None``.
        keep_alive: The time for which the peer keeps idle connections, in seconds; ``None`` if the
            peer does not announce it.
        is_upgraded: Whether the peer has switched to another protocol.
        trailing: The bytes of that protocol that have arrived.
        remaining: The number of bytes that are missing from a body of known length, which are not
            parsed; ``None`` for other bodies, and before the head is complete.
    """

    __slots__ = (
        "_header_bytes",
        "_informational",
        "_llhttp",
        "_max_header_bytes",
        "_may_upgrade",
        "_no_body",
        "_overhead",
        "_raw_head",
        "_rejection",
        "_was_repaired",
        "body_chunks",
        "complete",
        "failure",
        "has_head",
        "headers",
        "http_version",
        "is_upgraded",
        "keep_alive",
        "reason",
        "remaining",
        "reusable",
        "started",
        "status",
        "trailing",
    )

    def __init__(self, *, no_body: bool, max_header_bytes: int, may_upgrade: bool = False) -> None:
        self._no_body = no_body
        self._max_header_bytes = max_header_bytes
        self._may_upgrade = may_upgrade
        self._llhttp: httptools.HttpResponseParser | None = _make_llhttp(self)
        self._raw_head: list[bytes] = []
        self._rejection: Exception | None = None
        self._was_repaired = False
        self._informational = 0
        self._header_bytes = 0
        self._overhead = 0
        self.remaining: int | None = None  # of a body whose length is known
        self.started = False
        self.status = 0
        self.http_version = "1.1"
        self.reason = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.has_head = False
        self.body_chunks: list[bytes] = []
        self.complete = False
        self.reusable = False
        self.failure: RemoteProtocolError | None = None
        self.keep_alive: float | None = None
        self.is_upgraded = False
        self.trailing = b""

    def feed(self, received: bytes) -> None:
        """Parse received bytes; ``b""`` is the end of the connection."""
        llhttp = self._llhttp
        if llhttp is None:
            self.reusable = False
        elif not received:
            self._feed_eof()
        elif self.remaining is not None:
            self._take(llhttp, received)
        else:
            self.started = True
            self._overhead += len(received)
            if self.has_head:
                self._parse(llhttp, received)
            else:
                self._parse_head(llhttp, received)
        if self.complete or self.failure is not None:
            self._llhttp = None  # break the reference cycle

    def read_body(self) -> bytes:
        """Return the part of the body that has arrived since the last call."""
        body_chunks = self.body_chunks
        if not body_chunks:
            return b""
        self.body_chunks = []
        return body_chunks[0] if len(body_chunks) == 1 else b"".join(body_chunks)

    def _parse_head(self, llhttp: httptools.HttpResponseParser, received: bytes) -> None:
        self._raw_head.append(received)
        if self._rejection is None:
            self._parse(llhttp, received)
        elif b"\n" in received or self._overhead > self._max_header_bytes:
            self._repair(self._rejection)
        if self.has_head and not self.complete:
            lengths = [value for name, value in self.headers if name.lower() == b"content-length"]
            if lengths:  # llhttp rejects a second one, and one with chunks
                self.remaining = int(lengths[0]) - sum(map(len, self.body_chunks))

    def _take(self, llhttp: httptools.HttpResponseParser, received: bytes) -> None:
        """Add received bytes to a body of known length."""
        rest = self.remaining or 0
        self.body_chunks.append(received if len(received) <= rest else received[:rest])
        self.remaining = rest = rest - len(received)
        if rest <= 0:
            self.complete = True
            has_trailing = rest < 0
            self.reusable = (
                llhttp.should_keep_alive() and not has_trailing and not self._was_repaired
            )

    def _parse(self, llhttp: httptools.HttpResponseParser, received: bytes) -> None:
        try:
            llhttp.feed_data(received)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.reusable = False
            if self.is_upgraded and isinstance(error, httptools.HttpParserUpgrade):
                self.trailing = received[error.args[0] :]
            elif self.has_head or self.failure is not None or self._was_repaired:
                self._fail(f"the response is not HTTP/1.1: {error}")
            else:
                self._repair(error)
            return
        if self.complete:
            # llhttp may hold the start of a body that must not be there.
            if self._no_body and not received.endswith(b"\r\n\r\n"):
                self.reusable = False
        else:
            self._check_overhead()

    def _check_overhead(self) -> None:
        """Limit the bytes that llhttp consumes without an event, such as long chunk extensions."""
        if self._overhead > self._max_header_bytes:
            self._fail(
                f"the response must have at most {self._max_header_bytes} bytes of headers and "
                "other overhead, got more"
            )

    def _repair(self, rejection: Exception) -> None:
        """Parse the response again with a repaired head, once the head is complete."""
        try:
            repaired = _repair_head(b"".join(self._raw_head))
        except ValueError as error:
            self._fail(f"the response is not HTTP/1.1: {rejection}: {error}")
            return
        if repaired is None:
            self._rejection = rejection
            self._check_overhead()
            return
        self._rejection = None
        self._was_repaired = True
        self._informational = self._header_bytes = 0
        self.reason, self.headers = b"", []
        self._llhttp = llhttp = _make_llhttp(self)
        self._parse(llhttp, repaired)

    def _feed_eof(self) -> None:
        coding = b""
        has_length = False
        for name, value in self.headers:
            lowered = name.lower()
            has_length |= lowered == b"content-length"
            if lowered == b"transfer-encoding":
                coding = value
        is_chunked = coding.rpartition(b",")[2].strip().lower() == b"chunked"
        # A response without a length ends with its connection.
        if self.has_head and not has_length and not is_chunked:
            self.complete = True
        else:
            self._fail("the connection was closed before the response was complete")

    def _fail(self, reason: str) -> None:
        if self.failure is None and not self.complete:
            self.failure = RemoteProtocolError(reason)

    # Callbacks of llhttp.

    def on_message_begin(self) -> None:
        if self.complete:
            raise _Stop

    def on_status(self, part: bytes) -> None:
        self.reason += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value) + 4
        if self._header_bytes > self._max_header_bytes or len(self.headers) >= MAX_HEADERS:
            self._fail(
                f"the response must have at most {MAX_HEADERS} headers and "
                f"{self._max_header_bytes} bytes of headers, got more"
            )
            raise _Stop
        if self.has_head:  # trailers are ignored
            return
        self.headers.append((name, value))
        if len(name) == len(b"keep-alive") and name.lower() == b"keep-alive":
            for parameter in value.split(b","):
                key, _, seconds = parameter.strip().partition(b"=")
                if key.strip().lower() == b"timeout" and seconds.strip().isdigit():
                    self.keep_alive = float(seconds)

    def on_headers_complete(self) -> None:
        llhttp = self._llhttp
        assert llhttp is not None  # noqa: S101 -- it calls this method
        self.status = status = llhttp.get_status_code()
        self.http_version = llhttp.get_http_version()
        self.is_upgraded = status == 101 and self._may_upgrade
        if self.is_upgraded:
            self.has_head = self.complete = True
            return
        if self.http_version not in {"1.1", "1.0"} or status < 100 or status == 101:
            self._fail(
                f"the response must be HTTP/1.1, got HTTP/{self.http_version} with status {status}"
            )
            raise _Stop
        if status >= 200:
            self.has_head = True
            self._raw_head = []
            if self._no_body:
                self.complete = True
                self.reusable = llhttp.should_keep_alive() and not self._was_repaired

    def on_chunk_header(self) -> None:
        if self.complete:
            raise _Stop

    def on_body(self, chunk: bytes) -> None:
        if self.complete:
            raise _Stop
        self._overhead = 0
        self.body_chunks.append(chunk)

    def on_message_complete(self) -> None:
        if self.has_head:
            if not self.complete:
                self.complete = True
                assert self._llhttp is not None  # noqa: S101 -- it calls this method
                self.reusable = self._llhttp.should_keep_alive() and not self._was_repaired
            return
        self._informational += 1
        if self._informational > MAX_INFORMATIONAL:
            self._fail(
                f"the response must have at most {MAX_INFORMATIONAL} interim responses, got more"
            )
            raise _Stop
        self.reason, self.headers = b"", []


class _Stop(Exception):  # noqa: N818 -- a signal through llhttp to `feed`
    """The rest of the received bytes is not parsed."""


def _make_llhttp(parser: ResponseParser) -> httptools.HttpResponseParser:
    llhttp = httptools.HttpResponseParser(parser)
    # The former grammar (RFC 2616) allows these spaces. They are common and harmless.
    llhttp.set_dangerous_leniencies(lenient_spaces_after_chunk_size=True)
    return llhttp


_PREFIX: Final = b"HTTP/1."
_HEAD_END: Final = re.compile(rb"\r?\n\r?\n")
_is_status_line = re.compile(rb"(HTTP/1\.[01])[ \t]+([1-9][0-9][0-9])(?:[ \t]+(.*))?").fullmatch
_is_name = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})
#: Replaces control characters, which are not allowed in header values, by spaces. Tabs are allowed.
_CONTROL_TO_SPACE: Final = bytes(
    32 if (code < 32 and code != 9) or code == 127 else code for code in range(256)
)


def _repair_head(received: bytes) -> bytes | None:
    """Correct the head of a response, and the heads of interim responses before it.

    A paid output must not be lost because a server omits a carriage return (RFC 9112, section 2.2)
    or folds a header (section 5.2). Ambiguous heads remain errors: two lengths, a length with
    chunks, or a line that is no header.

    Args:
        received: All bytes of the response that have arrived.

    Returns:
        The same bytes with a correct head; ``None`` while the head is incomplete.

    Raises:
        ValueError: The head is invalid, or ambiguous.
    """
    heads: list[bytes] = []
    rest = received
    while True:
        if not rest.startswith(_PREFIX) and not _PREFIX.startswith(rest):
            raise ValueError("the status line is missing")
        end = _HEAD_END.search(rest)
        if end is None:
            return None
        lines = [line.removesuffix(b"\r") for line in rest[: end.start()].split(b"\n")]
        rest = rest[end.end() :]
        status = _is_status_line(lines[0])
        if status is None:
            raise ValueError("the status line is invalid")
        version, code, reason = status.groups(b"")
        headers = _repair_headers(lines[1:])
        heads.append(b"\r\n".join([b"%b %b %b" % (version, code, reason), *headers]))
        if not code.startswith(b"1") or code == b"101":
            return b"\r\n\r\n".join([*heads, rest])


def _repair_headers(lines: list[bytes]) -> list[bytes]:
    headers: list[tuple[bytes, bytes]] = []
    for line in lines:
        if b"\r" in line or b"\0" in line:
            raise ValueError("a header contains a carriage return or a null byte")
        if line.startswith((b" ", b"\t")):
            if not headers or headers[-1][0].lower() in _FRAMING:
                raise ValueError("a folded line is not allowed here")
            name, value = headers[-1]
            headers[-1] = name, value + b" " + line.strip(b" \t")
            continue
        name, colon, value = line.partition(b":")
        name = name.rstrip(b" \t")
        if not colon or not _is_name(name):
            raise ValueError("a line is not a header")
        headers.append((name, value.strip(b" \t")))
    repaired: list[bytes] = []
    lengths: set[bytes] = set()
    codings = 0
    for name, value in headers:
        lowered = name.lower()
        if lowered == b"content-length":
            lengths.update(part.strip() for part in value.split(b","))
            continue
        codings += lowered == b"transfer-encoding"
        repaired.append(b"%b: %b" % (name, value.translate(_CONTROL_TO_SPACE)))
    if len(lengths) + codings > 1 or not all(length.isdigit() for length in lengths):
        raise ValueError("the length of the body is ambiguous")
    return repaired + [b"Content-Length: " + length for length in lengths]
