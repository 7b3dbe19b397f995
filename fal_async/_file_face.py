"""What a blocking file is, beside what is generated of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from pydantic import PrivateAttr

from fal_async._files import File, FileFacts, Tie
from fal_async._portal import Portal

if TYPE_CHECKING:
    from fal_async._transport.perform import Performer

__all__ = ["FileFace"]


class FileFace(FileFacts):
    """A file whose calls go over the portal that its output came by."""

    _over: Tie[Portal] = PrivateAttr(default=Tie())

    def fetched_by(self, performer: Performer) -> Self:
        """Let a client's performer fetch it, on the loop of the call that is under way."""
        return super().fetched_by(performer).fetched_over(Portal.current())

    def fetched_over(self, portal: Portal | None) -> Self:
        """Let it be fetched over a portal; ``None`` is that of the module-level functions."""
        self._over = Tie(portal)
        return self

    @property
    def _portal(self) -> Portal:
        return self._over.value or _shared()[0]

    @property
    def _async(self) -> File:
        file = File(url=self.url, content_type=self.content_type, file_name=self.file_name)
        return file.fetched_by(self._performer.value or _shared()[1])


def _shared() -> tuple[Portal, Performer]:
    """What the module-level functions use, for files on their own."""
    from fal_async import sync  # the layer above

    client: Any = sync._client()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] -- theirs
    return client._portal, client._async._performer  # noqa: SLF001
