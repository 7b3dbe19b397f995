"""`IteratorSource`: bytes that can be read only once."""

from __future__ import annotations

import io
from collections.abc import AsyncIterable, Iterable, Mapping
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Self, cast

from anyio.lowlevel import checkpoint

from fal_async._net.tasks import shielded_cleanup
from fal_async._net.threads import ThreadResource, Work, run_in_thread
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from typing_extensions import TypeIs

__all__ = ["CHUNK_SIZE", "IteratorSource", "as_byte_view", "is_file"]

#: The number of bytes that are read at once.
CHUNK_SIZE: Final = 1024 * 1024


class IteratorSource:
    """Bytes that can be read only once, from an iterator or a file that cannot seek.

    Attributes:
        ended: Whether all bytes have been read.
    """

    def __init__(self, data: object) -> None:
        self._next: Callable[[], Awaitable[object]]
        self._close: Callable[[], Awaitable[object]] = checkpoint
        self._chunk = memoryview(b"")
        self.ended = False
        kind = type(data).__name__
        read: Any = getattr(data, "read", None)
        if iscoroutinefunction(read):

            async def read_chunk() -> object:
                return await read(CHUNK_SIZE) or None

            self._next = read_chunk
        elif isinstance(data, AsyncIterable):
            async_items = aiter(cast("AsyncIterable[object]", data))
            self._next = lambda: anext(async_items, None)
            self._close = getattr(async_items, "aclose", checkpoint)
        elif is_file(data):
            self._next = lambda: run_in_thread(lambda: read(CHUNK_SIZE) or None, Work.SOURCES)
        elif isinstance(data, Iterable) and not isinstance(cast("object", data), Mapping):
            items = iter(cast("Iterable[object]", data))

            def join_small_chunks() -> object:
                """Return several small items at once: each switch to a thread costs time."""
                joined = bytearray()
                for item in items:
                    if not isinstance(item, bytes | bytearray | memoryview):
                        return item
                    joined += as_byte_view(cast("bytes", item))
                    if len(joined) >= CHUNK_SIZE:
                        break
                return joined or None

            resource = ThreadResource(getattr(items, "close", lambda: None), Work.SOURCES)
            self._next = lambda: resource.run(join_small_chunks)
            self._close = lambda: run_in_thread(resource.close, Work.CLEANUP)
        else:
            raise InvalidRequestError(
                f"{kind} cannot be uploaded: it must be text, bytes, a path, "
                "a file opened in binary mode, or an iterator of bytes"
            )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        with shielded_cleanup():  # closing a generator runs its cleanup
            await self._close()

    async def read(self, length: int) -> bytearray:
        """Read the next bytes; fewer than `length` at the end.

        Raises:
            InvalidRequestError: The iterator yields something else than bytes.
        """
        content = bytearray()
        await self._fill()
        while not self.ended and len(content) < length:
            missing = length - len(content)
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
                    f"an iterator to upload must yield bytes, got {type(item).__name__}"
                )


def as_byte_view(content: bytes | bytearray | memoryview) -> memoryview:
    """Return a flat view of the bytes; a view with gaps or of several dimensions is copied."""
    try:
        view = memoryview(content)
    except ValueError as error:  # the view has been released
        raise InvalidRequestError(f"cannot read the data: {error}") from error
    return view.cast("B") if view.c_contiguous and view.nbytes else memoryview(view.tobytes())


def is_file(data: object) -> TypeIs[BinaryIO]:
    """Return whether a value is an open file."""
    return isinstance(data, io.IOBase) or (hasattr(data, "read") and hasattr(data, "seekable"))
