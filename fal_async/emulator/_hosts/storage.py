"""The services of ``rest.fal.ai``: tokens for the CDN and for sockets, and presigned uploads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

from fal_async.emulator._files import OWNER, TOKEN_LIFE, label_of, signed
from fal_async.emulator._hosts.calls import Call, called_id
from fal_async.emulator._hosts.tokens import token_body
from fal_async.emulator._replies import Refusal, detail, json_reply, method_not_allowed

if TYPE_CHECKING:
    from fal_async.emulator._exchange import Exchange
    from fal_async.emulator._platform import Platform
    from fal_async.emulator._record import Route

_ROUTES: dict[str, Route] = {
    "tokens": "token",
    "tokens/realtime": "token",
    "storage/auth/token": "cdn_token",
    "storage/upload/initiate": "initiate",
    "storage/upload/initiate-multipart": "initiate",
}
_STORAGE_TYPES = {"fal-cdn-v3", "gcs"}


class _Wishes(BaseModel):
    content_type: str
    file_name: str | None = None


class StorageHost:
    """Answers the storage calls of ``rest.fal.ai``."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def call(self, exchange: Exchange) -> Call:
        """A storage call, or one of something that is not there."""
        return Call(_ROUTES.get(exchange.place.path, "other"), called_id(""))

    async def answer(self, exchange: Exchange, call: Call) -> None:
        """Give a token, or a URL to upload to."""
        if call.route == "other":
            raise Refusal(detail(404, "Not Found"))
        if exchange.method != "POST":
            raise Refusal(method_not_allowed("POST"))
        authorization = exchange.headers.get("authorization")
        if refusal := self._platform.accounts.refusal(authorization, "storage", private=True):
            raise Refusal(refusal)
        if exchange.parameters.get("storage_type", "fal-cdn-v3") not in _STORAGE_TYPES:
            raise Refusal(detail(400, "Invalid storage type"))
        await exchange.reply(json_reply(200, self._body(exchange, call.route)))

    def _body(self, exchange: Exchange, route: Route) -> str | dict[str, str]:
        if route == "token":
            return token_body(exchange, self._platform.tokens)
        return self._token(exchange) if route == "cdn_token" else self._target(exchange)

    def _token(self, exchange: Exchange) -> dict[str, str]:
        end = datetime.now(UTC) + timedelta(seconds=TOKEN_LIFE)
        return {
            "token": self._platform.files.mint(OWNER),
            "token_type": "Bearer",
            "base_url": exchange.cdn_base,
            "expires_at": end.isoformat(timespec="seconds"),
        }

    def _target(self, exchange: Exchange) -> dict[str, str]:
        try:
            wishes = _Wishes.model_validate_json(exchange.body)
        except ValidationError as error:
            raise Refusal(detail(422, "content_type is missing, or a name is no text")) from error
        label = label_of(exchange.headers, wishes.content_type, wishes.file_name)
        base = exchange.cdn_base
        key = self._platform.files.expect(base, label)
        url = f"{base}/presigned/{key}"
        return {
            "upload_url": url if _is_signed_part_by_part(exchange) else signed(url, key),
            "file_url": self._platform.files.incoming[key].url,
        }


def _is_signed_part_by_part(exchange: Exchange) -> bool:
    """Clients append to the URL of these uploads, so nothing may follow its path."""
    is_gcs = exchange.parameters.get("storage_type") == "gcs"
    return is_gcs and exchange.place.path.endswith("-multipart")
