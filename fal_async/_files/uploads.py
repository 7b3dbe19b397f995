"""`FileUpload`: single request or multipart, fallback, progress."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeVar

import anyio

from fal_async._core.checks import check_callback
from fal_async._files.downloads import exists
from fal_async._files.sources import CHUNK, BytesSource, IteratorSource
from fal_async._net.tasks import open_task_group
from fal_async._protocol import uploads
from fal_async.errors import (
    AuthenticationError,
    FalClientError,
    FalClientHTTPError,
    InvalidResponseError,
    NotFoundError,
    PermissionDeniedError,
    TransportError,
    UploadError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Sequence

    from fal_async._dispatch.dispatcher import Dispatcher
    from fal_async._files.sources import Source
    from fal_async._protocol.operation import Content
    from fal_async._protocol.uploads import FileMetadata, MultipartUpload, Part
    from fal_async.types import Repository

__all__ = ["FileUpload", "OnProgress", "Progress", "SourceSlice", "UploadBackend", "with_fallback"]

T = TypeVar("T")
_log = logging.getLogger("fal_async")


#: Failures after which another repository may do better.
_FALLBACK_ERRORS: Final = (FalClientHTTPError, TransportError, InvalidResponseError)


#: Failures of the key, which is the same everywhere.
_FINAL: Final = (AuthenticationError, PermissionDeniedError)


class UploadBackend(Protocol):
    """A place for one file in a repository."""

    async def upload(self, content: Content) -> str:
        """Upload the file in one request; gives its URL."""
        ...

    async def start_multipart(self) -> MultipartUpload:
        """Begin to upload it in parts."""
        ...


@dataclass(frozen=True, slots=True)
class _CdnBackend:
    dispatcher: Dispatcher
    label: FileMetadata

    async def upload(self, content: Content) -> str:
        token = await self.dispatcher.cdn_tokens.token()
        operation = uploads.upload_to_cdn(token.base_url, self.label, content)
        return await self.dispatcher.execute(operation)

    async def start_multipart(self) -> MultipartUpload:
        token = await self.dispatcher.cdn_tokens.token()
        operation = uploads.start_cdn_multipart(self.dispatcher.hosts, token.base_url, self.label)
        return await self.dispatcher.execute(operation)


@dataclass(frozen=True, slots=True)
class _PresignedBackend:
    dispatcher: Dispatcher
    label: FileMetadata

    async def upload(self, content: Content) -> str:
        target = await self.dispatcher.execute(uploads.initiate(self.dispatcher.hosts, self.label))
        return await self.dispatcher.execute(
            uploads.upload_to_presigned(target, self.label, content)
        )

    async def start_multipart(self) -> MultipartUpload:
        return await self.dispatcher.execute(
            uploads.start_multipart(self.dispatcher.hosts, self.label)
        )


_SHELVES: Final[dict[Repository, type[_CdnBackend | _PresignedBackend]]] = {
    "fal_v3": _CdnBackend,
    "fal": _PresignedBackend,
}


async def with_fallback(
    repositories: Sequence[Repository],
    dispatcher: Dispatcher,
    label: FileMetadata,
    attempt: Callable[[UploadBackend], Awaitable[T]],
) -> T:
    """Attempt something in each of the repositories, in turn, until it succeeds in one."""
    *others, last = repositories
    for repository in others:
        try:
            return await attempt(_SHELVES[repository](dispatcher, label))
        except _FALLBACK_ERRORS as error:
            if isinstance(error, _FINAL):
                raise
            _log.warning("the upload to %s failed: %s; the next is tried", repository, error)
    return await attempt(_SHELVES[last](dispatcher, label))


#: Told how many bytes have been sent, and how many there are, if that is known.
OnProgress: TypeAlias = Callable[[int, int | None], Awaitable[None] | None]


class Progress:
    """Tells the caller how many bytes have gone out, and never fewer than before.

    Args:
        callback: Whom to tell; ``None`` for nobody.
        size: How many bytes there are; ``None`` when that is not known.
    """

    def __init__(self, callback: OnProgress | None, size: int | None) -> None:
        self._callback = callback
        self._size = size
        self._positions: dict[int, int] = {}
        self._sum = self._reported = 0
        self._telling = anyio.Lock(fast_acquire=True)

    async def update(self, number: int, position: int) -> None:
        """So many bytes of a part have gone out."""
        self._sum += position - self._positions.get(number, 0)
        self._positions[number] = position
        if self._callback is None:
            return
        async with self._telling:  # one call after another, also of a callback that waits
            if self._sum > self._reported:
                self._reported = self._sum
                waiting = self._callback(self._sum, self._size)
                if isawaitable(waiting):
                    await waiting


@dataclass(frozen=True, slots=True)
class SourceSlice:
    """The bytes of a source from `start` up to but not including `stop`: part `number` of it."""

    source: Source
    number: int
    start: int
    stop: int
    progress: Progress

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return self.stop - self.start

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Reader(self)


class _Reader:
    """Reads a stretch. It is no generator, so nothing stays open when it is left."""

    def __init__(self, stretch: SourceSlice) -> None:
        self._stretch = stretch
        self._position = stretch.start

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        stretch, position = self._stretch, self._position
        await stretch.progress.update(stretch.number, position - stretch.start)
        length = min(CHUNK, stretch.stop - position)
        if not length:
            raise StopAsyncIteration
        chunk = await stretch.source.read_at(position, length)
        if len(chunk) != length:
            size = stretch.source.size
            raise UploadError(f"the file has fewer than the {size} bytes it had", size=size)
        self._position += length
        return chunk


#: How many parts of one upload are sent at once.
MAX_PARALLEL_PARTS: Final = 4


class FileUpload:
    """An upload.

    Args:
        performer: Performs its calls.
        label: What is said of the file.
        repositories: Where to try, in this order.
        on_progress: Told of what has gone out; ``None`` for nobody.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        label: FileMetadata,
        repositories: Sequence[Repository],
        on_progress: OnProgress | None = None,
    ) -> None:
        check_callback("on_progress", on_progress)
        self._dispatcher = dispatcher
        self._label = label
        self._repositories = repositories
        self._on_progress = on_progress
        self._limits = dispatcher.resources.limits
        self._parts: list[Part] = []

    async def send(self, source: Source | IteratorSource) -> str:
        """Upload all of it; gives the URL.

        Raises:
            UploadError: The source is not what it was.
            FalClientError: An exchange failed for good; a note says how far the upload had come.
        """
        try:
            if isinstance(source, IteratorSource):
                return await self._send_stream(source)
            return await self._send_source(source)
        except UploadError as error:
            error.uploaded = self._uploaded
            raise
        except FalClientError as error:
            whole = "" if isinstance(source, IteratorSource) else f" of {source.size}"
            error.add_note(f"{self._uploaded}{whole} bytes of {self._label} had been uploaded")
            raise

    @property
    def _uploaded(self) -> int:
        return sum(part.size for part in self._parts)

    async def _send_source(self, source: Source) -> str:
        progress = Progress(self._on_progress, source.size)

        async def attempt(shelf: UploadBackend) -> str:
            if source.size <= self._limits.single_shot:
                url = await shelf.upload(SourceSlice(source, 1, 0, source.size, progress))
                await source.verify()
                return url
            return await self._send_parts(source, await shelf.start_multipart(), progress)

        return await self._with_fallback(attempt)

    async def _send_parts(
        self, source: Source, multipart: MultipartUpload, progress: Progress
    ) -> str:
        self._parts.clear()
        spans = uploads.split_into_parts(source.size, self._limits.part_size)

        async def work() -> None:
            for span in spans:  # which all workers share
                part = SourceSlice(source, span.number, span.start, span.stop, progress)
                await self._put(multipart, part)

        await _run_workers(work)
        await source.verify()
        return await self._complete(multipart, source.size)

    async def _send_stream(self, source: IteratorSource) -> str:
        """Upload what can be read only once: a few parts of it are in memory, never more."""
        progress = Progress(self._on_progress, None)
        buffers = self._dispatcher.resources.lanes.get().buffers
        async with buffers:
            content = BytesSource(await source.read(self._limits.part_size))
            if source.ended:
                return await self._send_source(content)
            multipart = await self._with_fallback(lambda shelf: shelf.start_multipart())
            await self._put(multipart, SourceSlice(content, 1, 0, content.size, progress))
            sent = content.size
            del content
        return await self._complete(
            multipart, sent + await self._send_rest(source, multipart, progress)
        )

    async def _send_rest(
        self, source: IteratorSource, multipart: MultipartUpload, progress: Progress
    ) -> int:
        buffers = self._dispatcher.resources.lanes.get().buffers
        reading = anyio.Lock()
        number, size = 1, 0

        async def work() -> None:
            nonlocal number, size
            while not source.ended:
                async with AsyncExitStack() as held:
                    async with reading:
                        await held.enter_async_context(buffers)
                        content = BytesSource(await source.read(self._limits.part_size))
                        if not content.size:
                            return
                        number, size = number + 1, size + content.size
                        part = SourceSlice(content, number, 0, content.size, progress)
                    await self._put(multipart, part)

        await _run_workers(work)
        return size

    async def _put(self, multipart: MultipartUpload, part: SourceSlice) -> None:
        operation = uploads.upload_part(multipart, self._label, part.number, part)
        self._parts.append(await self._dispatcher.execute(operation))

    async def _complete(self, multipart: MultipartUpload, size: int) -> str:
        operation = uploads.complete(multipart, self._label, self._parts, size)
        try:
            return await self._dispatcher.execute(operation)
        except NotFoundError:  # it may be complete, by a call whose response was lost
            if not await exists(self._dispatcher, multipart.file_url, size):
                raise
            return multipart.file_url

    async def _with_fallback(self, attempt: Callable[[UploadBackend], Awaitable[T]]) -> T:
        return await with_fallback(self._repositories, self._dispatcher, self._label, attempt)


async def _run_workers(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async with open_task_group() as group:
        for _ in range(MAX_PARALLEL_PARTS):
            group.start_soon(work)
