"""`File`: a file in an output."""

from __future__ import annotations

import mimetypes
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final, Self, TypeVar, cast

from pydantic import BaseModel, ConfigDict

from fal_async._core.annotations import set_module
from fal_async._dispatch.binding import default_dispatcher
from fal_async._files.downloads import Download
from fal_async._files.images import check_pillow, open_image
from fal_async._net.files import save
from fal_async._net.threads import Work, run_in_thread
from fal_async._protocol.downloads import decode_data_url, file_name, find_file_objects, is_data_url
from fal_async._protocol.serialization import FileReference

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from pathlib import Path

    from PIL.Image import Image
    from pydantic import PrivateAttr

    from fal_async._dispatch.dispatcher import Dispatcher

__all__ = ["File", "FileBase", "bind_files", "download_to", "files_in_output"]

FileT = TypeVar("FileT", bound="FileBase")

#: The default of the largest file that is read into memory, in bytes.
MAX_READ: Final = 512 * 1024 * 1024
#: The types of known fields in outputs.
_FIELD_TYPES: Final[Mapping[str, type]] = {
    "content_type": str,
    "file_name": str,
    "file_size": int,
    "width": int,
    "height": int,
}


class FileBase(BaseModel, FileReference):
    """The fields of a file in an output, for both APIs.

    The dispatcher that downloads the file is kept in a slot, which is neither compared nor copied.
    """

    __slots__ = ("_dispatcher",)

    if TYPE_CHECKING:
        _dispatcher: Dispatcher = PrivateAttr()

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="allow")

    url: str
    content_type: str | None = None
    file_name: str | None = None
    file_size: int | None = None
    width: int | None = None
    height: int | None = None

    def _bind(self, dispatcher: Dispatcher) -> Self:
        """Download the file with a client's dispatcher from now on."""
        self._dispatcher = dispatcher
        return self

    def _repr_html_(self) -> str:
        from fal_async._core.notebook import file_html  # only notebooks call this

        return file_html(self.url, self.content_type, self.file_name, self.file_size)


@set_module("fal_async")
class File(FileBase):
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
        >>> async def main() -> None:
        ...     url = await fal_async.upload("hello", "text/plain", "hello.txt")
        ...     result = await fal_async.run("demo/echo", {"file": {"url": url}})
        ...     for file in result.files():
        ...         print(await file.read())
        >>> anyio.run(main)
        b'hello'
    """

    def iter_bytes(self, *, max_bytes: int | None = None) -> Download:
        """Iterate over the content chunk by chunk. Close the iterator if you stop early.

        Args:
            max_bytes: The maximum size in bytes. ``None`` accepts any size.

        Raises:
            FalClientHTTPError: The file does not exist, or this account may not read it.
            TransportError: The connection broke too often, or the file changed during the download.
            InvalidResponseError: The file is too large.
            InvalidRequestError: The URL is not supported.
        """
        return Download(self._bound(), self.url, max_bytes)

    async def read(self, *, max_bytes: int | None = MAX_READ) -> bytes:
        """Read the whole content into memory; see `iter_bytes`.

        Args:
            max_bytes: The maximum size in bytes. ``None`` accepts any size.
        """
        async with self.iter_bytes(max_bytes=max_bytes) as chunks:
            return b"".join([chunk async for chunk in chunks])

    async def image(self, *, max_bytes: int | None = MAX_READ) -> Image:
        """Download an image and open it with Pillow (extra ``images``); see `iter_bytes`.

        Args:
            max_bytes: The maximum size in bytes. ``None`` accepts any size.

        Returns:
            The decoded image, as a ``PIL.Image.Image``.

        Raises:
            InvalidRequestError: Pillow is missing. Nothing was sent.
            InvalidResponseError: The file is not an image that Pillow can read.
        """
        check_pillow()
        content = await self.read(max_bytes=max_bytes)
        return await run_in_thread(partial(open_image, content), Work.DECODING)

    async def save(self, target: str | os.PathLike[str], *, max_bytes: int | None = None) -> Path:
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
        return await download_to(
            self._bound(), self.url, target, max_bytes, self.file_name, self.content_type
        )

    def _bound(self) -> Dispatcher:
        return self._dispatcher if hasattr(self, "_dispatcher") else default_dispatcher()


async def download_to(
    dispatcher: Dispatcher,
    url: str,
    target: str | os.PathLike[str],
    max_bytes: int | None = None,
    name: str | None = None,
    content_type: str | None = None,
    owner: str = "",
) -> Path:
    """Download a file to a path or into a folder.

    Args:
        dispatcher: Executes the requests.
        url: An http, https or data URL.
        target: The path of the file or of the folder.
        max_bytes: The maximum size in bytes. ``None`` accepts any size.
        name: The name of the file within a folder. ``None`` uses the one that the server suggests,
            or the one in the URL.
        content_type: The media type, which determines the suffix of a name without one. ``None`` if
            it is unknown.
        owner: A part of the name that the file has until it is complete.
    """

    def select_name() -> str:
        kind = content_type or (decode_data_url(url)[0] if is_data_url(url) else "")
        suffix = mimetypes.guess_extension(kind) or ""
        return file_name(url, name or chunks._suggested_name, suffix)

    async with Download(dispatcher, url, max_bytes) as chunks:
        return await save(chunks, target, select_name, owner)


def files_in_output(output: object, kind: type[FileT], dispatcher: object) -> list[FileT]:
    """Find the files in an output and bind them to a client.

    Fields of an unexpected type are omitted, so that the file is usable nevertheless.

    Args:
        output: The output.
        kind: The class of the files.
        dispatcher: The dispatcher of the client, or ``None``.
    """
    known = cast("Dispatcher | None", dispatcher)
    files = [
        kind.model_validate(
            {
                name: value
                for name, value in found.items()
                if name not in _FIELD_TYPES or type(value) is _FIELD_TYPES[name]
            }
        )
        for found in find_file_objects(output)
    ]
    return files if known is None else [file._bind(known) for file in files]


def bind_files(value: object, dispatcher: Dispatcher) -> None:
    """Bind the files in a validated output to a client."""
    if isinstance(value, FileBase):
        value._bind(dispatcher)
    elif isinstance(value, BaseModel):
        for _, item in value:
            bind_files(item, dispatcher)
    elif isinstance(value, list | tuple | dict):
        items = cast("dict[object, object] | list[object]", value)
        for item in items.values() if isinstance(items, dict) else items:
            bind_files(item, dispatcher)
