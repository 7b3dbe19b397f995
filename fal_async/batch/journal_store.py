"""`JournalStore`: the interface of the databases that journals are kept in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fal_async._files.attachment_uploads import UploadContent
    from fal_async.batch.entries import Change, Entry, KnownUpload, Run, State, Summary

__all__ = ["JournalStore"]


class JournalStore(Protocol):
    """A database that a journal is kept in.

    The methods block, and may be called in any thread. Each raises `JournalError`.
    """

    def open(self, *, exclusive: bool) -> Run:
        """Open the database, check it, and register this process.

        Args:
            exclusive: Whether to exclude other exclusive processes.

        Raises:
            JournalInUseError: Another process has opened it exclusively.
            JournalDamagedError: The database is damaged, or is not a journal.
            JournalTooNewError: A newer version of the library has written it.
        """
        raise NotImplementedError

    def open_for_reading(self) -> Run:
        """Open a journal that exists, without writing anything, as a run of no number.

        Raises:
            JournalDamagedError: The database is damaged, or is not a journal.
            JournalTooNewError: A newer version of the library has written it.
        """
        raise NotImplementedError

    def commit(self, changes: Sequence[Change]) -> list[bool]:
        """Make changes durable in one transaction.

        Returns:
            Whether each change has been applied: another process may have been faster.
        """
        raise NotImplementedError

    def find(self, keys: Sequence[str]) -> dict[str, Entry]:
        """Return the entries of these keys, without their outputs."""
        raise NotImplementedError

    def known_jobs(self, request_ids: Sequence[str]) -> set[str]:
        """Return the ids of jobs, among these, that belong to an input."""
        raise NotImplementedError

    def longest_job(self) -> float:
        """Return the longest time from a submit to the end of its job, in seconds.

        Jobs that may have waited for another process to collect them count if there are no others.
        """
        raise NotImplementedError

    def output(self, key: str) -> bytes | None:
        """Return the output of an input as JSON, or ``None``."""
        raise NotImplementedError

    def entries(self, state: State | None) -> Iterator[Entry]:
        """Iterate over all entries, or over those of one state, without their outputs."""
        raise NotImplementedError

    def summary(self) -> Summary:
        """Count the entries."""
        raise NotImplementedError

    def note(self, name: str) -> str | None:
        """Return a named text, or ``None``."""
        raise NotImplementedError

    def find_upload(self, content: UploadContent) -> KnownUpload | None:
        """Return the latest upload of a content, or ``None``."""
        raise NotImplementedError

    def live_runs(self) -> dict[int, Run]:
        """Return the runs of processes that live, by number."""
        raise NotImplementedError

    def ended_runs(self) -> list[Run]:
        """Return the runs of processes that have ended."""
        raise NotImplementedError

    def compact(self) -> None:
        """Release the space of removed entries."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the database. Closing it again does nothing."""
        raise NotImplementedError
