"""The files that the emulated CDN holds, and the uploads that are under way."""

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

Decision: TypeAlias = Literal["allow", "forbid", "hide"]

#: How long a token for the CDN holds, in seconds.
TOKEN_LIFE: Final = 3600.0
#: Whom tokens are for that the platform's own account asks for: the owner of every file.
OWNER: Final = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file on the CDN.

    Attributes:
        url: Where it is found.
        content: Its bytes.
        content_type: Its media type.
        file_name: Its name as it was uploaded; ``None`` when it was given none.
        lifecycle: What was said of its life and its readers, as decoded JSON.
        expires_at: When it is gone, by the emulator's clock; ``None`` for never.
        parts: In how many parts it came; 0 for an upload in one request.
    """

    url: str
    content: bytes = field(repr=False)
    content_type: str
    file_name: str | None = None
    lifecycle: Mapping[str, Any] = field(default_factory=dict[str, Any])
    expires_at: float | None = None
    parts: int = 0

    @property
    def etag(self) -> str:
        """The strong validator of its content."""
        return etag_of(self.content)

    def decision(self, user: str | None) -> str:
        """What this reader may do: ``allow``, ``forbid`` or ``hide``; ``None`` is a stranger."""
        if user == OWNER:
            return "allow"
        acl: Mapping[str, Any] = self.lifecycle.get("initial_acl") or {}
        rules: list[Mapping[str, str]] = acl.get("rules") or []
        found = (rule["decision"] for rule in rules if user is not None and rule["user"] == user)
        decision: str = next(found, acl.get("default") or "allow")
        return decision


class _ExtraAllowed(BaseModel):
    """What is said of a file; what is not known of it is kept as well."""

    model_config = ConfigDict(extra="allow")


class _Rule(_ExtraAllowed):
    user: str
    decision: Decision


class _Acl(_ExtraAllowed):
    default: Decision | None = None
    rules: list[_Rule] | None = None


class _Lifecycle(_ExtraAllowed):
    expiration_duration_seconds: PositiveInt | None = None
    initial_acl: _Acl | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMetadata:
    """What an upload says of its file."""

    content_type: str
    file_name: str | None
    lifecycle: Mapping[str, Any]


@dataclass(slots=True, kw_only=True)
class PendingUpload:
    """A file that is on its way.

    Attributes:
        file_id: What it will be called.
        url: Where it will be found.
        label: What was said of it.
        parts: What has come of it, by number.
    """

    file_id: str
    url: str
    label: FileMetadata
    parts: dict[int, bytes] = field(default_factory=dict[int, bytes])

    def joined(self, named: Iterable[tuple[object, object]]) -> bytes | None:
        """The whole content, if the parts named by number and ETag are those that came."""
        etags = {number: etag_of(part).strip('"') for number, part in self.parts.items()}
        named = [(number, str(etag).strip('"')) for number, etag in named]
        if len(named) != len(etags) or any(pair not in named for pair in etags.items()):
            return None
        return b"".join(self.parts[number] for number in sorted(self.parts))


class FileStore:
    """All files by id, all uploads by key, and the tokens that let readers in.

    Args:
        clock: Tells the seconds by which files and tokens expire.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._files: dict[str, StoredFile] = {}
        self._tokens: dict[str, tuple[str, float]] = {}
        self.incoming: dict[str, PendingUpload] = {}

    def expect(self, base: str, label: FileMetadata) -> str:
        """Prepare for a file; gives the key under which it is going to be uploaded."""
        file_id = uuid.uuid4().hex
        name = quote((label.file_name or "").rpartition("/")[2] or f"{file_id}.bin", safe="")
        url = f"{base}/files/b/{file_id}/{name}"
        key = uuid.uuid4().hex
        self.incoming[key] = PendingUpload(file_id=file_id, url=url, label=label)
        return key

    def keep(self, key: str, content: bytes) -> StoredFile:
        """Keep the file that was expected under a key."""
        incoming = self.incoming.pop(key)
        label = incoming.label
        seconds = label.lifecycle.get("expiration_duration_seconds")
        self._files[incoming.file_id] = stored = StoredFile(
            url=incoming.url,
            content=content,
            content_type=label.content_type,
            file_name=label.file_name,
            lifecycle=label.lifecycle,
            expires_at=self._clock() + seconds if seconds else None,
            parts=len(incoming.parts),
        )
        return stored

    def find(self, file_id: str) -> StoredFile | None:
        """The file of an id, if it is there and has not expired."""
        stored = self._files.get(file_id)
        if stored is None or stored.expires_at is None or self._clock() < stored.expires_at:
            return stored
        return None

    def snapshot(self) -> dict[str, StoredFile]:
        """All files by URL, oldest first."""
        return {stored.url: stored for stored in list(self._files.values())}

    def mint(self, user: str) -> str:
        """A token with which a user reads files, and the owner uploads them."""
        token = uuid.uuid4().hex
        self._tokens[token] = (user, self._clock() + TOKEN_LIFE)
        return token

    def user_of(self, authorization: str | None) -> str | None:
        """Whose token this is; ``None`` when it is none that holds."""
        scheme, _, token = (authorization or "").partition(" ")
        user, end = self._tokens.get(token.strip(), (None, 0.0))
        return user if scheme.lower() == "bearer" and self._clock() < end else None

    def clear(self) -> None:
        """Forget all files, uploads and tokens."""
        self._files.clear()
        self._tokens.clear()
        self.incoming.clear()


def label_of(headers: Mapping[str, str], content_type: str, file_name: str | None) -> FileMetadata:
    """What a request says of its file; raises `RejectedError` for a lifecycle that cannot be."""
    text = headers.get("x-fal-object-lifecycle") or headers.get("x-fal-object-lifecycle-preference")
    try:
        lifecycle = _Lifecycle.model_validate_json(text or "{}")
    except ValidationError as error:
        raise RejectedError(
            error_response(422, f"The lifecycle is not valid: {error.errors()[0]['msg']}")
        ) from error
    said = lifecycle.model_dump(exclude_unset=True)
    return FileMetadata(content_type=content_type, file_name=file_name, lifecycle=said)


def signed(url: str, key: str) -> str:
    """A URL at which a file, or a part of it, is let in without a token."""
    return f"{url}?signature={signature_of(key)}"


def signature_of(key: str) -> str:
    """What lets a file in under a key."""
    return key[:8]


def etag_of(content: bytes) -> str:
    """The ETag of bytes, in quotes as in the header."""
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
