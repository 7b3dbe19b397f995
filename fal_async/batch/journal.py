"""`Journal`: a durable record of the jobs that were started, and of their outcomes."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import anyio

from fal_async._core.annotations import set_module
from fal_async._core.checks import check_file_path, check_flag, describe, is_one_of
from fal_async._dispatch.cache import UploadCache
from fal_async._net.background import spawn
from fal_async._net.event_loops import PerLoop
from fal_async._net.threads import Work, run_in_thread
from fal_async._protocol.endpoint import parse_endpoint, parse_request_id
from fal_async.batch.entries import Forget, Note, Update, decode_output
from fal_async.batch.errors import JournalError
from fal_async.batch.postgres import PostgresJournalStore, without_password
from fal_async.batch.sqlite import SQLiteJournalStore
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Sequence
    from typing import TypeVar

    from fal_async.batch.entries import Change, Entry, Run, State, Summary
    from fal_async.batch.journal_store import JournalStore

    T = TypeVar("T")

__all__ = ["Journal", "open_store", "read_journal"]

#: The longest time that a commit waits for more changes, in seconds: if a call waits for it, and if
#: none does.
GROUP_TIME: Final = 0.05
IDLE_TIME: Final = 0.1
#: The number of uploads that are known without a look into the database.
REUSED_UPLOADS: Final = 1000
POSTGRES: Final = ("postgresql://", "postgres://")


@set_module("fal_async")
class Journal:
    """A durable record of the jobs that were started, and of their outcomes.

    A batch that is given the same journal again continues where it was interrupted. The journal is
    a SQLite file, or tables in a PostgreSQL database, which several machines can share. It is
    opened on first use.

    The methods block while they read or write the database, so call them in a worker thread, or
    while no batch runs. The journal contains no arguments and no key.

    Args:
        path: The path of the file, which is created if necessary, or the URL of a database, such as
            ``"postgresql://user@host/database"``. ``":memory:"`` keeps the journal in memory, and
            in a temporary file what is too large for that.
        durable: ``"disk"`` survives a power failure. ``"process"`` survives the end of the process
            only, and is faster.
        shared: Whether several processes may use the journal at once. If not, the second one raises
            `JournalInUseError`. ``None`` shares a PostgreSQL database, and no file.
        keep_outputs: Whether outputs are stored. Otherwise they are fetched again from the
            platform, which keeps them for a limited time.

    Raises:
        InvalidRequestError: An argument is invalid.

    Example:
        >>> with fal_async.Journal(":memory:") as journal:
        ...     print(journal.summary().total)
        0
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durable: Literal["disk", "process"] = "disk",
        shared: bool | None = None,
        keep_outputs: bool = True,
    ) -> None:
        self.path: str = check_file_path("journal", path, "a path or a postgresql:// URL")
        if not is_one_of(durable, ("disk", "process")):
            raise InvalidRequestError(f"durable must be 'disk' or 'process', got {durable!r}")
        self.durable: Literal["disk", "process"] = durable
        is_database = self.path.startswith(POSTGRES)
        self.shared: bool = is_database if shared is None else check_flag("shared", shared)
        self.keep_outputs: bool = check_flag("keep_outputs", keep_outputs)
        self._store: JournalStore | None = None
        self._run: Run | None = None
        self._opening = threading.Lock()
        self._group: _CommitGroup | None = None
        self._committing: _CommitGroup | None = None
        self._failure: JournalError | None = None
        self._uploads: PerLoop[UploadCache] = PerLoop(lambda: UploadCache(REUSED_UPLOADS))
        #: The number of commits and of changes in them.
        self.commits: int = 0
        self.changes: int = 0

    def __repr__(self) -> str:
        return f"Journal({without_password(self.path)!r})"

    def __reduce__(self) -> tuple[Callable[..., Journal], tuple[Any, ...]]:
        return _unpickle, (self.path, self.durable, self.shared, self.keep_outputs)

    def __enter__(self) -> Self:
        self._opened()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the journal. It can be used again, and is opened again by that."""
        store, self._store, self._run = self._store, None, None
        if store is not None:
            store.close()

    def _opened(self) -> JournalStore:
        with self._opening:
            if self._store is None:
                store = open_store(self.path, fsync=self.durable == "disk")
                self._run = store.open(exclusive=not self.shared)
                self._store, self._failure = store, None
            return self._store

    def __getitem__(self, key: str) -> Entry:
        """Return the entry of an input, with its output.

        Raises:
            KeyError: The journal has no such input.
        """
        from dataclasses import replace  # rarely needed

        store = self._opened()
        entry = store.find([key])[key]
        output = store.output(key)
        return entry if output is None else replace(entry, output=decode_output(output))

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and key in self._opened().find([key])

    def entries(self, state: State | None = None) -> Iterator[Entry]:
        """Iterate over the entries, ordered by key, without their outputs.

        Args:
            state: The state of the entries; ``None`` for all.
        """
        return self._opened().entries(state)

    def summary(self) -> Summary:
        """Count the inputs by state, and sum their units and costs."""
        return self._opened().summary()

    def runs(self) -> list[Run]:
        """Return the processes that have the journal open, this one excepted."""
        live = self._opened().live_runs().values()
        return [run for run in live if self._run is None or run.number != self._run.number]

    def forget(self, *keys: str) -> None:
        """Remove inputs, so that the next batch starts a job for each of them again.

        Args:
            keys: The keys. Unknown ones are ignored.
        """
        changes: list[Change] = [Forget(key) for key in keys]
        notes = [Note("output_is_stale", "1"), Note("output_has_forgotten", "1")]
        self._opened().commit([*changes, *notes])

    def adopt(self, key: str, request_id: str) -> None:
        """Record the job of an unsure input that was found by other means.

        Args:
            key: The key of the input.
            request_id: The id of the job.

        Raises:
            InvalidRequestError: The id is invalid, or the journal has no such input.
        """
        store = self._opened()
        entry = store.find([key]).get(key)
        if entry is None:
            raise InvalidRequestError(f"key must be a key of the journal, got {describe(key)}")
        parse_endpoint(entry.application)
        values: dict[str, Any] = {"state": "running", "request_id": parse_request_id(request_id)}
        values |= {"ended_at": None, "error": None}
        store.commit([Update(key, entry.attempts, values), Note("output_is_stale", "1")])

    def compact(self) -> None:
        """Release the space of removed entries."""
        self._opened().compact()

    async def _open(self) -> Run:
        """Open the journal in a worker thread, and return the run of this process."""
        if self._run is None:
            await run_in_thread(self._opened, Work.JOURNALS)
        assert self._run is not None  # noqa: S101 -- set by `_opened`
        return self._run

    async def _read(self, read: Callable[[JournalStore], T]) -> T:
        """Read from the store in a worker thread."""
        await self._open()
        return await run_in_thread(partial(read, self._opened()), Work.JOURNALS)

    async def _find(self, keys: Sequence[str]) -> dict[str, Entry]:
        """Return the entries of these keys, without their outputs."""
        return await self._read(lambda store: store.find(keys))

    async def _output(self, key: str) -> Any:
        """Return the output of an input that this process has recorded."""
        await self._flush()
        body = await self._read(lambda store: store.output(key))
        return None if body is None else decode_output(body)

    async def _commit(self, change: Change, *, enough: float = 1) -> bool:
        """Make a change durable; return whether it was applied.

        Args:
            change: The change.
            enough: The number of waiting calls at which the commit need not wait for more.

        Raises:
            JournalError: The change is not durable, and neither is any later one.
        """
        group = self._commit_soon(change)
        position = len(group.changes) - 1
        group.add_waiter(enough)
        await group.done.wait()
        if group.error is not None:
            raise group.error
        return group.applied[position]

    def _commit_soon(self, change: Change) -> _CommitGroup:
        """Make a change durable with the next commit, without waiting for it.

        Raises:
            JournalError: An earlier change could not be made durable.
        """
        if self._failure is not None:
            raise self._failure
        if self._group is None:
            self._group = _CommitGroup()
            spawn(self._commit_groups)
        self._group.changes.append(change)
        return self._group

    async def _commit_groups(self) -> None:
        """Commit one group after the other, until there are no more changes."""
        try:
            while (group := self._group) is not None and group.changes:
                # Before the commit: the task ends with the last one, for loops that are stopped.
                await group.wait_for_more()
                self._group = _CommitGroup()
                await self._commit_group(group)
        finally:
            rest, self._group = self._group, None
            if rest is not None and rest.changes:
                rest.error = JournalError(f"cannot write {self!r}: the event loop has ended")
                rest.done.set()

    async def _commit_group(self, group: _CommitGroup) -> None:
        self._committing = group
        try:
            commit = partial(self._opened().commit, group.changes)
            group.applied = await run_in_thread(commit, Work.JOURNALS)
            self.commits += 1
            self.changes += len(group.changes)
        except JournalError as error:
            group.error = self._failure = error
        except BaseException as error:
            group.error = self._failure = JournalError(f"cannot write {self!r}: {error!r}")
            raise
        finally:
            self._committing = None
            group.done.set()

    async def _flush(self) -> None:
        """Wait until all changes are durable."""
        while (group := self._committing or self._group) is not None and group.changes:
            group.add_waiter(1)
            await group.done.wait()
        if self._failure is not None:
            raise self._failure

    async def _aclose(self) -> None:
        """Make all changes durable, and close the journal."""
        try:
            await self._flush()
        finally:
            await run_in_thread(self.close, Work.CLEANUP)


class _CommitGroup:
    """Changes that are committed together, and share one write to the disk."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.applied: Sequence[bool] = ()
        self.error: JournalError | None = None
        self.done = anyio.Event()
        self._waiters = 0
        self._is_needed = anyio.Event()
        self._is_complete = anyio.Event()

    def add_waiter(self, enough: float) -> None:
        """Count a call that waits for the commit, which waits no longer once they are enough."""
        self._waiters += 1
        self._is_needed.set()
        if self._waiters >= enough:
            self._is_complete.set()

    async def wait_for_more(self) -> None:
        """Wait for more changes, for as long as calls are expected that would wait as well."""
        with anyio.move_on_after(IDLE_TIME):
            await self._is_needed.wait()
        if self._waiters and not self._is_complete.is_set():
            with anyio.move_on_after(GROUP_TIME):
                await self._is_complete.wait()


def open_store(path: str, *, fsync: bool) -> JournalStore:
    """Return the store for a path or a URL. It is not opened yet."""
    if path.startswith(POSTGRES):
        return PostgresJournalStore(path, fsync=fsync)
    return SQLiteJournalStore(path, fsync=fsync)


def read_journal(path: str) -> Journal:
    """Open a journal that exists for reading, also where no file can be written.

    Raises:
        JournalError: It cannot be opened.
    """
    journal = Journal(path, shared=True)
    store = open_store(path, fsync=False)
    journal._run, journal._store = store.open_for_reading(), store
    return journal


def _unpickle(path: str, durable: Any, shared: bool, keep_outputs: bool) -> Journal:  # noqa: FBT001 -- positional in the pickle
    return Journal(path, durable=durable, shared=shared, keep_outputs=keep_outputs)
