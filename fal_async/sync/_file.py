# Generated from _files/downloads.py and _files/file.py by `python -m tests.generate_sync`. Do not
# edit: change the source and run that command.
"""Files in outputs, and their downloads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fal_async._core.annotations import set_module
from fal_async._files.downloads import Download
from fal_async.sync._file_base import SyncFileBase
from fal_async.sync._wrappers import SyncStreamBase

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from PIL.Image import Image

__all__ = ["SyncDownload", "SyncFile"]


@set_module("fal_async.sync")
class SyncDownload(SyncStreamBase[Download, bytes]):
    """The content of a file, chunk by chunk. Leaving ``with`` early closes the connection.

    Example:
        >>> file = fal_async.sync.SyncFile(url="data:,hello")
        >>> with file.iter_bytes() as chunks:
        ...     for chunk in chunks:
        ...         print(chunk)
        b'hello'
    """


@set_module("fal_async.sync")
class SyncFile(SyncFileBase):
    """A file in the output of an endpoint.

    Additional fields of the output are attributes. Downloads are resumed when the connection
    breaks, and follow redirects; they never send the account's key. A copy or a pickle uses the
    module-level client. In the arguments of another call, the file is sent as its URL.

    Attributes:
        url: An http, https or data URL.
        content_type: The media type, or ``None``.
        file_name: The name, or ``None``.
        file_size: The size in bytes as the endpoint states it, or ``None``. Downloads rely on the
            size that the server states.
        width: The width of an image or a video in pixels, or ``None``.
        height: The height of an image or a video in pixels, or ``None``.

    Example:
        >>> url = fal_async.sync.upload("hello", "text/plain", "hello.txt")
        >>> result = fal_async.sync.run("demo/echo", {"file": {"url": url}})
        >>> for file in result.files():
        ...     print(file.read())
        b'hello'
    """

    def iter_bytes(self, *, max_bytes: int | None = None) -> SyncDownload:
        """Iterate over the content chunk by chunk. Close the iterator if you stop early.

        Args:
            max_bytes: The maximum size in bytes. ``None`` accepts any size.

        Raises:
            FalClientHTTPError: The file does not exist, or this account may not read it.
            TransportError: The connection broke too often, or the file changed during the download.
            InvalidResponseError: The file is too large.
            InvalidRequestError: The URL is not supported.
        """
        return SyncDownload(self._portal, self._async.iter_bytes(max_bytes=max_bytes))

    def read(self, *, max_bytes: int | None = 512 * 1024 * 1024) -> bytes:
        """Read the whole content into memory; see `iter_bytes`.

        Args:
            max_bytes: The maximum size in bytes. ``None`` accepts any size.
        """
        return self._portal.call(self._async.read, max_bytes=max_bytes)

    def image(self, *, max_bytes: int | None = 512 * 1024 * 1024) -> Image:
        """Download an image and open it with Pillow (extra ``images``); see `iter_bytes`.

        Args:
            max_bytes: The maximum size in bytes. ``None`` accepts any size.

        Returns:
            The decoded image, as a ``PIL.Image.Image``.

        Raises:
            InvalidRequestError: Pillow is missing. Nothing was sent.
            InvalidResponseError: The file is not an image that Pillow can read.
        """
        return self._portal.call(self._async.image, max_bytes=max_bytes)

    def save(self, target: str | os.PathLike[str], *, max_bytes: int | None = None) -> Path:
        """Download the content to a file, which appears when it is complete; see `iter_bytes`.

        Args:
            target: The path of a file or of an existing folder. An existing file is replaced and
                keeps its permissions and owner; a symbolic link is followed. In a folder, the file
                gets its own name, with a number if a file of that name exists.
            max_bytes: The maximum size in bytes. ``None`` accepts any size.

        Returns:
            The path of the file.

        Raises:
            OSError: The file cannot be written. The error names the target, and an existing file
                keeps its content.
        """
        return self._portal.call(self._async.save, target, max_bytes=max_bytes)
