# Generated from _files/downloads.py and _files/file.py by `python -m tests.generate_sync`. Do not
# edit: change the source and run that command.
"""Files in outputs, and their downloads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fal_async._files.downloads import Download
from fal_async.sync._file_base import SyncFileBase
from fal_async.sync._wrappers import SyncStreamBase

if TYPE_CHECKING:
    import os
    from pathlib import Path


__all__ = ["SyncDownload", "SyncFile"]


class SyncDownload(SyncStreamBase[Download, bytes]):
    """The bytes of a file, chunk by chunk. Leaving ``with`` early closes the connection.

    Example:
        >>> file = fal_async.sync.SyncFile(url="data:,hello")
        >>> with file.iter_bytes() as chunks:
        ...     for chunk in chunks:
        ...         print(chunk)
        b'hello'
    """


class SyncFile(SyncFileBase):
    """A file that a model has made.

    What it says besides is kept as attributes. Downloads are resumed when the connection breaks,
    and redirects are followed; the account's key is sent to nobody. A copy or pickle of it is
    fetched with the module-level client. As an argument of another call it is sent as its URL.

    Attributes:
        url: Where it is: an http, https or data URL.
        content_type: Its media type, or ``None``.
        file_name: Its name, or ``None``.
        file_size: Its size in bytes as the model says, or ``None``; a download goes by the size
            that the server says.
        width: The width of a picture or video in pixels, or ``None``.
        height: The height of a picture or video in pixels, or ``None``.

    Example:
        >>> url = fal_async.sync.upload("hello", "text/plain", "hello.txt")
        >>> result = fal_async.sync.run("demo/echo", {"file": {"url": url}})
        >>> for file in result.files():
        ...     print(file.read())
        b'hello'
    """

    def iter_bytes(self, *, max_bytes: int | None = None) -> SyncDownload:
        """The content, chunk by chunk: an async iterator, to be closed when it is left early.

        Args:
            max_bytes: The largest size that is accepted, in bytes; ``None`` for any.

        Raises:
            FalClientHTTPError: There is no such file, or it is not for this account.
            TransportError: The connection broke too often, or the file changed meanwhile.
            InvalidResponseError: The file is too large.
            InvalidRequestError: The URL cannot be downloaded.
        """
        return SyncDownload(self._portal, self._async.iter_bytes(max_bytes=max_bytes))

    def read(self, *, max_bytes: int | None = 512 * 1024 * 1024) -> bytes:
        """The whole content; see `iter_bytes`.

        Args:
            max_bytes: The largest size that is accepted, in bytes; ``None`` for any.
        """
        return self._portal.call(self._async.read, max_bytes=max_bytes)

    def save(self, target: str | os.PathLike[str], *, max_bytes: int | None = None) -> Path:
        """Write the content to a file, which appears when it is whole; see `iter_bytes`.

        Args:
            target: The path of the file, which replaces one that is there but keeps its
                permissions and owner; a symbolic link is followed. Or a folder that is there, in
                which the file gets its own name, or one like it that is free.
            max_bytes: The largest size that is accepted, in bytes; ``None`` for any.

        Returns:
            The path of the file.

        Raises:
            OSError: The file cannot be written. The error names the target, and what was there is
                as it was.
        """
        return self._portal.call(self._async.save, target, max_bytes=max_bytes)
