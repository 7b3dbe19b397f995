"""Files in arguments: find them, and replace them with their URLs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeGuard, cast

from fal_async._files.images import is_picture
from fal_async.errors import InvalidRequestError
from fal_async.types import Upload

if TYPE_CHECKING:
    from io import IOBase

    from fal_async._files.images import Picture

__all__ = ["Attachment", "UrlReplacement", "find_files"]

#: The types of files in arguments.
Attachment: TypeAlias = "Upload | os.PathLike[str] | IOBase | Picture"

#: Most values are of these types, which are no files.
_PLAIN: Final = frozenset({str, int, float, bool, type(None)})


def find_files(value: Any, found: dict[int, Attachment]) -> None:
    """Collect the files within a value by their identity. Text is never a file."""
    kind: type[object] = value.__class__
    if kind is dict:
        items = value.values()
    elif kind is list or kind is tuple:
        items = value
    elif kind in _PLAIN:
        return
    elif _is_attachment(value):
        found[id(value)] = value
        return
    else:
        children = _children(value) or ()
        items = children.values() if isinstance(children, dict) else children
    for item in items:
        if type(item) not in _PLAIN:  # saves most of the calls
            find_files(item, found)


def _is_attachment(value: object) -> TypeGuard[Attachment]:
    if _is_model(value):
        return False
    if isinstance(value, Upload | os.PathLike):
        return True
    return (hasattr(value, "read") and hasattr(value, "seek")) or is_picture(value)


def _is_model(value: Any) -> bool:
    return hasattr(value.__class__, "model_fields") and hasattr(value, "model_dump")


def _children(value: Any) -> Mapping[str, Any] | list[Any] | tuple[Any, ...] | None:
    """Return the values within a container, a model or a dataclass; ``None`` for other values."""
    if isinstance(value, list | tuple):
        return cast("list[Any]", value)
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, Any]", value))
    if _is_model(value):
        names: list[str] = [*value.__class__.model_fields, *(value.model_extra or ())]
        return {name: getattr(value, name) for name in names}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return None


class UrlReplacement:
    """Replaces files with their URLs, in copies of the values that contain them."""

    def __init__(self, urls: Mapping[int, str]) -> None:
        self._urls = urls

    def in_json(self, value: Any) -> Any:
        """Return a JSON value with URLs; a model that contains files becomes a mapping.

        Raises:
            InvalidRequestError: A model cannot be serialized with a URL in place of a file.
        """
        if type(value) in _PLAIN:
            return value
        if id(value) in self._urls:
            return self._urls[id(value)]
        if _is_model(value):
            model = self.in_model(value)
            if model is value:
                return value
            try:  # the fields contain text now, whatever their types say
                return model.model_dump(mode="json", by_alias=True, warnings=False)
            except Exception as error:  # a serializer of the model may raise anything
                raise InvalidRequestError(
                    f"{type(model).__name__} cannot be written with URLs in place of its files: "
                    f"{error}"
                ) from error
        children = _children(value)
        if isinstance(children, dict):
            return {name: self.in_json(item) for name, item in children.items()}
        return value if children is None else [self.in_json(item) for item in children]

    def in_model(self, value: Any) -> Any:
        """Return a value of a model with URLs; the same object if it contains no files."""
        if id(value) in self._urls:
            return self._urls[id(value)]
        children = None if type(value) in _PLAIN else _children(value)
        if children is None:
            return value
        if not isinstance(children, dict):
            items = [self.in_model(item) for item in children]
            return value if _all_same(items, children) else items
        replaced = {name: self.in_model(item) for name, item in children.items()}
        if _all_same(replaced.values(), children.values()):
            return value
        return value.model_copy(update=replaced) if _is_model(value) else replaced


def _all_same(left: Any, right: Any) -> bool:
    return all(one is other for one, other in zip(left, right, strict=True))
