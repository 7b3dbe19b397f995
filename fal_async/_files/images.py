"""Pillow images and NumPy arrays as image files."""

from __future__ import annotations

import io
from importlib import import_module
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeAlias, TypeGuard, cast, runtime_checkable

from fal_async._core.checks import describe
from fal_async.errors import InvalidRequestError, InvalidResponseError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL.Image import Image

__all__ = ["Picture", "check_pillow", "image_bytes", "image_type", "is_picture", "open_image"]

#: Common names of formats, and the names that Pillow uses.
_FORMATS = {"jpg": "jpeg", "tif": "tiff"}
#: The modes of JPEG files. Other modes are converted to RGB, which drops transparency.
_JPEG_MODES = frozenset({"1", "L", "RGB", "CMYK", "YCbCr"})
#: The modes that PNG files do not support, and those that replace them.
_PNG_MODES = {
    "CMYK": "RGB",
    "HSV": "RGB",
    "LAB": "RGB",
    "PA": "RGBA",
    "RGBX": "RGB",
    "RGBa": "RGBA",
    "YCbCr": "RGB",
}
#: Modes whose colour profiles do not fit RGB.
_OTHER_COLOURS = frozenset({"CMYK", "LAB", "HSV", "YCbCr"})
#: The EXIF tag of the orientation, and its value for an upright image.
_ORIENTATION = 0x0112
_UPRIGHT = 1
#: The valid shapes of arrays after height and width.
_CHANNELS = frozenset({(), (1,), (2,), (3,), (4,)})
#: The rounding error by which fractions may exceed the range from 0 to 1.
_TOLERANCE = 0.01


@runtime_checkable  # for validators of arguments
class PillowImage(Protocol):
    """A Pillow image."""

    @property
    def mode(self) -> str: ...
    def save(self, fp: IO[bytes], format: str | None = None) -> None: ...  # noqa: A002 -- Pillow's


@runtime_checkable  # likewise
class Array(Protocol):
    """A NumPy array of height, width and, except for greyscale, channels."""

    @property
    def __array_interface__(self) -> Mapping[str, Any]: ...


#: A Pillow image or a NumPy array.
Picture: TypeAlias = PillowImage | Array


def is_picture(value: object) -> TypeGuard[Picture]:
    """Return whether a value is a Pillow image or a NumPy array."""
    return _is_array(value) or all(hasattr(value, name) for name in ("save", "mode", "getbands"))


def image_type(format: str) -> str:  # noqa: A002 -- the official client's name
    """Return the media type of an image format.

    Raises:
        InvalidRequestError: The format is not a name.
    """
    if not isinstance(cast("object", format), str):
        raise InvalidRequestError(
            f"the format must be a name such as 'png', got {describe(format)}"
        )
    return f"image/{_FORMATS.get(format.lower(), format.lower())}"


def image_bytes(image: Picture, format: str) -> bytes:  # noqa: A002 -- the official client's name
    """Encode an image. Encoding takes a while, so call this in a worker thread.

    Raises:
        InvalidRequestError: The image cannot be encoded, or Pillow is missing.
    """
    name = image_type(format).partition("/")[2]
    buffer = io.BytesIO()
    try:
        picture: Any = _from_array(image) if _is_array(image) else image
        # Pillow does not write the orientation of the EXIF data into files.
        exif: Mapping[int, object] = picture.getexif() if hasattr(picture, "getexif") else {}
        if exif.get(_ORIENTATION, _UPRIGHT) != _UPRIGHT:
            # Pillow is an optional dependency.
            picture = import_module("PIL.ImageOps").exif_transpose(picture)
        original_mode: str = picture.mode
        mode = original_mode
        if name == "jpeg" and mode not in _JPEG_MODES:
            mode = "RGB"
        elif name == "png":
            mode = _PNG_MODES.get(mode, mode)
        if mode != original_mode:
            picture = picture.convert(mode)
            if original_mode in _OTHER_COLOURS:
                picture.info.pop("icc_profile", None)
        picture.save(buffer, format=name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidRequestError(f"cannot encode the image as {format!r}: {error}") from error
    return buffer.getvalue()


def check_pillow() -> None:
    """Raise an error if Pillow is missing."""
    _load_pillow("images are opened")


def open_image(content: bytes) -> Image:
    """Decode an image. Decoding takes a while, so call this in a worker thread.

    Raises:
        InvalidResponseError: The content is not an image that Pillow can read.
    """
    pillow = _load_pillow("images are opened")
    try:
        image = pillow.open(io.BytesIO(content))
        image.load()
    except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as error:
        raise InvalidResponseError(f"cannot open the file as an image: {error}") from error
    return cast("Image", image)


def _load_pillow(purpose: str) -> Any:
    try:
        return import_module("PIL.Image")  # an optional dependency
    except ImportError as error:
        raise InvalidRequestError(
            f'{purpose} with Pillow: pip install "fal-async[images]"'
        ) from error


def _is_array(value: object) -> bool:
    """Return whether a value is an array, and not a single number of NumPy."""
    return hasattr(value, "__array_interface__") and getattr(value, "shape", ()) != ()


def _from_array(array: Any) -> Any:
    pillow = _load_pillow("arrays can be uploaded as images")
    shape, kind = array.shape, array.dtype.kind
    if len(shape) not in {2, 3} or 0 in shape or shape[2:] not in _CHANNELS:
        raise InvalidRequestError(
            f"an image has height, width and 1 to 4 channels, got an array of shape {shape}"
        )
    maximum, tolerance = (1, _TOLERANCE) if kind == "f" else (255, 0)
    if kind == "b":
        pixels = array.astype("uint8") * 255
    elif kind in "fiu" and -tolerance <= array.min() and array.max() <= maximum + tolerance:
        pixels = ((array.clip(0, 1) * 255).round() if kind == "f" else array).astype("uint8")
    else:
        raise InvalidRequestError(
            "an image has whole numbers from 0 to 255 or fractions from 0 to 1, got an array of "
            + (f"{array.min()} to {array.max()}" if kind in "fiu" else f"{array.dtype}")
        )
    return pillow.fromarray(pixels[:, :, 0] if shape[2:] == (1,) else pixels)
