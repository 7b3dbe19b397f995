"""Outputs on their way to the caller: checked, and bound to the client that fetches their files."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar

from fal_async._protocol.outputs import validate_output
from fal_async.errors import InvalidReplyError
from fal_async.types import Result

if TYPE_CHECKING:
    from fal_async._transport.perform import Performer

__all__ = ["hand_over"]

T = TypeVar("T")


def hand_over(value: Any, output: type[T] | None, performer: Performer) -> T:
    """The output as the type that was asked for; its files know where they come from.

    Raises:
        InvalidReplyError: The output is not of that type.
    """
    if isinstance(value, Result):
        value.fetched_by(performer)
    try:
        checked = validate_output(value, output)
    except InvalidReplyError as error:
        error.stage, error.started = "result", True
        raise
    files = sys.modules.get("fal_async._files")
    if output is not None and files is not None:  # else there is no `File` that it could hold
        files.bind(checked, performer)
    return checked
