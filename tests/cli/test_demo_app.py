from __future__ import annotations

import zlib
from base64 import b64encode
from io import BytesIO
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from PIL import Image, ImageChops

from fal_async import AsyncClient
from fal_async.cli._demo import app, steps
from fal_async.cli._demo.app import PHOTO, register_image_app
from fal_async.cli._demo.images import (
    FILTERS,
    SILHOUETTES,
    InvalidImageError,
    as_data_uri,
    draw,
    from_data_uri,
    is_stored_as,
    make_thumbnail,
    read_picture,
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


# Drawings


@pytest.mark.parametrize(
    "prompt", ["", "hello world", "猫", "a cat on snowy mountains", "boats on a lake", *SILHOUETTES]
)
def test_the_same_prompt_gives_the_same_drawing(prompt: str) -> None:
    drawing = draw(prompt, SIZE)
    assert (drawing.mode, drawing.size) == ("RGB", SIZE)
    assert drawing.tobytes() == draw(prompt, SIZE).tobytes()


@pytest.mark.parametrize(
    "words",
    [
        *(["the hills", f"the hills, {name}"] for name in SILHOUETTES),
        *(["the hills", f"the hills, {mood}"] for mood in ("night", "winter", "desert", "sea")),
        ["the hills in the morning", "the hills in the morning, mountains"],
    ],
    ids=str,
)
def test_words_change_what_is_drawn(words: list[str]) -> None:
    one, other = (draw(prompt, SIZE) for prompt in words)
    assert ImageChops.difference(one, other).getbbox() is not None


# Filters


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_keeps_the_size_and_changes_the_picture(name: str) -> None:
    drawing = draw("a cat", SIZE)
    filtered = FILTERS[name](drawing).convert("RGB")
    assert filtered.size == SIZE
    assert (filtered.tobytes() == drawing.tobytes()) == (name == "none")


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_takes_the_smallest_picture(name: str) -> None:
    assert FILTERS[name](Image.new("RGB", (1, 1))).size == (1, 1)


# Reading


def test_a_picture_is_read_upright_opaque_and_not_too_large() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a right angle
    wide = encoded(Image.new("RGBA", (4000, 1000), (255, 0, 0, 0)), exif=exif)
    picture = read_picture(wide)
    assert (picture.mode, picture.size) == ("RGB", (384, 1536))
    assert picture.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "I;16"])
def test_a_picture_of_any_mode_is_read(mode: str) -> None:
    assert read_picture(encoded(Image.new(mode, (5, 4)), "TIFF")).size == (5, 4)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no picture",
        encoded(draw("", SIZE))[:500],
        encoded(draw("", SIZE), "JPEG")[:500],
        b"\x89PNG\r\n\x1a\n" + b"\x00\x00\x00\x0dIHDR" + b"\x00" * 13 + zlib.crc32(b"").to_bytes(4),
    ],
    ids=["empty", "text", "half a PNG", "half a JPEG", "a PNG without pixels"],
)
def test_what_cannot_be_decoded_is_no_picture(content: bytes) -> None:
    with pytest.raises(InvalidImageError):
        read_picture(content)


def test_a_picture_survives_the_way_through_a_data_uri() -> None:
    drawing = draw("a cat", SIZE)
    uri = as_data_uri(drawing, "PNG")
    assert uri.startswith("data:image/png;base64,")
    assert read_picture(from_data_uri(uri)).tobytes() == drawing.tobytes()


@pytest.mark.parametrize("url", ["", "data:text/plain,cat", "data:;base64,=cat", "https://a.b/c"])
def test_what_is_no_data_uri_in_base64_is_no_picture(url: str) -> None:
    with pytest.raises(InvalidImageError):
        from_data_uri(url)


def test_the_format_of_a_picture_is_known_by_its_content() -> None:
    content = encoded(draw("a cat", SIZE))
    assert is_stored_as(content, ".PNG")
    assert not is_stored_as(content, ".jpg")
    assert is_stored_as(encoded(draw("a cat", SIZE), "JPEG"), ".jpeg")


def test_a_picture_in_small_is_a_small_jpeg() -> None:
    small = make_thumbnail(encoded(draw("a cat", (384, 256))))
    assert is_stored_as(small, ".jpg")
    assert read_picture(small).size == (192, 128)


# The endpoint


