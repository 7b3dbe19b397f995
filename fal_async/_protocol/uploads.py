"""Upload operations: CDN, presigned, multipart; lifecycle headers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from urllib.parse import quote

from fal_async._core.checks import check_instance, check_sequence, describe, is_one_of
from fal_async._protocol.operation import Credential, Lane, Operation, Request, response_parser
from fal_async._protocol.options import merge_headers
from fal_async._protocol.origins import append_path, is_cdn, origin_of, split_query
from fal_async._protocol.response import read_id
from fal_async._protocol.retry import Retry
from fal_async._protocol.serialization import encode_json
from fal_async.errors import InvalidRequestError, InvalidResponseError, UploadError
from fal_async.types import StorageSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from fal_async._config import Hosts
    from fal_async._core.secrets import Secret
    from fal_async._protocol.operation import Content
    from fal_async._protocol.response import Response
    from fal_async.types import Repository

__all__ = [
    "FileMetadata",
    "MultipartUpload",
    "Part",
    "PartRange",
    "PresignedTarget",
    "complete",
    "initiate",
    "lifecycle_headers",
    "repositories",
    "split_into_parts",
    "start_cdn_multipart",
    "start_multipart",
    "upload_part",
    "upload_to_cdn",
    "upload_to_presigned",
]

T = TypeVar("T")

#: The maximum number of parts of an upload. Large files have larger parts instead of more.
MAX_PARTS: Final = 10_000
#: The name of an upload without one, for requests that need a name.
UNNAMED: Final = "upload.bin"

_JSON: Final = {"accept": "application/json", "content-type": "application/json"}


def lifecycle_headers(settings: StorageSettings | None) -> dict[str, str]:
    """Return the headers for storage settings; none if all settings have their defaults."""
    if settings is None:
        return {}
    check_instance("lifecycle", settings, StorageSettings)
    acl: dict[str, Any] = {}
    if settings.initial_acl is not None:
        rules = settings.initial_acl.rules or ()
        acl = {
            "default": settings.initial_acl.default,
            "rules": [{"user": rule.user, "decision": rule.decision} for rule in rules],
        }
    preferences = {
        "expiration_duration_seconds": settings._expires_in_seconds,
        "initial_acl": {name: value for name, value in acl.items() if value},
    }
    preferences = {name: value for name, value in preferences.items() if value}
    if not preferences:
        return {}
    text = json.dumps(preferences)  # headers are ASCII
    # The CDN reads the first header, the storage service the second.
    return {"x-fal-object-lifecycle": text, "x-fal-object-lifecycle-preference": text}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMetadata:
    """The metadata of an upload.

    Attributes:
        content_type: The media type.
        file_name: The name, or ``None``.
        lifecycle: The headers of its expiry and its access control.

    Raises:
        InvalidRequestError: A value is invalid.
    """

    content_type: str
    file_name: str | None = None
    lifecycle: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        if not isinstance(cast("object", self.content_type), str) or not self.content_type:
            raise InvalidRequestError(
                "the content type must be a media type such as 'image/png', "
                f"got {describe(self.content_type)}"
            )
        if not isinstance(cast("object", self.file_name), str | None):
            raise InvalidRequestError(
                f"the file name must be a string, got {describe(self.file_name)}"
            )
        _ = self.headers

    def __str__(self) -> str:
        name = self.file_name or UNNAMED
        return name.encode(errors="replace").decode()  # names may contain lone surrogates

    @property
    def headers(self) -> dict[str, str]:
        """The headers of a request to the CDN."""
        named: dict[str, str] = {}
        if self.file_name:
            # Headers are ASCII, so all other characters are percent-encoded.
            named["x-fal-file-name"] = "".join(
                character if character.isascii() and character.isprintable() else quote(character)
                for character in str(self)
            )
        return merge_headers({"content-type": self.content_type}, named, self.lifecycle)

    @property
    def body(self) -> bytes:
        """The body of a request to the storage service, in JSON."""
        return encode_json({"content_type": self.content_type, "file_name": str(self)})


@dataclass(frozen=True, slots=True)
class PresignedTarget:
    """The presigned URL of an upload, and the URL of the uploaded file.

    Attributes:
        upload_url: The URL of the upload, without its query.
        file_url: The URL of the uploaded file.
        signature: The query of `upload_url`, which permits the upload; ``None`` without one.
    """

    upload_url: str
    file_url: str
    signature: Secret | None = None


@dataclass(frozen=True, slots=True)
class MultipartUpload:
    """An upload in progress, which consists of parts.

    Attributes:
        parts_url: The URL of the upload, above those of its parts.
        file_url: The URL of the uploaded file.
        credential: The credential of the parts.
        signature: The query of `parts_url`, which permits the upload; ``None`` without one.
    """

    parts_url: str
    file_url: str
    credential: Credential
    signature: Secret | None = None


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """An uploaded part."""

    number: int
    etag: str
    size: int


@dataclass(frozen=True, slots=True)
class PartRange:
    """A range of a file, from the byte `start` up to and excluding the byte `stop`."""

    number: int
    start: int
    stop: int


def split_into_parts(size: int, part_size: int) -> Iterator[PartRange]:
    """Yield the ranges of the parts of a file, numbered from 1."""
    part_size = max(part_size, -(-size // MAX_PARTS))
    for number, start in enumerate(range(0, size, part_size), 1):
        yield PartRange(number, start, min(start + part_size, size))


def repositories(
    first: Repository | None, others: Repository | Sequence[Repository] | None
) -> list[Repository]:
    """Return the repositories to try, in order, without duplicates."""
    others = ["fal"] if others is None else [others] if isinstance(others, str) else others
    check_sequence("fallback_repository", others)
    known: dict[str, Repository] = {"fal_v3": "fal_v3", "cdn": "fal_v3", "fal": "fal"}
    named = ["fal_v3" if first is None else first, *others]
    for name in named:
        if not is_one_of(name, tuple(known)):
            raise InvalidRequestError(
                f"a repository must be 'fal_v3' or 'fal', got {describe(name)}"
            )
    return list(dict.fromkeys(known[name] for name in named))


def upload_to_cdn(base_url: str, metadata: FileMetadata, content: Content) -> Operation[str]:
    """Upload a file in one request. The output is its URL."""
    return _operation(
        metadata,
        Request("POST", append_path(base_url, "files/upload"), _json_headers(metadata), content),
        lambda response: _url(response.json_object(), "access_url"),
        Credential.CDN_TOKEN,
        Lane.UPLOAD,
    )


def start_cdn_multipart(
    hosts: Hosts, base_url: str, metadata: FileMetadata
) -> Operation[MultipartUpload]:
    """Start a multipart upload to the CDN."""

    def parse(response: Response) -> MultipartUpload:
        body = response.json_object()
        url, upload_id = _url(body, "access_url"), read_id(body.get("uploadId"))
        if upload_id is None:
            raise InvalidResponseError("the CDN returned no valid uploadId for an upload")
        if not is_cdn(url, hosts):
            raise InvalidResponseError(
                f"cannot upload parts to {origin_of(url)}: it is not a host of the CDN"
            )
        parts_url = append_path(url, f"multipart/{quote(upload_id, safe='')}")
        return MultipartUpload(parts_url, url, Credential.CDN_TOKEN)

    named = FileMetadata(
        content_type=metadata.content_type, file_name=str(metadata), lifecycle=metadata.lifecycle
    )
    request = Request("POST", append_path(base_url, "files/upload/multipart"), _json_headers(named))
    return _operation(metadata, request, parse, Credential.CDN_TOKEN)


def initiate(hosts: Hosts, metadata: FileMetadata) -> Operation[PresignedTarget]:
    """Request a presigned URL from the storage service."""
    return _initiate(hosts, "initiate", metadata, _target)


def start_multipart(hosts: Hosts, metadata: FileMetadata) -> Operation[MultipartUpload]:
    """Start a multipart upload with presigned URLs."""

    def parse(response: Response) -> MultipartUpload:
        target = _target(response)
        return MultipartUpload(
            target.upload_url, target.file_url, Credential.NONE, target.signature
        )

    return _initiate(hosts, "initiate-multipart", metadata, parse)


def upload_to_presigned(
    target: PresignedTarget, metadata: FileMetadata, content: Content
) -> Operation[str]:
    """Upload a file to its presigned URL. The output is the URL of the file."""
    headers = {"content-type": metadata.content_type}
    return _operation(
        metadata,
        Request("PUT", target.upload_url, headers, content, target.signature),
        lambda _: target.file_url,
        Credential.NONE,
        Lane.UPLOAD,
    )


def upload_part(
    upload: MultipartUpload, metadata: FileMetadata, number: int, content: Content
) -> Operation[Part]:
    """Upload one part; parts are numbered from 1."""

    def parse(response: Response) -> Part:
        etag: object = response.headers.get("etag")
        if not etag:
            try:
                etag = response.json_object().get("etag")
            except InvalidResponseError:
                etag = None
        if not isinstance(etag, str) or not etag:
            raise InvalidResponseError("the response to an uploaded part must contain an ETag")
        return Part(number, etag, content.size)

    # Proxies change the ETag of compressed responses.
    headers = {"content-type": metadata.content_type, "accept-encoding": "identity"}
    return _operation(
        metadata,
        Request(
            "PUT", append_path(upload.parts_url, str(number)), headers, content, upload.signature
        ),
        parse,
        upload.credential,
        Lane.UPLOAD,
    )


def complete(
    upload: MultipartUpload, metadata: FileMetadata, parts: Iterable[Part], size: int
) -> Operation[str]:
    """Complete a multipart upload. The output is the URL of the file.

    Raises:
        UploadError: Parts are missing.
    """
    parts = sorted(parts)
    uploaded = sum(part.size for part in parts)
    if uploaded != size or [part.number for part in parts] != list(range(1, len(parts) + 1)):
        raise UploadError("parts of the upload are missing", uploaded, size)
    named = [{"partNumber": part.number, "etag": part.etag} for part in parts]
    return _operation(
        metadata,
        Request(
            "POST",
            append_path(upload.parts_url, "complete"),
            _JSON,
            encode_json({"parts": named}),
            upload.signature,
        ),
        lambda _: upload.file_url,
        upload.credential,
    )


def _initiate(
    hosts: Hosts, step: str, metadata: FileMetadata, parse: Callable[[Response], T]
) -> Operation[T]:
    url = f"{hosts.rest}/storage/upload/{step}?storage_type=fal-cdn-v3"
    headers = merge_headers(_JSON, metadata.lifecycle)
    return _operation(metadata, Request("POST", url, headers, metadata.body), parse, Credential.KEY)


def _operation(
    metadata: FileMetadata,
    request: Request,
    parse: Callable[[Response], T],
    credential: Credential,
    lane: Lane = Lane.CONTROL,
) -> Operation[T]:
    return Operation(
        name="upload",
        application=str(metadata),
        request=request,
        parse=response_parser(parse),
        retry=Retry.IDEMPOTENT,
        lane=lane,
        credential=credential,
        stage="upload",
    )


def _json_headers(metadata: FileMetadata) -> dict[str, str]:
    return {**metadata.headers, "accept": "application/json"}


def _target(response: Response) -> PresignedTarget:
    body = response.json_object()
    upload_url, signature = split_query(_url(body, "upload_url"))
    return PresignedTarget(upload_url, _url(body, "file_url"), signature)


def _url(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    origin = origin_of(value) if isinstance(value, str) else None
    if origin is None or not origin.startswith("http"):
        raise InvalidResponseError(f"the response to an upload must contain a valid {name}")
    return str(value)
