"""Errors of journals and batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fal_async._core.annotations import set_module
from fal_async.errors import FalClientError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "BatchStoppedError",
    "ChangedInputError",
    "JournalDamagedError",
    "JournalError",
    "JournalInUseError",
    "JournalTooNewError",
]


@set_module("fal_async.batch")
class JournalError(FalClientError):
    """The journal cannot be opened, read or written. Nothing was sent that it does not record."""


@set_module("fal_async.batch")
class JournalInUseError(JournalError):
    """Another process has opened the journal for itself."""


@set_module("fal_async.batch")
class JournalDamagedError(JournalError):
    """The file is damaged, or is not a journal. It was not changed."""


@set_module("fal_async.batch")
class JournalTooNewError(JournalError):
    """A newer version of the library wrote the journal. It was not changed."""


@set_module("fal_async.batch")
class ChangedInputError(FalClientError, ValueError):
    """Inputs have other contents under the same keys than the journal has recorded.

    Attributes:
        keys: The keys, ten at most.
    """

    started: bool | None = False

    def __init__(self, message: str, keys: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.keys: tuple[str, ...] = tuple(keys)


@set_module("fal_async.batch")
class BatchStoppedError(FalClientError):
    """Too many jobs failed, so the batch has started no more. Running jobs were collected."""
