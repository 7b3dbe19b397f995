"""Many jobs: each input is started once, whatever happens to the process."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from fal_async._core.annotations import make_resolvable

if TYPE_CHECKING:
    from fal_async.batch.entries import Entry, State, Summary
    from fal_async.batch.errors import (
        BatchStoppedError,
        ChangedInputError,
        JournalDamagedError,
        JournalError,
        JournalInUseError,
        JournalTooNewError,
    )
    from fal_async.batch.jobs import BatchSummary, ErrorFacts, Job, Progress
    from fal_async.batch.journal import Journal
    from fal_async.batch.options import Budget

__all__ = [
    "BatchStoppedError",
    "BatchSummary",
    "Budget",
    "ChangedInputError",
    "Entry",
    "ErrorFacts",
    "Job",
    "Journal",
    "JournalDamagedError",
    "JournalError",
    "JournalInUseError",
    "JournalTooNewError",
    "Progress",
    "State",
    "Summary",
]

#: The modules of names, which load on first use: the client imports this package.
_LAZY = {
    "BatchStoppedError": "errors",
    "BatchSummary": "jobs",
    "Budget": "options",
    "ChangedInputError": "errors",
    "Entry": "entries",
    "ErrorFacts": "jobs",
    "Job": "jobs",
    "Journal": "journal",
    "JournalDamagedError": "errors",
    "JournalError": "errors",
    "JournalInUseError": "errors",
    "JournalTooNewError": "errors",
    "Progress": "jobs",
    "State": "entries",
    "Summary": "entries",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    make_resolvable(value)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
