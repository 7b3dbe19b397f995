"""Atomic file writes.

The content is written to a hidden file in the folder of the target. The hidden file replaces the
target once all content is on the disk.
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
from fal_async._net.threads import ThreadResource
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    import io
    from collections.abc import AsyncIterator, Callable, Collection, Generator

__all__ = ["remove_hidden_files", "save", "write_file"]

#: How many bytes are buffer before they are written, each time in a thread.
WRITE_BUFFER_SIZE: Final = 512 * 1024
_SEPARATORS: Final = tuple(filter(None, (os.sep, os.altsep)))
#: File systems that cannot flush a file return one of these.
_NO_FLUSH: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.ENOSYS})


async def save(
    chunks: AsyncIterator[bytes],
    target: str | os.PathLike[str],
    name: Callable[[], str],
    owner: str = "",
) -> Path:
    """Write chunks to a file, which appears under its name when it is complete.

    An existing file keeps its content until then, and its permissions and owner. If the target is a
    symbolic link, the file that it refers to is replaced. Other hard links to that file keep the
    old content.

    Args:
        chunks: The content.
        target: The path of the file, which replaces an existing file; or of an existing folder, in
            which the file gets a name that is not in use.
        name: Returns the name of the file within a folder.
        owner: A part of the hidden file's name, by which `remove_hidden_files` knows it.

    Returns:
        The path of the file.

    Raises:
        OSError: The file cannot be written. The error names the target.
        InvalidRequestError: The target is not a valid path.
    """
    file = _NewFile(target, owner=owner)
    async with ThreadResource(file.discard) as resource:
        await resource.run(file.open)  # fails before anything is fetched
        buffer: list[bytes] = []
        size = 0
        async for chunk in chunks:
            buffer.append(chunk)
            size += len(chunk)
            if size >= WRITE_BUFFER_SIZE:
                await resource.run(partial(file.write, b"".join(buffer)))
                buffer, size = [], 0

        def finish() -> Path:
            file.write(b"".join(buffer))
            return file.move_in(name()) if file.is_in_folder else file.replace()

        path = await resource.run(finish)  # one step, since a small file costs little but threads
        resource.release()
        return path


def write_file(path: Path, content: bytes | memoryview, *, mode: int | None = None) -> None:
    """Replace a file atomically. This function blocks.

    Args:
        path: The path of the file.
        content: The new content.
        mode: The permissions of the file; ``None`` keeps those of an existing file, or uses those
            of new files.

    Raises:
        OSError: The file cannot be written.
    """
    file = _NewFile(path, mode)
    try:
        file.open()
        file.write(content)
        file.replace()
    finally:
        file.discard()


def remove_hidden_files(folder: Path, owners: Collection[str]) -> None:
    """Remove the hidden files that processes have left in a folder when they were killed.

    Args:
        folder: The folder. Without it, there is nothing to remove.
        owners: The owners of the files; all of the same length.
    """
    length = len(next(iter(owners), ""))
    with contextlib.suppress(OSError):  # they take space, and do no other harm
        for path in folder.glob(".*.part"):
            if path.name[1 : length + 1] in owners:
                path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _Target:
    """The file or folder that a target refers to.

    Attributes:
        given: The target, as the caller gave it.
        path: The target without symbolic links.
        is_file: Whether the target is a file, existing or not, and not a folder.
        found: The status of the existing file; ``None`` if there is none.
    """

    given: Path
    path: Path
    is_file: bool
    found: os.stat_result | None

    @contextlib.contextmanager
    def named_in_errors(self) -> Generator[None]:
        """Raise errors that name the target instead of the hidden file."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), str(self.given)) from error


def _resolve_target(target: str | os.PathLike[str]) -> _Target:
    text = _path_text(target)
    path = Path(text)
    try:
        found = os.stat(text)  # noqa: PTH116 -- a Path has no slash at its end
    except FileNotFoundError:
        if text.endswith(_SEPARATORS):
            raise FileNotFoundError(errno.ENOENT, "no such folder", text) from None
        return _Target(path, path.resolve(), is_file=True, found=None)
    if stat.S_ISDIR(found.st_mode):
        return _Target(path, path, is_file=False, found=None)
    if not stat.S_ISREG(found.st_mode):
        raise FileExistsError(errno.EEXIST, "no regular file, so it is not replaced", text)
    if not os.access(text, os.W_OK):
        raise PermissionError(errno.EACCES, "the file is read-only, so it is not replaced", text)
    return _Target(path, path.resolve(), is_file=True, found=found)


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
    """A hidden file that will replace its target. Its methods block.

    Args:
        target: The target.
        mode: The permissions; ``None`` keeps those of the file that it replaces, or uses those of
            new files.
        owner: A part of its name.
    """

    def __init__(
        self, target: str | os.PathLike[str], mode: int | None = None, *, owner: str = ""
    ) -> None:
        self._given = target
        self._mode = mode
        self._owner = owner
        self._file: io.FileIO | None = None
        self._exists = False

    @property
    def is_in_folder(self) -> bool:
        """Whether the target is a folder."""
        return not self._target.is_file

    def open(self) -> None:
        """Create the file with the permissions of the file that it replaces."""
        self._target = target = _resolve_target(self._given)
        folder = target.path.parent if target.is_file else target.path
        self._path = folder / f".{self._owner}{uuid.uuid4().hex}.part"
        if self._mode is None and target.found is not None:
            self._mode = target.found.st_mode & 0o777
        mode = 0o666 if self._mode is None else self._mode

        def create(path: str, flags: int) -> int:
            return os.open(path, flags, mode)

        with self._target.named_in_errors():
            # No buffer: one that could not be written is tried again when the file is closed.
            self._file = open(self._path, "xb", buffering=0, opener=create)  # noqa: SIM115 -- closed by `discard`
            self._exists = True

    def write(self, content: bytes | memoryview) -> None:
        """Write all of it."""
        rest = memoryview(content)
        with self._target.named_in_errors():
            while rest and self._file is not None:
                rest = rest[self._file.write(rest) :]

    def replace(self) -> Path:
        """Replace the target, whether it exists or not."""
        with self._target.named_in_errors():
            self._finish()
            self._path.replace(self._target.path)
            self._exists = False
        return self._target.given

    def move_in(self, name: str) -> Path:
        """Take the first name in the folder that is free: ``a.png``, ``a-1.png`` and so on."""
        folder, number = self._target.path, 0
        path = folder / name
        with self._target.named_in_errors():
            self._finish()
            while not _move_if_free(self._path, path):
                number += 1
                path = folder / f"{Path(name).stem}-{number}{Path(name).suffix}"
            self._exists = False
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
            if sys.platform != "win32" and self._target.found is not None:
                os.chown(self._path, self._target.found.st_uid, self._target.found.st_gid)
        with contextlib.suppress(OSError):
            if self._mode is not None:
                self._path.chmod(self._mode)
        self._file = None
        file.close()

    def discard(self) -> None:
        """Remove the hidden file, unless it has replaced its target."""
        file, self._file = self._file, None
        with contextlib.suppress(OSError):  # what ended the writing says more
            if file is not None:
                file.close()
        with contextlib.suppress(OSError):
            if self._exists:
                self._path.unlink()
        self._exists = False


def _move_if_free(path: Path, new: Path) -> bool:
    """Rename a file unless the name is taken."""
    try:
        new.hardlink_to(path)  # unlike a rename, it replaces nothing
    except FileExistsError:
        return False
    except OSError:  # not every file system has hard links, so an empty file reserves the name
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
    path.unlink()
    return True
