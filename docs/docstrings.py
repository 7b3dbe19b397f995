"""Docstrings of the package, as the reference renders them."""

from __future__ import annotations

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)
_NAME = re.compile(r"(?<!`)`([A-Za-z]\w*(?:\.\w+)?)`(?!`)")


class Docstrings(griffe.Extension):
    """Render "Example:" as code, as griffe does with "Examples:" alone, and link names."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of an object that was read."""
        if obj.docstring is None:
            return
        text = _EXAMPLE.sub("Examples:", obj.docstring.value)
        obj.docstring.value = _NAME.sub(lambda found: _link(found[1], obj.path), text)


def _link(name: str, path: str) -> str:
    """Return a link to a public name, which stays text where the reference has no such name."""
    package = "fal_async"
    if path.startswith("fal_async.emulator."):
        package = "fal_async.emulator"
    elif name.startswith("Sync"):
        package = "fal_async.sync"
    target = f"{package}.{name}"
    return f'<autoref identifier="{target}" optional><code>{name}</code></autoref>'