@pytest.fixture
def studio(fal: Emulator) -> None:
    register_image_app(fal)


@pytest.fixture
def client(fal: Emulator) -> AsyncClient:
    return AsyncClient(fal.key, hosts=fal.hosts)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["filter=sepia"], "sepia"),
        (["image_url=https://example.com/cat.png"], "neither a data URI nor a file of this"),
        (["image_url=data:;base64," + b64encode(b"text").decode()], "not a picture"),
        (["prompt:=7"], "valid string"),
    ],
)
@pytest.mark.usefixtures("studio")
def test_the_photographer_refuses_as_models_do(
    arguments: list[str], what: str, shell: Shell
) -> None:
    outcome = shell("run", PHOTO, *arguments)
    assert outcome.exit_status == 1
    assert what in outcome.stderr
    assert "HTTP 422" in outcome.stderr


@pytest.mark.usefixtures("studio", "restless")
def test_the_photographer_downloads_pictures_from_the_cdn_and_leaves_his_there(
    shell: Shell, fal: Emulator
) -> None:
    drawing = draw("a cat", SIZE)
    url = fal.store(encoded(drawing), "image/png")
    output: Any = shell("run", PHOTO, f"image_url={url}", "filter=duotone").json
    assert fal.count("download") == 1
    (image,) = output["images"]
    stored = fal.files[image["url"]]
    assert (image["width"], image["height"], image["content_type"]) == (*SIZE, "image/png")
    assert (stored.content_type, len(stored.content)) == ("image/png", image["file_size"])
    assert read_picture(stored.content).tobytes() == FILTERS["duotone"](drawing).tobytes()


@pytest.mark.usefixtures("studio", "restless")
def test_a_picture_that_cannot_be_downloaded_is_refused(shell: Shell, fal: Emulator) -> None:
    url = fal.store(encoded(draw("a cat", SIZE)), "image/png")
    fal.fail(None, Fault(route="download", status=403))
    outcome = shell("run", PHOTO, f"image_url={url}")
    assert outcome.exit_status == 1
    assert "403" in outcome.stderr
    assert "HTTP 422" in outcome.stderr


@pytest.mark.usefixtures("studio", "restless")
async def test_previews_get_better_until_the_last_is_the_picture(
    client: AsyncClient, fal: Emulator
) -> None:
    arguments = {"image_url": draw("a cat", (300, 200)), "filter": "poster"}
    async with client, client.stream(PHOTO, arguments, output=steps.Preview) as previews:
        with anyio.fail_after(10):
            seen = [(preview, await preview.image.read()) async for preview in previews]
    assert [(preview.step, preview.steps) for preview, _ in seen] == [(n, 4) for n in (1, 2, 3, 4)]
    assert [preview.image.width for preview, _ in seen] == [24, 72, 216, 300]
    assert all(
        read_picture(content).size == (preview.image.width, preview.image.height)
        for preview, content in seen
    )
    last, content = seen[-1]
    assert fal.files[last.image.url].content == content


@pytest.mark.usefixtures("studio")
async def test_in_a_session_pictures_are_bytes_both_ways(client: AsyncClient) -> None:
    drawing = draw("a cat", SIZE)
    async with client, client.realtime(PHOTO) as session:
        with anyio.fail_after(10):
            await session.send({"image": encoded(drawing), "filter": "none"})
            (image,) = (await session.recv())["images"]
            assert (image["width"], image["height"], image["content_type"]) == (*SIZE, "image/jpeg")
            assert read_picture(image["content"]).size == SIZE
            await session.send({"prompt": "a cat", "filter": "sketch"})
            (image,) = (await session.recv())["images"]
            assert read_picture(image["content"]).size == (192, 128)
            await session.send({"filter": "sepia"})
            with pytest.raises(RealtimeError, match="sepia"):
                await session.recv()


@pytest.mark.usefixtures("studio")
def test_the_photographer_stops_when_the_job_is_cancelled(
    shell: Shell, fal: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "_REST", 60.0)
    handle: Any = shell("submit", PHOTO, "prompt=a cat").json
    job = fal.jobs[handle["request_id"]]
    fal.wait_for(lambda: len(job.logs) == 1)
    shell("cancel", PHOTO, job.request_id)
    fal.wait_for(lambda: fal.counters(PHOTO).running == 0)
    assert [line["message"] for line in job.logs] == ["drawing 'a cat'"]
