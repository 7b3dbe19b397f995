"""`SyncJob`: outcomes of blocking batches."""

from __future__ import annotations

from dataclasses import fields
from functools import cached_property
from typing import TYPE_CHECKING

from fal_async._core.annotations import set_module
from fal_async.batch.batch import Batch
from fal_async.batch.jobs import Job
from fal_async.sync._results import wrap_result
from fal_async.sync._wrappers import SyncStreamBase

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from fal_async.sync._portal import Portal
    from fal_async.sync._results import SyncResult

__all__ = ["SyncBatchBase", "SyncJob"]


@set_module("fal_async.sync")
class SyncJob(Job):
    """A `Job` whose result has files that are read and saved by blocking calls.

    Attributes:
        result: The output with its metadata; ``None`` if there is none, or it is not an object.

    Example:
        >>> with fal_async.sync.SyncClient() as client:
        ...     with client.batch("demo/echo", [{"file": {"url": "data:,hello"}}]) as batch:
        ...         [[file.read() for file in job.result.files()] for job in batch]
        [[b'hello']]
    """

    __slots__ = ()

    result: SyncResult | None  # type: ignore[assignment]  # its files are of another class


class SyncBatchBase(SyncStreamBase[Batch, SyncJob]):
    """A batch, read by one task of the loop a few outcomes ahead."""

    @cached_property
    def _items(self) -> Generator[SyncJob, None, None]:
        return self._portal.iterate(self._jobs)

    async def _jobs(self) -> AsyncGenerator[SyncJob, None]:
        async for job in self._async:
            yield _wrap_job(self._portal, job)


def _wrap_job(portal: Portal, job: Job) -> SyncJob:
    values = {field.name: getattr(job, field.name) for field in fields(job)}
    values["result"] = result = wrap_result(portal, job.result)
    if job.output is job.result:
        values["output"] = result
    return SyncJob(**values)
