"""Uploads of the files in arguments."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import anyio

from fal_async._dispatch.cache import reuse_until
from fal_async._dispatch.call_state import call_state
from fal_async._files.attachments import UrlReplacement
from fal_async._files.encode import BINARY, file_name, media_type
from fal_async._files.images import image_bytes, image_type, is_picture
from fal_async._files.iterators import CHUNK_SIZE, IteratorSource
from fal_async._files.sources import (
    AsyncFileSource,
    BytesSource,
    FileObjectSource,
    PathSource,
    open_source,
)
from fal_async._files.uploads import FileUpload
from fal_async._net.tasks import open_task_group
from fal_async._net.threads import run_in_thread
from fal_async._protocol.uploads import FileMetadata, lifecycle_headers, repositories
from fal_async.errors import InvalidRequestError
from fal_async.types import Upload

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from fal_async._dispatch.dispatcher import Dispatcher
    from fal_async._files.attachments import Attachment
    from fal_async._files.sources import Source
    from fal_async.types import Arguments

__all__ = ["Reuse", "UploadContent", "upload_attachments"]

#: The format of uploaded images, which is lossless.
_IMAGE_FORMAT: Final = "png"

#: Content up to this size, in bytes, is hashed on the event loop, in a tenth of a millisecond.
MAX_INLINE_DIGEST: Final = 65536

#: File objects that decompress: their names are those of the compressed files.
_DECOMPRESSING: Final = frozenset({"GzipFile", "BZ2File", "LZMAFile"})


@dataclass(frozen=True, slots=True)
class UploadContent:
    """The identity of a content that can be uploaded.

    Attributes:
        sha256: Its SHA-256.
        size: Its size, in bytes.
        content_type: The media type.
        lifecycle: The header of its expiry and its access control; empty for the defaults.
        lifetime: The lifetime in seconds; ``None`` uses the account's setting.
        file_name: The name, or ``None``.
    """

    sha256: bytes
    size: int
    content_type: str
    lifecycle: str
    lifetime: int | None
    file_name: str | None


#: Returns the URL of a content: a known one, or that of an upload.
Reuse: TypeAlias = Callable[[UploadContent, Callable[[], Awaitable[str]]], Awaitable[str]]


async def _reuse_in_client(
    dispatcher: Dispatcher, content: UploadContent, upload: Callable[[], Awaitable[str]]
) -> str:
    """Return the URL of a content that this account has uploaded before, or uploads it."""
    cache = dispatcher.resources.uploads.get()

    async def fetch() -> tuple[str, float]:
        return await upload(), reuse_until(cache.clock(), content.lifetime)

    account = await dispatcher.credentials.authorization()
    return await cache.get((account, content), fetch)


async def upload_attachments(
    dispatcher: Dispatcher,
    arguments: Arguments,
    files: Mapping[int, Attachment],
    reuse: Reuse | None,
) -> Arguments:
    """Upload the files in arguments and return the arguments with their URLs.

    Args:
        dispatcher: Executes the uploads.
        arguments: The arguments.
        files: The files, as `find_files` collects them.
        reuse: Returns the URL of a content; ``None`` uses the cache of the client.

    Raises:
        FalClientError: An upload failed.
    """
    if reuse is None and dispatcher.resources.limits.reused_uploads:
        reuse = partial(_reuse_in_client, dispatcher)
    urls: dict[int, str] = {}
    call_state().enter("upload")
    # Limits the number of open files as well.
    semaphore = anyio.Semaphore(dispatcher.resources.limits.uploads)

    async def send(pending: _PendingUpload) -> None:
        file = FileUpload(dispatcher, pending.metadata, repositories(None, None))
        upload = partial(file.send, pending.source)
        async with semaphore, pending.opened():  # a change after this is an error
            content = None if reuse is None else await pending.content()
            if reuse is None or content is None:
                url = await upload()
            else:
                url = await reuse(content, upload)
        urls.update(dict.fromkeys(pending.occurrences, url))

    async with AsyncExitStack() as stack:
        pending = [await _open(occurrence, file, stack) for occurrence, file in files.items()]
        distinct = await _merge_duplicates(pending)
        async with open_task_group() as group:
            for upload in distinct:
                group.start_soon(send, upload)
    try:
        return cast("Arguments", UrlReplacement(urls).in_json(arguments))
    except RecursionError as error:
        raise InvalidRequestError(
            "the arguments contain files and are nested too deeply"
        ) from error


@dataclass(frozen=True, slots=True)
class _PendingUpload:
    """A file to upload, which may occur several times in the arguments.

    Attributes:
        metadata: The media type, the name and the lifecycle of the file.
        source: The content. A `PathSource` is open only while it is read.
        data_id: The identity of data that only one upload can read at a time; ``None`` for others.
        lifetime: The lifetime of the file in seconds; ``None`` uses the account's setting.
        occurrences: The identities of the values that the URL replaces.
    """

    metadata: FileMetadata
    source: Source | IteratorSource
    data_id: int | None
    lifetime: int | None
    occurrences: list[int]

    def opened(self) -> AbstractAsyncContextManager[object]:
        """Return a context manager in which the source can be read."""
        return self.source if isinstance(self.source, PathSource) else nullcontext()

    async def content(self) -> UploadContent | None:
        """Return the identity of the open content; ``None`` if it can be read only once."""
        if isinstance(self.source, IteratorSource):
            return None
        return UploadContent(
            sha256=await self.digest(),
            size=self.source.size,
            content_type=self.metadata.content_type,
            lifecycle=next(iter(self.metadata.lifecycle.values()), ""),
            lifetime=self.lifetime,
            file_name=self.metadata.file_name,
        )

    async def digest(self) -> bytes:
        """Compute the SHA-256 of the open content; empty if it can be read only once."""
        if isinstance(self.source, IteratorSource):
            return b""
        digest = hashlib.sha256()
        for start in range(0, self.source.size, CHUNK_SIZE):
            chunk = await self.source.read_at(start, CHUNK_SIZE)
            if len(chunk) > MAX_INLINE_DIGEST:
                await run_in_thread(partial(digest.update, chunk))
            else:
                digest.update(chunk)
        return digest.digest()


async def _open(occurrence: int, file: Attachment, stack: AsyncExitStack) -> _PendingUpload:
    if is_picture(file):
        content = await run_in_thread(partial(image_bytes, file, _IMAGE_FORMAT))
        metadata = FileMetadata(content_type=image_type(_IMAGE_FORMAT))
        return _PendingUpload(metadata, BytesSource(content), None, None, [occurrence])
    upload = file if isinstance(file, Upload) else Upload(cast("Any", file))
    data: Any = upload.data
    name = upload.file_name or _file_name(data)
    content_type = upload.content_type
    if not content_type:
        known = getattr(data, "content_type", None)  # of an upload in a web framework
        if isinstance(known, str) and "/" in known and known != BINARY:
            content_type = known
        elif name is not None:
            content_type = await run_in_thread(partial(media_type, name))
    metadata = FileMetadata(
        content_type=content_type or BINARY,
        file_name=name,
        lifecycle=lifecycle_headers(upload.lifecycle),
    )
    lifetime = None if upload.lifecycle is None else upload.lifecycle._expires_in_seconds
    source = await open_source(data)
    if isinstance(source, PathSource):
        async with source:  # checks that the file exists, and measures it
            return _PendingUpload(metadata, source, None, lifetime, [occurrence])
    await stack.enter_async_context(source)
    is_shared = isinstance(source, IteratorSource | FileObjectSource | AsyncFileSource)
    data_id = id(data) if is_shared else None
    return _PendingUpload(metadata, source, data_id, lifetime, [occurrence])


def _file_name(data: Any) -> str | None:
    """Return the name of a path or an open file; ``None`` if it has none."""
    if hasattr(data, "__fspath__"):
        return file_name(data) or None
    # Uploads of web frameworks have a `filename`; their `name` may be that of the form field.
    name = getattr(data, "name" if isinstance(data, io.IOBase) else "filename", None)
    name = name or getattr(data, "name", None)
    if not isinstance(name, str | bytes) or not name:  # some files have a descriptor as their name
        return None
    path = PurePath(file_name(name))
    return (path.stem if type(data).__name__ in _DECOMPRESSING else path.name) or None


async def _merge_duplicates(uploads: Sequence[_PendingUpload]) -> list[_PendingUpload]:
    """Merge uploads of the same content. Only files of the same size and metadata are read.

    Raises:
        InvalidRequestError: One open file or iterator has two different names or types.
    """
    alike: dict[Hashable, list[_PendingUpload]] = {}
    headers_by_data: dict[int, str] = {}
    for upload in uploads:
        headers = str(upload.metadata.headers)
        data_id = upload.data_id
        if data_id is not None and headers_by_data.setdefault(data_id, headers) != headers:
            raise InvalidRequestError(
                "the same open file or iterator cannot be uploaded under two names or types"
            )
        is_iterator = isinstance(upload.source, IteratorSource)
        size = data_id if isinstance(upload.source, IteratorSource) else upload.source.size
        alike.setdefault((is_iterator, size, headers), []).append(upload)
    distinct: dict[Hashable, _PendingUpload] = {}
    for key, group in alike.items():
        for upload in group:
            digest = b""
            if len(group) > 1:
                async with upload.opened():
                    digest = await upload.digest()
            first = distinct.setdefault((key, digest), upload)
            if first is not upload:
                first.occurrences.extend(upload.occurrences)
    return list(distinct.values())
