"""Bytes to upload that come once, from iterators and from files that cannot be wound back."""

from __future__ import annotations

import io
from collections.abc import AsyncIterable, Iterable, Mapping
from functools import partial
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Self, TypeAlias, cast

from anyio.lowlevel import checkpoint

from fal_async._transport.tasks import bounded_shield
from fal_async._transport.threads import ThreadResource, Work, in_thread
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from typing_extensions import TypeIs

__all__ = ["CHUNK", "StreamSource", "is_async_file", "is_file", "view_of"]

_Step: TypeAlias = "Callable[[], Awaitable[object]]"

#: How many bytes are read at once.
CHUNK: Final = 1024 * 1024


def view_of(content: bytes | bytearray | memoryview) -> memoryview:
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
        with bounded_shield():  # generators clean up when they are closed
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
                self._chunk = view_of(cast("bytes", item))
            else:
                raise InvalidRequestError(
                    f"what is uploaded bit by bit must be bytes, got {_name(item)}"
                )


def _puller(data: Any) -> tuple[_Step, _Step]:
    """What gives the next item, or ``None`` at the end; and what leaves the rest."""
    if is_async_file(data):
        return partial(_read_async_file, data), checkpoint
    if isinstance(data, AsyncIterable):
        items = aiter(cast("AsyncIterable[object]", data))
        leave: _Step = getattr(items, "aclose", checkpoint)
        return lambda: anext(items, None), leave
    if is_file(data):
        return lambda: in_thread(lambda: data.read(CHUNK) or None, Work.SOURCES), checkpoint
    if isinstance(data, Iterable) and not isinstance(data, Mapping):
        parts = iter(cast("Iterable[object]", data))
        resource = ThreadResource(getattr(parts, "close", _nothing), Work.SOURCES)
        return (
            lambda: resource.run(partial(_gather, parts)),
            lambda: in_thread(resource.close, Work.CLEANUP),
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


def _gather(items: Iterator[object]) -> object:
    """Several small items at once, because going to a thread costs time."""
    gathered = bytearray()
    for item in items:
        if not isinstance(item, bytes | bytearray | memoryview):
            return item
        gathered += view_of(cast("bytes", item))
        if len(gathered) >= CHUNK:
            break
    return gathered or None
