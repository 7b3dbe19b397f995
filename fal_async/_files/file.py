"""Files in results: what an output says of them, and how they are fetched."""

from __future__ import annotations

import mimetypes
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self, TypeVar, cast

from pydantic import BaseModel, ConfigDict

from fal_async._core.annotations import set_module
from fal_async._core.references import FileReference
from fal_async._dispatch.binding import default_dispatcher
from fal_async._files.downloads import Download, suggested_name_of
from fal_async._net.files import save
from fal_async._protocol.downloads import decode_data_url, file_name, find_file_objects, is_data_url

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from pydantic import PrivateAttr

    from fal_async._dispatch.dispatcher import Dispatcher

__all__ = ["File", "FileBase", "bind_files", "download_to", "files_in_output"]

FileT = TypeVar("FileT", bound="FileBase")

#: The largest file that is read into memory if nothing else is said, in bytes.
MAX_READ: Final = 512 * 1024 * 1024


class FileBase(BaseModel, FileReference):
    """The data of a file, for both APIs.

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
        """Download the file by a client's dispatcher."""
        self._dispatcher = dispatcher
        return self


@set_module("fal_async")
class File(FileBase):
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
        >>> async def main() -> None:
        ...     url = await fal_async.upload("hello", "text/plain", "hello.txt")
        ...     result = await fal_async.run("demo/echo", {"file": {"url": url}})
        ...     for file in result.files():
        ...         print(await file.read())
        >>> anyio.run(main)
        b'hello'
    """

    def iter_bytes(self, *, max_bytes: int | None = None) -> Download:
        """The content, chunk by chunk: an async iterator, to be closed when it is left early.

        Args:
            max_bytes: The largest size that is accepted, in bytes; ``None`` for any.

        Raises:
            FalClientHTTPError: There is no such file, or it is not for this account.
            TransportError: The connection broke too often, or the file changed meanwhile.
            InvalidResponseError: The file is too large.
            InvalidRequestError: The URL cannot be downloaded.
        """
        return Download(self._bound(), self.url, max_bytes)

    async def read(self, *, max_bytes: int | None = MAX_READ) -> bytes:
        """The whole content; see `iter_bytes`.

        Args:
            max_bytes: The largest size that is accepted, in bytes; ``None`` for any.
        """
        async with self.iter_bytes(max_bytes=max_bytes) as chunks:
            return b"".join([chunk async for chunk in chunks])

    async def save(self, target: str | os.PathLike[str], *, max_bytes: int | None = None) -> Path:
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
    named: str | None = None,
    content_type: str | None = None,
) -> Path:
    """Download a file to a path or into a folder, where it gets the name that it has."""

    def name() -> str:
        kind = content_type or (decode_data_url(url)[0] if is_data_url(url) else "")
        return file_name(
            url, named or suggested_name_of(chunks), mimetypes.guess_extension(kind) or ""
        )

    async with Download(dispatcher, url, max_bytes) as chunks:
        return await save(chunks, target, name)


def files_in_output(output: object, kind: type[FileT], dispatcher: object) -> list[FileT]:
    """The files in an output, bound to the client that it came by."""
    known = cast("Dispatcher | None", dispatcher)
    files = [_file(found, kind) for found in find_file_objects(output)]
    return files if known is None else [file._bind(known) for file in files]


def bind_files(value: object, dispatcher: Dispatcher) -> None:
    """Let the files in a checked output be fetched by the client that it came by."""
    if isinstance(value, FileBase):
        value._bind(dispatcher)
    elif isinstance(value, BaseModel):
        for _, item in value:
            bind_files(item, dispatcher)
    elif isinstance(value, list | tuple | dict):
        inside = cast("dict[object, object] | list[object]", value)
        for item in inside.values() if isinstance(inside, dict) else inside:
            bind_files(item, dispatcher)


def _file(found: dict[str, Any], kind: type[FileT]) -> FileT:
    """What is not as it should be is left out: the file is there all the same."""
    numbers = {"file_size", "width", "height"}
    texts = {"content_type", "file_name"}
    said = {
        name: value
        for name, value in found.items()
        if not (name in numbers and type(value) is not int)
        and not (name in texts and not isinstance(value, str))
    }
    return kind.model_validate(said)
