"""`SyncResult`: outputs of blocking calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

from fal_async._client.result import Result
from fal_async._core.annotations import set_module

if TYPE_CHECKING:
    from fal_async.sync._file import SyncFile
    from fal_async.sync._portal import Portal

__all__ = ["SyncResult", "wrap_result"]

T = TypeVar("T")


@set_module("fal_async.sync")
class SyncResult(Result["SyncFile"]):
    """A `Result` whose files are read and saved by blocking calls.

    Example:
        >>> result = fal_async.sync.run("demo/echo", {"file": {"url": "data:,hello"}})
        >>> [file.read() for file in result.files()]
        [b'hello']
    """

    __slots__ = ("_portal",)

    _portal: Portal  # downloads the files

    def files(self) -> list[SyncFile]:
        """Return all files in the output, at any depth; see `SyncFile`.

        The files of a copied or unpickled result are downloaded by the default client.
        """
        # These import pydantic, which outputs without files do not need.
        from fal_async._files.file import files_in_output
        from fal_async.sync._file import SyncFile

        files = files_in_output(self, SyncFile, self._dispatcher)
        return [file._bind_portal(getattr(self, "_portal", None)) for file in files]


def wrap_result(portal: Portal, value: T) -> T:
    """Return a `Result` as a `SyncResult`, and any other output unchanged."""
    if not isinstance(value, Result):
        return value
    result = cast("Result", value)
    wrapped = SyncResult.__new__(SyncResult)
    wrapped.update(result)
    for name in Result.__slots__:
        setattr(wrapped, name, getattr(result, name))
    wrapped._portal = portal
    # The annotations of blocking calls name `SyncResult` where those of async calls name `Result`.
    return cast("T", wrapped)
