"""File locks, which the system releases when their process ends."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FileLock"]


class FileLock:
    """An exclusive lock of a file, held until `release` or the end of the process.

    Args:
        path: The path of the file, which is created if necessary.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._pid = 0

    def acquire(self) -> bool:
        """Lock the file without waiting; return whether it was free.

        Raises:
            OSError: The file cannot be created.
        """
        descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
        try:
            if sys.platform == "win32":
                import msvcrt  # exists on Windows only

                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            else:
                import fcntl  # does not exist on Windows

                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        self._descriptor, self._pid = descriptor, os.getpid()
        return True

    def release(self) -> None:
        """Unlock and remove the file. Releasing it again does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                if self._pid == os.getpid():  # a forked process closes its copy, and no more
                    self._path.unlink()
            os.close(descriptor)
