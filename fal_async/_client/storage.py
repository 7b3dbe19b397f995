"""Storage calls: `upload`, `upload_file`, `upload_image`, `download`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from fal_async._files.images import image_bytes, image_type
from fal_async._net.threads import run_in_thread

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from fal_async._dispatch.dispatcher import Dispatcher
    from fal_async._files.images import Picture
    from fal_async._files.uploads import FileUpload
    from fal_async.types import AsyncFile, Repository, StorageSettings

__all__ = ["StorageMixin"]


class StorageMixin:
    """The storage calls of `AsyncClient`."""

    _dispatcher: Dispatcher

    async def upload(
        self,
        data: str
        | bytes
        | bytearray
        | memoryview
        | os.PathLike[str]
        | BinaryIO
        | AsyncFile
        | Iterable[bytes]
        | AsyncIterable[bytes],
        content_type: str,
        file_name: str | None = None,
        *,
        repository: Repository | None = None,
        fallback_repository: Repository | Sequence[Repository] | None = None,
        lifecycle: StorageSettings | None = None,
        on_progress: Callable[[int, int | None], Awaitable[None] | None] | None = None,
    ) -> str:
        """Upload data and return its URL.

        Large data is uploaded in parts, several at once, and each part is retried on its own. The
        parts of an iterator are kept in memory until they are sent; the client's `Limits` bound
        the memory of all uploads together.

        Args:
            data: Text, which is encoded in UTF-8, bytes, a path, a file opened in binary mode,
                which is read from its current position, or an iterator of bytes. Files and
                iterators may be sync or async.
            content_type: The media type of the data, such as ``"image/png"``.
            file_name: The last part of the URL. ``None`` lets the platform choose it.
            repository: The repository of the file. ``None`` selects ``"fal_v3"``, the CDN.
            fallback_repository: The repository to use if the first one fails for another reason
                than the key. ``None`` selects ``"fal"``; an empty list disables the fallback.
            lifecycle: The expiry and the access rules. ``None`` uses the platform's defaults: the
                file is kept for long, and everyone who knows the URL can read it.
            on_progress: Called with the number of bytes sent and the size in bytes, which is
                ``None`` for an iterator; sync or async.

        Raises:
            FalClientHTTPError: The platform rejected a request. A note states how many bytes had
                been uploaded.
            TransportError: The platform could not be reached.
            UploadError: The file changed during the upload, or could not be read.
            InvalidRequestError: An argument is invalid; nothing was sent.

        Example:
            >>> async def main() -> None:
            ...     url = await fal_async.upload("hello", "text/plain", "hello.txt")
            ...     print(url)
            >>> anyio.run(main)  # doctest: +ELLIPSIS
            http.../hello.txt
        """
        from fal_async._files.sources import open_source  # most programs do without

        file_upload = self._file_upload(
            content_type, file_name, repository, fallback_repository, lifecycle, on_progress
        )
        async with await open_source(data) as source:
            return await file_upload.send(source)

    async def upload_file(
        self,
        path: str | os.PathLike[str],
        *,
        repository: Repository | None = None,
        fallback_repository: Repository | Sequence[Repository] | None = None,
        lifecycle: StorageSettings | None = None,
        on_progress: Callable[[int, int | None], Awaitable[None] | None] | None = None,
    ) -> str:
        """Upload a file of this machine and return its URL; see `upload`.

        The name of the file determines the media type. The file is read in chunks, so that it may
        be larger than the memory.

        Args:
            path: The path of the file.
            repository: The repository of the file. ``None`` selects ``"fal_v3"``, the CDN.
            fallback_repository: The repository to use if the first one fails for another reason
                than the key. ``None`` selects ``"fal"``; an empty list disables the fallback.
            lifecycle: The expiry and the access rules. ``None`` uses the platform's defaults.
            on_progress: Called with the number of bytes sent and the size in bytes; sync or async.

        Raises:
            OSError: The file cannot be opened.
            InvalidRequestError: The path is not that of a regular file, or an argument is invalid;
                nothing was sent.
            UploadError: The file changed during the upload, or could not be read.
            FalClientHTTPError: The platform rejected a request. A note states how many bytes had
                been uploaded.
            TransportError: The platform could not be reached.
        """
        from fal_async._files.encode import file_name, media_type  # most programs do without
        from fal_async._files.sources import PathSource

        name = file_name(path)
        content_type = await run_in_thread(partial(media_type, name))
        file_upload = self._file_upload(
            content_type, name, repository, fallback_repository, lifecycle, on_progress
        )
        async with PathSource(path) as source:
            return await file_upload.send(source)

    async def upload_image(
        self,
        image: Picture,
        format: str = "jpeg",  # noqa: A002 -- the official client's name
        file_name: str | None = None,
        *,
        repository: Repository | None = None,
        fallback_repository: Repository | Sequence[Repository] | None = None,
        lifecycle: StorageSettings | None = None,
        on_progress: Callable[[int, int | None], Awaitable[None] | None] | None = None,
    ) -> str:
        """Upload a Pillow image or a NumPy array and return its URL; see `upload`.

        Args:
            image: The image. An array has the dimensions height, width and channels, and contains
                whole numbers from 0 to 255 or fractions from 0 to 1.
            format: A format that Pillow writes, such as ``"png"``. JPEG drops transparency.
            file_name: The last part of the URL. ``None`` lets the platform choose it.
            repository: The repository of the file. ``None`` selects ``"fal_v3"``, the CDN.
            fallback_repository: The repository to use if the first one fails for another reason
                than the key. ``None`` selects ``"fal"``; an empty list disables the fallback.
            lifecycle: The expiry and the access rules. ``None`` uses the platform's defaults.
            on_progress: Called with the number of bytes sent and the size in bytes; sync or async.

        Raises:
            InvalidRequestError: The image cannot be encoded in this format; nothing was sent.
            FalClientHTTPError: The platform rejected a request.
            TransportError: The platform could not be reached.
        """
        return await self.upload(
            await run_in_thread(partial(image_bytes, image, format)),
            image_type(format),
            file_name,
            repository=repository,
            fallback_repository=fallback_repository,
            lifecycle=lifecycle,
            on_progress=on_progress,
        )

    async def download(
        self, url: str, path: str | os.PathLike[str], *, max_bytes: int | None = None
    ) -> Path:
        """Download a file, which appears when it is complete.

        The download is resumed when the connection breaks. It never sends the account's key; a
        private file on the platform's CDN is requested with a token.

        Args:
            url: An http, https or data URL.
            path: The path of a file or of an existing folder. An existing file is replaced and
                keeps its permissions and owner; a symbolic link is followed. In a folder, the file
                gets the name that the server suggests, or the one in its URL, with a number if a
                file of that name exists.
            max_bytes: The maximum size in bytes. ``None`` accepts any size.

        Returns:
            The path of the file.

        Raises:
            FalClientHTTPError: The file does not exist, or this account may not read it.
            TransportError: The connection broke too often, or the file changed during the download.
            InvalidResponseError: The file is too large.
            InvalidRequestError: The URL is not supported.
            OSError: The file cannot be written. The error names the path, and an existing file
                keeps its content.
        """
        from fal_async._files.file import download_to  # imports pydantic

        return await download_to(self._dispatcher, url, path, max_bytes)

    def _file_upload(
        self,
        content_type: str,
        file_name: str | None,
        repository: Repository | None,
        fallback_repository: Repository | Sequence[Repository] | None,
        lifecycle: StorageSettings | None,
        on_progress: Callable[[int, int | None], Awaitable[None] | None] | None,
    ) -> FileUpload:
        # Most programs upload no files by themselves.
        from fal_async._files.uploads import FileUpload
        from fal_async._protocol.uploads import FileMetadata, lifecycle_headers, repositories

        metadata = FileMetadata(
            content_type=content_type,
            file_name=file_name,
            lifecycle=lifecycle_headers(lifecycle),
        )
        return FileUpload(
            self._dispatcher,
            metadata,
            repositories(repository, fallback_repository),
            on_progress,
        )
