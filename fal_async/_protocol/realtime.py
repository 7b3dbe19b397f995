"""Realtime sessions: addresses, tokens, and what messages mean."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast
from urllib.parse import urlencode

from fal_async._core.checks import whole_number
from fal_async._core.secrets import Secret
from fal_async._protocol.endpoint import Endpoint, parse_path
from fal_async._protocol.operation import Operation, Request, response_parser
from fal_async._protocol.retry import Retry
from fal_async._protocol.serialization import decode_json, decode_msgpack, encode_json
from fal_async.errors import InvalidResponseError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fal_async._config import Hosts
    from fal_async._protocol.response import Response

__all__ = [
    "DataMessage",
    "ErrorMessage",
    "Message",
    "MetaMessage",
    "SessionTimeout",
    "Unauthorized",
    "create_token",
    "decode_message",
    "parse_token",
    "realtime_url",
    "runner_url",
    "with_token",
]

#: How many unprocessed inputs the platform may be told to keep.
MAX_BUFFERING: Final = 60

_VISIBLE: Final = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class DataMessage:
    """What the app sent."""

    value: Any


@dataclass(frozen=True, slots=True)
class MetaMessage:
    """What the platform says about the session, such as timings; of no concern to callers."""

    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ErrorMessage:
    """The app or the platform reports an error, and closes after it."""

    error: str
    reason: str
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SessionTimeout:
    """There was no input for too long, or the session has come to its normal end."""

    reason: str
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Unauthorized:
    """The token was refused, or has expired."""

    payload: Mapping[str, Any]


Message: TypeAlias = DataMessage | MetaMessage | ErrorMessage | SessionTimeout | Unauthorized


def decode_message(
    message: str | bytes | bytearray, decode: Callable[[bytes], Any] | None = None
) -> Message:
    """What a message means.

    Text is JSON, or else taken as it is; binary is msgpack, whose byte strings stay bytes.

    Args:
        message: As it was received.
        decode: Decodes binary messages instead; what it raises is not touched.

    Raises:
        InvalidResponseError: It is binary, but not msgpack.
    """
    if isinstance(message, str):
        return _classify(_decode_text(message))
    return _classify(decode_msgpack(message) if decode is None else decode(bytes(message)))


def _decode_text(text: str) -> Any:
    try:
        return decode_json(text)
    except ValueError:
        return text


def _classify(value: Any) -> Message:
    if not isinstance(value, dict):
        return DataMessage(value)
    payload = cast("dict[str, Any]", value)
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
    return DataMessage(payload)


def realtime_url(
    hosts: Hosts, endpoint: Endpoint, *, path: str = "/realtime", max_buffering: int | None = None
) -> str:
    """Where a session is opened: as `runner_url`, but an id that ends with the path has it."""
    parse_path(path)  # says what is wrong with it
    bare, mark, query = path.partition("?")
    segments = bare.strip("/")
    if segments and f"/{endpoint.path}".endswith(f"/{segments}"):
        path = mark + query
    return runner_url(hosts, endpoint, path=path, max_buffering=max_buffering)


def runner_url(
    hosts: Hosts, endpoint: Endpoint, *, path: str = "", max_buffering: int | None = None
) -> str:
    """Where a socket of an app is opened.

    Args:
        hosts: The base URLs.
        endpoint: The app.
        path: The path within the app, added to the id.
        max_buffering: How many unprocessed inputs are kept, from 1 to 60; ``None`` leaves it to
            the app.
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
    """The URL that lets its bearer in."""
    return Secret(_with_query(url, fal_jwt_token=token.reveal()))


def _with_query(url: str, **parameters: object) -> str:
    return f"{url}{'&' if '?' in url else '?'}{urlencode(parameters)}"


def create_token(
    hosts: Hosts, endpoint: Endpoint, *, token_expiration: int = 120
) -> Operation[Secret]:
    """Ask for a short-lived token that opens sockets of one app.

    Args:
        hosts: The base URLs.
        endpoint: The app.
        token_expiration: For how long the token may be used, in seconds.
    """
    whole_number("token_expiration", token_expiration)
    body = {"allowed_apps": [endpoint.alias], "token_expiration": token_expiration}
    return Operation(
        name="token",
        application=str(endpoint),
        request=Request(
            "POST",
            f"{hosts.rest}/tokens/",
            {"accept": "application/json", "content-type": "application/json"},
            encode_json(body),
        ),
        parse=response_parser(parse_token),
        retry=Retry.IDEMPOTENT,
    )


def parse_token(response: Response) -> Secret:
    """Read the answer to `create_token`: a JSON string, or an object with a ``token``.

    Raises:
        InvalidResponseError: There is no token; its text does not show what there was instead,
            unless
            that is a sentence.
    """
    token, said = _read_token(response)
    if token is None:
        raise InvalidResponseError(
            f"the platform gave no token{said}", request_id=response.request_id
        )
    return token


def _read_token(response: Response) -> tuple[Secret | None, str]:
    """The token, or else a sentence about why there is none."""
    try:
        body = decode_json(response.body)
    except ValueError:
        return None, ""
    fields = cast("dict[str, Any]", body if isinstance(body, dict) else {"token": body})
    token, detail = fields.get("token"), fields.get("detail")
    if isinstance(token, str) and _VISIBLE.fullmatch(token):
        return Secret(token), ""
    return None, f": {detail}" if isinstance(detail, str) and " " in detail else ""
