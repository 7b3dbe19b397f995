"""Files that are written as they come, and take their place when they are whole."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import uuid
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, TypeVar

from fal_async._transport.tasks import bounded_shield
from fal_async._transport.threads import in_thread
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

__all__ = ["save"]

T = TypeVar("T")
#: How many bytes are gathered before they are written, each time in a thread.
GATHERED: Final = 512 * 1024
_SEPARATORS: Final = tuple(filter(None, (os.sep, os.altsep)))


async def save(
    chunks: AsyncIterator[bytes], target: str | os.PathLike[str], name: Callable[[], str]
) -> Path:
    """Write chunks to a file, which appears under its name when it is whole.

    Args:
        chunks: What to write.
        target: Where to: the path of the file, which replaces one that is there, or of a folder
            that is there, in which the file gets a name of its own.
        name: Gives the name of the file within a folder.

    Returns:
        The path of the file.

    Raises:
        OSError: It cannot be written.
        InvalidRequestError: The target is no path.
    """
    place, into_folder = await in_thread(partial(_place, target))
    folder = place if into_folder else place.parent
    part = _PartFile(folder / f".{uuid.uuid4().hex}.part")
    try:
        await part.do(part.open)
        gathered: list[bytes] = []
        size = 0
        async for chunk in chunks:
            gathered.append(chunk)
            size += len(chunk)
            if size >= GATHERED:
                await part.do(partial(part.write, gathered))
                gathered, size = [], 0
        await part.do(partial(part.write, gathered))
        if into_folder:
            return await part.do(lambda: part.move_into(folder, name()))
        return await part.do(lambda: part.move_to(place))
    finally:
        with bounded_shield():
            await part.do(part.discard)


def _place(target: str | os.PathLike[str]) -> tuple[Path, bool]:
    """The path, and whether it is one of a folder."""
    try:
        place = Path(target)
        exists, is_folder = place.exists(), place.is_dir()
    except TypeError as error:
        raise InvalidRequestError(f"not a path: {error}") from error
    if "\0" in str(place):
        raise InvalidRequestError("no path has a null character in it")
    if exists and not is_folder and not place.is_file():
        raise FileExistsError(errno.EEXIST, "no regular file, so it is not replaced", str(place))
    if not is_folder and os.fspath(target).endswith(_SEPARATORS):
        raise FileNotFoundError(errno.ENOENT, "no such folder", str(place))
    return place, is_folder


class _PartFile:
    """A file that is not whole yet. Its methods block, and are called by way of `do`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None

    async def do(self, step: Callable[[], T]) -> T:
        """Do a step in a thread; an abandoned one is over before the next begins."""

        def locked() -> T:
            with self._lock:
                return step()

        return await in_thread(locked)

    def open(self) -> None:
        self._file = self._path.open("xb")

    def write(self, chunks: Iterable[bytes]) -> None:
        if self._file is not None:
            self._file.writelines(chunks)

    def move_to(self, place: Path) -> Path:
        self._close()
        self._path.replace(place)
        return place

    def move_into(self, folder: Path, name: str) -> Path:
        """Take the first name that is free: ``a.png``, ``a-1.png``, ``a-2.png`` and so on."""
        place, number = folder / name, 0
        while True:
            try:
                place.open("xb").close()
            except FileExistsError:
                number += 1
                place = folder / f"{Path(name).stem}-{number}{Path(name).suffix}"
            else:
                return self.move_to(place)

    def discard(self) -> None:
        self._close()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()
