"""`FileUpload`: single request or multipart, fallback, progress."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import anyio

from fal_async._core.checks import check_callback
from fal_async._files.downloads import exists
from fal_async._files.iterators import CHUNK_SIZE, IteratorSource
from fal_async._files.sources import BytesSource
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
    from collections.abc import AsyncIterator, Coroutine, Generator, Sequence

    from fal_async._dispatch.call_observer import CallObserver
    from fal_async._dispatch.dispatcher import Dispatcher
    from fal_async._files.sources import Source
    from fal_async._protocol.operation import Content
    from fal_async._protocol.uploads import FileMetadata, MultipartUpload, Part
    from fal_async.types import Repository

__all__ = ["FileUpload", "OnProgress"]

_log = logging.getLogger("fal_async")

#: The maximum number of parts of one upload that are sent at once.
MAX_PARALLEL_PARTS: Final = 4

#: Errors after which the upload falls back to the next repository.
_FALLBACK_ERRORS: Final = (FalClientHTTPError, TransportError, InvalidResponseError)
#: Errors of the key, which is the same for every repository.
_KEY_ERRORS: Final = (AuthenticationError, PermissionDeniedError)

#: Called with the number of bytes sent and the size in bytes, or ``None`` if it is unknown.
OnProgress: TypeAlias = Callable[[int, int | None], Awaitable[None] | None]


class FileUpload:
    """The upload of one file.

    Args:
        dispatcher: Executes the operations.
        metadata: The media type, the name and the lifecycle of the file.
        repositories: The repositories to try, in this order.
        on_progress: Called after each sent chunk; ``None`` disables it.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        metadata: FileMetadata,
        repositories: Sequence[Repository],
        on_progress: OnProgress | None = None,
    ) -> None:
        check_callback("on_progress", on_progress)
        self._dispatcher = dispatcher
        self._metadata = metadata
        self._repositories = repositories
        self._on_progress = on_progress
        self._limits = dispatcher.resources.limits
        self._parts: list[Part] = []

    async def send(self, source: Source | IteratorSource) -> str:
        """Upload the content of a source and return the URL of the file.

        Raises:
            UploadError: The source changed or cannot be read.
            FalClientError: A request failed. A note states how many bytes had been uploaded.
        """
        try:
            with self._dispatcher.call("upload") as state:
                if isinstance(source, IteratorSource):
                    return await self._send_iterator(source, state.observer)
                return await self._send_source(source, state.observer)
        except UploadError as error:
            error.uploaded = self._uploaded
            raise
        except FalClientError as error:
            whole = "" if isinstance(source, IteratorSource) else f" of {source.size}"
            error.add_note(f"{self._uploaded}{whole} bytes of {self._metadata} had been uploaded")
            raise

    @property
    def _uploaded(self) -> int:
        return sum(part.size for part in self._parts)

    async def _send_source(self, source: Source, observer: CallObserver) -> str:
        """Upload a source that can be read again: in one request, or in parts if it is large."""
        progress = _Progress(self._on_progress, source.size, self._metadata, observer)
        for repository in self._repositories:
            with self._fallback_from(repository):
                backend = _BACKENDS[repository](self._dispatcher, self._metadata)
                if source.size > self._limits.single_shot:
                    multipart = await backend.start_multipart()
                    url = await self._send_parts(source, multipart, progress)
                else:
                    url = await backend.upload(_SourceSlice(source, 1, 0, source.size, progress))
                    await source.verify()
                progress.complete()
                return url
        raise AssertionError("the last repository returns or raises")

    async def _send_parts(
        self, source: Source, multipart: MultipartUpload, progress: _Progress
    ) -> str:
        self._parts.clear()
        ranges = uploads.split_into_parts(source.size, self._limits.part_size)

        async def work() -> None:
            for part in ranges:  # all workers share the iterator
                await self._send_part(
                    multipart, _SourceSlice(source, part.number, part.start, part.stop, progress)
                )

        await _run_workers(work)
        await source.verify()
        return await self._complete(multipart, source.size)

    async def _send_iterator(self, source: IteratorSource, observer: CallObserver) -> str:
        """Upload a source that can be read only once; a limited number of parts is in memory."""
        buffers = self._dispatcher.resources.lanes.get().buffers
        async with buffers:
            content = BytesSource(await source.read(self._limits.part_size))
            if source.ended:
                return await self._send_source(content, observer)
            progress = _Progress(self._on_progress, None, self._metadata, observer)
            for repository in self._repositories:
                with self._fallback_from(repository):
                    backend = _BACKENDS[repository](self._dispatcher, self._metadata)
                    multipart = await backend.start_multipart()
                    break
            else:
                raise AssertionError("the last repository returns or raises")
            await self._send_part(multipart, _SourceSlice(content, 1, 0, content.size, progress))
            number, size = 1, content.size
            del content
        reading = anyio.Lock()

        async def work() -> None:
            nonlocal number, size
            while not source.ended:
                async with AsyncExitStack() as stack:
                    async with reading:
                        await stack.enter_async_context(buffers)
                        content = BytesSource(await source.read(self._limits.part_size))
                        if not content.size:
                            return
                        number, size = number + 1, size + content.size
                        part = _SourceSlice(content, number, 0, content.size, progress)
                    await self._send_part(multipart, part)

        await _run_workers(work)
        url = await self._complete(multipart, size)
        progress.complete()
        return url

    async def _send_part(self, multipart: MultipartUpload, part: _SourceSlice) -> None:
        operation = uploads.upload_part(multipart, self._metadata, part.number, part)
        self._parts.append(await self._dispatcher.execute(operation))

    async def _complete(self, multipart: MultipartUpload, size: int) -> str:
        operation = uploads.complete(multipart, self._metadata, self._parts, size)
        try:
            return await self._dispatcher.execute(operation)
        except NotFoundError:  # an earlier attempt, whose response was lost, may have completed it
            if not await exists(self._dispatcher, multipart.file_url, size):
                raise
            return multipart.file_url

    @contextmanager
    def _fallback_from(self, repository: Repository) -> Generator[None]:
        """Suppress and log a failure after which the next repository, if any, may succeed."""
        try:
            yield
        except _FALLBACK_ERRORS as error:
            if isinstance(error, _KEY_ERRORS) or repository == self._repositories[-1]:
                raise
            _log.warning(
                "Uploading to the repository %s failed, trying the next: %s", repository, error
            )


