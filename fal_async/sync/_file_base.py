"""Base class of `SyncFile`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from fal_async._files.file import File, FileBase
from fal_async.sync._default import default_client
from fal_async.sync._portal import Portal

if TYPE_CHECKING:
    from pydantic import PrivateAttr

    from fal_async._dispatch.dispatcher import Dispatcher

__all__ = ["SyncFileBase"]


class SyncFileBase(FileBase):
    """A file that is downloaded over the portal of its client."""

    __slots__ = ("_bound_portal",)

    if TYPE_CHECKING:
        _bound_portal: Portal | None = PrivateAttr()

    def _bind(self, dispatcher: Dispatcher) -> Self:
        """Bind the file to a client's dispatcher and to the portal of the current call."""
        return super()._bind(dispatcher)._bind_portal(Portal.current())

    def _bind_portal(self, portal: Portal | None) -> Self:
        """Bind the file to a portal; ``None`` is the portal of the default client."""
        self._bound_portal = portal
        return self

    @property
    def _portal(self) -> Portal:
        return getattr(self, "_bound_portal", None) or default_client()._portal

    @property
    def _async(self) -> File:
        file = File(url=self.url, content_type=self.content_type, file_name=self.file_name)
        return file._bind(getattr(self, "_dispatcher", None) or default_client()._async._dispatcher)
