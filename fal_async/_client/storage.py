"""Storage calls: files that are uploaded, and what they are then known by."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from fal_async._files.encode import file_name, media_type
from fal_async._files.images import image_bytes, image_type
from fal_async._files.sources import PathSource, open_source
from fal_async._files.uploads import FileUpload
from fal_async._net.threads import run_in_thread
from fal_async._protocol.uploads import FileMetadata, lifecycle_headers, repositories

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from fal_async._dispatch.dispatcher import Dispatcher
    from fal_async._files.images import Picture
    from fal_async.types import AsyncFile, Repository, StorageSettings

__all__ = ["StorageMixin"]


class StorageMixin:
    """The calls about files."""

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

        Large data goes up in parts, side by side, each of which is tried again on its own. What can
        only be read once is held in memory part by part; how much all uploads hold together is
        bounded by the client's `Limits`.

        Args:
            data: What to upload: text (in UTF-8), bytes, a path, a file that is open in binary
                mode, sync or async, from where it stands on, or an iterator, sync or async, of
                bytes.
            content_type: Its media type, such as ``"image/png"``.
            file_name: The name that the URL ends with; ``None`` leaves it to the platform.
            repository: Where it is kept; ``None`` is ``"fal_v3"``, the CDN.
            fallback_repository: Where it is kept if that fails for another reason than the key;
                ``None`` is ``"fal"``, and an empty list is nowhere.
            lifecycle: How long it lives and who may read it; ``None`` leaves it to the platform:
                for long, and everyone who knows the URL.
            on_progress: Called with the number of bytes sent and of all bytes, which is ``None``
                for an iterator; sync or async.

        Raises:
            FalClientHTTPError: The platform refused; a note says how far the upload had come.
            TransportError: The platform could not be reached.
            UploadError: The file changed while it was read, or could not be read.
            InvalidRequestError: An argument is wrong; nothing was sent.

        Example:
            >>> async def main() -> None:
            ...     url = await fal_async.upload("hello", "text/plain", "hello.txt")
            ...     print(url)
            >>> anyio.run(main)  # doctest: +ELLIPSIS
            http.../hello.txt
        """
        transfer = FileUpload(
            self._dispatcher,
            _label(content_type, file_name, lifecycle),
            repositories(repository, fallback_repository),
            on_progress,
        )
        async with await open_source(data) as source:
            return await transfer.send(source)

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

        The media type is the one that its name tells. The file is never in memory as a whole.

        Args:
            path: Where the file is.
            repository: Where it is kept; ``None`` is ``"fal_v3"``, the CDN.
            fallback_repository: Where it is kept if that fails for another reason than the key;
                ``None`` is ``"fal"``, and an empty list is nowhere.
            lifecycle: How long it lives and who may read it; ``None`` leaves it to the platform.
            on_progress: Called with the number of bytes sent and of all bytes; sync or async.

        Raises:
            OSError: The file cannot be opened.
            InvalidRequestError: It is no regular file, or an argument is wrong; nothing was sent.
            UploadError: The file changed while it was read, or could not be read.
            FalClientHTTPError: The platform refused; a note says how far the upload had come.
            TransportError: The platform could not be reached.
        """
        name = file_name(path)
        content_type = await run_in_thread(partial(media_type, name))
        transfer = FileUpload(
            self._dispatcher,
            _label(content_type, name, lifecycle),
            repositories(repository, fallback_repository),
            on_progress,
        )
        async with PathSource(path) as source:
            return await transfer.send(source)

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
        """Upload an image of Pillow, or an array of NumPy, and return its URL; see `upload`.

        Args:
            image: The image. An array has height, width and channels, and numbers from 0 to 255, or
                fractions from 0 to 1.
            format: A format that Pillow writes, such as ``"png"``; JPEG drops transparency.
            file_name: The name that the URL ends with; ``None`` leaves it to the platform.
            repository: Where it is kept; ``None`` is ``"fal_v3"``, the CDN.
            fallback_repository: Where it is kept if that fails for another reason than the key;
                ``None`` is ``"fal"``, and an empty list is nowhere.
            lifecycle: How long it lives and who may read it; ``None`` leaves it to the platform.
            on_progress: Called with the number of bytes sent and of all bytes; sync or async.

        Raises:
            InvalidRequestError: The image cannot be written so; nothing was sent.
            FalClientHTTPError: The platform refused.
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
        """Download a file, which appears when it is whole.

        The download is resumed when the connection breaks. The account's key is sent to nobody; a
        private file on the platform's CDN is asked for with a token.

        Args:
            url: Where the file is: an http, https or data URL.
            path: The path of the file, which replaces one that is there but keeps its permissions
                and owner; a symbolic link is followed. Or a folder that is there, in which the file
                gets the name that the server suggests or that is in its URL, or one like it that is
                free.
            max_bytes: The largest size that is accepted, in bytes; ``None`` for any.

        Returns:
            The path of the file.

        Raises:
            FalClientHTTPError: There is no such file, or it is not for this account.
            TransportError: The connection broke too often, or the file changed meanwhile.
            InvalidResponseError: The file is too large.
            InvalidRequestError: The URL cannot be downloaded.
            OSError: The file cannot be written. The error names the path, and what was there is as
                it was.
        """
        from fal_async._files.file import download_to  # with pydantic, for those who want files

        return await download_to(self._dispatcher, url, path, max_bytes)


def _label(
    content_type: str, file_name: str | None, lifecycle: StorageSettings | None
) -> FileMetadata:
    return FileMetadata(
        content_type=content_type, file_name=file_name, lifecycle=lifecycle_headers(lifecycle)
    )
