"""`Survey`: what a batch has to do for its inputs, counted before it starts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from fal_async.batch.entries import SUCCEEDED, UNIDENTIFIED
from fal_async.batch.plan import Plan, is_complete, make_factory

if TYPE_CHECKING:
    from collections.abc import Collection

    from fal_async.batch.batch import Batch
    from fal_async.batch.inputs import Item

__all__ = ["Survey", "survey"]

#: The work that an input needs: none, a look at its job, a search for it, or another job.
Work: TypeAlias = Literal["done", "running", "unsure", "to do"]


@dataclass(slots=True)
class Survey:
    """The inputs of a batch, counted by the work that they need.

    Attributes:
        work: The numbers of inputs. Equal inputs that share a job need no work.
        repeated: The number of inputs that equal an earlier one.
    """

    work: Counter[Work] = field(default_factory=Counter["Work"])
    repeated: int = 0


async def survey(batch: Batch, *, without: Collection[str] = ()) -> Survey:
    """Count the inputs of a batch that has not started, and check them as the batch would.

    The inputs are read, so they must be a file, or rows that can be read again.

    Args:
        batch: The batch.
        without: Keys of entries of the journal that are ignored.

    Raises:
        ChangedInputError: The content of inputs has changed under their keys.
        InvalidRequestError: An input is invalid.
        JournalError: The journal cannot be read.
    """
    options = batch._options
    factory = make_factory(options)
    plan = Plan(batch._inputs, factory, batch._journal, options, batch._saver)
    found = Survey()
    async for item in plan.items():
        if item.key in without:
            item.entry = None
        if not (item.repeats_earlier and options.duplicates == "once"):
            found.work[_needed_work(batch, item)] += 1
    found.repeated = factory.repeated
    return found


def _needed_work(batch: Batch, item: Item) -> Work:
    entry = item.entry
    if entry is None:
        return "to do"
    if entry.state == "running":
        return "running"
    if entry.state in UNIDENTIFIED:
        return "unsure"
    is_known = entry.state in SUCCEEDED and not item.is_changed
    if is_known or is_complete(item, entry, batch._options, batch._journal):
        return "done"
    return "to do"
