"""Uploads of the files inside of arguments, before the call itself."""

from __future__ import annotations

import hashlib
import io
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import anyio

from fal_async._attachments import with_urls
from fal_async._images import image_bytes, image_type, is_picture
from fal_async._media_types import BINARY, media_type, name_of
from fal_async._protocol.lifecycle import lifecycle_headers
from fal_async._protocol.upload import Label, repositories
from fal_async._transport.call_state import call_state
from fal_async._transport.pulling import CHUNK, StreamSource
from fal_async._transport.sources import AsyncHandle, FileSource, Handle, Memory, open_source
from fal_async._transport.tasks import open_task_group
from fal_async._transport.threads import in_thread
from fal_async._uploading import FileUpload
from fal_async.errors import InvalidRequestError
from fal_async.types import Upload

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from fal_async._attachments import Attachment
    from fal_async._transport.perform import Performer
    from fal_async._transport.sources import Source
    from fal_async.types import Arguments

__all__ = ["attach"]

#: How pictures are uploaded: as they are, to the bit.
PICTURE_FORMAT = "png"
#: Open files that are read decompressed, although their names are those of what is compressed.
_DECOMPRESSING = frozenset({"GzipFile", "BZ2File", "LZMAFile"})


@dataclass(frozen=True, slots=True)
class _Ready:
    """A file that is ready to be uploaded, for one or several places in the arguments.

    Attributes:
        label: What is said of it.
        source: Its content; a file of this machine is open only while it is read.
        data: The identity of what only one may read at a time; ``None`` for what all may read.
        places: The identities of what its URL is put in the place of.
    """

    label: Label
    source: Source | StreamSource
    data: int | None
    places: list[int]

    def in_use(self) -> AbstractAsyncContextManager[object]:
        """Within this, the source can be read."""
        return self.source if isinstance(self.source, FileSource) else nullcontext()


async def attach(
    performer: Performer, arguments: Arguments, files: Mapping[int, Attachment]
) -> Arguments:
    """Upload files, side by side, and put their URLs in their places.

    Raises:
        FalClientError: An upload failed.
    """
    urls: dict[int, str] = {}
    call_state().enter("upload")
    room = anyio.Semaphore(performer.line.limits.uploads)  # also for files that are open

    async def send(ready: _Ready) -> None:
        transfer = FileUpload(performer, ready.label, repositories(None, None))
        async with room, ready.in_use():
            url = await transfer.send(ready.source)
        urls.update(dict.fromkeys(ready.places, url))

    async with AsyncExitStack() as opened:
        every = [await _open(place, file, opened) for place, file in files.items()]
        distinct = await _distinct(every)
        async with open_task_group() as group:
            for ready in distinct:
                group.start_soon(send, ready)
    attached: dict[str, Any] = with_urls(arguments, urls)
    return attached


async def _open(place: int, file: Attachment, opened: AsyncExitStack) -> _Ready:
    label, source = await _prepare(file)
    data = file.data if isinstance(file, Upload) else file
    shared = id(data) if isinstance(source, StreamSource | Handle | AsyncHandle) else None
    ready = _Ready(label, source, shared, [place])
    if isinstance(source, FileSource):
        async with source:  # it is there, and it has its size
            return ready
    await opened.enter_async_context(source)
    return ready


async def _prepare(file: Any) -> tuple[Label, Source | StreamSource]:
    if is_picture(file):
        content = await in_thread(partial(image_bytes, file, PICTURE_FORMAT))
        return Label(content_type=image_type(PICTURE_FORMAT)), Memory(content)
    upload = file if isinstance(file, Upload) else Upload(file)
    name = upload.file_name or _name(upload.data)
    label = Label(
        content_type=upload.content_type or _known_type(upload.data) or await _guess(name),
        file_name=name,
        lifecycle=lifecycle_headers(upload.lifecycle),
    )
    return label, await open_source(upload.data)


def _name(file: Any) -> str | None:
    """The name of a path or an open file; web frameworks have that of an upload in `filename`."""
    if hasattr(file, "__fspath__"):
        return name_of(file) or None
    # In web frameworks, `name` may be that of the form's field.
    named = getattr(file, "name" if isinstance(file, io.IOBase) else "filename", None)
    named = named or getattr(file, "name", None)
    if not isinstance(named, str | bytes) or not named:  # some have the number of an open file
        return None
    name = PurePath(name_of(named))
    return (name.stem if type(file).__name__ in _DECOMPRESSING else name.name) or None


def _known_type(file: Any) -> str | None:
    """The media type that a web framework knows of an upload."""
    known = getattr(file, "content_type", None)
    return known if isinstance(known, str) and "/" in known and known != BINARY else None


async def _guess(name: str | None) -> str:
    return BINARY if name is None else await in_thread(partial(media_type, name))


async def _distinct(every: Sequence[_Ready]) -> list[_Ready]:
    """Each content once; what differs in size or kind needs no reading to be told apart.

    Raises:
        InvalidRequestError: What can be read once is to be uploaded as two different files.
    """
    alike: dict[Hashable, list[_Ready]] = {}
    labels: dict[int, str] = {}
    for ready in every:
        label = str(ready.label.headers)
        if ready.data is not None and labels.setdefault(ready.data, label) != label:
            raise InvalidRequestError(
                "the same open file or iterator is to be uploaded under two names or types"
            )
        streams = isinstance(ready.source, StreamSource)
        size = ready.data if isinstance(ready.source, StreamSource) else ready.source.size
        alike.setdefault((streams, size, label), []).append(ready)
    distinct: dict[Hashable, _Ready] = {}
    for key, group in alike.items():
        for ready in group:
            digest = await _digest(ready) if len(group) > 1 else b""
            known = distinct.setdefault((key, digest), ready)
            if known is not ready:
                known.places.extend(ready.places)
    return list(distinct.values())


async def _digest(ready: _Ready) -> bytes:
    source = ready.source
    if isinstance(source, StreamSource):
        return b""
    digest = hashlib.sha256()
    async with ready.in_use():
        for start in range(0, source.size, CHUNK):
            chunk = await source.read_at(start, CHUNK)
            await in_thread(partial(digest.update, chunk))
    return digest.digest()
