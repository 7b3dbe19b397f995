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
from fal_async.emulator._storage import OWNER, etag_of, label_of, signature_of, signed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fal_async.emulator._recorder import Route
    from fal_async.emulator._request import GatewayRequest
    from fal_async.emulator._state import PlatformState
    from fal_async.emulator._storage import PendingUpload, StoredFile

#: Which requests ask for what: method, path, route. Groups are the key and the number of a part.
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
#: How many bytes of a file are sent at once.
_CHUNK: Final = 65_536


class CdnHost:
    """Takes files in, and gives them out to those who may have them."""

    def __init__(self, platform: PlatformState) -> None:
        self._platform = platform
        self._answers: dict[Route, Callable[..., Awaitable[None]]] = {
            "upload": self._upload,
            "begin_parts": self._begin_parts,
            "part": self._part,
            "sign_part": self._sign_part,
            "complete": self._complete,
            "put": self._put,
            "download": self._download,
        }

    def call(self, exchange: GatewayRequest) -> Call:
        """What the method and the path say."""
        route, _ = _match_route(exchange)
        return Call(route, parse_called_id(""))

    async def answer(self, exchange: GatewayRequest, call: Call) -> None:
        """Do what is asked for."""
        route, words = _match_route(exchange)
        if route == "other":
            raise RejectedError(error_response(404, "Not Found"))
        await self._answers[route](exchange, *words)

    async def _upload(self, exchange: GatewayRequest) -> None:
        key = self._expect(exchange)
        stored = self._platform.files.keep(key, exchange.body)
        await exchange.response(json_response(200, {"access_url": stored.url}))

    async def _begin_parts(self, exchange: GatewayRequest) -> None:
        key = self._expect(exchange)
        url = self._platform.files.incoming[key].url
        await exchange.response(json_response(200, {"access_url": url, "uploadId": key}))

    async def _part(self, exchange: GatewayRequest, key: str, number: str) -> None:
        self._require_token(exchange, key)
        self._incoming(key).parts[int(number)] = exchange.body
        etag = etag_of(exchange.body)
        body = {"partNumber": int(number), "etag": etag}
        await exchange.response(json_response(200, body, {"etag": etag}))

    async def _sign_part(self, exchange: GatewayRequest, key: str, number: str) -> None:
        self._require_owner(exchange)
        self._incoming(key)
        url = signed(f"{exchange.location.base}/presigned/{key}/{number}", key)
        await exchange.response(json_response(200, {"upload_url": url}))

    async def _complete(self, exchange: GatewayRequest, key: str) -> None:
        if not _is_presigned(exchange):
            self._require_token(exchange)
        elif not _is_signed(exchange, key):
            self._require_owner(exchange)
        content = self._incoming(key).joined(_named_parts(exchange.body))
        if content is None:
            raise RejectedError(error_response(400, "The parts are not those that were uploaded"))
        stored = self._platform.files.keep(key, content)
        await exchange.response(json_response(200, {"access_url": stored.url}))

    async def _put(self, exchange: GatewayRequest, key: str) -> None:
        self._require_token(exchange, key)
        incoming = self._incoming(key)
        if exchange.headers.get("content-type") != incoming.label.content_type:
            raise RejectedError(
                error_response(403, "The content type is not the one that was signed")
            )
        stored = self._platform.files.keep(key, exchange.body)
        self._platform.files.incoming[key] = incoming  # the URL may be put to again
        await exchange.response(Response(200, b"", raw_headers({"etag": stored.etag})))

    async def _download(self, exchange: GatewayRequest, file_id: str) -> None:
        files = self._platform.files
        stored = files.find(file_id)
        reader = files.user_of(exchange.headers.get("authorization"))
        decision = "hide" if stored is None else stored.decision(reader)
        if stored is None or decision == "hide":
            raise RejectedError(error_response(404, "File not found"))
        if decision == "forbid":
            raise RejectedError(error_response(403, "Access to this file is forbidden"))
        await self._send_file(exchange, stored)

    async def _send_file(self, exchange: GatewayRequest, stored: StoredFile) -> None:
        headers = {
            "content-type": stored.content_type,
            "etag": stored.etag,
            "accept-ranges": "bytes",
        }
        size = len(stored.content)
        span = _span(exchange, stored)
        if span is not None and span.start >= size:
            raise RejectedError(
                Response(416, b"", raw_headers({**headers, "content-range": f"bytes */{size}"}))
            )
        if span is not None:
            headers["content-range"] = f"bytes {span.start}-{span.stop - 1}/{size}"
        span = span or range(size)
        headers["content-length"] = str(len(span))
        status = 206 if "content-range" in headers else 200
        start = {"type": "http.response.start", "status": status, "headers": raw_headers(headers)}
        await exchange(start)
        if exchange.method != "HEAD":
            await self._send(exchange, memoryview(stored.content)[span.start : span.stop])
        await exchange({"type": "http.response.body", "body": b""})

    async def _send(self, exchange: GatewayRequest, content: memoryview) -> None:
        bandwidth = self._platform.settings.bandwidth
        for start in range(0, len(content), _CHUNK):
            if exchange.connection.is_closed:
                break
            chunk = bytes(content[start : start + _CHUNK])
            await exchange({"type": "http.response.body", "body": chunk, "more_body": True})
            if bandwidth is not None:
                await asyncio.sleep(len(chunk) / bandwidth)

    def _expect(self, exchange: GatewayRequest) -> str:
        self._require_token(exchange)
        headers = exchange.headers
        content_type = headers.get("content-type", "application/octet-stream")
        label = label_of(headers, content_type, headers.get("x-fal-file-name"))
        return self._platform.files.expect(exchange.location.base, label)

    def _require_token(self, exchange: GatewayRequest, key: str = "") -> None:
        """Check the signature of presigned URLs, and the token of all others."""
        authorization = exchange.headers.get("authorization")
        if _is_presigned(exchange):
            if authorization is not None:  # storage services let it pass, and have the key now
                exchange.warnings.append("an Authorization header was sent to a presigned URL")
            if not _is_signed(exchange, key):
                raise RejectedError(error_response(403, "The signature is not the one of this URL"))
        elif self._platform.files.user_of(authorization) != OWNER:
            raise RejectedError(error_response(401, "Invalid token"))

    def _require_owner(self, exchange: GatewayRequest) -> None:
        authorization = exchange.headers.get("authorization")
        if refusal := self._platform.accounts.reject_reason(authorization, "storage", private=True):
            raise RejectedError(refusal)

    def _incoming(self, key: str) -> PendingUpload:
        incoming = self._platform.files.incoming.get(key)
        if incoming is None:
            raise RejectedError(error_response(404, "Upload not found"))
        return incoming


