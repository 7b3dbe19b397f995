"""Upload sources: bytes, paths, file objects, iterators."""

from __future__ import annotations

import io
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Iterable, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from inspect import isawaitable, iscoroutinefunction
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Self, TypeAlias, TypeVar, cast

import anyio
from anyio.lowlevel import checkpoint

from fal_async._net.tasks import shielded_cleanup
from fal_async._net.threads import ResourceClosedError, ThreadResource, Work, run_in_thread
from fal_async.errors import ClientClosedError, InvalidRequestError, UploadError
from fal_async.types import AsyncFile

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterator

    from typing_extensions import TypeIs

__all__ = [
    "CHUNK",
    "AsyncHandle",
    "BytesSource",
    "FileObjectSource",
    "IteratorSource",
    "PathSource",
    "Source",
    "as_byte_view",
    "is_async_file",
    "is_file",
    "open_source",
]

T = TypeVar("T")


_Step: TypeAlias = "Callable[[], Awaitable[object]]"


#: How many bytes are read at once.
CHUNK: Final = 1024 * 1024


def as_byte_view(content: bytes | bytearray | memoryview) -> memoryview:
    """Its bytes, one by one and in their order, whatever its items are and wherever they lie.

    Raises:
        InvalidRequestError: It has been released.
    """
    try:
        view = memoryview(content)
    except ValueError as error:
        raise InvalidRequestError(f"the data cannot be read: {error}") from error
    return view.cast("B") if view.c_contiguous and view.nbytes else memoryview(view.tobytes())


def is_file(data: object) -> TypeIs[BinaryIO]:
    """Whether something is an open file."""
    return isinstance(data, io.IOBase) or (hasattr(data, "read") and hasattr(data, "seekable"))


def is_async_file(data: object) -> bool:
    """Whether something is an open file whose methods are coroutines."""
    return iscoroutinefunction(getattr(data, "read", None))


class IteratorSource:
    """Bytes that come once, in their order, from an iterator or from a file that cannot be wound.

    Attributes:
        ended: Whether all of them have been read.
    """

    def __init__(self, data: AsyncIterable[bytes] | Iterable[bytes] | BinaryIO) -> None:
        self._next, self._leave = _make_reader(data)
        self._chunk = memoryview(b"")
        self.ended = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        with shielded_cleanup():  # generators clean up when they are closed
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
                self._chunk = as_byte_view(cast("bytes", item))
            else:
                raise InvalidRequestError(
                    f"what is uploaded bit by bit must be bytes, got {_name(item)}"
                )


def _make_reader(data: Any) -> tuple[_Step, _Step]:
    """What gives the next item, or ``None`` at the end; and what leaves the rest."""
    if is_async_file(data):
        return partial(_read_async_file, data), checkpoint
    if isinstance(data, AsyncIterable):
        items = aiter(cast("AsyncIterable[object]", data))
        leave: _Step = getattr(items, "aclose", checkpoint)
        return lambda: anext(items, None), leave
    if is_file(data):
        return lambda: run_in_thread(lambda: data.read(CHUNK) or None, Work.SOURCES), checkpoint
    if isinstance(data, Iterable) and not isinstance(data, Mapping):
        parts = iter(cast("Iterable[object]", data))
        resource = ThreadResource(getattr(parts, "close", _nothing), Work.SOURCES)
        return (
            lambda: resource.run(partial(_join_small_chunks, parts)),
            lambda: run_in_thread(resource.close, Work.CLEANUP),
        )
    raise InvalidRequestError(
        f"{_name(cast('object', data))} is nothing that can be uploaded: it must be text, bytes, a "
        "path, a file that is open in binary mode, or an iterator of bytes"
    )


async def _read_async_file(file: Any) -> object:
    return await file.read(CHUNK) or None


def _nothing() -> None:
    """Iterators that are no generators have nothing to close."""


def _name(value: object) -> str:
    return type(value).__name__


def _join_small_chunks(items: Iterator[object]) -> object:
    """Several small items at once, because going to a thread costs time."""
    gathered = bytearray()
    for item in items:
        if not isinstance(item, bytes | bytearray | memoryview):
            return item
        gathered += as_byte_view(cast("bytes", item))
        if len(gathered) >= CHUNK:
            break
    return gathered or None


#: What can be uploaded.
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


class BytesSource(Source):
    """Bytes in memory."""

    def __init__(self, content: bytes | bytearray | memoryview) -> None:
        self._view = as_byte_view(content)
        self.size = len(self._view)

    async def read_at(self, start: int, length: int) -> bytes:
        """So many bytes from there."""
        return bytes(self._view[start : start + length])

    async def verify(self) -> None:
        """Memory is as it is."""


class PathSource(Source):
    """A file of this machine; it is open within ``async with``, which it may be entered again."""

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
        try:
            self._file = file = io.FileIO(self._path, opener=_open_nonblocking)
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
            return _size_and_mtime(file) == self._size_and_mtime and not file.read(1)

        if not await self._with_file(is_as_it_was):
            raise UploadError("the file has changed while it was uploaded", size=self.size)


