"""Requests of visitors: body, arguments, and the headers that are forwarded."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias, cast

import anyio

from fal_async._core.annotations import set_module
from fal_async._core.checks import check_number, check_sequence, describe
from fal_async._protocol.serialization import decode_json, encode_json
from fal_async.errors import InvalidRequestError
from fal_async.proxy._policy import PolicyViolation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fal_async.proxy._policy import Action, Target

__all__ = [
    "FORWARDED",
    "Authorize",
    "ProxyRequest",
    "Refusal",
    "Rejection",
    "RequestBody",
    "check_forwarded",
    "forwarded_headers",
    "identify",
    "read_headers",
]

#: The headers of visitors that are forwarded by default: priority, routing and the time to start.
FORWARDED: Final = (
    "x-fal-queue-priority",
    "x-fal-request-start-timeout",
    "x-fal-request-timeout",
    "x-fal-runner-hint",
)
#: Headers that are not forwarded for visitors, whatever the configuration.
_PRIVATE: Final = frozenset(
    {
        "authorization",
        "connection",
        "content-length",
        "cookie",
        "expect",
        "forwarded",
        "host",
        "keep-alive",
        "origin",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "referer",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-fal-cdn-token",
        "x-fal-target-url",
        "x-fal-user-id",
    }
)
_NAME = re.compile(r"[a-z0-9-]+")
_VALUE = re.compile(r"[\t -~]*")
_DETAILS: Final = {401: "Unauthorized", 403: "Forbidden", 429: "Too many requests"}


class Rejection(Exception):  # noqa: N818 -- a response, not a failure
    """A response of the proxy itself.

    Attributes:
        status: The HTTP status.
        body: The body, as a JSON value.
        headers: Additional headers.
    """

    def __init__(self, status: int, body: object, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body
        self.headers = headers or {}


class DisconnectedError(Exception):
    """The visitor has disconnected before the body of the request was complete."""


@set_module("fal_async.proxy")
@dataclass(frozen=True, slots=True)
class Refusal:
    """The decision of an `authorize` hook to refuse a request.

    Attributes:
        status: 401 for visitors that must log in, 403 for what they may not do, 429 for too many
            requests.
        detail: The text for the visitor; ``None`` uses the name of the status.
        retry_after: The time after which the visitor may send the request again, in seconds, for
            429; ``None`` for no ``Retry-After``.

    Raises:
        InvalidRequestError: The status is another, or the time is negative.

    Example:
        >>> from fal_async.proxy import Refusal
        >>> Refusal(429, "one image a minute", retry_after=60).status
        429
    """

    status: Literal[401, 403, 429] = 401
    detail: str | None = None
    retry_after: float | None = None

    def __post_init__(self) -> None:
        if self.status not in _DETAILS:
            raise InvalidRequestError(
                f"status must be 401, 403 or 429, got {describe(self.status)}"
            )
        if self.retry_after is not None:
            check_number("retry_after", self.retry_after, zero=True, unit=" of seconds")

    def _rejection(self) -> Rejection:
        """Return the response."""
        headers: dict[str, str] = {}
        if self.retry_after is not None:
            headers["retry-after"] = str(-int(-self.retry_after // 1))
        return Rejection(self.status, self.detail or _DETAILS[self.status], headers)


class RequestBody:
    """The body of a visitor's request, read once: as a whole, or while it is forwarded.

    Args:
        receive: The ``receive`` of ASGI.
        size: The declared size, in bytes; ``None`` if it is unknown.
        limit: The maximum size, in bytes.
    """

    def __init__(
        self, receive: Callable[[], Awaitable[Mapping[str, Any]]], size: int | None, limit: int
    ) -> None:
        self._receive = receive
        self._content_length = size
        self._limit = limit
        self._first: bytes | None = None
        self._body: bytes | None = None
        self._is_forwarded = False
        self._over = anyio.Event()

    @property
    def size(self) -> int:
        """The declared size, in bytes."""
        return self._content_length or 0

    async def read(self) -> bytes:
        """Return the whole body.

        Raises:
            Rejection: The body is longer than the limit.
            DisconnectedError: The visitor has disconnected.
        """
        if self._body is None:
            chunks = [self._first or b""]
            size = len(chunks[0])
            while not self._over.is_set():
                chunks.append(await self._next())
                size += len(chunks[-1])
                if size > self._limit:
                    raise Rejection(413, "Request body too large")
            self._body = b"".join(chunks)
        return self._body

    async def content(self) -> bytes | Self:
        """Return the body if it is here or has no declared size; else it is read when forwarded.

        Raises:
            Rejection: The body is longer than the limit.
            DisconnectedError: The visitor has disconnected.
        """
        if (self._content_length or 0) > self._limit:
            raise Rejection(413, "Request body too large")
        if self._body is None:
            self._first = await self._next()
            if not self._over.is_set() and self._content_length is not None:
                return self
        return await self.read()

    def __aiter__(self) -> Self:
        if self._is_forwarded:  # after a 401, whose token has been refreshed
            raise Rejection(503, "Service Unavailable")
        self._is_forwarded = True
        return self

    async def __anext__(self) -> bytes:
        first, self._first = self._first, None
        if first:
            return first
        if self._over.is_set():
            raise StopAsyncIteration
        return await self._next()

    def stop(self) -> None:
        """Stop reading: the platform has responded, perhaps before the end of the body."""
        self._over.set()

    async def receive(self) -> Mapping[str, Any]:
        """Return the next message after the body, such as a disconnect."""
        await self._over.wait()
        return await self._receive()

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise DisconnectedError
        if not message.get("more_body", False):
            self._over.set()
        chunk: bytes = message.get("body", b"")
        return chunk


@set_module("fal_async.proxy")
class ProxyRequest:
    """A request of a visitor, which the list of endpoints allows, for an `authorize` hook.

    Attributes:
        scope: The scope of ASGI, with cookies, address and the state of the middleware.
        action: The purpose: ``"run"`` (streams included), ``"submit"``, ``"status"``,
            ``"status_stream"``, ``"result"``, ``"cancel"``, ``"token"`` or ``"upload"``.
        endpoint: The endpoint id. It has no path if the action is about a job that exists, and is
            empty for tokens and uploads.
        request_id: The id of the job; ``None`` if the action is not about a job that exists.
        method: The HTTP method.
        headers: The headers of the visitor, names in lower case.
        forwarded: The headers that the platform will receive. The hook may change them; an
            ``authorization`` replaces the key of the client.
    """

    def __init__(
        self,
        scope: Mapping[str, Any],
        target: Target,
        headers: Mapping[str, str],
        forwarded: dict[str, str],
        body: RequestBody,
    ) -> None:
        self.scope: Mapping[str, Any] = scope
        self.action: Action = target.action
        self.endpoint: str = target.endpoint
        self.request_id: str | None = target.request_id
        self.method: str = scope["method"]
        self.headers: Mapping[str, str] = headers
        self.forwarded: dict[str, str] = forwarded
        self._body = body
        self._replaced: bytes | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.action!r}, {self.endpoint!r})"

    async def arguments(self) -> Any:
        """Read the arguments: the decoded JSON of the body, ``None`` for an empty one.

        A body that is not JSON is refused with 400, and one that is too long with 413.
        """
        body = await self._body.read()
        try:
            return decode_json(body) if body else None
        except ValueError:
            raise PolicyViolation("the body of the request is not JSON") from None

    def replace_arguments(self, arguments: Any) -> None:
        """Replace the arguments, for example to limit the size of an image.

        Args:
            arguments: The JSON value to send.

        Raises:
            InvalidRequestError: The value cannot be JSON.
        """
        try:
            self._replaced = encode_json(arguments)
        except (TypeError, ValueError) as error:
            raise InvalidRequestError(f"arguments must be JSON: {error}") from error

    async def _content(self) -> bytes | RequestBody:
        """Return the body to send."""
        if self.method == "GET":  # a body would be ignored
            await self._body.read()
            return b""
        content = await self._body.content()
        if self._replaced is None:
            return content
        if isinstance(content, RequestBody):
            await content.read()
        return self._replaced


#: Decides about a request: the id of its user, or a refusal.
Authorize: TypeAlias = Callable[
    [ProxyRequest], Awaitable[str | Refusal | None] | str | Refusal | None
]


async def identify(request: ProxyRequest, authorize: Authorize | None) -> str:
    """Return the id of the user that a hook finds; empty if there is no hook.

    Raises:
        Rejection: The hook refuses the request.
        InvalidRequestError: The hook returns neither an id nor a refusal.
    """
    if authorize is None:
        return ""
    returned = authorize(request)
    user = cast("object", await returned if isawaitable(returned) else returned)
    match user:
        case str() if user:
            return user
        case None:
            raise Refusal()._rejection()
        case Refusal():
            raise user._rejection()
        case _:
            raise InvalidRequestError(
                f"authorize must return a user id or a Refusal, got {describe(user)}"
            )


def read_headers(scope: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers of a request: names in lower case, values of repeated headers joined."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        if name in headers:
            value = f"{headers[name]}{'; ' if name == 'cookie' else ', '}{value}"
        headers[name] = value
    return headers


def check_forwarded(names: Sequence[str]) -> frozenset[str]:
    """Check the names of the headers that are forwarded.

    Raises:
        InvalidRequestError: A name is none of a header, or that of one that must not be forwarded.
    """
    check_sequence("forward_headers", names)
    checked: set[str] = set()
    for name in cast("Sequence[object]", names):
        lowered = name.lower() if isinstance(name, str) else ""
        if not _NAME.fullmatch(lowered) or lowered in _PRIVATE:
            raise InvalidRequestError(
                "forward_headers must contain names of headers that are neither credentials nor "
                f"part of the transport, got {describe(name)}"
            )
        checked.add(lowered)
    return frozenset(checked)


def forwarded_headers(headers: Mapping[str, str], names: frozenset[str]) -> dict[str, str]:
    """Return the headers of a visitor that are forwarded.

    Raises:
        Rejection: A value is not printable ASCII.
    """
    forwarded = {name: headers[name] for name in names if name in headers}
    forwarded["accept"] = headers.get("accept", "application/json")
    if not all(map(_VALUE.fullmatch, forwarded.values())):
        raise Rejection(400, "Invalid request")
    return forwarded
