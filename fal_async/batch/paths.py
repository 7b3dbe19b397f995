"""The files of a batch, which must differ from each other."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING

from fal_async.batch.journal import POSTGRES
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["check_unique"]


def check_unique(paths: Mapping[str, str | os.PathLike[str] | None]) -> None:
    """Check that no file has two uses, under whatever names. Nothing is opened.

    Args:
        paths: The paths by their uses; ``None``, ``":memory:"`` and URLs are no files.

    Raises:
        InvalidRequestError: Two paths are the same file.
    """
    files = {
        use: text
        for use, path in paths.items()
        if path is not None
        and (text := os.fsdecode(path)) != ":memory:"
        and not text.startswith(POSTGRES)
    }
    for (use, path), (other_use, other) in itertools.combinations(files.items(), 2):
        if _is_same_file(path, other):
            raise InvalidRequestError(
                f"the {use} {path} and the {other_use} {other} are the same file, which would be "
                "overwritten: use different files"
            )


def _is_same_file(path: str, other: str) -> bool:
    try:
        return Path(path).samefile(other)
    except (OSError, ValueError):  # one of them does not exist yet
        return os.path.realpath(path) == os.path.realpath(other)
