# Generated from batch/batch.py by `python -m tests.generate_sync`. Do not edit: change the source
# and run that command.
"""Blocking batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fal_async._core.annotations import set_module
from fal_async.sync._jobs import SyncBatchBase

if TYPE_CHECKING:
    from fal_async.batch.jobs import BatchSummary, Progress

__all__ = ["SyncBatch"]


@set_module("fal_async.sync")
class SyncBatch(SyncBatchBase):
    """Many jobs, which run while the context is entered; see `SyncClient.batch`.

    Iterate over it for the outcomes, in the order in which the jobs end, or call `run`. Leaving the
    context early stops the batch gracefully.

    Example:
        >>> rows = [{"prompt": "a cat"}, {"prompt": "a fox"}]
        >>> with fal_async.sync.SyncClient() as client:
        ...     with client.batch("demo/echo", rows) as batch:
        ...         summary = batch.run()
        >>> print(summary.ok)
        2
    """

    def run(self) -> BatchSummary:
        """Wait until all jobs have ended, and return the totals.

        Raises:
            FalClientError: An error has stopped the batch. Running jobs were collected.
            BatchStoppedError: Too many jobs have failed.
            OSError: The output cannot be written.
        """
        return self._portal.call(self._async.run)

    def stop(self) -> None:
        """Start no more jobs. The second call leaves the jobs in flight to the next run.

        Jobs in flight are waited for, left or cancelled as `on_stop` says.
        """
        self._portal.call(self._async._stop)

    @property
    def summary(self) -> BatchSummary:
        """The totals of the run so far."""
        return self._async.summary

    @property
    def progress(self) -> Progress:
        """The state of the batch at this moment."""
        return self._async.progress
