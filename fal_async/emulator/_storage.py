"""Stored files and uploads in progress on the emulated CDN."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from fal_async.emulator._responses import RejectedError, error_response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["StoredFile"]

Access: TypeAlias = Literal["allow", "forbid", "hide"]

#: The lifetime of a CDN token, in seconds.
TOKEN_LIFETIME: Final = 3600.0
#: The maximum size of the files of earlier tests that are still served, in bytes.
MAX_EARLIER: Final = 64 * 1024 * 1024
#: The user of tokens for the platform's own account, which owns every file.
OWNER: Final = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file on the CDN.

    Attributes:
        url: The URL of the file.
        content: The content.
        content_type: The media type.
        file_name: The name given at the upload. ``None`` if there was none.
        lifecycle: The lifecycle and access rules given at the upload, as decoded JSON.
        expires_at: The time at which the file expires, by the emulator's clock. ``None`` if it does
            not expire.
        parts: The number of parts of a multipart upload; 0 for an upload in one request.
        owner: The id of the account that uploaded the file; ``""`` for that of the emulator.
    """

    url: str
    content: bytes = field(repr=False)
    content_type: str
    file_name: str | None = None
    lifecycle: Mapping[str, Any] = field(default_factory=dict[str, Any])
    expires_at: float | None = None
    parts: int = 0
    owner: str = OWNER

    @property
    def etag(self) -> str:
        """The strong ETag of the content."""
        return make_etag(self.content)

    def _access(self, user: str | None) -> Access:
        """Return what a user may do. ``None`` is a user without a token."""
        if user == self.owner:
            return "allow"
        acl: Mapping[str, Any] = self.lifecycle.get("initial_acl") or {}
        rules: list[Mapping[str, Any]] = acl.get("rules") or []
        found = (rule["decision"] for rule in rules if user is not None and rule["user"] == user)
        access: Access = next(found, acl.get("default") or "allow")
        return access


class _ExtraAllowed(BaseModel):
    """A part of the lifecycle. Unknown fields are kept."""

    model_config = ConfigDict(extra="allow")


class _Rule(_ExtraAllowed):
    user: str
    decision: Access


class _Acl(_ExtraAllowed):
    default: Access | None = None
    rules: list[_Rule] | None = None


class _Lifecycle(_ExtraAllowed):
    expiration_duration_seconds: PositiveInt | None = None
    initial_acl: _Acl | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMetadata:
    """Metadata that an upload gives for its file."""

    content_type: str
    file_name: str | None
    lifecycle: Mapping[str, Any]
    owner: str = OWNER


def parse_metadata(
    headers: Mapping[str, str], content_type: str, file_name: str | None, owner: str
) -> FileMetadata:
    """Return the metadata of an upload.

    Raises:
        RejectedError: The lifecycle is not valid.
    """
    text = headers.get("x-fal-object-lifecycle") or headers.get("x-fal-object-lifecycle-preference")
    try:
        lifecycle = _Lifecycle.model_validate_json(text or "{}")
    except ValidationError as error:
        raise RejectedError(
            error_response(422, f"The lifecycle is not valid: {error.errors()[0]['msg']}")
        ) from error
    fields = lifecycle.model_dump(exclude_unset=True)
    return FileMetadata(
        content_type=content_type, file_name=file_name, lifecycle=fields, owner=owner
    )


@dataclass(slots=True, kw_only=True)
class PendingUpload:
    """An upload in progress.

    Attributes:
        file_id: The id that the file will have.
        url: The URL that the file will have.
        metadata: The metadata of the file.
        parts: The parts received so far, by number.
    """

    file_id: str
    url: str
    metadata: FileMetadata
    parts: dict[int, bytes] = field(default_factory=dict[int, bytes])

    def join(self, listed: Iterable[tuple[object, object]]) -> bytes | None:
        """Return the content, or ``None`` if the listed parts are not those that were received.

        Args:
            listed: The number and ETag of each part.
        """
        etags = {number: make_etag(part).strip('"') for number, part in self.parts.items()}
        listed = [(number, str(etag).strip('"')) for number, etag in listed]
        if len(listed) != len(etags) or any(pair not in listed for pair in etags.items()):
            return None
        return b"".join(self.parts[number] for number in sorted(self.parts))


class FileStore:
    """All files by id, all uploads in progress by key, and the tokens of readers.

    Args:
        clock: Returns the time in seconds, by which files and tokens expire.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._files: dict[str, StoredFile] = {}
        self._earlier: dict[str, StoredFile] = {}
        self._tokens: dict[str, tuple[str, float]] = {}
        self.pending: dict[str, PendingUpload] = {}

    def begin(self, base: str, metadata: FileMetadata) -> str:
        """Begin an upload, and return its key."""
        file_id = uuid.uuid4().hex
        name = quote((metadata.file_name or "").rpartition("/")[2] or f"{file_id}.bin", safe="")
        url = f"{base}/files/b/{file_id}/{name}"
        key = uuid.uuid4().hex
        self.pending[key] = PendingUpload(file_id=file_id, url=url, metadata=metadata)
        return key

    def complete(self, key: str, content: bytes) -> StoredFile:
        """Complete the upload with this key, and store its file."""
        upload = self.pending.pop(key)
        metadata = upload.metadata
        seconds = metadata.lifecycle.get("expiration_duration_seconds")
        self._files[upload.file_id] = stored = StoredFile(
            url=upload.url,
            content=content,
            content_type=metadata.content_type,
            file_name=metadata.file_name,
            lifecycle=metadata.lifecycle,
            expires_at=self._clock() + seconds if seconds else None,
            parts=len(upload.parts),
            owner=metadata.owner,
        )
        return stored

    def find(self, file_id: str) -> StoredFile | None:
        """Return a file, or ``None`` if it is unknown or has expired."""
        stored = self._files.get(file_id) or self._earlier.get(file_id)
        if stored is None or stored.expires_at is None or self._clock() < stored.expires_at:
            return stored
        return None

    def snapshot(self) -> dict[str, StoredFile]:
        """Return all files by URL, oldest first."""
        return {stored.url: stored for stored in list(self._files.values())}

    def create_token(self, user: str) -> str:
        """Create a token with which a user reads files, and the owner uploads them."""
        token = uuid.uuid4().hex
        self._tokens[token] = (user, self._clock() + TOKEN_LIFETIME)
        return token

    def token_user(self, authorization: str | None) -> str | None:
        """Return the user of a token, or ``None`` if the token is not valid."""
        scheme, _, token = (authorization or "").partition(" ")
        user, expires_at = self._tokens.get(token.strip(), (None, 0.0))
        return user if scheme.lower() == "bearer" and self._clock() < expires_at else None

    def clear(self) -> None:
        """Remove all files, uploads and tokens.

        The latest files are still served: clients send the URL of a file that they have uploaded
        before instead of uploading it again.
        """
        self._earlier.update(self._files)
        self._files.clear()
        size = sum(len(stored.content) for stored in self._earlier.values())
        while size > MAX_EARLIER:
            oldest = next(iter(self._earlier))
            size -= len(self._earlier.pop(oldest).content)
        self._tokens.clear()
        self.pending.clear()


def sign_url(url: str, key: str) -> str:
    """Return a presigned URL, which needs no token."""
    return f"{url}?signature={make_signature(key)}"


def make_signature(key: str) -> str:
    """Return the signature of the URLs of an upload."""
    return key[:8]


def make_etag(content: bytes) -> str:
    """Return the ETag of content, in quotes as in the header."""
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
