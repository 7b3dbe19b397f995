"""Downloads: the calls as values, how a reply fits to what has arrived, and the names of files."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from fal_async._protocol.failures import raise_for_status
from fal_async._protocol.operations import Credential, Lane, Operation, Request
from fal_async._protocol.origins import origin_of
from fal_async._protocol.retry import Retry
from fal_async.errors import InvalidReplyError, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["Version", "decode_data_url", "download", "file_name", "is_file_url", "objects_in"]

_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_FILE_URL = re.compile(r"https?://|data:", re.IGNORECASE)
#: What names of files cannot hold on some system, and what would be a folder or hidden.
_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]|^\.+|[. ]+$')
#: How long a name may be, in characters.
_LONGEST_NAME: Final = 150


@dataclass(frozen=True, slots=True)
class Version:
    """What a reply says of a file.

    Attributes:
        size: Its size in bytes; ``None`` when the reply does not say.
        etag: What tells its content from any other; ``None`` when there is nothing that does.
        start: Where in the file the reply begins.
    """

    size: int | None
    etag: str | None
    start: int

    @classmethod
    def of(cls, status_code: int, headers: Mapping[str, str]) -> Version:
        """Read the head of a successful reply."""
        etag = headers.get("etag", "")
        strong = etag if etag.startswith('"') else None
        if status_code != 206:
            length = headers.get("content-length", "")
            encoded = "content-encoding" in headers
            return cls(int(length) if length.isdigit() and not encoded else None, strong, 0)
        found = _CONTENT_RANGE.fullmatch(headers.get("content-range", "").strip().lower())
        if found is None:
            raise InvalidReplyError("a part of a file came without saying which")
        start, size = found.groups()
        return cls(int(size) if size.isdigit() else None, strong, int(start))

    def continues(self, earlier: Version) -> bool:
        """Whether this is the same file, as far as can be told."""
        return (self.etag, self.size) == (earlier.etag, earlier.size)


def download(url: str, credential: Credential, *, start: int, etag: str | None) -> Operation[None]:
    """Ask for a file, from the byte `start` on where the file has an ETag.

    Raises:
        InvalidRequestError: The URL is not one of http or https.
    """
    origin = origin_of(url)
    if origin is None or not origin.startswith("http"):
        raise InvalidRequestError(f"only http and https URLs can be downloaded, not {url[:100]!r}")
    headers = {"accept": "*/*", "accept-encoding": "identity"}
    if start and etag is not None:
        headers |= {"range": f"bytes={start}-", "if-range": etag}
    return Operation(
        name="download",
        application=url.partition("?")[0],
        request=Request("GET", url, headers),
        parse=raise_for_status,
        retry=Retry.SAFE,
        lane=Lane.DOWNLOAD,
        credential=credential,
    )


def is_file_url(value: object) -> bool:
    """Whether a value of an output is the URL of a file."""
    return isinstance(value, str) and _FILE_URL.match(value) is not None


def objects_in(output: object) -> Iterator[dict[str, Any]]:
    """The file objects in an output, in their order: every mapping with the URL of a file."""
    inside: Iterable[Any] = ()
    if isinstance(output, dict):
        mapping = cast("dict[str, Any]", output)
        if is_file_url(mapping.get("url")):
            yield mapping
        inside = mapping.values()
    elif isinstance(output, list):
        inside = cast("Iterable[Any]", output)
    for value in inside:
        yield from objects_in(value)


def decode_data_url(url: str) -> tuple[str, bytes]:
    """The media type and the content of a data URL.

    Raises:
        InvalidReplyError: It is none that can be read.
    """
    head, comma, text = url.partition(",")
    kind, *parameters = head[len("data:") :].split(";")
    content = unquote_to_bytes(text)
    if not comma:
        raise InvalidReplyError("a data URL has no comma")
    if any(parameter.strip().lower() == "base64" for parameter in parameters):
        content = b"".join(content.split()).translate(bytes.maketrans(b"-_", b"+/"))
        try:
            content = base64.b64decode(content + b"=" * (-len(content) % 4), validate=True)
        except binascii.Error as error:
            raise InvalidReplyError(f"a data URL is not base64: {error}") from error
    return kind.strip().lower() or "text/plain", content


def file_name(url: str, named: str | None, extension: str) -> str:
    """A safe name for a file: the one it has, or the last of its URL, or any."""
    path = "" if url[:5].lower() == "data:" else unquote(urlsplit(url).path)
    for candidate in (named or "", path.rpartition("/")[2]):
        name = _UNSAFE.sub("_", candidate.replace("\\", "/").rpartition("/")[2])
        if name.strip("_. "):
            stem, dot, suffix = name.rpartition(".")
            return name if len(name) <= _LONGEST_NAME else f"{stem[:_LONGEST_NAME]}{dot}{suffix}"
    return f"file{extension}"
