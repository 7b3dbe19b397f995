"""Files that appear under their names when they are whole.

The content goes to a hidden file beside the target, which takes the target's place when all of it
is on the disk.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import uuid
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from fal_async._core.checks import describe
from fal_async._net.threads import ThreadResource, run_in_thread
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    import io
    from collections.abc import AsyncIterator, Callable, Generator

__all__ = ["save", "write_file"]

#: How many bytes are gathered before they are written, each time in a thread.
WRITE_BUFFER_SIZE: Final = 512 * 1024
_SEPARATORS: Final = tuple(filter(None, (os.sep, os.altsep)))
#: File systems that cannot flush a file return one of these.
_NO_FLUSH: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.ENOSYS})


async def save(
    chunks: AsyncIterator[bytes], target: str | os.PathLike[str], name: Callable[[], str]
) -> Path:
    """Write chunks to a file, which appears under its name when it is whole.

    A file that is there keeps its content until then, and its permissions and owner beyond. A
    symbolic link stays, and the file that it leads to is replaced; other hard links to that file
    keep the old content.

    Args:
        chunks: The content.
        target: The path of the file, which replaces one that is there; or of a folder that is
            there, in which the file gets a name of its own.
        name: Returns the name of the file within a folder.

    Returns:
        The path of the file.

    Raises:
        OSError: The file cannot be written; it names the target.
        InvalidRequestError: The target is no path.
    """
    place = await run_in_thread(partial(_find_place, target))
    file = _NewFile(place)
    async with ThreadResource(file.discard) as resource:
        await resource.run(file.open)
        gathered: list[bytes] = []
        size = 0
        async for chunk in chunks:
            gathered.append(chunk)
            size += len(chunk)
            if size >= WRITE_BUFFER_SIZE:
                await resource.run(partial(file.write, b"".join(gathered)))
                gathered, size = [], 0
        await resource.run(partial(file.write, b"".join(gathered)))
        return await resource.run(file.replace if place.is_file else lambda: file.move_in(name()))


def write_file(path: Path, content: bytes | memoryview, *, mode: int | None = None) -> None:
    """Replace a file, whole or not at all. It blocks.

    Args:
        path: The path of the file.
        content: What it holds then.
        mode: Its permissions, from the beginning; ``None`` keeps those of the file that is there,
            or takes those that new files get.

    Raises:
        OSError: It cannot be written.
    """
    file = _NewFile(_find_place(path), mode)
    try:
        file.open()
        file.write(content)
        file.replace()
    finally:
        file.discard()


@dataclass(frozen=True, slots=True)
class _Place:
    """The file or folder that a target leads to.

    Attributes:
        target: The target as the caller gave it.
        path: The target without symbolic links.
        is_file: Whether it is that of a file, there or not, and not of a folder.
        found: The facts of the file that is there; ``None`` if there is none.
    """

    target: Path
    path: Path
    is_file: bool
    found: os.stat_result | None

    @contextlib.contextmanager
    def named_in_errors(self) -> Generator[None]:
        """Name the target in errors, which name the hidden file or none."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), str(self.target)) from error


def _find_place(target: str | os.PathLike[str]) -> _Place:
    text = _path_text(target)
    path = Path(text)
    try:
        found = os.stat(text)  # noqa: PTH116 -- a Path has no slash at its end
    except FileNotFoundError:
        if text.endswith(_SEPARATORS):
            raise FileNotFoundError(errno.ENOENT, "no such folder", text) from None
        return _Place(path, path.resolve(), is_file=True, found=None)
    if stat.S_ISDIR(found.st_mode):
        return _Place(path, path, is_file=False, found=None)
    if not stat.S_ISREG(found.st_mode):
        raise FileExistsError(errno.EEXIST, "no regular file, so it is not replaced", text)
    if not os.access(text, os.W_OK):
        raise PermissionError(errno.EACCES, "the file is read-only, so it is not replaced", text)
    return _Place(path, path.resolve(), is_file=True, found=found)