async def _run_workers(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async with open_task_group() as group:
        for _ in range(MAX_PARALLEL_PARTS):
            group.start_soon(work)


@dataclass(frozen=True, slots=True)
class _CdnBackend:
    """The repository ``fal_v3``: the CDN."""

    dispatcher: Dispatcher
    metadata: FileMetadata

    async def upload(self, content: Content) -> str:
        token = await self.dispatcher.cdn_tokens.token()
        return await self.dispatcher.execute(
            uploads.upload_to_cdn(token.base_url, self.metadata, content)
        )

    async def start_multipart(self) -> MultipartUpload:
        token = await self.dispatcher.cdn_tokens.token()
        return await self.dispatcher.execute(
            uploads.start_cdn_multipart(self.dispatcher.hosts, token.base_url, self.metadata)
        )


@dataclass(frozen=True, slots=True)
class _PresignedBackend:
    """The repository ``fal``: the storage service with presigned URLs."""

    dispatcher: Dispatcher
    metadata: FileMetadata

    async def upload(self, content: Content) -> str:
        target = await self.dispatcher.execute(
            uploads.initiate(self.dispatcher.hosts, self.metadata)
        )
        return await self.dispatcher.execute(
            uploads.upload_to_presigned(target, self.metadata, content)
        )

    async def start_multipart(self) -> MultipartUpload:
        return await self.dispatcher.execute(
            uploads.start_multipart(self.dispatcher.hosts, self.metadata)
        )


_BACKENDS: Final[dict[Repository, type[_CdnBackend | _PresignedBackend]]] = {
    "fal_v3": _CdnBackend,
    "fal": _PresignedBackend,
}


class _Progress:
    """Reports the number of bytes sent, which never decreases.

    Args:
        callback: Called with the progress; ``None`` disables it.
        size: The size in bytes; ``None`` if it is unknown.
        metadata: The name of the file.
        observer: Receives the progress as well.
    """

    def __init__(
        self,
        callback: OnProgress | None,
        size: int | None,
        metadata: FileMetadata,
        observer: CallObserver,
    ) -> None:
        self._observer = observer
        self._file = observer.start_upload(metadata.file_name, size)
        self._observed = 0
        self._callback = callback
        self._size = size
        self._positions: dict[int, int] = {}
        self._sent = self._reported = 0
        self._calling = anyio.Lock(fast_acquire=True)

    async def update(self, number: int, position: int) -> None:
        """Set the position within a part in bytes, which a retry sets back."""
        self._sent += position - self._positions.get(number, 0)
        self._positions[number] = position
        if self._sent > self._observed:
            self._observed = self._sent
            self._observer.advance_upload(self._file, self._sent)
        if self._callback is None:
            return
        async with self._calling:  # calls do not overlap, not even those of a coroutine function
            if self._sent > self._reported:
                self._reported = self._sent
                result = self._callback(self._sent, self._size)
                if isawaitable(result):
                    await result

    def complete(self) -> None:
        """Report the end of the upload."""
        self._observer.complete_upload(self._file)


@dataclass(frozen=True, slots=True)
class _SourceSlice:
    """Part `number` of a source: the bytes from `start` up to but not including `stop`."""

    source: Source
    number: int
    start: int
    stop: int
    progress: _Progress

    @property
    def size(self) -> int:
        """The number of bytes."""
        return self.stop - self.start

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _SliceReader(self)


class _SliceReader:
    """Reads a slice. Unlike a generator, it needs no closing."""

    def __init__(self, part: _SourceSlice) -> None:
        self._part = part
        self._position = part.start

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        part, position = self._part, self._position
        await part.progress.update(part.number, position - part.start)
        length = min(CHUNK_SIZE, part.stop - position)
        if not length:
            raise StopAsyncIteration
        chunk = await part.source.read_at(position, length)
        if len(chunk) != length:
            size = part.source.size
            raise UploadError(f"the file has fewer than the {size} bytes it had", size=size)
        self._position += length
        return chunk
