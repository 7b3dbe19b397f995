"""Pictures in memory, of Pillow or as arrays, as the bytes of image files."""

from __future__ import annotations

import io
from importlib import import_module
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeAlias, TypeGuard, cast

from fal_async._core.checks import describe
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Picture", "image_bytes", "image_type", "is_picture"]

#: Names of formats that Pillow does not know by that name.
_FORMATS = {"jpg": "jpeg", "tif": "tiff"}
#: What JPEG files can hold; everything else becomes RGB, without transparency.
_JPEG_MODES = frozenset({"1", "L", "RGB", "CMYK", "YCbCr"})
#: What colours become that PNG files cannot hold.
_PNG_MODES = {
    "CMYK": "RGB",
    "HSV": "RGB",
    "LAB": "RGB",
    "PA": "RGBA",
    "RGBX": "RGB",
    "RGBa": "RGBA",
    "YCbCr": "RGB",
}
#: Modes whose colour profiles are not those of RGB.
_OTHER_COLOURS = frozenset({"CMYK", "LAB", "HSV", "YCbCr"})
#: The EXIF tag that tells how to turn an image, and its value for one that is not to be turned.
_ORIENTATION = 0x0112
_UPRIGHT = 1
#: The channels of arrays, if they have more than height and width.
_CHANNELS = frozenset({(), (1,), (2,), (3,), (4,)})
#: Fractions may leave the range from 0 to 1 by this much, as sums of models do.
_OVERSHOOT = 0.01


class PillowImage(Protocol):
    """An image of Pillow."""

    @property
    def mode(self) -> str: ...
    def save(self, fp: IO[bytes], format: str | None = None) -> None: ...  # noqa: A002 -- Pillow's


class Array(Protocol):
    """An array of NumPy: height, width and, but for greyscale, channels."""

    @property
    def __array_interface__(self) -> Mapping[str, Any]: ...


#: An image of Pillow, or an array of NumPy.
Picture: TypeAlias = PillowImage | Array


def is_picture(value: object) -> TypeGuard[Picture]:
    """Whether a value is a picture."""
    return _is_array(value) or all(hasattr(value, name) for name in ("save", "mode", "getbands"))


def image_type(format: str) -> str:  # noqa: A002 -- the official client's name
    """The media type of an image format.

    Raises:
        InvalidRequestError: It is not the name of one.
    """
    if not isinstance(cast("object", format), str):
        raise InvalidRequestError(f"a format must be a name such as 'png', got {describe(format)}")
    return f"image/{_FORMATS.get(format.lower(), format.lower())}"


def image_bytes(image: Picture, format: str) -> bytes:  # noqa: A002 -- the official client's name
    """The picture as a file of the format. It takes a while: call it in a thread.

    Raises:
        InvalidRequestError: It cannot be written so, or Pillow is needed and not there.
    """
    name = image_type(format).partition("/")[2]
    buffer = io.BytesIO()
    try:
        picture: Any = _from_array(image) if _is_array(image) else _upright(image)
        mode: str = picture.mode
        if name == "jpeg" and mode not in _JPEG_MODES:
            mode = "RGB"
        elif name == "png":
            mode = _PNG_MODES.get(mode, mode)
        if mode != picture.mode:
            picture = _converted(picture, mode)
        picture.save(buffer, format=name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidRequestError(f"the image cannot be written as {format!r}: {error}") from error
    return buffer.getvalue()


def _upright(image: Any) -> Any:
    """The image as its EXIF data tells to show it: files that Pillow writes have no such data."""
    exif: Mapping[int, object] = image.getexif() if hasattr(image, "getexif") else {}
    if exif.get(_ORIENTATION, _UPRIGHT) == _UPRIGHT:
        return image
    # Pillow is an optional dependency.
    return import_module("PIL.ImageOps").exif_transpose(image)


def _converted(image: Any, mode: str) -> Any:
    """The image in other colours; a profile of the old ones would be wrong for them."""
    converted = image.convert(mode)
    if image.mode in _OTHER_COLOURS:
        converted.info.pop("icc_profile", None)
    return converted


def _is_array(value: object) -> bool:
    """Whether a value is an array, and not a single number of NumPy."""
    return hasattr(value, "__array_interface__") and getattr(value, "shape", ()) != ()


def _from_array(array: Any) -> Any:
    try:
        pillow = import_module("PIL.Image")  # an optional dependency
    except ImportError as error:
        raise InvalidRequestError(
            'arrays become images with Pillow: pip install "fal-async[images]"'
        ) from error
    shape = array.shape
    if len(shape) not in {2, 3} or 0 in shape or shape[2:] not in _CHANNELS:
        raise InvalidRequestError(
            f"an image has height, width and 1 to 4 channels, and this array the shape {shape}"
        )
    pixels = _pixels(array)
    return pillow.fromarray(pixels[:, :, 0] if shape[2:] == (1,) else pixels)


def _pixels(array: Any) -> Any:
    """Numbers from 0 to 255, whatever stood for them."""
    kind = array.dtype.kind
    if kind == "b":
        return array.astype("uint8") * 255
    most, slack = (1, _OVERSHOOT) if kind == "f" else (255, 0)
    if kind not in "fiu" or not (-slack <= array.min() and array.max() <= most + slack):
        raise InvalidRequestError(
            "an image has whole numbers from 0 to 255 or fractions from 0 to 1, and this array "
            + (f"those from {array.min()} to {array.max()}" if kind in "fiu" else f"{array.dtype}")
        )
    return ((array.clip(0, 1) * 255).round() if kind == "f" else array).astype("uint8")
