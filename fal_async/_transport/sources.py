"""What uploads are read from: memory, files, and whatever gives bytes bit by bit.

Blocking reads happen in worker threads.
"""

from __future__ import annotations

import io
import os
import stat
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Iterable
from typing import TYPE_CHECKING, BinaryIO, Final, Self, TypeAlias, TypeVar, cast

from fal_async._transport.pulling import StreamSource, is_file, view_of
from fal_async._transport.threads import ResourceClosedError, ThreadResource, Work, in_thread
from fal_async.errors import ClientClosedError, InvalidRequestError, UploadError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Data", "FileSource", "Handle", "Memory", "Source", "open_source"]

T = TypeVar("T")

#: What can be uploaded.
Data: TypeAlias = (
    str | bytes | bytearray | memoryview | BinaryIO | Iterable[bytes] | AsyncIterable[bytes]
)

#: Opening a named pipe would wait for somebody to write to it.
_AT_ONCE: Final[int] = getattr(os, "O_NONBLOCK", 0)


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
        self._view = view_of(content)
        self.size = len(self._view)

    async def read_at(self, start: int, length: int) -> bytes:
        """So many bytes from there."""
        return bytes(self._view[start : start + length])

    async def verify(self) -> None:
        """Memory is as it is."""


class FileSource(Source):
    """A file of this machine; it is open within ``async with``, which it may be entered again."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path
        self._file: io.FileIO | None = None
        self._resource = ThreadResource(self._close, Work.SOURCES)
        self._stamp = (0, 0)

    async def __aenter__(self) -> Self:
        self._resource = ThreadResource(self._close, Work.SOURCES)
        try:
            await self._resource.run(self._open)
        except BaseException:
            self._resource.close()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._resource.close()

    def _open(self) -> None:
        try:
            self._file = file = io.FileIO(self._path, opener=_open_at_once)
        except ValueError as error:
            raise InvalidRequestError(f"not a path: {error}") from error
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise InvalidRequestError(
                f"{os.fspath(self._path)!r} is no regular file: open it, and upload the open file"
            )
        self._stamp = _stamp(file)
        self.size = self._stamp[0]

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()

    async def read_at(self, start: int, length: int) -> bytes:
        """So many bytes from there."""

        def read(file: io.FileIO) -> bytes:
            file.seek(start)
            return _read_all(file, length)

        return await self._with_file(read)

    async def _with_file(self, use: Callable[[io.FileIO], T]) -> T:
        def use_open() -> T:
            if self._file is None:
                raise ResourceClosedError
            return use(self._file)

        try:
            return await self._resource.run(use_open)
        except ResourceClosedError as error:
            raise ClientClosedError("the upload of the file is over") from error
        except OSError as error:
            raise UploadError(f"the file could not be read: {error}", size=self.size) from error

    async def verify(self) -> None:
        """Check that size and time of change are those of the beginning.

        Files that the system makes up as they are read say that they are empty.
        """

        def is_as_it_was(file: io.FileIO) -> bool:
            file.seek(self.size)
            return _stamp(file) == self._stamp and not file.read(1)

        if not await self._with_file(is_as_it_was):
            raise UploadError("the file has changed while it was uploaded", size=self.size)


class Handle(Source):
    """An open file of the caller's, from where it stands on."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._start = 0

    async def __aenter__(self) -> Self:
        self._start, end = await _reading(self._measure, None)
        self.size = end - self._start
        return self

    def _measure(self) -> tuple[int, int]:
        with self._lock:
            start = self._file.tell()
            end = self._file.seek(0, os.SEEK_END)
            self._file.seek(start)  # where the next one who measures it looks
            return start, end

    async def read_at(self, start: int, length: int) -> bytes:
        """So many bytes from there."""

        def read() -> bytes:
            with self._lock:
                self._file.seek(self._start + start)
                return _read_all(self._file, length)

        return await _reading(read, self.size)

    async def verify(self) -> None:
        """Check that it is as long as at the beginning."""
        _, end = await _reading(self._measure, self.size)
        if end - self._start != self.size:
            raise UploadError("the file has changed while it was uploaded", size=self.size)


def open_source(data: Data) -> Source | StreamSource:
    """The source for whatever the caller has given.

    Raises:
        InvalidRequestError: It is nothing that can be uploaded.
    """
    if isinstance(data, str):
        try:
            return Memory(data.encode())
        except UnicodeEncodeError as error:
            raise InvalidRequestError(f"the text cannot be written in UTF-8: {error}") from error
    if isinstance(data, bytes | bytearray | memoryview):
        return Memory(cast("bytes", data))
    if isinstance(data, io.TextIOBase):
        raise InvalidRequestError("a file to upload must be opened in binary mode")
    if not is_file(data):
        return StreamSource(data)
    try:
        return Handle(data) if data.seekable() else StreamSource(data)
    except ValueError as error:
        raise InvalidRequestError(f"the file cannot be uploaded: {error}") from error


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | _AT_ONCE)


def _read_all(file: BinaryIO | io.FileIO, length: int) -> bytes:
    """So many bytes, or fewer at the end of the file: unbuffered files may give fewer at once."""
    read: object = file.read(length)
    if not isinstance(read, bytes | bytearray | memoryview):
        raise InvalidRequestError(
            f"a file to upload must give bytes when it is read, got {type(read).__name__}"
        )
    content = bytes(cast("bytes", read))
    while 0 < len(content) < length and (more := file.read(length - len(content))):
        content += more
    return content


def _stamp(file: io.FileIO) -> tuple[int, int]:
    facts = os.fstat(file.fileno())
    return facts.st_size, facts.st_mtime_ns


async def _reading(read: Callable[[], T], size: int | None) -> T:
    try:
        return await in_thread(read, Work.SOURCES)
    except OSError as error:
        raise UploadError(f"the file could not be read: {error}", size=size) from error
