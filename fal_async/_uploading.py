"""One file on its way up, whole or in parts."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio

from fal_async._checks import check_callback
from fal_async._fetching import is_there
from fal_async._protocol import upload
from fal_async._repositories import on_one_of
from fal_async._transport.pulling import StreamSource
from fal_async._transport.sources import Memory
from fal_async._transport.stretches import Progress, Stretch
from fal_async._transport.tasks import open_task_group
from fal_async.errors import FalClientError, NotFoundError, UploadError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from fal_async._protocol.upload import Label, Part, PartedUpload
    from fal_async._repositories import Shelf
    from fal_async._transport.perform import Performer
    from fal_async._transport.sources import Source
    from fal_async._transport.stretches import OnProgress
    from fal_async.types import Repository

__all__ = ["FileUpload"]

T = TypeVar("T")

#: How many parts of one upload are sent at once.
PARALLEL: Final = 4


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
        performer: Performer,
        label: Label,
        repositories: Sequence[Repository],
        on_progress: OnProgress | None = None,
    ) -> None:
        check_callback("on_progress", on_progress)
        self._performer = performer
        self._label = label
        self._repositories = repositories
        self._on_progress = on_progress
        self._limits = performer.line.limits
        self._parts: list[Part] = []

    async def send(self, source: Source | StreamSource) -> str:
        """Upload all of it; gives the URL.

        Raises:
            UploadError: The source is not what it was.
            FalClientError: An exchange failed for good; a note says how far the upload had come.
        """
        try:
            if isinstance(source, StreamSource):
                return await self._send_stream(source)
            return await self._send_source(source)
        except UploadError as error:
            error.uploaded = self._uploaded
            raise
        except FalClientError as error:
            whole = "" if isinstance(source, StreamSource) else f" of {source.size}"
            error.add_note(f"{self._uploaded}{whole} bytes of {self._label} had been uploaded")
            raise

    @property
    def _uploaded(self) -> int:
        return sum(part.size for part in self._parts)

    async def _send_source(self, source: Source) -> str:
        progress = Progress(self._on_progress, source.size)

        async def attempt(shelf: Shelf) -> str:
            if source.size <= self._limits.single_shot:
                url = await shelf.take(Stretch(source, 1, 0, source.size, progress))
                await source.verify()
                return url
            return await self._send_parts(source, await shelf.begin(), progress)

        return await self._on_one_of_them(attempt)

    async def _send_parts(self, source: Source, begun: PartedUpload, progress: Progress) -> str:
        self._parts.clear()
        spans = upload.plan(source.size, self._limits.part_size)

        async def work() -> None:
            for span in spans:  # which all workers share
                part = Stretch(source, span.number, span.start, span.stop, progress)
                await self._put(begun, part)

        await _side_by_side(work)
        await source.verify()
        return await self._complete(begun, source.size)

    async def _send_stream(self, source: StreamSource) -> str:
        """Upload what can be read only once: a few parts of it are in memory, never more."""
        progress = Progress(self._on_progress, None)
        buffers = self._performer.line.gates.get().buffers
        async with buffers:
            content = Memory(await source.read(self._limits.part_size))
            if source.ended:
                return await self._send_source(content)
            begun = await self._on_one_of_them(lambda shelf: shelf.begin())
            await self._put(begun, Stretch(content, 1, 0, content.size, progress))
            sent = content.size
            del content
        return await self._complete(begun, sent + await self._send_rest(source, begun, progress))

    async def _send_rest(
        self, source: StreamSource, begun: PartedUpload, progress: Progress
    ) -> int:
        buffers = self._performer.line.gates.get().buffers
        reading = anyio.Lock()
        number, size = 1, 0

        async def work() -> None:
            nonlocal number, size
            while not source.ended:
                async with AsyncExitStack() as held:
                    async with reading:
                        await held.enter_async_context(buffers)
                        content = Memory(await source.read(self._limits.part_size))
                        if not content.size:
                            return
                        number, size = number + 1, size + content.size
                        part = Stretch(content, number, 0, content.size, progress)
                    await self._put(begun, part)

        await _side_by_side(work)
        return size

    async def _put(self, begun: PartedUpload, part: Stretch) -> None:
        operation = upload.put_part(begun, self._label, part.number, part)
        self._parts.append(await self._performer.perform(operation))

    async def _complete(self, begun: PartedUpload, size: int) -> str:
        operation = upload.complete(begun, self._label, self._parts, size)
        try:
            return await self._performer.perform(operation)
        except NotFoundError:  # it may be complete, by a call whose reply was lost
            if not await is_there(self._performer, begun.file_url, size):
                raise
            return begun.file_url

    async def _on_one_of_them(self, attempt: Callable[[Shelf], Awaitable[T]]) -> T:
        return await on_one_of(self._repositories, self._performer, self._label, attempt)


async def _side_by_side(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async with open_task_group() as group:
        for _ in range(PARALLEL):
            group.start_soon(work)
