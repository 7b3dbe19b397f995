"""Jobs that are started once, by whoever asks for them, however often."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from fal_async._client.result import finalize_output
from fal_async._net.event_loops import PerLoop
from fal_async.batch.errors import ChangedInputError
from fal_async.batch.executor import JobExecutor
from fal_async.batch.inputs import ItemFactory
from fal_async.batch.journal import POSTGRES, Journal
from fal_async.batch.limits import FixedLimit
from fal_async.batch.scheduler import Scheduler
from fal_async.batch.spending import Spending
from fal_async.errors import FalClientError

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator, Mapping

    from typing_extensions import TypeVar

    from fal_async._client.result import Result
    from fal_async._dispatch.dispatcher import Dispatcher
    from fal_async.batch.inputs import Item
    from fal_async.batch.jobs import Job
    from fal_async.batch.options import BatchOptions

    T = TypeVar("T", default=Result)

__all__ = ["execute_once", "fetch_once"]


async def fetch_once(
    dispatcher: Dispatcher,
    arguments: Mapping[str, Any],
    journal: Journal | str | os.PathLike[str],
    options: BatchOptions,
    output: type[T] | None,
) -> T:
    """Return the output of a job that is started once.

    Raises:
        FalClientError: The job has failed, or its outcome is unknown.
    """
    job = await execute_once(dispatcher, arguments, journal, options)
    application = str(options.application)
    if job.error is not None:
        raise job.error.to_error(application, job.request_id)
    value = job.output if job.result is None else job.result
    return finalize_output(value, output, dispatcher, application)


async def execute_once(
    dispatcher: Dispatcher,
    row: Mapping[str, Any],
    journal: Journal | str | os.PathLike[str],
    options: BatchOptions,
) -> Job:
    """Start a job for an input unless the journal knows one, and return its outcome.

    Cancelling the call leaves the job, for which the next call waits.

    Args:
        dispatcher: The dispatcher of the client.
        row: The input.
        journal: The journal, or its path or URL.
        options: The options.

    Raises:
        FalClientError: No job can be started.
    """
    opened = journal if isinstance(journal, Journal) else _open_journal(journal)
    await opened._open()
    path = str(options.submit_options.get("path", "")).strip("/")
    factory = ItemFactory(options.application, path, options.arguments, options.key)
    (item,) = await factory.make([row])
    async with _claimed(opened, item.key):
        item.entry = (await opened._find([item.key])).get(item.key)
        if item.entry is not None and item.entry.digest != item.digest:
            raise ChangedInputError(
                f"the content of the input has changed since the journal has recorded it: "
                f"{item.key}; use another key",
                [item.key],
            )
        return await _execute(dispatcher, opened, options, item)


async def _execute(
    dispatcher: Dispatcher, journal: Journal, options: BatchOptions, item: Item
) -> Job:
    jobs: list[Job] = []

    async def items() -> AsyncGenerator[Item, None]:
        yield item

    limit = FixedLimit(1)
    executor = JobExecutor(
        dispatcher, journal, options, limit, lambda: scheduler.stopped is not None
    )
    scheduler = Scheduler(
        dispatcher,
        journal,
        options,
        limit,
        executor,
        None,
        Spending(None, None, None),
        lambda job, _: jobs.append(job),
        lambda _: True,
        lambda _: True,
    )
    await scheduler.run(items())
    await journal._flush()
    if scheduler.error is not None:
        raise scheduler.error
    if not jobs:
        raise FalClientError("the call was stopped before its job had ended")
    return jobs[0]


def _close_journals(journals: dict[str, Journal]) -> None:
    for journal in journals.values():
        journal.close()


#: The journals that calls have named by their paths, open until their event loop ends.
_journals: PerLoop[dict[str, Journal]] = PerLoop(dict[str, Journal], _close_journals)
#: The inputs that are being executed, by journal and key.
_claims: PerLoop[dict[tuple[Journal, str], _Claim]]


def _open_journal(path: str | os.PathLike[str]) -> Journal:
    journal = Journal(path, shared=True)
    is_file = not journal.path.startswith((*POSTGRES, ":memory:"))
    name = str(Path(journal.path).absolute()) if is_file else journal.path
    return _journals.get().setdefault(name, journal)


class _Claim:
    """The lock of an input, and the number of calls that hold it or wait for it."""

    def __init__(self) -> None:
        self.lock = anyio.Lock()
        self.calls = 0


_claims = PerLoop(dict[tuple[Journal, str], _Claim])


@asynccontextmanager
async def _claimed(journal: Journal, key: str) -> AsyncGenerator[None, None]:
    """Execute an input in one call of this event loop at a time."""
    claims = _claims.get()
    claim = claims.setdefault((journal, key), _Claim())
    claim.calls += 1
    try:
        async with claim.lock:
            yield
    finally:
        claim.calls -= 1
        if not claim.calls:
            del claims[journal, key]
