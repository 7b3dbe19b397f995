"""The service of ``rest.fal.ai`` that gives tokens for sockets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel, ValidationError

from fal_async.emulator._hosts.base import Call, parse_called_id
from fal_async.emulator._json import decode_or_none
from fal_async.emulator._responses import (
    RejectedError,
    error_response,
    json_response,
    method_not_allowed,
)
from fal_async.emulator._storage import OWNER, TOKEN_LIFE, label_of, signed

if TYPE_CHECKING:
    from fal_async.emulator._recorder import Route
    from fal_async.emulator._request import GatewayRequest
    from fal_async.emulator._state import PlatformState
    from fal_async.emulator._tokens import Tokens

__all__ = []


#: Seconds that a token is good for unless its caller says otherwise.
_USUAL_LIFE = 120


def token_body(exchange: GatewayRequest, tokens: Tokens) -> str | dict[str, str]:
    """The token that is asked for: the service has one address for clients, one for documents."""
    wishes: object = decode_or_none(exchange.body)
    if not isinstance(wishes, dict):
        raise RejectedError(error_response(422, "the body must be a JSON object"))
    wanted = cast("dict[str, Any]", wishes)
    token = tokens.create(_apps(wanted), _seconds(wanted))
    return {"token": token} if exchange.location.path.endswith("/realtime") else token


def _apps(wanted: dict[str, Any]) -> list[str]:
    apps: object = wanted.get("allowed_apps", [wanted.get("app")])
    if isinstance(apps, list):
        names = [name for name in cast("list[object]", apps) if isinstance(name, str) and name]
        if names:
            return names
    raise RejectedError(error_response(422, "allowed_apps must be a list of apps"))


def _seconds(wanted: dict[str, Any]) -> float:
    seconds: object = wanted.get("token_expiration", wanted.get("duration", _USUAL_LIFE))
    if isinstance(seconds, int | float) and seconds > 0:
        return seconds
    raise RejectedError(error_response(422, "token_expiration must be a number of seconds"))


_ROUTES: dict[str, Route] = {
    "tokens": "token",
    "tokens/realtime": "token",
    "storage/auth/token": "cdn_token",
    "storage/upload/initiate": "initiate",
    "storage/upload/initiate-multipart": "initiate",
}


_STORAGE_TYPES = {"fal-cdn-v3", "gcs"}


class _InitiateBody(BaseModel):
    content_type: str
    file_name: str | None = None


class StorageHost:
    """Answers the storage calls of ``rest.fal.ai``."""

    def __init__(self, platform: PlatformState) -> None:
        self._platform = platform

    def call(self, exchange: GatewayRequest) -> Call:
        """A storage call, or one of something that is not there."""
        return Call(_ROUTES.get(exchange.location.path, "other"), parse_called_id(""))

    async def answer(self, exchange: GatewayRequest, call: Call) -> None:
        """Give a token, or a URL to upload to."""
        if call.route == "other":
            raise RejectedError(error_response(404, "Not Found"))
        if exchange.method != "POST":
            raise RejectedError(method_not_allowed("POST"))
        authorization = exchange.headers.get("authorization")
        if refusal := self._platform.accounts.reject_reason(authorization, "storage", private=True):
            raise RejectedError(refusal)
        if exchange.parameters.get("storage_type", "fal-cdn-v3") not in _STORAGE_TYPES:
            raise RejectedError(error_response(400, "Invalid storage type"))
        await exchange.response(json_response(200, self._body(exchange, call.route)))

    def _body(self, exchange: GatewayRequest, route: Route) -> str | dict[str, str]:
        if route == "token":
            return token_body(exchange, self._platform.tokens)
        return self._token(exchange) if route == "cdn_token" else self._target(exchange)

    def _token(self, exchange: GatewayRequest) -> dict[str, str]:
        end = datetime.now(UTC) + timedelta(seconds=TOKEN_LIFE)
        return {
            "token": self._platform.files.mint(OWNER),
            "token_type": "Bearer",
            "base_url": exchange.cdn_base,
            "expires_at": end.isoformat(timespec="seconds"),
        }

    def _target(self, exchange: GatewayRequest) -> dict[str, str]:
        try:
            wishes = _InitiateBody.model_validate_json(exchange.body)
        except ValidationError as error:
            raise RejectedError(
                error_response(422, "content_type is missing, or a name is no text")
            ) from error
        label = label_of(exchange.headers, wishes.content_type, wishes.file_name)
        base = exchange.cdn_base
        key = self._platform.files.expect(base, label)
        url = f"{base}/presigned/{key}"
        return {
            "upload_url": url if _is_signed_part_by_part(exchange) else signed(url, key),
            "file_url": self._platform.files.incoming[key].url,
        }


def _is_signed_part_by_part(exchange: GatewayRequest) -> bool:
    """Clients append to the URL of these uploads, so nothing may follow its path."""
    is_gcs = exchange.parameters.get("storage_type") == "gcs"
    return is_gcs and exchange.location.path.endswith("-multipart")
