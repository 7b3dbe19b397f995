"""Addresses of the platform in texts: as clients use them here, as recorded, and upstream."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from fal_async._config import Hosts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fal_async.emulator._request import Location

__all__ = ["Addresses", "local_bases", "recorded_url", "to_local", "to_recorded"]

#: The base URLs in cassettes, by host.
_RECORDED: Final[dict[str, str]] = {
    name: url for name, url in asdict(Hosts()).items() if name in {"run", "queue", "rest", "cdn"}
}
#: A URL in JSON, where an ampersand or a slash may be escaped.
_URL = re.compile(rb"https?://(?:[^\s\"\\<>]|\\u0026|\\/)+")
#: Parameters of signed URLs, and of other credentials.
_SECRET = re.compile(
    r"(?i)(.*signature|sig|.*token.*|.*credential|policy|key-pair-id|googleaccessid|awsaccesskeyid"
    r"|x-(amz|goog)-.+)"
)
#: Host and path of files of the platform. Some are in buckets of its storage service.
_FILE = re.compile(r"([a-z0-9-]+\.)*fal\.media/|storage\.googleapis\.com/fal")
_RENAMED = re.compile(re.escape(_RECORDED["cdn"].encode()) + rb"/recorded/([0-9]+)/[^\s\"\\<>]*")


def local_bases(location: Location) -> dict[str, str]:
    """Return the base URLs of all hosts, in the form that a client uses for one of them."""
    origin, slash, host = location.base.rpartition("/")
    if not slash or host != location.host:
        return _RECORDED  # the client uses the names of the real hosts
    return {name: f"{origin}/{name}" for name in _RECORDED}


def recorded_url(location: Location, query: str) -> str:
    """Return the URL of a request as cassettes contain it: without credentials in the query."""
    pairs = parse_qsl(query, keep_blank_values=True)
    kept = urlencode([pair for pair in pairs if not _SECRET.fullmatch(pair[0])])
    url = f"{_RECORDED[location.host or 'run']}/{location.path}"
    return f"{url}?{kept}" if kept else url


class Addresses:
    """Translates texts between the addresses here, those in cassettes, and those upstream.

    Files on other hosts of the CDN, and signed URLs, are renamed. Clients then request them here,
    and cassettes contain no signature.

    Args:
        upstream: The base URLs of the platform that is recorded.
    """

    def __init__(self, upstream: Hosts) -> None:
        bases = asdict(upstream)
        self._upstream = {name: bases[name] for name in _RECORDED}
        self._cdn_urls: list[bytes] = []

    def to_upstream(self, text: bytes) -> bytes:
        """Translate a text of a cassette into one for the platform."""
        text = _RENAMED.sub(lambda found: self._cdn_urls[int(found[1])], text)
        return _replace(text, _RECORDED, self._upstream)

    def from_upstream(self, text: bytes) -> bytes:
        """Translate a text of the platform into one for a cassette."""

        def rename(found: re.Match[bytes]) -> bytes:
            url = found[0].replace(rb"\u0026", b"&").replace(rb"\/", b"/")
            try:
                parts = urlsplit(url.decode("latin-1"))
            except ValueError:
                return found[0]
            is_signed = any(_SECRET.fullmatch(name) for name, _ in parse_qsl(parts.query))
            is_here = url.startswith(_RECORDED["cdn"].encode() + b"/")
            is_file = _FILE.match(f"{parts.hostname}{parts.path}") is not None
            if not is_signed and (is_here or not is_file):
                return found[0]
            if url not in self._cdn_urls:
                self._cdn_urls.append(url)
            number, name = self._cdn_urls.index(url), parts.path.rpartition("/")[2] or "file"
            return f"{_RECORDED['cdn']}/recorded/{number}/{name}".encode("latin-1")

        return _URL.sub(rename, _replace(text, self._upstream, _RECORDED))


def to_recorded(text: bytes, local: Mapping[str, str]) -> bytes:
    """Translate a text of a client into one for a cassette."""
    return _replace(text, local, _RECORDED)


def to_local(text: bytes, local: Mapping[str, str]) -> bytes:
    """Translate a text of a cassette into one for a client."""
    return _replace(text, _RECORDED, local)


def _replace(text: bytes, old: Mapping[str, str], new: Mapping[str, str]) -> bytes:
    for name, base in old.items():
        if base != new[name]:
            text = text.replace(f"{base}/".encode(), f"{new[name]}/".encode())
    return text
