"""`Ranking`: members by a number, which finds the lowest and the highest at once."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

__all__ = ["Ranking"]

T = TypeVar("T")


class Ranking(Generic[T]):
    """Members by a number, such as that of the slots that they keep.

    The cost depends on how many different numbers there are, not on how many members.
    """

    def __init__(self) -> None:
        self._numbers: dict[T, int] = {}
        self._members: dict[int, OrderedDict[T, None]] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def set(self, member: T, number: int | None) -> None:
        """Set the number of a member; ``None`` removes it."""
        old = self._numbers.get(member)
        if old == number:
            return
        if old is not None:
            del self._numbers[member], self._members[old][member]
            if not self._members[old]:
                del self._members[old]
        if number is not None:
            self._numbers[member] = number
            self._members.setdefault(number, OrderedDict())[member] = None

    def lowest(self) -> T | None:
        """Return the first of the members with the lowest number; ``None`` without members."""
        return next(iter(self._members[min(self._members)])) if self._members else None

    def highest(self) -> T | None:
        """Return the first of the members with the highest number; ``None`` without members."""
        return next(iter(self._members[max(self._members)])) if self._members else None
