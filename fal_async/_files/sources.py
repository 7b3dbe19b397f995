"""Upload sources: bytes, paths, file objects, iterators."""

from __future__ import annotations

import io
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Iterable
from contextlib import contextmanager, suppress
from functools import partial
from inspect import isawaitable, iscoroutinefunction
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Self, TypeAlias, cast

import anyio

from fal_async._files.iterators import IteratorSource, as_byte_view, is_file
from fal_async._net.tasks import shielded_cleanup
from fal_async._net.threads import ResourceClosedError, ThreadResource, Work, run_in_thread
from fal_async.errors import ClientClosedError, InvalidRequestError, UploadError
from fal_async.types import AsyncFile

if TYPE_CHECKING:
    from collections.abc import Generator


__all__ = [
    "AsyncFileSource",
    "BytesSource",
    "Data",
    "FileObjectSource",
    "PathSource",
    "Source",
    "open_source",
]

#: The types of data that can be uploaded.
Data: TypeAlias = (
    str
    | bytes
    | bytearray
    | memoryview
    | os.PathLike[str]
    | BinaryIO
    | AsyncFile
    | Iterable[bytes]
    | AsyncIterable[bytes]
)

_TEXT_MODE: Final = "a file to upload must be opened in binary mode"
#: Without this flag, opening a named pipe blocks until another process writes to it.
_NONBLOCK: Final[int] = getattr(os, "O_NONBLOCK", 0)


async def open_source(data: Data) -> Source | IteratorSource:
    """Return the source that reads the data.

    Raises:
        InvalidRequestError: The data cannot be uploaded.
    """
    if iscoroutinefunction(getattr(data, "read", None)):
        return await _open_async_file(data)
    if isinstance(data, str):
        try:
            return BytesSource(data.encode())
        except UnicodeEncodeError as error:
            raise InvalidRequestError(f"cannot encode the text in UTF-8: {error}") from error
    if isinstance(data, bytes | bytearray | memoryview):
        return BytesSource(cast("bytes", data))
    if isinstance(data, os.PathLike):
        return PathSource(data)
    if isinstance(data, io.TextIOBase):
        raise InvalidRequestError(_TEXT_MODE)
    if not is_file(data):
        return IteratorSource(data)
    with _translate_errors():
        return FileObjectSource(data) if data.seekable() else IteratorSource(data)


async def _open_async_file(file: Any) -> Source | IteratorSource:
    blocking = getattr(file, "file", None)
    if is_file(blocking):  # an upload of a web framework, which has no `tell` of its own
        return await open_source(blocking)
    with _translate_errors():
        if not isinstance(cast("object", await file.read(0)), bytes):
            raise InvalidRequestError(_TEXT_MODE)
        # Socket streams have `read`, and none of the other methods of files.
        seekable = file.seekable() if hasattr(file, "seekable") else False
        if isawaitable(seekable):
            seekable = await seekable
    return AsyncFileSource(file) if seekable else IteratorSource(file)


class Source(ABC):
    """Bytes that can be read at any position and more than once.

    Attributes:
        size: The number of bytes.
    """

    size: int

    @abstractmethod
    async def read_at(self, start: int, length: int) -> bytes:
        """Read bytes from a position; fewer than `length` at the end.

        Raises:
            UploadError: The source cannot be read.
        """

    @abstractmethod
    async def verify(self) -> None:
        """Check that the source has not changed since it was opened.

        Raises:
            UploadError: The source has changed.
        """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        return


class BytesSource(Source):
    """Bytes in memory."""

    def __init__(self, content: bytes | bytearray | memoryview) -> None:
        self._view = as_byte_view(content)
        self.size = len(self._view)

    async def read_at(self, start: int, length: int) -> bytes:
        """Copy bytes from a position."""
        return bytes(self._view[start : start + length])

    async def verify(self) -> None:
        """Do nothing: the content is in memory."""