def _match_route(exchange: GatewayRequest) -> tuple[Route, tuple[str, ...]]:
    for method, path, route in _ROUTES:
        found = path.fullmatch(exchange.location.path)
        if found and method == exchange.method:
            return route, found.groups()
    return "other", ()


def _is_presigned(exchange: GatewayRequest) -> bool:
    return exchange.location.path.startswith("presigned/")


def _is_signed(exchange: GatewayRequest, key: str) -> bool:
    return exchange.parameters.get("signature") == signature_of(key)


def _named_parts(body: bytes) -> list[tuple[object, object]]:
    """The parts in the body of a completion, by number and ETag, in either of two spellings."""
    try:
        parts: list[dict[str, Any]] = decode(body)["parts"]
        return [(part.get("partNumber", part.get("part_number")), part["etag"]) for part in parts]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RejectedError(error_response(422, "parts is missing")) from error


def _span(exchange: GatewayRequest, stored: StoredFile) -> range | None:
    """The one range that is asked for; ``None`` for the whole file."""
    found = _RANGE.fullmatch(exchange.headers.get("range", ""))
    if found is None or exchange.headers.get("if-range", stored.etag) != stored.etag:
        return None
    size = len(stored.content)
    first, last = found.groups()
    if not first:
        return range(max(0, size - int(last)), size) if last else None
    if last and int(last) < int(first):
        return None
    return range(int(first), min(size, int(last) + 1) if last else size)
