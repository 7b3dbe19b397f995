"""The CDN token operation: tokens for uploads and private files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, cast

from fal_async._core.secrets import Secret
from fal_async._protocol.operation import Operation, Request, response_parser
from fal_async._protocol.origins import is_cdn
from fal_async._protocol.retry import Retry
from fal_async._protocol.serialization import decode_json
from fal_async.errors import InvalidResponseError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fal_async._config import Hosts
    from fal_async._protocol.response import Response

__all__ = ["CdnToken", "cdn_token", "parse_timestamp"]

#: The time before its expiry at which a token is refreshed, in seconds, or half its lifetime.
LEEWAY: Final = 300.0
#: The minimum time that a token is used, in seconds, unless it is rejected.
MIN_LIFETIME: Final = 30.0
_SENDABLE: Final = re.compile(r"[!-~]+ [!-~]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class CdnToken:
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
    """Create a token.

    Args:
        hosts: The base URLs.
        now: Returns the Unix time in seconds; called when the response is received.
    """

    def parse(response: Response) -> CdnToken:
        token = _read(response, hosts, now())
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


def _read(response: Response, hosts: Hosts, moment: float) -> CdnToken | None:
    try:
        body: object = decode_json(response.body)
    except ValueError:
        return None
    fields = cast("dict[str, object]", body) if isinstance(body, dict) else {}
    authorization = f"{fields.get('token_type') or 'Bearer'} {fields.get('token') or ''}"
    if not isinstance(fields.get("token"), str) or not _SENDABLE.fullmatch(authorization):
        return None
    base_url, expiry = fields.get("base_url"), parse_timestamp(fields.get("expires_at"))
    fits = isinstance(base_url, str) and is_cdn(base_url, hosts)
    life = 0.0 if expiry is None else expiry - moment
    return CdnToken(
        authorization=Secret(authorization),
        base_url=str(base_url).rstrip("/") if fits else hosts.cdn,
        refresh_at=moment + max(MIN_LIFETIME, life - min(LEEWAY, life / 2)),
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
