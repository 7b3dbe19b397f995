"""What tests and runners do with the files of an emulator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fal_async.emulator._files import Label

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fal_async.emulator._files import StoredFile
    from fal_async.emulator._platform import Platform

__all__ = ["FileKeeper"]


class FileKeeper:
    """The part of an `Emulator` that keeps files."""

    _platform: Platform

    @property
    def url(self) -> str:
        """The origin of the emulator."""
        raise NotImplementedError

    @property
    def files(self) -> Mapping[str, StoredFile]:
        """The files on the CDN by URL, oldest first."""
        return self._platform.files.snapshot()

    def store(
        self,
        content: bytes,
        content_type: str,
        file_name: str | None = None,
        *,
        lifecycle: Mapping[str, Any] | None = None,
    ) -> str:
        """Put a file on the CDN, as runners do with what they produce; gives its URL.

        Args:
            content: Its bytes.
            content_type: Its media type.
            file_name: Its name; ``None`` for any.
            lifecycle: How long it lives and who may read it, in the platform's JSON; ``None`` for
                ever and for everyone.
        """
        label = Label(content_type=content_type, file_name=file_name, lifecycle=lifecycle or {})
        key = self._platform.files.expect(f"{self.url}/cdn", label)
        return self._platform.files.keep(key, content).url

    def cdn_token(self, user: str) -> str:
        """A token with which somebody else than the account reads files, for rules about users."""
        return self._platform.files.mint(user)
