"""``v3.fal.media``: uploads with a token or to a presigned URL, and downloads."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, Final

from fal_async.emulator._hosts.base import Call, parse_called_id
from fal_async.emulator._json import decode
from fal_async.emulator._responses import (
    RejectedError,
    Response,
    error_response,
    json_response,
    raw_headers,
)
from fal_async.emulator._storage import (
    OWNER,
    make_etag,
    make_signature,
    parse_metadata,
    sign_url,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fal_async.emulator._recorder import Route
    from fal_async.emulator._request import GatewayRequest
    from fal_async.emulator._state import PlatformState
    from fal_async.emulator._storage import PendingUpload, StoredFile

#: Routes by method and path. The groups are the key of an upload and the number of a part.
_ROUTES: tuple[tuple[str, re.Pattern[str], Route], ...] = (
    ("POST", re.compile(r"files/upload"), "upload"),
    ("POST", re.compile(r"files/upload/multipart"), "begin_parts"),
    ("PUT", re.compile(r"files/b/.+/multipart/(\w+)/([1-9][0-9]{0,4})"), "part"),
    ("POST", re.compile(r"files/b/.+/multipart/(\w+)/complete"), "complete"),
    ("PUT", re.compile(r"presigned/(\w+)"), "put"),
    ("PUT", re.compile(r"presigned/(\w+)/([1-9][0-9]{0,4})"), "part"),
    ("POST", re.compile(r"presigned/(\w+)/([1-9][0-9]{0,4})"), "sign_part"),
    ("POST", re.compile(r"presigned/(\w+)/complete"), "complete"),
    ("GET", re.compile(r"files/b/(\w+)/[^/]*"), "download"),
    ("HEAD", re.compile(r"files/b/(\w+)/[^/]*"), "download"),
)
_RANGE = re.compile(r"bytes=([0-9]{0,99})-([0-9]{0,99})")
#: The size of a chunk of a download, in bytes.
_CHUNK: Final = 65_536


class CdnHost:
    """Stores uploads, and serves files to users who may read them."""

    def __init__(self, platform: PlatformState) -> None:
        self._platform = platform
        self._files = platform.files
        self._handlers: dict[Route, Callable[..., Awaitable[None]]] = {
            "upload": self.upload,
            "begin_parts": self.begin_parts,
            "part": self.upload_part,
            "sign_part": self.sign_part,
            "complete": self.complete_parts,
            "put": self.put,
            "download": self.download,
        }

    def classify(self, request: GatewayRequest) -> Call:
        """Classify a request by its method and path."""
        route, _ = _match_route(request)
        return Call(route, parse_called_id(""))

    async def handle(self, request: GatewayRequest, call: Call) -> None:
        """Process a request."""
        route, groups = _match_route(request)
        if route == "other":
            raise RejectedError(error_response(404, "Not Found"))
        await self._handlers[route](request, *groups)

    async def upload(self, request: GatewayRequest) -> None:
        """Store a file that is uploaded in one request."""
        key = self._begin(request)
        stored = self._files.complete(key, request.body)
        await request.respond(json_response(200, {"access_url": stored.url}))

    async def begin_parts(self, request: GatewayRequest) -> None:
        """Begin a multipart upload."""
        key = self._begin(request)
        url = self._files.pending[key].url
        await request.respond(json_response(200, {"access_url": url, "uploadId": key}))

    async def upload_part(self, request: GatewayRequest, key: str, number: str) -> None:
        """Store one part of a multipart upload."""
        self._require_token(request, key)
        self._find_upload(key).parts[int(number)] = request.body
        etag = make_etag(request.body)
        body = {"partNumber": int(number), "etag": etag}
        await request.respond(json_response(200, body, {"etag": etag}))

    async def sign_part(self, request: GatewayRequest, key: str, number: str) -> None:
        """Return the presigned URL of one part."""
        self._require_owner(request)
        self._find_upload(key)
        url = sign_url(f"{request.location.base}/presigned/{key}/{number}", key)
        await request.respond(json_response(200, {"upload_url": url}))

    async def complete_parts(self, request: GatewayRequest, key: str) -> None:
        """Complete a multipart upload, if the listed parts were received."""
        if not _is_presigned(request):
            self._require_token(request)
        elif not _is_signed(request, key):
            self._require_owner(request)
        upload = self._find_upload(key)
        # The official clients spell the field in two ways.
        try:
            parts: list[dict[str, Any]] = decode(request.body)["parts"]
            listed = [
                (part.get("partNumber", part.get("part_number")), part["etag"]) for part in parts
            ]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RejectedError(error_response(422, "parts is missing")) from error
        content = upload.join(listed)
        if content is None:
            raise RejectedError(error_response(400, "The parts are not those that were uploaded"))
        stored = self._files.complete(key, content)
        await request.respond(json_response(200, {"access_url": stored.url}))

    async def put(self, request: GatewayRequest, key: str) -> None:
        """Store a file that is uploaded to a presigned URL."""
        self._require_token(request, key)
        upload = self._find_upload(key)
        if request.headers.get("content-type") != upload.metadata.content_type:
            raise RejectedError(
                error_response(403, "The content type is not the one that was signed")
            )
        stored = self._files.complete(key, request.body)
        self._files.pending[key] = upload  # clients may upload to the URL again
        await request.respond(Response(200, b"", raw_headers({"etag": stored.etag})))

    async def download(self, request: GatewayRequest, file_id: str) -> None:
        """Send a file, or one range of it."""
        stored = self._files.find(file_id)
        user = self._files.token_user(request.headers.get("authorization"))
        access = "hide" if stored is None else stored._access(user)
        if stored is None or access == "hide":
            raise RejectedError(error_response(404, "File not found"))
        if access == "forbid":
            raise RejectedError(error_response(403, "Access to this file is forbidden"))
        headers = {
            "content-type": stored.content_type,
            "etag": stored.etag,
            "accept-ranges": "bytes",
        }
        size = len(stored.content)
        content_range = _parse_range(request, stored)
        if content_range is not None and content_range.start >= size:
            raise RejectedError(
                Response(416, b"", raw_headers({**headers, "content-range": f"bytes */{size}"}))
            )
        if content_range is not None:
            first, last = content_range.start, content_range.stop - 1
            headers["content-range"] = f"bytes {first}-{last}/{size}"
        content_range = content_range or range(size)
        headers["content-length"] = str(len(content_range))
        status = 206 if "content-range" in headers else 200
        start = {"type": "http.response.start", "status": status, "headers": raw_headers(headers)}
        await request.send(start)
        sent = range(0) if request.method == "HEAD" else content_range
        bandwidth = self._platform.settings.bandwidth
        for offset in sent[::_CHUNK]:
            if request.connection.is_closed:
                break
            chunk = stored.content[offset : min(offset + _CHUNK, sent.stop)]
            await request.send({"type": "http.response.body", "body": chunk, "more_body": True})
            if bandwidth is not None:
                await asyncio.sleep(len(chunk) / bandwidth)
        await request.send({"type": "http.response.body", "body": b""})

    def _begin(self, request: GatewayRequest) -> str:
        self._require_token(request)
        headers = request.headers
        content_type = headers.get("content-type", "application/octet-stream")
        owner = self._files.token_user(headers.get("authorization")) or OWNER
        metadata = parse_metadata(headers, content_type, headers.get("x-fal-file-name"), owner)
        return self._files.begin(request.location.base, metadata)

    def _require_token(self, request: GatewayRequest, key: str = "") -> None:
        """Check the signature of presigned URLs, and the token of other URLs."""
        authorization = request.headers.get("authorization")
        if _is_presigned(request):
            if authorization is not None:  # storage services accept it, and then have the key
                request.warnings.append("an Authorization header was sent to a presigned URL")
            if not _is_signed(request, key):
                raise RejectedError(error_response(403, "The signature is not the one of this URL"))
        elif (user := self._files.token_user(authorization)) is None or (
            user != OWNER and self._platform.accounts.get(user) is None
        ):
            raise RejectedError(error_response(401, "Invalid token"))

    def _require_owner(self, request: GatewayRequest) -> None:
        authorization = request.headers.get("authorization")
        if error := self._platform.accounts.reject_reason(authorization, "storage", private=True):
            raise RejectedError(error)

    def _find_upload(self, key: str) -> PendingUpload:
        upload = self._files.pending.get(key)
        if upload is None:
            raise RejectedError(error_response(404, "Upload not found"))
        return upload


def _match_route(request: GatewayRequest) -> tuple[Route, tuple[str, ...]]:
    for method, path, route in _ROUTES:
        match = path.fullmatch(request.location.path)
        if match and method == request.method:
            return route, match.groups()
    return "other", ()


def _is_presigned(request: GatewayRequest) -> bool:
    return request.location.path.startswith("presigned/")


def _is_signed(request: GatewayRequest, key: str) -> bool:
    return request.parameters.get("signature") == make_signature(key)


def _parse_range(request: GatewayRequest, stored: StoredFile) -> range | None:
    """Return the requested range; ``None`` for the whole file."""
    match = _RANGE.fullmatch(request.headers.get("range", ""))
    if match is None or request.headers.get("if-range", stored.etag) != stored.etag:
        return None
    size = len(stored.content)
    first, last = match.groups()
    if not first:
        return range(max(0, size - int(last)), size) if last else None
    if last and int(last) < int(first):
        return None
    return range(int(first), min(size, int(last) + 1) if last else size)
