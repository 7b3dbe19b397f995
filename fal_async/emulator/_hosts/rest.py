"""``rest.fal.ai``: tokens, presigned uploads, the account, and the keys of webhooks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel, ValidationError

from fal_async.emulator._hosts.base import Call, find_account, parse_called_id
from fal_async.emulator._json import decode_or_none
from fal_async.emulator._responses import (
    RejectedError,
    error_response,
    json_response,
    method_not_allowed,
)
from fal_async.emulator._storage import OWNER, TOKEN_LIFETIME, parse_metadata, sign_url

if TYPE_CHECKING:
    from fal_async.emulator._recorder import Route
    from fal_async.emulator._request import GatewayRequest
    from fal_async.emulator._state import PlatformState

_ROUTES: dict[str, Route] = {
    "tokens": "token",
    "tokens/realtime": "token",
    "storage/auth/token": "cdn_token",
    "storage/upload/initiate": "initiate",
    "storage/upload/initiate-multipart": "initiate",
    ".well-known/jwks.json": "key_set",
    "users/current": "user",
}
_GET: frozenset[Route] = frozenset({"key_set", "user"})
_STORAGE_TYPES = {"fal-cdn-v3", "gcs"}
#: The default lifetime of a token, in seconds.
_DEFAULT_LIFETIME = 120


class _InitiateBody(BaseModel):
    content_type: str
    file_name: str | None = None


class RestHost:
    """Handles requests to ``rest.fal.ai``."""

    def __init__(self, platform: PlatformState) -> None:
        self._platform = platform

    def classify(self, request: GatewayRequest) -> Call:
        """Classify a request by its path."""
        return Call(_ROUTES.get(request.location.path, "other"), parse_called_id(""))

    async def handle(self, request: GatewayRequest, call: Call) -> None:
        """Send a token, the URL of an upload, the account, or the keys of webhooks."""
        if call.route == "other":
            raise RejectedError(error_response(404, "Not Found"))
        method = "GET" if call.route in _GET else "POST"
        if request.method != method:
            raise RejectedError(method_not_allowed(method))
        if call.route == "key_set":  # public
            return await request.respond(json_response(200, self.key_set()))
        accounts = self._platform.accounts
        authorization = request.headers.get("authorization")
        if error := accounts.reject_reason(authorization, "storage", private=True):
            raise RejectedError(error)
        request.account = account = accounts.find(authorization) or accounts.main
        if call.route == "user":
            return await request.respond(json_response(200, account._describe()))
        if request.parameters.get("storage_type", "fal-cdn-v3") not in _STORAGE_TYPES:
            raise RejectedError(error_response(400, "Invalid storage type"))
        if call.route == "token":
            body = self.create_token(request)
        elif call.route == "cdn_token":
            body = self.create_cdn_token(request)
        else:
            body = self.begin_upload(request)
        return await request.respond(json_response(200, body))

    def key_set(self) -> dict[str, list[dict[str, str]]]:
        """Return the keys of webhooks."""
        try:
            return self._platform.signer.key_set()
        except ImportError as error:
            raise RejectedError(error_response(501, str(error))) from error

    def create_token(self, request: GatewayRequest) -> str | dict[str, str]:
        """Create a token for WebSockets and streams.

        Of the two paths, clients use the one with a JSON object as its response; the other is the
        documented one.
        """
        body: object = decode_or_none(request.body)
        if not isinstance(body, dict):
            raise RejectedError(error_response(422, "the body must be a JSON object"))
        fields = cast("dict[str, Any]", body)
        apps: object = fields.get("allowed_apps", [fields.get("app")])
        items = cast("list[object]", apps) if isinstance(apps, list) else []
        names = [name for name in items if isinstance(name, str) and name]
        if not names:
            raise RejectedError(error_response(422, "allowed_apps must be a list of apps"))
        seconds: object = fields.get("token_expiration", fields.get("duration", _DEFAULT_LIFETIME))
        if not isinstance(seconds, int | float) or seconds <= 0:
            raise RejectedError(error_response(422, "token_expiration must be a number of seconds"))
        user_id = find_account(self._platform, request).user_id
        token = self._platform.tokens.create(names, seconds, user_id)
        return {"token": token} if request.location.path.endswith("/realtime") else token

    def create_cdn_token(self, request: GatewayRequest) -> dict[str, str]:
        """Create a token for the CDN."""
        expires_at = datetime.now(UTC) + timedelta(seconds=TOKEN_LIFETIME)
        return {
            "token": self._platform.files.create_token(self._owner(request)),
            "token_type": "Bearer",
            "base_url": request.cdn_base,
            "expires_at": expires_at.isoformat(timespec="seconds"),
        }

    def begin_upload(self, request: GatewayRequest) -> dict[str, str]:
        """Begin an upload to a presigned URL."""
        try:
            body = _InitiateBody.model_validate_json(request.body)
        except ValidationError as error:
            raise RejectedError(
                error_response(422, "content_type must be a string, and file_name if it is given")
            ) from error
        owner = self._owner(request)
        metadata = parse_metadata(request.headers, body.content_type, body.file_name, owner)
        base = request.cdn_base
        key = self._platform.files.begin(base, metadata)
        url = f"{base}/presigned/{key}"
        # Clients append the part number to the URL of these uploads, so it must have no query.
        is_gcs = request.parameters.get("storage_type") == "gcs"
        is_signed_later = is_gcs and request.location.path.endswith("-multipart")
        return {
            "upload_url": url if is_signed_later else sign_url(url, key),
            "file_url": self._platform.files.pending[key].url,
        }

    def _owner(self, request: GatewayRequest) -> str:
        """Return the user of the files of a request's account."""
        account = find_account(self._platform, request)
        return OWNER if account is self._platform.accounts.main else account.user_id
