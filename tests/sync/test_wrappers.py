"""Base classes of the generated wrappers."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import anyio
import pytest

from fal_async.sync._portal import Portal
from fal_async.sync._wrappers import SyncConnectionBase, SyncWrapper

if TYPE_CHECKING:
    from collections.abc import Iterator


class Letters:
    """A connection with messages that wait to be received, then an error or the end."""

    def __init__(self, text: str, error: Exception | None = None) -> None:
        self._left = deque(text)
        self._error = error

    async def recv(self) -> str:
        await anyio.lowlevel.checkpoint()
        if self._left:
            return self._left.popleft()
        raise self._error or StopAsyncIteration

    async def __anext__(self) -> str:
        return await self.recv()


class BlockingLetters(SyncConnectionBase[Letters, str]):
    def recv(self) -> str:
        return self._portal.call(self._async.recv)


@pytest.fixture
def portal() -> Iterator[Portal]:
    portal = Portal()
    yield portal
    portal.close()


def test_connection_iterates_to_its_end(portal: Portal) -> None:
    assert list(BlockingLetters(portal, Letters("abc"))) == ["a", "b", "c"]


def test_break_loses_no_message(portal: Portal) -> None:
    letters = BlockingLetters(portal, Letters("abcd"))
    for letter in letters:
        assert letter == "a"
        break
    assert letters.recv() == "b"
    assert next(letters) == "c"
    assert letters.recv() == "d"


def test_connection_error_is_raised(portal: Portal) -> None:
    error = LookupError("lost")
    letters = BlockingLetters(portal, Letters("a", error))
    assert next(letters) == "a"
    with pytest.raises(LookupError) as caught:
        next(letters)
    assert caught.value is error


def test_wrappers_of_one_object_are_equal(portal: Portal) -> None:
    class Number(SyncWrapper[int]):
        pass

    class Other(SyncWrapper[int]):
        pass

    assert Number(portal, 1) == Number(Portal(), 1)
    assert hash(Number(portal, 1)) == hash(Number(portal, 1))
    assert Number(portal, 1) != Number(portal, 2)
    assert Number(portal, 1) != Other(portal, 1)
    assert Number(portal, 1) != 1


def test_repr_is_that_of_async_object(portal: Portal) -> None:
    letters = Letters("abc")
    assert repr(BlockingLetters(portal, letters)) == (
        f"<{__name__}.BlockingLetters object at {id(letters):#x}>"
    )
