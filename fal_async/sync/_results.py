"""Outputs on their way to code that blocks."""

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
    """A `Result` whose files are read and saved by calls that block.

    Example:
        >>> result = fal_async.sync.run("demo/echo", {"file": {"url": "data:,hello"}})
        >>> [file.read() for file in result.files()]
        [b'hello']
    """

    __slots__ = ("_portal",)

    _portal: Portal

    @classmethod
    def _from_async(cls, portal: Portal, result: Result) -> SyncResult:
        """What a portal has brought, as a result whose files come over it as well."""
        own = cls(result, **result._facts())
        own._dispatcher, own._portal = result._dispatcher, portal
        return own

    def files(self) -> list[SyncFile]:
        """The files of the output, wherever they stand in it; see `SyncFile`.

        A result that was copied or pickled fetches them with the module-level client.
        """
        from fal_async._files.file import files_in_output  # with pydantic, for those who want files
        from fal_async.sync._file import SyncFile

        files = files_in_output(self, SyncFile, self._dispatcher)
        return [file._bind_portal(getattr(self, "_portal", None)) for file in files]


def wrap_result(portal: Portal, value: T) -> T:
    """An output for code that blocks; a `Result` knows where its files come from."""
    if isinstance(value, Result):
        return cast(
            "T", SyncResult._from_async(portal, cast("Result", value))
        )  # see the types of `sync`
    return value
