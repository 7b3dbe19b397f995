"""The ``send`` that a runner answers with, as strict as the server of a real app."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fal_async.emulator._replies import WITHOUT_BODY, internal_server_error

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fal_async.emulator._job import Job
    from fal_async.emulator._registry import Endpoint
    from fal_async.emulator._replies import Message, RawHeaders, Reply, Send

#: The statuses that end an exchange.
_FINAL = range(200, 600)
#: Troubles of the runner, which may be over at the next call.
_TEMPORARY = frozenset({503, 504})
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")


class IncompleteReplyError(Exception):
    """The runner broke off in a reply whose length it had announced."""


class Answer:
    """The ASGI ``send`` that a runner gets."""

    __slots__ = ("_ended", "_endpoint", "_has_body", "_job", "_left", "_send", "_started")

    def __init__(self, endpoint: Endpoint, job: Job, send: Send) -> None:
        self._endpoint = endpoint
        self._job = job
        self._send = send
        self._started = False
        self._ended = False
        self._has_body = True
        self._left: int | None = None  # of a body whose length was announced

    async def __call__(self, message: Message) -> None:
        """Send one message.

        Raises:
            RuntimeError: It has no place here, or nothing that can be sent in it.
        """
        kind: str = message["type"]
        if kind == "http.response.start" and not self._started:
            await self._start(message["status"], message.get("headers", ()))
        elif kind == "http.response.body" and self._started and not self._ended:
            await self._go_on(message.get("body", b""), more=message.get("more_body", False))
        else:
            raise RuntimeError(f"{kind} has no place here")

    async def end(self, substitute: Reply | None) -> None:
        """Answer if there is no answer yet; bring one that was begun to its end.

        Raises:
            IncompleteReplyError: It cannot be ended properly.
        """
        if not self._started:
            await (substitute or internal_server_error()).send(self)
        elif self._left:
            raise IncompleteReplyError
        elif not self._ended:
            # Callers cannot tell a stream that broke off from one that ended: so it really is.
            await self._go_on(b"", more=False)

    async def _start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        pairs = [(name.lower(), value) for name, value in headers]
        check_head(status, pairs)
        self._has_body = status not in WITHOUT_BODY and self._job.method != "HEAD"
        if status in WITHOUT_BODY:
            pairs = [pair for pair in pairs if pair[0] != b"content-length"]
        names = dict(pairs)
        if self._has_body and b"content-length" in names:
            self._left = int(names[b"content-length"])
        pairs += self._more(status, names.keys())
        self._started = True
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})

    async def _go_on(self, body: bytes, *, more: bool) -> None:
        if not self._has_body:
            body = b""
        if self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("the body is not as long as its content-length")
        self._ended = not more
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    def _more(self, status: int, names: Iterable[bytes]) -> RawHeaders:
        more = [(b"x-fal-served-from", self._endpoint.served_from.encode("latin-1"))]
        if status < 300 and b"x-fal-billable-units" not in names:
            more.append((b"x-fal-billable-units", _units(self._job.billable_units)))
        if self._job.direct and status in _TEMPORARY and b"x-fal-needs-retry" not in names:
            more.append((b"x-fal-needs-retry", b"1"))
        return more


def check_head(status: int, headers: RawHeaders) -> None:
    """Find out whether a reply may begin so.

    Raises:
        RuntimeError: No server could send it.
    """
    if status not in _FINAL:
        raise RuntimeError(f"{status} is no status of a reply")
    for name, value in headers:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise RuntimeError(f"the header {name!r} cannot be sent")


def _units(units: float) -> bytes:
    return b"%d" % units if units == int(units) else b"%.8f" % units