class FileObjectSource(Source):
    """An open file of the caller's, from where it stands on, and where it is left standing."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._resource = ThreadResource(self._wind_back, Work.SOURCES)
        self._start: int | None = None

    async def __aenter__(self) -> Self:
        start, end = await self._read_in_thread(self._measure, None)
        self._start, self.size = start, _rest_of_file(start, end)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        with shielded_cleanup():
            await run_in_thread(self._resource.close, Work.CLEANUP)

    def _measure(self) -> tuple[int, int]:
        start = self._file.tell()
        end = self._file.seek(0, os.SEEK_END)
        self._file.seek(start)  # where the next one who measures it looks
        return start, end

    def _wind_back(self) -> None:
        with suppress(OSError, ValueError):  # it may have been closed
            if self._start is not None:
                self._file.seek(self._start)

    async def read_at(self, start: int, length: int) -> bytes:
        """So many bytes from there."""

        def read() -> bytes:
            self._file.seek((self._start or 0) + start)
            return _read_all(self._file, length)

        return await self._read_in_thread(read, self.size)

    async def verify(self) -> None:
        """Check that it is as long as at the beginning."""
        _, end = await self._read_in_thread(self._measure, self.size)
        if end - (self._start or 0) != self.size:
            raise UploadError("the file has changed while it was uploaded", size=self.size)

    async def _read_in_thread(self, read: Callable[[], T], size: int | None) -> T:
        with _readable(size):
            return await self._resource.run(read)


class AsyncHandle(Source):
    """An open file of the caller's whose methods are coroutines; see `FileObjectSource`."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._lock = anyio.Lock()
        self._start: int | None = None

    async def __aenter__(self) -> Self:
        with _readable():
            self._start = await self._file.tell()
        try:
            start, end = await self._measure()
            self.size = _rest_of_file(start, end)
        except BaseException:
            await self._wind_back()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._wind_back()

    async def _wind_back(self) -> None:
        with shielded_cleanup(), suppress(OSError, ValueError):  # it may have been closed
            async with self._lock:
                await self._file.seek(self._start)

    async def _measure(self) -> tuple[int, int]:
        async with self._lock:
            with _readable():
                start = await self._file.tell()
                await self._file.seek(0, os.SEEK_END)
                end = await self._file.tell()  # `seek` returns nothing in some libraries
                await self._file.seek(start)
                return start, end

    async def read_at(self, start: int, length: int) -> bytes:
        """So many bytes from there."""
        content = b""
        async with self._lock:
            with _readable(self.size):
                await self._file.seek((self._start or 0) + start)
                while len(content) < length:
                    more = _checked_bytes(await self._file.read(length - len(content)))
                    if not more:
                        break
                    content += more
        return content

    async def verify(self) -> None:
        """Check that it is as long as at the beginning."""
        _, end = await self._measure()
        if end - (self._start or 0) != self.size:
            raise UploadError("the file has changed while it was uploaded", size=self.size)


async def open_source(data: Data) -> Source | IteratorSource:
    """Make the source for whatever the caller has given.

    Raises:
        InvalidRequestError: It is nothing that can be uploaded.
    """
    if is_async_file(data):
        return await _open_async_file(data)
    if isinstance(data, str):
        try:
            return BytesSource(data.encode())
        except UnicodeEncodeError as error:
            raise InvalidRequestError(f"the text cannot be written in UTF-8: {error}") from error
    if isinstance(data, bytes | bytearray | memoryview):
        return BytesSource(cast("bytes", data))
    if isinstance(data, os.PathLike):
        return PathSource(data)
    if isinstance(data, io.TextIOBase):
        raise InvalidRequestError(_TEXT_MODE)
    if not is_file(data):
        return IteratorSource(cast("Iterable[bytes]", data))
    with _readable():
        return FileObjectSource(data) if data.seekable() else IteratorSource(data)


async def _open_async_file(file: Any) -> Source | IteratorSource:
    blocking = getattr(file, "file", None)
    if is_file(blocking):  # the uploads of web frameworks, which cannot tell where they stand
        return await open_source(blocking)
    with _readable():
        if not isinstance(cast("object", await file.read(0)), bytes):
            raise InvalidRequestError(_TEXT_MODE)
        # Streams of sockets can be read as files are, and have none of their other methods.
        seekable = file.seekable() if hasattr(file, "seekable") else False
        if isawaitable(seekable):
            seekable = await seekable
    return AsyncHandle(file) if seekable else IteratorSource(file)


@contextmanager
def _readable(size: int | None = None) -> Generator[None]:
    """Turn the errors of files into ours."""
    try:
        yield
    except OSError as error:
        raise UploadError(f"the file could not be read: {error}", size=size) from error
    except ValueError as error:  # it is closed
        raise InvalidRequestError(f"the file cannot be uploaded: {error}") from error


def _rest_of_file(start: int, end: int) -> int:
    """How many bytes there are from where a file stands on.

    Raises:
        InvalidRequestError: It stands at its end, as after it was written or read.
    """
    if start and start >= end:
        raise InvalidRequestError(
            f"the file to upload stands at its end, after {start} bytes: call its seek(0) first"
        )
    return end - start


def _open_nonblocking(path: str, flags: int) -> int:
    return os.open(path, flags | _AT_ONCE)


def _read_all(file: BinaryIO | io.FileIO, length: int) -> bytes:
    """So many bytes, or fewer at the end of the file: unbuffered files may give fewer at once."""
    content = _checked_bytes(file.read(length))
    while 0 < len(content) < length and (more := file.read(length - len(content))):
        content += more
    return content


def _checked_bytes(read: object) -> bytes:
    if not isinstance(read, bytes | bytearray | memoryview):
        raise InvalidRequestError(
            f"a file to upload must give bytes when it is read, got {type(read).__name__}"
        )
    return bytes(cast("bytes", read))


def _size_and_mtime(file: io.FileIO) -> tuple[int, int]:
    facts = os.fstat(file.fileno())
    return facts.st_size, facts.st_mtime_ns
