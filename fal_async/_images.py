"""Pictures in memory, of Pillow or as arrays, as the bytes of image files."""

from __future__ import annotations

import io
from importlib import import_module
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeAlias, TypeGuard

from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Picture", "image_bytes", "image_type", "is_picture"]

#: Names of formats that Pillow does not know by that name.
_FORMATS = {"jpg": "jpeg", "tif": "tiff"}
#: What JPEG files can hold.
_JPEG_MODES = frozenset({"1", "L", "RGB", "CMYK", "YCbCr"})


class Saveable(Protocol):
    """An image of Pillow."""

    @property
    def mode(self) -> str: ...
    def save(self, fp: IO[bytes], format: str | None = None) -> None: ...  # noqa: A002 -- Pillow's


class Array(Protocol):
    """An array of NumPy: height, width and, but for greyscale, channels."""

    @property
    def __array_interface__(self) -> Mapping[str, Any]: ...


#: An image of Pillow, or an array of NumPy.
Picture: TypeAlias = Saveable | Array


def is_picture(value: object) -> TypeGuard[Picture]:
    """Whether a value is a picture."""
    return _is_array(value) or all(hasattr(value, name) for name in ("save", "mode", "getbands"))


def image_type(format: str) -> str:  # noqa: A002 -- the official client's name
    """The media type of an image format."""
    return f"image/{_FORMATS.get(format.lower(), format.lower())}"


def image_bytes(image: Picture, format: str) -> bytes:  # noqa: A002 -- the official client's name
    """The picture as a file of the format. It takes a while: call it in a thread.

    Raises:
        InvalidRequestError: It cannot be written so, or Pillow is needed and not there.
    """
    name = image_type(format).partition("/")[2]
    buffer = io.BytesIO()
    try:
        picture: Any = _from_array(image) if _is_array(image) else image
        if name == "jpeg" and picture.mode not in _JPEG_MODES:
            picture = picture.convert("RGB")
        picture.save(buffer, format=name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidRequestError(f"the image cannot be written as {format!r}: {error}") from error
    return buffer.getvalue()


def _is_array(value: object) -> bool:
    return hasattr(value, "__array_interface__") and hasattr(value, "dtype")


def _from_array(array: Any) -> Any:
    try:
        pillow = import_module("PIL.Image")
    except ImportError as error:
        raise InvalidRequestError(
            'arrays become images with Pillow: pip install "fal-async[images]"'
        ) from error
    if array.dtype.kind == "f":  # from 0 to 1, as models give them
        array = (array.clip(0, 1) * 255).round()
    elif array.dtype.kind == "b":
        array = array * 255
    array = array.astype("uint8")
    return pillow.fromarray(array[:, :, 0] if array.shape[2:] == (1,) else array)
