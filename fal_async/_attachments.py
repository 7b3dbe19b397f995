"""Files inside of arguments: where they are, and how their URLs get there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeGuard, cast

from fal_async._checks import check_flag
from fal_async._images import is_picture
from fal_async.errors import InvalidRequestError
from fal_async.types import Upload

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from io import IOBase

    from fal_async._images import Picture
    from fal_async._transport.perform import Performer
    from fal_async.types import Arguments

__all__ = ["Attachment", "attach_files", "files_in", "uploading", "with_urls"]

#: What is uploaded when it stands in arguments.
Attachment: TypeAlias = "Upload | os.PathLike[str] | IOBase | Picture"

#: By far the most values are of these types, and no files.
_PLAIN: Final = frozenset({str, int, float, bool, type(None)})


async def attach_files(
    performer: Performer, arguments: Arguments, *, auto_upload: bool
) -> Arguments:
    """The arguments, with the URL of each file in its place; all files are uploaded then.

    Raises:
        InvalidRequestError: There are files, and they are not to be uploaded.
        FalClientError: An upload failed.
    """
    upload = uploading(performer, arguments, auto_upload=auto_upload)
    return arguments if upload is None else await upload()


def uploading(
    performer: Performer, arguments: Arguments, *, auto_upload: bool
) -> Callable[[], Awaitable[Arguments]] | None:
    """What `attach_files` has to wait for; ``None`` when there are no files.

    Raises:
        InvalidRequestError: There are files, and they are not to be uploaded.
    """
    files = files_in(arguments)
    if not files:
        return None
    if not check_flag("auto_upload", auto_upload):
        kinds = ", ".join(sorted({type(file).__name__ for file in files.values()}))
        raise InvalidRequestError(f"the arguments hold files ({kinds}), and auto_upload is off")
    from fal_async._attaching import attach  # which loads all that uploads need

    return partial(attach, performer, arguments, files)


def files_in(arguments: object) -> dict[int, Attachment]:
    """The files in arguments by their identity; each is there once. Text is never a file."""
    found: dict[int, Attachment] = {}
    try:
        _find(arguments, found)
    except RecursionError:  # which arguments that hold themselves are told by the JSON encoder
        return {}
    return found


def with_urls(arguments: object, urls: Mapping[int, str]) -> Any:
    """The arguments with a URL in place of each file; models that hold files become mappings.

    Raises:
        InvalidRequestError: They are nested too deeply, or a model refuses a URL.
    """
    try:
        return _Swap(urls).plain(arguments)
    except RecursionError as error:
        raise InvalidRequestError("the arguments hold files, and are nested too deeply") from error


def _find(value: Any, found: dict[int, Attachment]) -> None:
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
        inside = _inside(value) or ()
        items = inside.values() if isinstance(inside, dict) else inside
    for item in items:
        if type(item) not in _PLAIN:  # saves most of the calls
            _find(item, found)


def _inside(value: Any) -> Mapping[str, Any] | list[Any] | tuple[Any, ...] | None:
    """What a value holds, where it holds other values."""
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


def _is_model(value: Any) -> bool:
    return hasattr(value.__class__, "model_fields") and hasattr(value, "model_dump")


def _is_attachment(value: object) -> TypeGuard[Attachment]:
    if _is_model(value):
        return False
    if isinstance(value, Upload | os.PathLike):
        return True
    return (hasattr(value, "read") and hasattr(value, "seek")) or is_picture(value)


class _Swap:
    """Puts URLs in the place of files, in copies of what holds them."""

    def __init__(self, urls: Mapping[int, str]) -> None:
        self._urls = urls

    def plain(self, value: Any) -> Any:
        """A value within JSON."""
        if type(value) in _PLAIN:
            return value
        if id(value) in self._urls:
            return self._urls[id(value)]
        if _is_model(value):
            model = self.in_model(value)
            if model is value:
                return value
            return _dumped(model)
        inside = _inside(value)
        if isinstance(inside, dict):
            return {name: self.plain(item) for name, item in inside.items()}
        return value if inside is None else [self.plain(item) for item in inside]

    def in_model(self, value: Any) -> Any:
        """A value within a model: the same object where nothing in it is a file."""
        if id(value) in self._urls:
            return self._urls[id(value)]
        inside = None if type(value) in _PLAIN else _inside(value)
        if inside is None:
            return value
        if not isinstance(inside, dict):
            items = [self.in_model(item) for item in inside]
            return value if _same(items, inside) else items
        swapped = {name: self.in_model(item) for name, item in inside.items()}
        if _same(swapped.values(), inside.values()):
            return value
        return value.model_copy(update=swapped) if _is_model(value) else swapped


def _dumped(model: Any) -> Any:
    """A model as JSON values; its fields hold text now where their types say otherwise."""
    try:
        return model.model_dump(mode="json", by_alias=True, warnings=False)
    except Exception as error:  # whatever serializers of the model's own make of that text
        raise InvalidRequestError(
            f"{type(model).__name__} cannot be written with URLs in place of its files: {error}"
        ) from error


def _same(ones: Any, others: Any) -> bool:
    return all(one is other for one, other in zip(ones, others, strict=True))
