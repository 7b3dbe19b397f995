"""Download operations, ranges, redirects, file names and data URLs."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from email.message import Message
from email.utils import collapse_rfc2231_value
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import unquote, unquote_to_bytes, urljoin, urlsplit

from fal_async._protocol.content_coding import CodingError, content_codings
from fal_async._protocol.error_mapping import raise_for_status
from fal_async._protocol.operation import Credential, Lane, Operation, Request
from fal_async._protocol.origins import origin_of
from fal_async._protocol.retry import Retry
from fal_async.errors import InvalidRequestError, InvalidResponseError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = [
    "FileVersion",
    "decode_data_url",
    "download",
    "file_name",
    "find_file_objects",
    "is_data_url",
    "is_file_url",
    "normalize_url",
    "resolve_redirect",
    "size_from_unsatisfied_range",
    "suggested_name",
]

#: The range of a response, or the size of a file that ends before the requested range.
_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,18})-\d{1,18}|\*)/(\d{1,18}|\*)", re.ASCII)
_FILE_URL = re.compile(r"https?://|data:", re.IGNORECASE)
#: Characters that a system forbids in file names, and dots that hide a file or name a folder.
_UNSAFE = re.compile(r'[<>:"/\\|?*]|^\.+|[. ]+$')
#: The names of devices on Windows, with any extension.
_DEVICES = re.compile(
    r"(con|prn|aux|nul|clock\$|conin\$|conout\$|(com|lpt)[\d¹²³]) *(\.|$)", re.IGNORECASE
)
#: Percent-encoded bytes that are not ASCII.
_ENCODED = re.compile(r"(?:%[89a-f][0-9a-f])+", re.IGNORECASE)
#: The maximum length of a name and of its extension, in bytes: systems allow 255, and a number may
#: be appended.
_LONGEST_NAME: Final = 200
_LONGEST_EXTENSION: Final = 20
#: The statuses of responses with a complete file.
_WHOLE: Final = frozenset({200, 203})
_PART: Final = 206


@dataclass(frozen=True, slots=True)
class FileVersion:
    """The metadata of a file in a response.

    Attributes:
        size: The size of the file, in bytes; ``None`` if it is unknown.
        etag: The strong ETag, which identifies the content; ``None`` without one.
        start: The offset of the response in the file, in bytes.
    """

    size: int | None
    etag: str | None
    start: int

    @classmethod
    def of(cls, status_code: int, headers: Mapping[str, str]) -> FileVersion:
        """Read the headers of a successful response.

        Raises:
            InvalidResponseError: The response contains neither a file nor a known range of one.
        """
        etag = headers.get("etag", "")
        try:
            encoded = bool(content_codings(headers.get("content-encoding", "")))
        except CodingError as error:
            raise InvalidResponseError(f"cannot read the file: {error}") from error
        # The length and the ETag of a compressed response are not those of the file.
        strong = etag if etag.startswith('"') and not encoded else None
        if status_code in _WHOLE:
            length = headers.get("content-length", "")
            return cls(int(length) if length.isdigit() and not encoded else None, strong, 0)
        start, size = _content_range(headers)
        if status_code != _PART or start is None or encoded:
            raise InvalidResponseError(
                f"the response must contain the file or a range of it, got HTTP {status_code}"
            )
        return cls(size, strong, start)

    def matches(self, earlier: FileVersion) -> bool:
        """Return whether this is the same file, as far as the headers show."""
        sizes = {self.size, earlier.size} - {None}
        return self.etag == earlier.etag and len(sizes) < 2


def size_from_unsatisfied_range(headers: Mapping[str, str]) -> int | None:
    """Return the size of the file in the headers of a 416 response; ``None`` if it is missing."""
    return _content_range(headers)[1]


def resolve_redirect(url: str, location: str) -> str:
    """Return the target of a redirect.

    Raises:
        InvalidResponseError: The target is not an http or https URL, or is http after https.
    """
    # Header values were decoded as Latin-1. Their bytes beyond ASCII, usually UTF-8, are encoded.
    location = "".join(c if c.isascii() else f"%{ord(c):02X}" for c in normalize_url(location))
    try:
        target = urljoin(url, location)
    except ValueError:
        target = ""
    origin = origin_of(target) or ""
    if not origin.startswith("http") or (url[:6].lower() == "https:" and origin[:5] != "https"):
        raise InvalidResponseError(
            f"cannot follow the redirect of a file to {location[:100]!r}: the target must be an "
            "https URL, or http after http"
        )
    return target


def normalize_url(url: object) -> str:
    """Percent-encode the spaces of a URL, which the file names of many outputs contain.

    Raises:
        InvalidRequestError: The URL is not a string.
    """
    if not isinstance(url, str):
        raise InvalidRequestError(f"a URL must be a string, got {type(url).__name__}")
    return url if is_data_url(url) else url.strip().replace(" ", "%20")


def is_data_url(url: str) -> bool:
    """Return whether a URL is a data URL."""
    return url[:5].lower() == "data:"


def download(url: str, credential: Credential, *, start: int, etag: str | None) -> Operation[None]:
    """Request a file, or the range from the byte `start` on if the file has an ETag.

    Raises:
        InvalidRequestError: The URL is not an http or https URL.
    """
    origin = origin_of(url)
    if origin is None or not origin.startswith("http"):
        raise InvalidRequestError(f"the URL of a download must be http or https, got {url[:100]!r}")
    headers = {"accept": "*/*", "accept-encoding": "identity"}
    if start and etag is not None:
        headers |= {"range": f"bytes={start}-", "if-range": etag}
    return Operation(
        name="download",
        application=url.partition("?")[0],
        request=Request("GET", url, headers),
        parse=raise_for_status,
        retry=Retry.IDEMPOTENT,
        lane=Lane.DOWNLOAD,
        credential=credential,
        stage="download",
    )


def is_file_url(value: object) -> bool:
    """Return whether a value of an output is the URL of a file."""
    return isinstance(value, str) and _FILE_URL.match(value) is not None


def find_file_objects(output: object) -> Iterator[dict[str, Any]]:
    """Yield the file objects in an output, in order: all mappings with the URL of a file."""
    waiting: list[object] = [output]
    while waiting:
        value = waiting.pop()
        inside: Iterable[object] = ()
        if isinstance(value, dict):
            mapping = cast("dict[str, Any]", value)
            if is_file_url(mapping.get("url")):
                yield mapping
            inside = mapping.values()
        elif isinstance(value, list):
            inside = cast("list[object]", value)
        waiting.extend(reversed(list(inside)))


def decode_data_url(url: str) -> tuple[str, bytes]:
    """Return the media type and the content of a data URL.

    Raises:
        InvalidResponseError: The URL is malformed.
    """
    head, comma, text = url.partition(",")
    kind, *parameters = head[len("data:") :].split(";")
    if not comma:
        raise InvalidResponseError("a data URL must have a comma, got none")
    try:
        content = unquote_to_bytes(text)
    except UnicodeEncodeError as error:
        raise InvalidResponseError(f"cannot decode a data URL: {error}") from error
    if any(parameter.strip().lower() == "base64" for parameter in parameters):
        content = b"".join(content.split()).translate(bytes.maketrans(b"-_", b"+/"))
        try:
            content = base64.b64decode(content + b"=" * (-len(content) % 4), validate=True)
        except binascii.Error as error:
            raise InvalidResponseError(
                f"cannot decode the base64 of a data URL: {error}"
            ) from error
    return kind.strip().lower() or "text/plain", content


def file_name(url: str, named: str | None, extension: str) -> str:
    """Return a safe file name: the given name, the last segment of the URL, or a default."""
    path = "" if is_data_url(url) else urlsplit(url).path
    try:
        path = unquote(path, errors="strict")
    except UnicodeDecodeError:
        path = unquote(path, encoding="latin-1")
    for candidate in (named or "", path.rpartition("/")[2]):
        last = _ENCODED.sub(_decode, candidate).replace("\\", "/").rpartition("/")[2]
        shown = "".join(character if character.isprintable() else "_" for character in last)
        name = _UNSAFE.sub("_", shown)
        if not name.strip("_. "):
            continue
        name = f"_{name}" if _DEVICES.match(name) else name
        stem, dot, suffix = name.rpartition(".")
        if len(suffix.encode()) > _LONGEST_EXTENSION or not stem:
            stem, dot, suffix = name, "", ""
        return f"{stem.encode()[:_LONGEST_NAME].decode(errors='ignore')}{dot}{suffix}"
    return f"file{extension}"


def suggested_name(headers: Mapping[str, str]) -> str | None:
    """Return the name that a response suggests for its file in ``Content-Disposition``, if any."""
    disposition = headers.get("content-disposition")
    if disposition is None:
        return None
    message = Message()
    message["content-disposition"] = disposition
    parameters = message.get_params([], "content-disposition")
    names = [value for key, value in parameters if key.lower() == "filename"]
    if not names:
        return None
    # The value of ``filename*`` is a tuple with its encoding, and takes precedence.
    names.sort(key=lambda name: not isinstance(name, tuple))
    name = collapse_rfc2231_value(names[0])
    try:
        return name.encode("latin-1").decode()  # headers were decoded as Latin-1
    except UnicodeError:
        return name


def _decode(encoded: re.Match[str]) -> str:
    """Percent-decode a part of a name, if it is UTF-8."""
    try:
        return unquote_to_bytes(encoded[0]).decode()
    except UnicodeDecodeError:
        return encoded[0]


def _content_range(headers: Mapping[str, str]) -> tuple[int | None, int | None]:
    """Return the first byte of a range and the size of the file; ``None`` if unknown."""
    found = _CONTENT_RANGE.fullmatch(headers.get("content-range", "").strip().lower())
    start, size = found.groups() if found else (None, None)
    return int(start) if start else None, int(size) if size and size != "*" else None
