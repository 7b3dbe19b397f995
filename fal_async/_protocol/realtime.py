"""Realtime messages, URLs and tokens."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlencode

from fal_async._core.checks import whole_number
from fal_async._core.secrets import Secret
from fal_async._protocol.endpoint import Endpoint, parse_path
from fal_async._protocol.operation import JSON_HEADERS, Operation, Request, response_parser
from fal_async._protocol.retry import Retry
from fal_async._protocol.serialization import decode_json, decode_msgpack, encode_json
from fal_async.errors import InvalidRequestError, InvalidResponseError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fal_async._config import Hosts
    from fal_async._protocol.response import Response

__all__ = [
    "ErrorMessage",
    "MetaMessage",
    "PlatformMessage",
    "SessionTimeout",
    "Unauthorized",
    "create_path_token",
    "create_token",
    "decode_message",
    "parse_token",
    "realtime_url",
    "runner_url",
    "with_token",
]

#: The maximum of `max_buffering`.
MAX_BUFFERING: Final = 60

#: The keys of messages of the platform. A message without any of them is the app's, as most are.
_PLATFORM_KEYS: Final = frozenset({"type", "error"})

_VISIBLE: Final = re.compile(r"[!-~]+")


class PlatformMessage:
    """A message of the platform, not of the app."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class MetaMessage(PlatformMessage):
    """A message of the platform about the session, such as timings."""

    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ErrorMessage(PlatformMessage):
    """An error of the app or the platform, which ends the session."""

    error: str
    reason: str
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SessionTimeout(PlatformMessage):
    """The end of a session that was idle for too long or reached its maximum duration."""

    reason: str
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Unauthorized(PlatformMessage):
    """The rejection of an invalid or expired token."""

    payload: Mapping[str, Any]


def decode_message(
    message: str | bytes | memoryview, decode: Callable[[bytes], Any] | None = None
) -> Any:
    """Decode a message.

    Text is JSON or plain text; binary messages are msgpack, whose byte strings stay bytes.

    Args:
        message: The message as received.
        decode: A decoder for binary messages, whose errors are not converted; ``None`` for msgpack.

    Returns:
        The value, or a `PlatformMessage` if it comes from the platform.

    Raises:
        InvalidResponseError: The message is binary, but not msgpack.
    """
    value: Any
    if isinstance(message, str):
        try:
            value = decode_json(message)
        except ValueError:
            return message
    else:
        value = decode_msgpack(message) if decode is None else decode(bytes(message))
    if not isinstance(value, dict) or _PLATFORM_KEYS.isdisjoint(value):  # pyright: ignore[reportUnknownArgumentType]
        return value  # pyright: ignore[reportUnknownVariableType]
    return _classify(cast("dict[str, Any]", value))


def _classify(payload: dict[str, Any]) -> dict[str, Any] | PlatformMessage:
    kind = payload.get("type")
    if kind == "x-fal-error":
        error = str(payload.get("error") or "UNKNOWN_ERROR")
        reason = str(payload.get("reason") or "")
        if error == "TIMEOUT":
            return SessionTimeout(reason, payload)
        return ErrorMessage(error, reason, payload)
    if kind == "x-fal-message":
        return MetaMessage(payload)
    if payload.get("error") == "Unauthorized" and payload.get("status") == "error":
        return Unauthorized(payload)
    return payload


def realtime_url(
    hosts: Hosts, endpoint: Endpoint, *, path: str = "/realtime", max_buffering: int | None = None
) -> str:
    """Return the URL of a session: `runner_url`, unless the id ends with the path."""
    parse_path(path)  # raises if it is invalid
    bare, mark, query = path.partition("?")
    segments = bare.strip("/")
    if segments and f"/{endpoint.path}".endswith(f"/{segments}"):
        path = mark + query
    return runner_url(hosts, endpoint, path=path, max_buffering=max_buffering)


