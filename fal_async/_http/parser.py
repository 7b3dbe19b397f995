"""HTTP/1.1 responses: bytes in, a head and pieces of a body out. No I/O."""

from __future__ import annotations

from typing import Final

import httptools

from fal_async._http.head_repair import repair_head
from fal_async._net.errors import RemoteProtocolError

__all__ = ["ResponseParser"]

#: Interim responses (status 1xx) before the response proper.
MAX_INTERIM: Final = 16
#: Header lines of one response, trailers included. Platforms send about 20.
MAX_HEADERS: Final = 512


class _Stop(Exception):  # noqa: N818 -- a signal through llhttp to `feed`
    """Nothing more is to be parsed."""


def _make_llhttp(parser: ResponseParser) -> httptools.HttpResponseParser:
    llhttp = httptools.HttpResponseParser(parser)
    # Allowed by the grammar of old (RFC 2616), common, and without danger.
    llhttp.set_dangerous_leniencies(lenient_spaces_after_chunk_size=True)
    return llhttp


class ResponseParser:
    """Reads one response with llhttp, which is strict about heads and chunks.

    A head that llhttp refuses is repaired where there is no doubt of what was meant. Who reads a
    response in another way than its sender would take the end of it for the next one, so a
    connection
    on which that was necessary carries no other exchange.

    Attributes:
        started: Whether a byte has arrived.
        status: The status code.
        reason: The reason phrase.
        headers: Names and values, as they came.
        has_head: Whether status and headers are complete.
        http_version: The version, such as ``"1.1"``.
        pieces: Parts of the body that have arrived and have not been taken.
        complete: Whether the whole response has arrived.
        reusable: Whether the connection may carry another exchange, once the response is complete.
        failure: Why the rest of the response cannot be read, or ``None``.
        keep_alive: How long the peer keeps idle connections, in seconds; ``None`` when it does not
            say.
        is_upgraded: Whether the peer has switched to another protocol.
        trailing: What has arrived of that.
    """

    __slots__ = (
        "_bodiless",
        "_header_bytes",
        "_interim",
        "_limit",
        "_llhttp",
        "_may_upgrade",
        "_overhead",
        "_raw",
        "_refused",
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
        "reusable",
        "started",
        "status",
        "trailing",
    )

    def __init__(self, *, no_body: bool, max_header_bytes: int, may_upgrade: bool = False) -> None:
        self._bodiless = no_body
        self._limit = max_header_bytes
        self._llhttp: httptools.HttpResponseParser | None = _make_llhttp(self)
        self._raw: list[bytes] = []
        self._refused: Exception | None = None
        self._was_repaired = False
        self._interim = 0
        self._header_bytes = 0
        self._overhead = 0
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
        self._may_upgrade = may_upgrade
        self.is_upgraded = False
        self.trailing = b""

    def feed(self, received: bytes) -> None:
        """Take what has arrived; ``b""`` is the end of the connection."""
        llhttp = self._llhttp
        if llhttp is None:
            self.reusable = False
        elif not received:
            self._end()
        else:
            self.started = True
            self._overhead += len(received)
            if not self.has_head:
                self._raw.append(received)
            if self._refused is None:
                self._parse(llhttp, received)
            elif b"\n" in received or self._overhead > self._limit:
                self._repair(self._refused)
        if self.complete or self.failure is not None:
            self._llhttp = None  # it refers to this object

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
        else:
            self._check_rest(received)

    def _repair(self, refused: Exception) -> None:
        """Parse the response again with a repaired head, once the head is complete."""
        try:
            repaired = repair_head(b"".join(self._raw))
        except ValueError as error:
            self._fail(f"the response is not HTTP/1.1: {refused}: {error}")
            return
        if repaired is None:
            self._refused = refused
            self._check_rest(b"")
            return
        self._refused = None
        self._was_repaired = True
        self._interim = self._header_bytes = 0
        self.reason, self.headers = b"", []
        self._llhttp = llhttp = _make_llhttp(self)
        self._parse(llhttp, repaired)

    def read_body(self) -> bytes:
        """The parts of the body that have arrived since the last call, together."""
        body_chunks = self.body_chunks
        if not body_chunks:
            return b""
        self.body_chunks = []
        return body_chunks[0] if len(body_chunks) == 1 else b"".join(body_chunks)

    def _fail(self, reason: str) -> None:
        if self.failure is None and not self.complete:
            self.failure = RemoteProtocolError(reason)

    def _check_rest(self, received: bytes) -> None:
        """After llhttp has taken everything: what it has not reported is bounded, and not lost."""
        if not self.complete:
            if self._overhead > self._limit:
                self._fail(f"the response has more than {self._limit} bytes that are not body")
        elif self._bodiless and not received.endswith(b"\r\n\r\n"):
            self.reusable = False  # llhttp may hold the beginning of a body that must not be there

    def _read_keep_alive(self, value: bytes) -> None:
        for parameter in value.split(b","):
            name, _, seconds = parameter.strip().partition(b"=")
            if name.strip().lower() == b"timeout" and seconds.strip().isdigit():
                self.keep_alive = float(seconds)

    def _end(self) -> None:
        if self.has_head and not self._is_delimited():
            self.complete = True
        else:
            self._fail("the connection was closed before the response was complete")

    def _is_delimited(self) -> bool:
        """Whether the response says where it ends; one that does not ends with its connection."""
        coding = b""
        for name, value in self.headers:
            lowered = name.lower()
            if lowered == b"content-length":
                return True
            if lowered == b"transfer-encoding":
                coding = value
        return coding.rpartition(b",")[2].strip().lower() == b"chunked"

    # What llhttp calls.

    def on_message_begin(self) -> None:
        if self.complete:
            raise _Stop

    def on_status(self, part: bytes) -> None:
        self.reason += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value) + 4
        if self._header_bytes > self._limit or len(self.headers) >= MAX_HEADERS:
            self._fail("the headers of the response are too long or too many")
            raise _Stop
        if not self.has_head:  # what follows the body is not wanted
            self.headers.append((name, value))
            if len(name) == len(b"keep-alive") and name.lower() == b"keep-alive":
                self._read_keep_alive(value)

    def on_headers_complete(self) -> None:
        llhttp = self._llhttp
        assert llhttp is not None  # noqa: S101 -- it is calling
        self.status = status = llhttp.get_status_code()
        self.http_version = llhttp.get_http_version()
        self.is_upgraded = status == 101 and self._may_upgrade
        if self.is_upgraded:
            self.has_head = self.complete = True
            return
        if self.http_version not in {"1.1", "1.0"} or status < 100 or status == 101:
            self._fail(
                f"a response of HTTP/{self.http_version} with status {status} was not expected"
            )
            raise _Stop
        if status >= 200:
            self.has_head = True
            self._raw = []
            if self._bodiless:
                self.complete = True
                self.reusable = llhttp.should_keep_alive() and not self._was_repaired

    def on_chunk_header(self) -> None:
        if self.complete:
            raise _Stop

    def on_body(self, piece: bytes) -> None:
        if self.complete:
            raise _Stop
        self._overhead = 0
        self.body_chunks.append(piece)

    def on_message_complete(self) -> None:
        if self.has_head:
            if not self.complete:
                self.complete = True
                assert self._llhttp is not None  # noqa: S101 -- it is calling
                self.reusable = self._llhttp.should_keep_alive() and not self._was_repaired
            return
        self._interim += 1
        if self._interim > MAX_INTERIM:
            self._fail("there is no end to the interim responses")
            raise _Stop
        self.reason, self.headers = b"", []