def _path_text(target: object) -> str:
    try:
        text = cast("object", os.fspath(cast("os.PathLike[str]", target)))
    except TypeError as error:
        raise InvalidRequestError(f"not a path: {error}") from error
    if not isinstance(text, str):
        raise InvalidRequestError(f"a path must be text, got {describe(text)}")
    if not text:
        raise InvalidRequestError("a path must not be empty; '.' is the current folder")
    try:
        encoded = os.fsencode(text)
    except UnicodeEncodeError as error:
        raise InvalidRequestError(f"no path of this system is {text!r}: {error}") from error
    if b"\0" in encoded:
        raise InvalidRequestError("no path has a null character in it")
    return text


class _NewFile:
    """A file that is being written beside the place that it will take. Its methods block.

    Args:
        place: The place.
        mode: Its permissions; ``None`` keeps those of the file that it replaces, or takes those
            that new files get.
    """

    def __init__(self, place: _Place, mode: int | None = None) -> None:
        folder = place.path.parent if place.is_file else place.path
        self._resolve_target = place
        self._path = folder / f".{uuid.uuid4().hex}.part"
        self._file: io.FileIO | None = None
        self._is_there = False
        found = place.found
        self._mode = found.st_mode & 0o777 if mode is None and found is not None else mode

    def open(self) -> None:
        """Create it, for nobody who could not read the file that it replaces."""
        mode = 0o666 if self._mode is None else self._mode

        def create(path: str, flags: int) -> int:
            return os.open(path, flags, mode)

        with self._resolve_target.named_in_errors():
            # No buffer: one that could not be written is tried again when the file is closed.
            self._file = open(self._path, "xb", buffering=0, opener=create)  # noqa: SIM115 -- closed by `discard`
            self._is_there = True

    def write(self, content: bytes | memoryview) -> None:
        """Write all of it."""
        rest = memoryview(content)
        with self._resolve_target.named_in_errors():
            while rest and self._file is not None:
                rest = rest[self._file.write(rest) :]

    def replace(self) -> Path:
        """Take the place, and that of the file that is there."""
        with self._resolve_target.named_in_errors():
            self._finish()
            self._path.replace(self._resolve_target.path)
            self._is_there = False
        return self._resolve_target.target

    def move_in(self, name: str) -> Path:
        """Take the first name in the folder that is free: ``a.png``, ``a-1.png`` and so on."""
        folder, number = self._resolve_target.path, 0
        path = folder / name
        with self._resolve_target.named_in_errors():
            self._finish()
            while not _move_if_free(self._path, path):
                number += 1
                path = folder / f"{Path(name).stem}-{number}{Path(name).suffix}"
            self._is_there = False
        return path

    def _finish(self) -> None:
        """Have all of it on the disk, with owner and permissions, and close it."""
        file = self._file
        if file is None:
            return
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in _NO_FLUSH:
                raise
        # They matter less than the content, and some file systems have none.
        with contextlib.suppress(OSError):
            if sys.platform != "win32" and self._resolve_target.found is not None:
                os.chown(
                    self._path, self._resolve_target.found.st_uid, self._resolve_target.found.st_gid
                )
        with contextlib.suppress(OSError):
            if self._mode is not None:
                self._path.chmod(self._mode)
        self._file = None
        file.close()

    def discard(self) -> None:
        """Remove what has not taken its place."""
        file, self._file = self._file, None
        with contextlib.suppress(OSError):  # what ended the writing says more
            if file is not None:
                file.close()
        with contextlib.suppress(OSError):
            if self._is_there:
                self._path.unlink()
        self._is_there = False


def _move_if_free(path: Path, new: Path) -> bool:
    """Rename a file unless the name is taken."""
    try:
        new.hardlink_to(path)  # unlike a rename, it replaces nothing
    except FileExistsError:
        return False
    except OSError:  # not every file system has hard links
        return _reserve_and_move(path, new)
    path.unlink()
    return True


def _reserve_and_move(path: Path, new: Path) -> bool:
    try:
        new.open("xb").close()
    except FileExistsError:
        return False
    try:
        path.replace(new)
    except BaseException:
        new.unlink()
        raise
    return True
