"""What uploads are read from: memory, files, and whatever gives bytes bit by bit.

Blocking reads happen in worker threads, `CHUNK` bytes at a time.
"""

from __future__ import annotations

import io
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Self, TypeAlias, TypeVar, cast

from anyio.lowlevel import checkpoint

from fal_async._transport.threads import in_thread
from fal_async.errors import ClientClosedError, InvalidRequestError, UploadError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from typing_extensions import TypeIs

__all__ = ["Data", "FileSource", "Memory", "Source", "StreamSource", "open_source"]

T = TypeVar("T")
_Step: TypeAlias = "Callable[[], Awaitable[object]]"

#: What can be uploaded.
Data: TypeAlias = (
    str | bytes | bytearray | memoryview | BinaryIO | Iterable[bytes] | AsyncIterable[bytes]
)

#: How many bytes are read at once.
CHUNK: Final = 1024 * 1024


class Source(ABC):
    """Bytes that can be read from anywhere, and again.

    Attributes:
        size: How many there are.
    """

    size: int

    @abstractmethod
    async def read_at(self, start: int, length: int) -> bytes:
        """So many bytes from there, or fewer where there are no more."""

    @abstractmethod
    async def verify(self) -> None:
        """Check that what was read is what there was at the beginning.

        Raises:
            UploadError: It has changed.
        """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        return


class Memory(Source):
    """Bytes in memory."""

    def __init__(self, content: bytes | bytearray | memoryview) -> None:
        try:
            self._view = memoryview(content).cast("B")
        except TypeError as error:
            raise InvalidRequestError(f"the data cannot be read: {error}") from error
        self.size = len(self._view)

    async def read_at(self, start: int, length: int) -> bytes:
        """So many bytes from there."""
        return bytes(self._view[start : start + length])

    async def verify(self) -> None:
        """Memory is as it is."""


class FileSource(Source):
    """A file of this machine; it is open within ``async with``."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._file: io.FileIO | None = None
        self._left = False
        self._stamp = (0, 0)

    async def __aenter__(self) -> Self:
        try:
            await in_thread(self._open)
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._close()

    def _open(self) -> None:
        file = io.FileIO(self._path)
        with self._lock:
            self._file = file
            self._stamp = _stamp(file)
        self._close_if_left()
        self.size = self._stamp[0]

    def _close(self) -> None:
        self._left = True
        self._close_if_left()

    def _close_if_left(self) -> None:
        """Close the file when nobody will read on; an abandoned thread that still does, does so."""
        if self._left and self._lock.acquire(blocking=False):
            try:
                if self._file is not None:
                    self._file.close()
            finally:
                self._lock.release()

    async def read_at(self, start: int, length: int) -> bytes:
        """So many bytes from there."""

        def read(file: io.FileIO) -> bytes:
            file.seek(start)
            return file.read(length)

        return await self._with_file(read)

    async def _with_file(self, use: Callable[[io.FileIO], T]) -> T:
        def locked() -> T:
            try:
                with self._lock:
                    if self._file is None or self._file.closed:
                        raise ClientClosedError("the upload of the file is over")
                    return use(self._file)
            finally:
                self._close_if_left()

        return await _reading(locked, self.size)

    async def verify(self) -> None:
        """Check that size and time of change are those of the beginning."""
        if await self._with_file(_stamp) != self._stamp:
            raise UploadError("the file has changed while it was uploaded", size=self.size)


class Handle(Source):
    """An open file of the caller's, from where it stands on."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._start = 0

    async def __aenter__(self) -> Self:
        self._start, end = await in_thread(self._measure)
        self.size = end - self._start
        return self

    def _measure(self) -> tuple[int, int]:
        with self._lock:
            start = self._file.tell()
            return start, self._file.seek(0, os.SEEK_END)

    async def read_at(self, start: int, length: int) -> bytes:
        """So many bytes from there."""

        def read() -> bytes:
            with self._lock:
                self._file.seek(self._start + start)
                return self._file.read(length)

        return await _reading(read, self.size)

    async def verify(self) -> None:
        """Check that it is as long as at the beginning."""
        _, end = await _reading(self._measure, self.size)
        if end - self._start != self.size:
            raise UploadError("the file has changed while it was uploaded", size=self.size)


class StreamSource:
    """Bytes that come once, in their order, from an iterator or from a file that cannot be wound.

    Attributes:
        ended: Whether all of them have been read.
    """

    def __init__(self, data: AsyncIterable[bytes] | Iterable[bytes] | BinaryIO) -> None:
        self._next, self._leave = _puller(data)
        self._chunk = memoryview(b"")
        self.ended = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._leave()

    async def read(self, most: int) -> bytearray:
        """The next bytes: as many as that, unless they come to their end."""
        content = bytearray()
        await self._fill()
        while not self.ended and len(content) < most:
            missing = most - len(content)
            content += self._chunk[:missing]
            self._chunk = self._chunk[missing:]
            await self._fill()
        return content

    async def _fill(self) -> None:
        while not self._chunk and not self.ended:
            item = await self._next()
            if item is None:
                self.ended = True
            elif isinstance(item, bytes | bytearray | memoryview):
                self._chunk = memoryview(cast("bytes", item)).cast("B")
            else:
                raise InvalidRequestError(
                    f"what is uploaded bit by bit must be bytes, got {_name(item)}"
                )


def open_source(data: Data) -> Source | StreamSource:
    """The source for whatever the caller has given.

    Raises:
        InvalidRequestError: It is nothing that can be uploaded.
    """
    if isinstance(data, str):
        return Memory(data.encode())
    if isinstance(data, bytes | bytearray | memoryview):
        return Memory(cast("bytes", data))
    if isinstance(data, io.TextIOBase):
        raise InvalidRequestError("a file to upload must be opened in binary mode")
    if _is_file(data) and data.seekable():
        return Handle(data)
    return StreamSource(data)


def _is_file(data: object) -> TypeIs[BinaryIO]:
    return isinstance(data, io.IOBase) or (hasattr(data, "read") and hasattr(data, "seekable"))


def _puller(data: Any) -> tuple[_Step, _Step]:
    """What gives the next item, or ``None`` at the end; and what leaves the rest."""
    if isinstance(data, AsyncIterable):
        items = aiter(cast("AsyncIterable[object]", data))
        leave: _Step = getattr(items, "aclose", checkpoint)
        return lambda: anext(items, None), leave
    if _is_file(data):
        return lambda: in_thread(lambda: data.read(CHUNK) or None), checkpoint
    if isinstance(data, Iterable) and not isinstance(data, Mapping):
        parts = iter(cast("Iterable[object]", data))
        return lambda: in_thread(lambda: _gather(parts)), checkpoint
    raise InvalidRequestError(f"{_name(cast('object', data))} is nothing that can be uploaded")


def _name(value: object) -> str:
    return type(value).__name__


def _gather(parts: Iterator[object]) -> object:
    """Several small items at once, because going to a thread costs time."""
    gathered = bytearray()
    for part in parts:
        if not isinstance(part, bytes | bytearray | memoryview):
            return part
        gathered += part
        if len(gathered) >= CHUNK:
            break
    return gathered or None


def _stamp(file: io.FileIO) -> tuple[int, int]:
    facts = os.fstat(file.fileno())
    return facts.st_size, facts.st_mtime_ns


async def _reading(read: Callable[[], T], size: int) -> T:
    try:
        return await in_thread(read)
    except OSError as error:
        raise UploadError(f"the file could not be read: {error}", size=size) from error
