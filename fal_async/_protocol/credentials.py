"""API keys, login tokens and CDN tokens: validity, expiry, refresh."""

from __future__ import annotations

import base64
import math
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from fal_async._core.secrets import Secret
from fal_async._protocol.operation import Operation, Request, response_parser
from fal_async._protocol.origins import is_cdn
from fal_async._protocol.retry import Retry
from fal_async._protocol.serialization import decode_json, object_or_empty
from fal_async.errors import (
    FalClientHTTPError,
    InvalidResponseError,
    MissingCredentialsError,
    ServerError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fal_async._config import Hosts
    from fal_async._protocol.response import Response

__all__ = [
    "TOKEN_URL",
    "AuthHeader",
    "CdnToken",
    "LoginTokens",
    "auth_header_from_key",
    "auth_header_from_token",
    "cdn_token",
    "expiry",
    "parse_login",
    "parse_refresh_response",
    "parse_timestamp",
    "refresh_form",
    "similar_variables",
    "validate_key",
]

#: The token endpoint of logins, and the client id.
TOKEN_URL: Final = "https://auth.fal.ai/oauth/token"  # noqa: S105 -- an address
_CLIENT_ID: Final = "TwXR51Vz8JbY8GUUMy6EyuVR0fTO7N4N"

#: The time before its expiry at which a token is refreshed, in seconds.
LEEWAY: Final = 300.0
#: The minimum time that a new access token is used, in seconds: if clocks disagree, or the expiry
#: is unknown, a refresh for each request would be worse than a rejected request.
MIN_LIFETIME: Final = 60.0
#: The minimum time that a CDN token is used, in seconds, unless it is rejected.
MIN_CDN_LIFETIME: Final = 30.0

#: The environment variables of keys.
KEY_VARIABLES: Final = ("FAL_KEY", "FAL_KEY_ID", "FAL_KEY_SECRET")

_SENDABLE: Final = re.compile(r"[!-~]+ [!-~]+")
_VISIBLE: Final = re.compile(r"[!-~]+")
_LOOKALIKE: Final = re.compile(r"(?i)(^|_)FAL(_?AI)?_(.*_)?(KEY|TOKEN|SECRET|CREDENTIALS)")


class AuthHeader(NamedTuple):
    """The value of the Authorization header, and its expiry.

    Attributes:
        authorization: The whole value of the header.
        source: The source of the credential, for people.
        refresh_at: The time from which another value is needed, in seconds of Unix time.
    """

    authorization: Secret
    source: str
    refresh_at: float = math.inf


def auth_header_from_key(key: Secret, source: str) -> AuthHeader:
    """Return the header for a key."""
    return AuthHeader(Secret(f"Key {key.reveal()}"), source)


def validate_key(key: str) -> str | None:
    """Return the reason why a key is invalid, without the key; ``None`` if it is valid.

    Example:
        >>> validate_key("id:secret"), validate_key("id: secret")
        (None, 'holds whitespace')
    """
    if _VISIBLE.fullmatch(key):
        return None
    if not key:
        return "is empty"
    spaced = any(character.isspace() for character in key)
    return "holds whitespace" if spaced else "holds characters that are not printable ASCII"


def similar_variables(names: Iterable[str]) -> list[str]:
    """Return the variables whose names resemble those of a fal key, but are not read.

    Example:
        >>> similar_variables(["PATH", "FAL_API_KEY", "fal_key", "FAL_KEY"])
        ['FAL_API_KEY', 'fal_key']
    """
    return sorted(name for name in names if _LOOKALIKE.search(name) and name not in KEY_VARIABLES)


class LoginTokens(NamedTuple):
    """The tokens of a login.

    Attributes:
        refresh: The refresh token, which each use may replace.
        access: The access token; ``None`` if there is none, or it is not printable.
    """

    refresh: Secret
    access: Secret | None = None

    def to_text(self) -> Secret:
        """Return the content of the token file."""
        return Secret("\n".join(token.reveal() for token in (self.refresh, self.access) if token))


def parse_login(text: str) -> LoginTokens | None:
    """Parse the token file: a refresh token and an optional access token, one per line."""
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    refresh, access = (*map(_token, lines), None, None)[:2]
    return LoginTokens(refresh, access) if refresh else None


def expiry(token: Secret) -> float | None:
    """Return the expiry of a JWT, in seconds of Unix time; ``None`` if it has none."""
    try:
        payload = token.reveal().split(".")[1]
        claims = decode_json(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return float(claims["exp"])
    except (ValueError, LookupError, TypeError, OverflowError):
        return None


def auth_header_from_token(
    access: Secret, source: str, *, issued_at: float | None = None
) -> AuthHeader:
    """Return the header for an access token. Without a known expiry it needs a refresh.

    Args:
        access: The access token.
        source: Where it was found.
        issued_at: When it was issued to us, in seconds of Unix time; ``None`` when it was found.
    """
    expires_at = expiry(access)
    refresh_at = -math.inf if expires_at is None else expires_at - LEEWAY
    if issued_at is not None:
        refresh_at = max(refresh_at, issued_at + MIN_LIFETIME)
    return AuthHeader(Secret(f"Bearer {access.reveal()}"), source, refresh_at)


def refresh_form(tokens: LoginTokens) -> dict[str, str | Secret]:
    """Return the form fields of a refresh request."""
    return {
        "grant_type": "refresh_token",
        "client_id": _CLIENT_ID,
        "refresh_token": tokens.refresh,
    }


def parse_refresh_response(
    status_code: int, body: bytes | memoryview, old: LoginTokens
) -> LoginTokens:
    """Parse the response to a refresh request. Errors do not show the body: it may hold tokens.

    Raises:
        MissingCredentialsError: The login has ended.
        FalClientHTTPError: The server returned another error status.
        InvalidResponseError: The response contains no access token.
    """
    if status_code in {400, 401, 403}:
        raise MissingCredentialsError(
            f"the login of `fal auth login` has ended (the refresh returned HTTP {status_code}): "
            "log in again, set FAL_KEY, or pass key="
        )
    if status_code != 200:
        error = ServerError if status_code >= 500 else FalClientHTTPError
        raise error("the login could not be refreshed", status_code)
    access, refresh = _issued(body)
    if access is None:
        raise InvalidResponseError("the refresh of the login returned no access token")
    return LoginTokens(refresh or old.refresh, access)


def _token(value: object) -> Secret | None:
    return Secret(value) if isinstance(value, str) and _VISIBLE.fullmatch(value) else None


def _issued(body: bytes | memoryview) -> tuple[Secret | None, Secret | None]:
    """Return the access token and the refresh token of a response; ``None`` if missing."""
    try:
        value = decode_json(bytes(body))
    except ValueError:
        return None, None
    fields = object_or_empty(value)
    return _token(fields.get("access_token")), _token(fields.get("refresh_token"))


class CdnToken(NamedTuple):
    """A CDN token.

    Attributes:
        authorization: The value of the Authorization header.
        base_url: The base URL of uploads.
        refresh_at: The time from which another token is needed, in seconds of Unix time.
    """

    authorization: Secret
    base_url: str
    refresh_at: float


def cdn_token(hosts: Hosts, *, now: Callable[[], float]) -> Operation[CdnToken]:
    """Create a CDN token.

    Args:
        hosts: The base URLs.
        now: Returns the Unix time in seconds; called when the response is received.
    """

    def parse(response: Response) -> CdnToken:
        token = _read_cdn_token(response, hosts, now())
        if token is None:  # the body is not shown: it may hold a token
            raise InvalidResponseError(
                "the platform returned no token for the CDN", request_id=response.request_id
            )
        return token

    return Operation(
        name="token",
        application="the CDN",
        request=Request(
            "POST",
            f"{hosts.rest}/storage/auth/token?storage_type=fal-cdn-v3",
            {"accept": "application/json", "content-type": "application/json"},
            b"{}",
        ),
        parse=response_parser(parse),
        retry=Retry.IDEMPOTENT,
    )


def _read_cdn_token(response: Response, hosts: Hosts, moment: float) -> CdnToken | None:
    try:
        body: object = decode_json(response.body)
    except ValueError:
        return None
    fields = object_or_empty(body)
    authorization = f"{fields.get('token_type') or 'Bearer'} {fields.get('token') or ''}"
    if not isinstance(fields.get("token"), str) or not _SENDABLE.fullmatch(authorization):
        return None
    base_url, expiry = fields.get("base_url"), parse_timestamp(fields.get("expires_at"))
    fits = isinstance(base_url, str) and is_cdn(base_url, hosts)
    life = 0.0 if expiry is None else expiry - moment
    return CdnToken(
        authorization=Secret(authorization),
        base_url=str(base_url).rstrip("/") if fits else hosts.cdn,
        refresh_at=moment + max(MIN_CDN_LIFETIME, life - min(LEEWAY, life / 2)),
    )


def parse_timestamp(value: object) -> float | None:
    """Parse an ISO 8601 time, by default in UTC, to Unix time; ``None`` if it is invalid."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