def runner_url(
    hosts: Hosts, endpoint: Endpoint, *, path: str = "", max_buffering: int | None = None
) -> str:
    """Return the URL of an app's WebSocket.

    Args:
        hosts: The base URLs.
        endpoint: The app.
        path: The path within the app, added to the id.
        max_buffering: The maximum number of unprocessed inputs, from 1 to 60; ``None`` uses the
            app's setting.
    """
    encoded, query = parse_path(path)
    base = f"ws{hosts.run.removeprefix('http')}"
    url = "/".join(filter(None, (base, str(endpoint), encoded)))
    if query:
        url = f"{url}?{query}"
    if max_buffering is None:
        return url
    whole_number("max_buffering", max_buffering, at_most=MAX_BUFFERING)
    return _with_query(url, max_buffering=max_buffering)


def with_token(url: str, token: Secret) -> Secret:
    """Return the URL with a token, which makes it a secret."""
    return Secret(_with_query(url, fal_jwt_token=token.reveal()))


def _with_query(url: str, **parameters: object) -> str:
    return f"{url}{'&' if '?' in url else '?'}{urlencode(parameters)}"


def create_token(
    hosts: Hosts, endpoint: Endpoint, *, token_expiration: int = 120
) -> Operation[Secret]:
    """Create a short-lived token for the WebSockets of one app.

    Args:
        hosts: The base URLs.
        endpoint: The app.
        token_expiration: The lifetime of the token, in seconds.
    """
    whole_number("token_expiration", token_expiration)
    body = {"allowed_apps": [endpoint.alias], "token_expiration": token_expiration}
    return Operation(
        name="token",
        application=str(endpoint),
        request=Request(
            "POST",
            f"{hosts.rest}/tokens/",
            JSON_HEADERS,
            encode_json(body),
        ),
        parse=response_parser(parse_token),
        retry=Retry.IDEMPOTENT,
    )


def create_path_token(
    hosts: Hosts, endpoint: Endpoint, *, expires_in: int, path: str
) -> Operation[Secret]:
    """Create a short-lived token for one path of an app.

    Args:
        hosts: The base URLs.
        endpoint: The app.
        expires_in: The lifetime of the token, in seconds.
        path: The path within the app; it is not added to an id that ends with it.
    """
    whole_number("expires_in", expires_in)
    encoded, query = parse_path(path)
    if query:
        raise InvalidRequestError(f"the path of a token must have no query, got {path!r}")
    app = str(endpoint)
    if encoded and not f"/{endpoint.path}".endswith(f"/{encoded}"):
        app = f"{app}/{encoded}"
    return Operation(
        name="token",
        application=str(endpoint),
        request=Request(
            "POST",
            f"{hosts.rest}/tokens/realtime",
            JSON_HEADERS,
            encode_json({"allowed_apps": [app], "duration": expires_in}),
        ),
        parse=response_parser(parse_token),
        retry=Retry.IDEMPOTENT,
    )


def parse_token(response: Response) -> Secret:
    """Parse the response to `create_token`: a JSON string, or an object with a ``token``.

    Raises:
        InvalidResponseError: There is no token. The error does not show the response, which may
            contain one, except for a detail that is a sentence.
    """
    token, reason = _read_token(response)
    if token is None:
        raise InvalidResponseError(
            f"the platform returned no token{reason}", request_id=response.request_id
        )
    return token


def _read_token(response: Response) -> tuple[Secret | None, str]:
    """Return the token, or ``None`` and the reason why there is none."""
    try:
        body = decode_json(response.body)
    except ValueError:
        return None, ""
    fields = cast("dict[str, Any]", body if isinstance(body, dict) else {"token": body})
    token, detail = fields.get("token"), fields.get("detail")
    if isinstance(token, str) and _VISIBLE.fullmatch(token):
        return Secret(token), ""
    return None, f": {detail}" if isinstance(detail, str) and " " in detail else ""
