"""The demo's image app: gradients, filters, decoding and the endpoint."""

from __future__ import annotations

import zlib
from base64 import b64encode
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image, ImageChops

from fal_async import AsyncClient
from fal_async.cli._demo import app, steps
from fal_async.cli._demo.app import PHOTO, register_image_app
from fal_async.cli._demo.images import (
    FILTERS,
    InvalidImageError,
    detect_format,
    format_from_suffix,
    make_gradient,
    make_thumbnail,
    read_image,
)
from fal_async.emulator import Emulator, Fault
from fal_async.errors import RealtimeError

if TYPE_CHECKING:
    from tests.support.cli_runner import Shell

SIZE = (96, 64)


def encoded(picture: Image.Image, name: str = "PNG", **options: object) -> bytes:
    content = BytesIO()
    picture.save(content, name, **options)
    return content.getvalue()


# Gradients


@pytest.mark.parametrize("prompt", ["", "hello world", "猫", "\ud800"])
def test_prompt_determines_the_gradient(prompt: str) -> None:
    image = make_gradient(prompt, SIZE)
    assert (image.mode, image.size) == ("RGB", SIZE)
    assert image.tobytes() == make_gradient(prompt, SIZE).tobytes()


def test_prompts_differ_in_colour() -> None:
    one, other = (make_gradient(prompt, SIZE) for prompt in ("a cat", "a dog"))
    assert ImageChops.difference(one, other).getbbox() is not None


# Filters


@pytest.mark.parametrize("name", FILTERS)
def test_filter_changes_all_but_the_size(name: str) -> None:
    image = make_gradient("a cat", SIZE)
    filtered = FILTERS[name](image).convert("RGB")
    assert filtered.size == SIZE
    assert (filtered.tobytes() == image.tobytes()) == (name == "none")


@pytest.mark.parametrize("name", FILTERS)
def test_filter_accepts_the_smallest_image(name: str) -> None:
    assert FILTERS[name](Image.new("RGB", (1, 1))).size == (1, 1)


# Reading


def test_image_is_decoded_upright_opaque_and_limited() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    wide = encoded(Image.new("RGBA", (4000, 1000), (255, 0, 0, 0)), exif=exif)
    picture = read_image(wide)
    assert (picture.mode, picture.size) == ("RGB", (384, 1536))
    assert picture.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "I;16"])
def test_image_of_any_mode_is_decoded(mode: str) -> None:
    assert read_image(encoded(Image.new(mode, (5, 4)), "TIFF")).size == (5, 4)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no image",
        encoded(make_gradient("", SIZE))[:500],
        encoded(make_gradient("", SIZE), "JPEG")[:500],
        b"\x89PNG\r\n\x1a\n" + b"\x00\x00\x00\x0dIHDR" + b"\x00" * 13 + zlib.crc32(b"").to_bytes(4),
    ],
    ids=["empty", "text", "half a PNG", "half a JPEG", "a PNG without pixels"],
)
def test_undecodable_content_is_rejected(content: bytes) -> None:
    with pytest.raises(InvalidImageError):
        read_image(content)


def test_format_is_detected() -> None:
    image = make_gradient("a cat", SIZE)
    assert detect_format(encoded(image)) == format_from_suffix(".PNG") == "PNG"
    assert detect_format(encoded(image, "JPEG")) == format_from_suffix(".jpeg") == "JPEG"
    assert format_from_suffix(".txt") is None


def test_thumbnail_is_a_small_jpeg() -> None:
    small = make_thumbnail(encoded(make_gradient("a cat", (384, 256))))
    assert detect_format(small) == "JPEG"
    assert read_image(small).size == (192, 128)


# The endpoint


@pytest.fixture
def image_app(fal: Emulator) -> None:
    register_image_app(fal)


@pytest.fixture
def client(fal: Emulator) -> AsyncClient:
    return AsyncClient(fal.key, hosts=fal.hosts)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["filter=sepia"], "sepia"),
        (["image_url=https://example.com/cat.png"], "neither a data URL nor a file of this"),
        (["image_url=data:;base64," + b64encode(b"text").decode()], "not an image"),
        (["prompt:=7"], "valid string"),
    ],
)
@pytest.mark.usefixtures("image_app")
def test_invalid_field_is_rejected_like_by_a_model(
    arguments: list[str], what: str, shell: Shell
) -> None:
    outcome = shell("run", PHOTO, *arguments)
    assert outcome.exit_status == 1
    assert what in outcome.stderr
    assert "HTTP 422" in outcome.stderr


@pytest.mark.usefixtures("image_app", "no_step_delay")
def test_app_loads_and_stores_images_on_the_cdn(shell: Shell, fal: Emulator) -> None:
    original = make_gradient("a cat", SIZE)
    url = fal.store(encoded(original), "image/png")
    output: Any = shell("run", PHOTO, f"image_url={url}", "filter=duotone").json
    assert fal.count("download") == 1
    (image,) = output["images"]
    stored = fal.files[image["url"]]
    assert (image["width"], image["height"], image["content_type"]) == (*SIZE, "image/png")
    assert (stored.content_type, len(stored.content)) == ("image/png", image["file_size"])
    assert read_image(stored.content).tobytes() == FILTERS["duotone"](original).tobytes()


@pytest.mark.usefixtures("image_app", "no_step_delay")
def test_failed_download_is_rejected(shell: Shell, fal: Emulator) -> None:
    url = fal.store(encoded(make_gradient("a cat", SIZE)), "image/png")
    fal.fail(None, Fault(route="download", status=403))
    outcome = shell("run", PHOTO, f"image_url={url}")
    assert outcome.exit_status == 1
    assert "403" in outcome.stderr
    assert "HTTP 422" in outcome.stderr


@pytest.mark.usefixtures("image_app", "no_step_delay")
async def test_previews_grow_up_to_the_image(client: AsyncClient, fal: Emulator) -> None:
    arguments = {"image_url": make_gradient("a cat", (300, 200)), "filter": "poster"}
    async with client, client.stream(PHOTO, arguments, output=steps.Preview) as previews:
        seen = [(preview, await preview.image.read()) async for preview in previews]
    assert [(preview.step, preview.steps) for preview, _ in seen] == [(n, 4) for n in (1, 2, 3, 4)]
    assert [preview.image.width for preview, _ in seen] == [24, 72, 216, 300]
    assert all(
        read_image(content).size == (preview.image.width, preview.image.height)
        for preview, content in seen
    )
    last, content = seen[-1]
    assert fal.files[last.image.url].content == content


@pytest.mark.usefixtures("image_app")
async def test_realtime_images_are_bytes_both_ways(client: AsyncClient) -> None:
    image = make_gradient("a cat", SIZE)
    async with client, client.realtime(PHOTO) as session:
        await session.send({"image": encoded(image), "filter": "none"})
        (image,) = (await session.recv())["images"]
        assert (image["width"], image["height"], image["content_type"]) == (*SIZE, "image/jpeg")
        assert read_image(image["content"]).size == SIZE
        await session.send({"prompt": "a cat", "filter": "mosaic"})
        (image,) = (await session.recv())["images"]
        assert read_image(image["content"]).size == (192, 128)
        await session.send({"filter": "sepia"})
        with pytest.raises(RealtimeError, match="sepia"):
            await session.recv()


@pytest.mark.usefixtures("image_app")
def test_cancelled_job_stops_the_app(
    shell: Shell, fal: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "_STEP_DELAY", 60.0)
    handle: Any = shell("submit", PHOTO, "prompt=a cat").json
    job = fal.jobs[handle["request_id"]]
    fal.wait_for(lambda: len(job.logs) == 1)
    shell("cancel", PHOTO, job.request_id)
    fal.wait_for(lambda: fal.counters(PHOTO).running == 0)
    assert [line["message"] for line in job.logs] == ["drawing a gradient for 'a cat'"]
