"""Images of the demo: generated, decoded, filtered and encoded with Pillow."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

from PIL import Image, ImageEnhance, ImageOps, UnidentifiedImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "FILTERS",
    "InvalidImageError",
    "detect_format",
    "encode_image",
    "format_from_suffix",
    "make_gradient",
    "make_thumbnail",
    "read_image",
    "resize",
]

#: Larger images are scaled down to fit into a square of this many pixels.
_MAX_SIDE: Final = 1536

#: The size into which the images of a realtime session fit, in pixels.
_THUMBNAIL: Final = (192, 192)

#: A higher compression level of PNG takes twice the time and saves next to nothing.
_SAVE_OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "JPEG": {"quality": 92},
    "PNG": {"compress_level": 3},
}


class InvalidImageError(ValueError):
    """The data cannot be decoded as an image."""


def make_gradient(prompt: str, size: tuple[int, int]) -> Image.Image:
    """Draw a gradient.

    Args:
        prompt: The text that determines the colours.
        size: The width and the height in pixels.
    """
    hue = crc32(prompt.encode(errors="surrogatepass")) % 360
    dark, middle, light = (
        f"hsl({(hue + turn) % 360}, {saturation}%, {lightness}%)"
        for turn, saturation, lightness in ((0, 70, 14), (55, 75, 50), (110, 95, 90))
    )
    sky = resize(Image.linear_gradient("L"), size)
    glow = resize(ImageOps.invert(Image.radial_gradient("L")), size)
    shades = ImageOps.autocontrast(Image.blend(sky, glow, 0.6))
    return ImageOps.colorize(shades, dark, light, middle)


def read_image(content: bytes) -> Image.Image:
    """Decode an image, turn it upright, put it on white and limit its size.

    Raises:
        InvalidImageError: The content cannot be decoded.
    """
    try:
        with Image.open(BytesIO(content)) as image:
            image.draft("RGB", (_MAX_SIDE, _MAX_SIDE))
            upright = ImageOps.exif_transpose(image).convert("RGBA")
    except UnidentifiedImageError as error:
        raise InvalidImageError("not an image in a supported format") from error
    except Exception as error:
        raise InvalidImageError(f"not a valid image: {error}") from error
    upright.thumbnail((_MAX_SIDE, _MAX_SIDE))
    opaque = Image.new("RGB", upright.size, "white")
    opaque.paste(upright, mask=upright.getchannel("A"))
    return opaque


def encode_image(image: Image.Image, file_format: str) -> bytes:
    """Encode an image in a format that Pillow writes, such as ``"PNG"``."""
    content = BytesIO()
    image.save(content, file_format, **_SAVE_OPTIONS.get(file_format, {}))
    return content.getvalue()


def make_thumbnail(content: bytes) -> bytes:
    """Scale an image down and encode it as JPEG.

    Raises:
        InvalidImageError: The content cannot be decoded.
    """
    image = read_image(content)
    image.thumbnail(_THUMBNAIL)
    return encode_image(image, "JPEG")


def resize(
    image: Image.Image,
    size: tuple[int, int],
    resample: Image.Resampling = Image.Resampling.BICUBIC,
) -> Image.Image:
    """Return the image in another size, given as width and height in pixels."""
    return image.resize(size, resample)  # pyright: ignore[reportUnknownMemberType]  # numpy's types


def detect_format(content: bytes) -> str | None:
    """Return the format in which an image is encoded, such as ``"PNG"``."""
    with Image.open(BytesIO(content)) as image:
        return image.format


def format_from_suffix(suffix: str) -> str | None:
    """Return the format of files with a suffix; ``None`` if Pillow cannot write such files."""
    file_format = Image.registered_extensions().get(suffix.lower())
    return file_format if file_format in Image.SAVE else None


def apply_duotone(image: Image.Image) -> Image.Image:
    """Map shades of grey to three colours."""
    grey = ImageOps.autocontrast(ImageOps.grayscale(image), cutoff=1)
    return ImageOps.colorize(grey, black="#1b1464", mid="#ef476f", white="#fff3b0")


def apply_mosaic(image: Image.Image) -> Image.Image:
    """Divide the image into tiles of one colour each."""
    tile = max(4, image.width // 32)
    tiles = resize(image, (max(1, image.width // tile), max(1, image.height // tile)))
    return resize(tiles, image.size, Image.Resampling.NEAREST)


def apply_poster(image: Image.Image) -> Image.Image:
    """Reduce the image to nine vivid colours."""
    vivid = ImageEnhance.Color(ImageOps.autocontrast(image, cutoff=1)).enhance(1.4)
    return vivid.quantize(9, dither=Image.Dither.NONE).convert("RGB")


FILTERS: Final[Mapping[str, Callable[[Image.Image], Image.Image]]] = {
    "duotone": apply_duotone,
    "mosaic": apply_mosaic,
    "poster": apply_poster,
    "none": Image.Image.copy,
}
