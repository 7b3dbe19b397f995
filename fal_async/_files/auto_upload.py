"""Files in arguments: find, upload, substitute URLs."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeGuard, cast

import anyio

from fal_async._core.checks import check_flag
from fal_async._dispatch.call_state import call_state
from fal_async._files.encode import BINARY, file_name, media_type
from fal_async._files.images import image_bytes, image_type, is_picture
from fal_async._files.sources import (
    CHUNK,
    AsyncHandle,
    BytesSource,
    FileObjectSource,
    IteratorSource,
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
    from collections.abc import Awaitable, Callable, Hashable, Sequence
    from io import IOBase

    from fal_async._dispatch.dispatcher import Dispatcher
    from fal_async._files.images import Picture
    from fal_async._files.sources import Source
    from fal_async.types import Arguments

__all__ = [
    "Attachment",
    "attach_files",
    "find_files",
    "prepare_auto_upload",
    "substitute_urls",
    "upload_files",
]


#: What is uploaded when it stands in arguments.
Attachment: TypeAlias = "Upload | os.PathLike[str] | IOBase | Picture"


#: By far the most values are of these types, and no files.
_PLAIN: Final = frozenset({str, int, float, bool, type(None)})


async def attach_files(
    dispatcher: Dispatcher, arguments: Arguments, *, auto_upload: bool
) -> Arguments:
    """The arguments, with the URL of each file in its place; all files are uploaded then.

    Raises:
        InvalidRequestError: There are files, and they are not to be uploaded.
        FalClientError: An upload failed.
    """
    upload = prepare_auto_upload(dispatcher, arguments, auto_upload=auto_upload)
    return arguments if upload is None else await upload()


def prepare_auto_upload(
    dispatcher: Dispatcher, arguments: Arguments, *, auto_upload: bool
) -> Callable[[], Awaitable[Arguments]] | None:
    """What `attach_files` has to wait for; ``None`` when there are no files.

    Raises:
        InvalidRequestError: There are files, and they are not to be uploaded.
    """
    files = find_files(arguments)
    if not files:
        return None
    if not check_flag("auto_upload", auto_upload):
        kinds = ", ".join(sorted({type(file).__name__ for file in files.values()}))
        raise InvalidRequestError(f"the arguments hold files ({kinds}), and auto_upload is off")

    return partial(upload_files, dispatcher, arguments, files)


def find_files(arguments: object) -> dict[int, Attachment]:
    """The files in arguments by their identity; each is there once. Text is never a file."""
    found: dict[int, Attachment] = {}
    try:
        _find(arguments, found)
    except RecursionError:  # which arguments that hold themselves are told by the JSON encoder
        return {}
    return found


def substitute_urls(arguments: object, urls: Mapping[int, str]) -> Any:
    """The arguments with a URL in place of each file; models that hold files become mappings.

    Raises:
        InvalidRequestError: They are nested too deeply, or a model refuses a URL.
    """
    try:
        return _UrlSubstitution(urls).plain(arguments)
    except RecursionError as error:
        raise InvalidRequestError("the arguments hold files, and are nested too deeply") from error


def _find(value: Any, found: dict[int, Attachment]) -> None:
    kind: type[object] = value.__class__
    if kind is dict:
        items = value.values()
    elif kind is list or kind is tuple:
        items = value
    elif kind in _PLAIN:
        return
    elif _is_attachment(value):
        found[id(value)] = value
        return
    else:
        inside = _children(value) or ()
        items = inside.values() if isinstance(inside, dict) else inside
    for item in items:
        if type(item) not in _PLAIN:  # saves most of the calls
            _find(item, found)


def _children(value: Any) -> Mapping[str, Any] | list[Any] | tuple[Any, ...] | None:
    """What a value holds, where it holds other values."""
    if isinstance(value, list | tuple):
        return cast("list[Any]", value)
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, Any]", value))
    if _is_model(value):
        names: list[str] = [*value.__class__.model_fields, *(value.model_extra or ())]
        return {name: getattr(value, name) for name in names}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return None


def _is_model(value: Any) -> bool:
    return hasattr(value.__class__, "model_fields") and hasattr(value, "model_dump")


def _is_attachment(value: object) -> TypeGuard[Attachment]:
    if _is_model(value):
        return False
    if isinstance(value, Upload | os.PathLike):
        return True
    return (hasattr(value, "read") and hasattr(value, "seek")) or is_picture(value)


class _UrlSubstitution:
    """Puts URLs in the place of files, in copies of what holds them."""

    def __init__(self, urls: Mapping[int, str]) -> None:
        self._urls = urls

    def plain(self, value: Any) -> Any:
        """A value within JSON."""
        if type(value) in _PLAIN:
            return value
        if id(value) in self._urls:
            return self._urls[id(value)]
        if _is_model(value):
            model = self.in_model(value)
            if model is value:
                return value
            return _dump_model(model)
        inside = _children(value)
        if isinstance(inside, dict):
            return {name: self.plain(item) for name, item in inside.items()}
        return value if inside is None else [self.plain(item) for item in inside]

    def in_model(self, value: Any) -> Any:
        """A value within a model: the same object where nothing in it is a file."""
        if id(value) in self._urls:
            return self._urls[id(value)]
        inside = None if type(value) in _PLAIN else _children(value)
        if inside is None:
            return value
        if not isinstance(inside, dict):
            items = [self.in_model(item) for item in inside]
            return value if _all_identical(items, inside) else items
        swapped = {name: self.in_model(item) for name, item in inside.items()}
        if _all_identical(swapped.values(), inside.values()):
            return value
        return value.model_copy(update=swapped) if _is_model(value) else swapped


def _dump_model(model: Any) -> Any:
    """A model as JSON values; its fields hold text now where their types say otherwise."""
    try:
        return model.model_dump(mode="json", by_alias=True, warnings=False)
    except Exception as error:  # whatever serializers of the model's own make of that text
        raise InvalidRequestError(
            f"{type(model).__name__} cannot be written with URLs in place of its files: {error}"
        ) from error


def _all_identical(ones: Any, others: Any) -> bool:
    return all(one is other for one, other in zip(ones, others, strict=True))


#: How pictures are uploaded: as they are, to the bit.
PICTURE_FORMAT = "png"


#: Open files that are read decompressed, although their names are those of what is compressed.
_DECOMPRESSING = frozenset({"GzipFile", "BZ2File", "LZMAFile"})


@dataclass(frozen=True, slots=True)
class _PendingUpload:
    """A file that is ready to be uploaded, for one or several places in the arguments.

    Attributes:
        label: What is said of it.
        source: Its content; a file of this machine is open only while it is read.
        data: The identity of what only one may read at a time; ``None`` for what all may read.
        places: The identities of what its URL is put in the place of.
    """

    label: FileMetadata
    source: Source | IteratorSource
    data: int | None
    occurrences: list[int]

    def opened(self) -> AbstractAsyncContextManager[object]:
        """Within this, the source can be read."""
        return self.source if isinstance(self.source, PathSource) else nullcontext()


async def upload_files(
    dispatcher: Dispatcher, arguments: Arguments, files: Mapping[int, Attachment]
) -> Arguments:
    """Upload files, side by side, and put their URLs in their places.

    Raises:
        FalClientError: An upload failed.
    """
    urls: dict[int, str] = {}
    call_state().enter("upload")
    semaphore = anyio.Semaphore(dispatcher.resources.limits.uploads)  # also for files that are open

    async def send(ready: _PendingUpload) -> None:
        transfer = FileUpload(dispatcher, ready.label, repositories(None, None))
        async with semaphore, ready.opened():
            url = await transfer.send(ready.source)
        urls.update(dict.fromkeys(ready.occurrences, url))

    async with AsyncExitStack() as opened:
        every = [await _open(place, file, opened) for place, file in files.items()]
        distinct = await _deduplicate(every)
        async with open_task_group() as group:
            for ready in distinct:
                group.start_soon(send, ready)
    attached: dict[str, Any] = substitute_urls(arguments, urls)
    return attached


async def _open(place: int, file: Attachment, opened: AsyncExitStack) -> _PendingUpload:
    label, source = await _prepare(file)
    data = file.data if isinstance(file, Upload) else file
    shared = (
        id(data) if isinstance(source, IteratorSource | FileObjectSource | AsyncHandle) else None
    )
    ready = _PendingUpload(label, source, shared, [place])
    if isinstance(source, PathSource):
        async with source:  # it is there, and it has its size
            return ready
    await opened.enter_async_context(source)
    return ready


async def _prepare(file: Any) -> tuple[FileMetadata, Source | IteratorSource]:
    if is_picture(file):
        content = await run_in_thread(partial(image_bytes, file, PICTURE_FORMAT))
        return FileMetadata(content_type=image_type(PICTURE_FORMAT)), BytesSource(content)
    upload = file if isinstance(file, Upload) else Upload(file)
    name = upload.file_name or _name(upload.data)
    label = FileMetadata(
        content_type=upload.content_type or _known_type(upload.data) or await _guess(name),
        file_name=name,
        lifecycle=lifecycle_headers(upload.lifecycle),
    )
    return label, await open_source(upload.data)


def _name(file: Any) -> str | None:
    """The name of a path or an open file; web frameworks have that of an upload in `filename`."""
    if hasattr(file, "__fspath__"):
        return file_name(file) or None
    # In web frameworks, `name` may be that of the form's field.
    named = getattr(file, "name" if isinstance(file, io.IOBase) else "filename", None)
    named = named or getattr(file, "name", None)
    if not isinstance(named, str | bytes) or not named:  # some have the number of an open file
        return None
    name = PurePath(file_name(named))
    return (name.stem if type(file).__name__ in _DECOMPRESSING else name.name) or None


def _known_type(file: Any) -> str | None:
    """The media type that a web framework knows of an upload."""
    known = getattr(file, "content_type", None)
    return known if isinstance(known, str) and "/" in known and known != BINARY else None


async def _guess(name: str | None) -> str:
    return BINARY if name is None else await run_in_thread(partial(media_type, name))


async def _deduplicate(every: Sequence[_PendingUpload]) -> list[_PendingUpload]:
    """Each content once; what differs in size or kind needs no reading to be told apart.

    Raises:
        InvalidRequestError: What can be read once is to be uploaded as two different files.
    """
    alike: dict[Hashable, list[_PendingUpload]] = {}
    labels: dict[int, str] = {}
    for ready in every:
        label = str(ready.label.headers)
        if ready.data is not None and labels.setdefault(ready.data, label) != label:
            raise InvalidRequestError(
                "the same open file or iterator is to be uploaded under two names or types"
            )
        streams = isinstance(ready.source, IteratorSource)
        size = ready.data if isinstance(ready.source, IteratorSource) else ready.source.size
        alike.setdefault((streams, size, label), []).append(ready)
    distinct: dict[Hashable, _PendingUpload] = {}
    for key, group in alike.items():
        for ready in group:
            digest = await _digest(ready) if len(group) > 1 else b""
            known = distinct.setdefault((key, digest), ready)
            if known is not ready:
                known.occurrences.extend(ready.occurrences)
    return list(distinct.values())


async def _digest(ready: _PendingUpload) -> bytes:
    source = ready.source
    if isinstance(source, IteratorSource):
        return b""
    digest = hashlib.sha256()
    async with ready.opened():
        for start in range(0, source.size, CHUNK):
            chunk = await source.read_at(start, CHUNK)
            await run_in_thread(partial(digest.update, chunk))
    return digest.digest()