class PathSource(Source):
    """A file of this machine, open within ``async with``, which can be entered again."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path
        self._file: io.FileIO | None = None
        self._resource = ThreadResource(self._close, Work.SOURCES)
        self._size_and_mtime = (0, 0)

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
        def open_nonblocking(path: str, flags: int) -> int:
            return os.open(path, flags | _NONBLOCK)

        try:
            self._file = file = io.FileIO(self._path, opener=open_nonblocking)
        except ValueError as error:
            raise InvalidRequestError(f"not a path: {error}") from error
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise InvalidRequestError(
                f"{os.fspath(self._path)!r} is no regular file: open it, and upload the open file"
            )
        self._size_and_mtime = _size_and_mtime(file)
        self.size = self._size_and_mtime[0]

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()

    async def read_at(self, start: int, length: int) -> bytes:
        """Read bytes from a position."""
        with _translate_errors(self.size):
            return await self._resource.run(partial(self._read, start, length))

    async def verify(self) -> None:
        """Check that the size and the modification time are those of the beginning.

        Files of the ``/proc`` file system report a size of 0, although they have content.
        """

        def is_unchanged() -> bool:
            size_and_mtime = _size_and_mtime(self._get_file())
            return size_and_mtime == self._size_and_mtime and not self._read(self.size, 1)

        with _translate_errors(self.size):
            unchanged = await self._resource.run(is_unchanged)
        if not unchanged:
            raise _changed(self.size)

    def _read(self, start: int, length: int) -> bytes:
        file = self._get_file()
        file.seek(start)
        return _read_fully(file, length)

    def _get_file(self) -> io.FileIO:
        if self._file is None:
            raise ResourceClosedError
        return self._file


class FileObjectSource(Source):
    """An open file of the caller, from its current position, which is restored at the end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._resource = ThreadResource(self._restore_position, Work.SOURCES)
        self._start: int | None = None

    async def __aenter__(self) -> Self:
        with _translate_errors():
            start, end = await self._resource.run(self._measure)
        self._start, self.size = start, _remaining_size(start, end)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        with shielded_cleanup():
            await run_in_thread(self._resource.close, Work.CLEANUP)

    def _restore_position(self) -> None:
        with suppress(OSError, ValueError):  # the caller may have closed the file
            if self._start is not None:
                self._file.seek(self._start)

    def _measure(self) -> tuple[int, int]:
        start = self._file.tell()
        end = self._file.seek(0, os.SEEK_END)
        self._file.seek(start)  # another upload of the same file measures from there
        return start, end

    async def read_at(self, start: int, length: int) -> bytes:
        """Read bytes from a position, counted from the position at the beginning."""

        def read() -> bytes:
            self._file.seek((self._start or 0) + start)
            return _read_fully(self._file, length)

        with _translate_errors(self.size):
            return await self._resource.run(read)

    async def verify(self) -> None:
        """Check that the size is that of the beginning."""
        with _translate_errors(self.size):
            _, end = await self._resource.run(self._measure)
        if end - (self._start or 0) != self.size:
            raise _changed(self.size)


class AsyncFileSource(Source):
    """An open file of the caller whose methods are coroutines; see `FileObjectSource`."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._lock = anyio.Lock()
        self._start: int | None = None

    async def __aenter__(self) -> Self:
        with _translate_errors():
            self._start = await self._file.tell()
        try:
            start, end = await self._measure()
            self.size = _remaining_size(start, end)
        except BaseException:
            await self._restore_position()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._restore_position()

    async def _restore_position(self) -> None:
        with shielded_cleanup(), suppress(OSError, ValueError):  # the file may be closed
            async with self._lock:
                await self._file.seek(self._start)

    async def _measure(self) -> tuple[int, int]:
        async with self._lock:
            with _translate_errors():
                start = await self._file.tell()
                await self._file.seek(0, os.SEEK_END)
                end = await self._file.tell()  # `seek` returns nothing in some libraries
                await self._file.seek(start)
                return start, end

    async def read_at(self, start: int, length: int) -> bytes:
        """Read bytes from a position, counted from the position at the beginning."""
        content = b""
        async with self._lock:
            with _translate_errors(self.size):
                await self._file.seek((self._start or 0) + start)
                while len(content) < length:
                    more = _check_bytes(await self._file.read(length - len(content)))
                    if not more:
                        break
                    content += more
        return content

    async def verify(self) -> None:
        """Check that the size is that of the beginning."""
        _, end = await self._measure()
        if end - (self._start or 0) != self.size:
            raise _changed(self.size)


@contextmanager
def _translate_errors(size: int | None = None) -> Generator[None]:
    """Turn errors of reading a file into errors of this library.

    Args:
        size: The size of the file in bytes; ``None`` if it is unknown.
    """
    try:
        yield
    except InvalidRequestError:  # which is a ValueError
        raise
    except OSError as error:
        raise UploadError(f"cannot read the file: {error}", size=size) from error
    except ValueError as error:  # the file is closed
        raise InvalidRequestError(f"cannot upload the file: {error}") from error
    except ResourceClosedError as error:
        raise ClientClosedError("the upload of the file has ended") from error


def _changed(size: int) -> UploadError:
    return UploadError("the file changed while it was uploaded", size=size)


def _remaining_size(start: int, end: int) -> int:
    if start and start >= end:
        raise InvalidRequestError(
            f"the position of the file is its end, after {start} bytes: call its seek(0) first"
        )
    return end - start


def _read_fully(file: BinaryIO | io.FileIO, length: int) -> bytes:
    """Read until the length or the end; one call of an unbuffered file may return less."""
    content = _check_bytes(file.read(length))
    while 0 < len(content) < length and (more := file.read(length - len(content))):
        content += more
    return content


def _check_bytes(content: object) -> bytes:
    if not isinstance(content, bytes | bytearray | memoryview):
        raise InvalidRequestError(
            f"a file to upload must return bytes when it is read, got {type(content).__name__}"
        )
    return bytes(cast("bytes", content))


def _size_and_mtime(file: io.FileIO) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns
