"""Many jobs: each input is started once, whatever happens to the process."""

from __future__ import annotations

from fal_async._core.annotations import make_resolvable
from fal_async.batch.entries import Entry, State, Summary
from fal_async.batch.errors import (
    BatchStoppedError,
    ChangedInputError,
    JournalDamagedError,
    JournalError,
    JournalInUseError,
    JournalTooNewError,
)
from fal_async.batch.journal import Journal

__all__ = [
    "BatchStoppedError",
    "ChangedInputError",
    "Entry",
    "Journal",
    "JournalDamagedError",
    "JournalError",
    "JournalInUseError",
    "JournalTooNewError",
    "State",
    "Summary",
]

for _value in list(globals().values()):
    make_resolvable(_value)
