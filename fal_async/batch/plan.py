"""`Plan`: the inputs of a batch in their order, with the entries that the journal has of them."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from fal_async.batch.entries import COMPLETE
from fal_async.batch.errors import ChangedInputError
from fal_async.batch.inputs import ItemFactory, iterate_chunks
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from fal_async.batch.entries import Entry
    from fal_async.batch.files import FileSaver
    from fal_async.batch.inputs import Inputs, Item
    from fal_async.batch.journal import Journal
    from fal_async.batch.options import BatchOptions

__all__ = ["Plan", "is_complete", "make_factory"]

#: The number of changed inputs that an error names.
MAX_NAMED: Final = 10


class Plan:
    """The inputs of a batch, read lazily and looked up in the journal.

    Args:
        inputs: The inputs.
        factory: Makes items of them.
        journal: The journal, which is open.
        options: The options of the batch.
        saver: Saves the files of outputs, or ``None``.
    """

    def __init__(
        self,
        inputs: Inputs,
        factory: ItemFactory,
        journal: Journal,
        options: BatchOptions,
        saver: FileSaver | None,
    ) -> None:
        self._inputs = inputs
        self._factory = factory
        self._journal = journal
        self._options = options
        self._saver = saver

    async def items(self) -> AsyncGenerator[Item, None]:
        """Yield the inputs with their entries.

        Raises:
            ChangedInputError: The content of inputs has changed under their keys.
            InvalidRequestError: An input is invalid.
        """
        # A journal without entries has to be asked only once.
        is_new = await self._journal._read(lambda store: next(store.entries(None), None) is None)
        async with aclosing(iterate_chunks(self._inputs)) as chunks:
            async for rows in chunks:
                items = await self._factory.make(rows)
                if self._saver is not None:
                    for item in items:
                        self._saver.check(item)
                repeated = [item.index for item in items if item.repeats_earlier]
                if repeated and self._options.duplicates == "error":
                    raise InvalidRequestError(
                        f"inputs must differ from each other, got input {repeated[0]} again: set "
                        "duplicates='each' for a job of its own, or 'once' for one job"
                    )
                if self._journal.shared or not is_new:
                    keys = [item.key for item in items]
                    found = await self._journal._find(keys)
                    for item in items:
                        item.entry = entry = found.get(item.key)
                        item.is_written = entry is not None and entry.is_written
                    self._check_changes(items)
                for item in items:
                    yield item

    def _check_changes(self, items: list[Item]) -> None:
        changed = [
            item for item in items if item.entry is not None and item.entry.digest != item.digest
        ]
        if self._options.changed == "error" and changed:
            keys = [item.key for item in changed][:MAX_NAMED]
            raise ChangedInputError(
                f"the content of inputs has changed since the journal has recorded them: "
                f"{', '.join(keys)}; set changed='new' to start jobs for the new content, or "
                "'keep' to keep the old outcomes",
                keys,
            )
        if self._options.changed == "new":
            for item in changed:
                item.is_changed = True
                if item.entry is not None and item.entry.state in COMPLETE:
                    item.attempts = 0


def make_factory(options: BatchOptions) -> ItemFactory:
    """Return a factory of items with the options of a batch."""
    return ItemFactory(
        options.application,
        str(options.submit_options.get("path", "")).strip("/"),
        options.arguments,
        options.key,
        repeats_share_key=options.duplicates == "once",
    )


def is_complete(item: Item, entry: Entry, options: BatchOptions, journal: Journal) -> bool:
    """Return whether an entry needs no more jobs."""
    if entry.state not in COMPLETE or item.is_changed:
        return False
    may_start = entry.attempts < options.attempts
    if entry.state == "lost" and options.lost == "again":
        return not may_start
    if entry.state == "failed" and entry.error is not None:
        is_download = entry.error.get("stage") == "download" and entry.request_id is not None
        return bool(entry.error.get("final")) or not may_start or is_download
    return journal.keep_outputs or entry.state == "failed"
