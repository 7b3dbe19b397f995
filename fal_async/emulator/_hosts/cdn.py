"""``v3.fal.media``: uploads with a token or to a presigned URL, and downloads."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, Final

from fal_async.emulator._files import OWNER, etag_of, label_of, signature_of, signed
from fal_async.emulator._hosts.calls import Call, called_id
from fal_async.emulator._json import decode
from fal_async.emulator._replies import Refusal, Reply, detail, json_reply, raw_headers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fal_async.emulator._exchange import Exchange
    from fal_async.emulator._files import Incoming, StoredFile
    from fal_async.emulator._platform import Platform
    from fal_async.emulator._record import Route

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

    def __init__(self, platform: Platform) -> None:
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

    def call(self, exchange: Exchange) -> Call:
        """What the method and the path say."""
        route, _ = _understood(exchange)
        return Call(route, called_id(""))

    async def answer(self, exchange: Exchange, call: Call) -> None:
        """Do what is asked for."""
        route, words = _understood(exchange)
        if route == "other":
            raise Refusal(detail(404, "Not Found"))
        await self._answers[route](exchange, *words)

    async def _upload(self, exchange: Exchange) -> None:
        key = self._expect(exchange)
        stored = self._platform.files.keep(key, exchange.body)
        await exchange.reply(json_reply(200, {"access_url": stored.url}))

    async def _begin_parts(self, exchange: Exchange) -> None:
        key = self._expect(exchange)
        url = self._platform.files.incoming[key].url
        await exchange.reply(json_reply(200, {"access_url": url, "uploadId": key}))

    async def _part(self, exchange: Exchange, key: str, number: str) -> None:
        self._let_in(exchange, key)
        self._incoming(key).parts[int(number)] = exchange.body
        etag = etag_of(exchange.body)
        body = {"partNumber": int(number), "etag": etag}
        await exchange.reply(json_reply(200, body, {"etag": etag}))

    async def _sign_part(self, exchange: Exchange, key: str, number: str) -> None:
        self._let_owner_in(exchange)
        self._incoming(key)
        url = signed(f"{exchange.place.base}/presigned/{key}/{number}", key)
        await exchange.reply(json_reply(200, {"upload_url": url}))

    async def _complete(self, exchange: Exchange, key: str) -> None:
        if not _is_presigned(exchange):
            self._let_in(exchange)
        elif not _is_signed(exchange, key):
            self._let_owner_in(exchange)
        content = self._incoming(key).joined(_named_parts(exchange.body))
        if content is None:
            raise Refusal(detail(400, "The parts are not those that were uploaded"))
        stored = self._platform.files.keep(key, content)
        await exchange.reply(json_reply(200, {"access_url": stored.url}))

    async def _put(self, exchange: Exchange, key: str) -> None:
        self._let_in(exchange, key)
        incoming = self._incoming(key)
        if exchange.headers.get("content-type") != incoming.label.content_type:
            raise Refusal(detail(403, "The content type is not the one that was signed"))
        stored = self._platform.files.keep(key, exchange.body)
        self._platform.files.incoming[key] = incoming  # the URL may be put to again
        await exchange.reply(Reply(200, b"", raw_headers({"etag": stored.etag})))

    async def _download(self, exchange: Exchange, file_id: str) -> None:
        files = self._platform.files
        stored = files.find(file_id)
        reader = files.user_of(exchange.headers.get("authorization"))
        decision = "hide" if stored is None else stored.decision(reader)
        if stored is None or decision == "hide":
            raise Refusal(detail(404, "File not found"))
        if decision == "forbid":
            raise Refusal(detail(403, "Access to this file is forbidden"))
        await self._give(exchange, stored)

    async def _give(self, exchange: Exchange, stored: StoredFile) -> None:
        headers = {
            "content-type": stored.content_type,
            "etag": stored.etag,
            "accept-ranges": "bytes",
        }
        size = len(stored.content)
        span = _span(exchange, stored)
        if span is not None and span.start >= size:
            raise Refusal(
                Reply(416, b"", raw_headers({**headers, "content-range": f"bytes */{size}"}))
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

    async def _send(self, exchange: Exchange, content: memoryview) -> None:
        bandwidth = self._platform.settings.bandwidth
        for start in range(0, len(content), _CHUNK):
            if exchange.connection.is_lost:
                break
            chunk = bytes(content[start : start + _CHUNK])
            await exchange({"type": "http.response.body", "body": chunk, "more_body": True})
            if bandwidth is not None:
                await asyncio.sleep(len(chunk) / bandwidth)

    def _expect(self, exchange: Exchange) -> str:
        self._let_in(exchange)
        headers = exchange.headers
        content_type = headers.get("content-type", "application/octet-stream")
        label = label_of(headers, content_type, headers.get("x-fal-file-name"))
        return self._platform.files.expect(exchange.place.base, label)

    def _let_in(self, exchange: Exchange, key: str = "") -> None:
        """Check the signature of presigned URLs, and the token of all others."""
        authorization = exchange.headers.get("authorization")
        if _is_presigned(exchange):
            if authorization is not None:  # storage services let it pass, and have the key now
                exchange.warnings.append("an Authorization header was sent to a presigned URL")
            if not _is_signed(exchange, key):
                raise Refusal(detail(403, "The signature is not the one of this URL"))
        elif self._platform.files.user_of(authorization) != OWNER:
            raise Refusal(detail(401, "Invalid token"))

    def _let_owner_in(self, exchange: Exchange) -> None:
        authorization = exchange.headers.get("authorization")
        if refusal := self._platform.accounts.refusal(authorization, "storage", private=True):
            raise Refusal(refusal)

    def _incoming(self, key: str) -> Incoming:
        incoming = self._platform.files.incoming.get(key)
        if incoming is None:
            raise Refusal(detail(404, "Upload not found"))
        return incoming


def _understood(exchange: Exchange) -> tuple[Route, tuple[str, ...]]:
    for method, path, route in _ROUTES:
        found = path.fullmatch(exchange.place.path)
        if found and method == exchange.method:
            return route, found.groups()
    return "other", ()


def _is_presigned(exchange: Exchange) -> bool:
    return exchange.place.path.startswith("presigned/")


def _is_signed(exchange: Exchange, key: str) -> bool:
    return exchange.parameters.get("signature") == signature_of(key)


def _named_parts(body: bytes) -> list[tuple[object, object]]:
    """The parts in the body of a completion, by number and ETag, in either of two spellings."""
    try:
        parts: list[dict[str, Any]] = decode(body)["parts"]
        return [(part.get("partNumber", part.get("part_number")), part["etag"]) for part in parts]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refusal(detail(422, "parts is missing")) from error


def _span(exchange: Exchange, stored: StoredFile) -> range | None:
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
