"""Input shapes: objects that count as files, and clear refusals of the rest."""

from __future__ import annotations

import gzip
import io
import os
import tempfile
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import httpx
import pytest
import trio
from PIL import Image, ImageOps
from starlette.datastructures import Headers, UploadFile

from fal_async import (
    AsyncClient,
    FalClientError,
    InvalidRequestError,
    Limits,
    StorageSettings,
    Upload,
)
from fal_async.emulator import Emulator, Fault
from tests.support.cancel_points import cancel_everywhere

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

ECHO = "acme/echo"


@pytest.fixture(autouse=True)
def echo(fal: Emulator) -> None:
    fal.register(ECHO, lambda arguments: arguments)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "cat.png"
    path.write_bytes(b"cat")
    return path


async def upload_of(file: Any, kind: str, content: bytes, name: str) -> Any:
    """The upload of a web framework: the file, its name and type, and coroutines to read it."""
    file.write(content)
    file.seek(0)
    return UploadFile(file, filename=name, headers=Headers({"content-type": kind}))


@asynccontextmanager
async def opened_by(library: str, path: Path | int, mode: Any = "rb") -> AsyncGenerator[Any]:
    file: Any
    if library == "anyio":
        file = await anyio.open_file(path, mode)
    elif library == "aiofiles":
        file = await import_module("aiofiles").open(path, mode)  # which has no types
    else:
        file = await trio.open_file(path, mode)
    try:
        yield file
    finally:
        await (file.aclose if library != "aiofiles" else file.close)()


async def stored(fal: Emulator, client: AsyncClient, data: Any) -> bytes:
    url = await client.upload(data, "a/b")
    return fal.files[url].content


@pytest.fixture(params=["anyio", "aiofiles", "trio"])
def library(request: pytest.FixtureRequest, anyio_backend_name: str) -> str:
    name: str = request.param
    if {name, anyio_backend_name} in ({"aiofiles", "trio"}, {"trio", "asyncio"}):
        pytest.skip(f"{name} opens no files there")
    return name


@pytest.mark.parametrize("size", [0, 3, 5000])
async def test_async_files_become_their_urls(
    fal: Emulator, client: AsyncClient, library: str, tmp_path: Path, size: int
) -> None:
    path = tmp_path / "übel.png"
    content = os.urandom(size)
    path.write_bytes(content)
    async with opened_by(library, path) as file:
        result = await client.run(ECHO, {"a": file, "b": [Upload(file)]})
        named = Upload(file, "video/mp4", "b.mp4")
        other = (await client.run(ECHO, {"c": named}))["c"]
        assert await stored(fal, client, file) == content
    assert result["a"] == result["b"][0]
    kept = fal.files[result["a"]]
    assert (kept.content, kept.content_type) == (content, "image/png")
    assert (fal.files[other].content_type, fal.files[other].file_name) == ("video/mp4", "b.mp4")


async def test_async_files_upload_from_their_position(
    fal: Emulator, library: str, path: Path
) -> None:
    content = os.urandom(20_000)
    path.write_bytes(content)  # noqa: ASYNC240 -- no other task uses this loop
    limits = Limits(part_size=3000, single_shot=6000)
    async with (
        AsyncClient(fal.key, hosts=fal.hosts, limits=limits) as client,
        opened_by(library, path) as file,
    ):
        await file.seek(7)
        url = await client.upload(file, "video/mp4")
    assert fal.files[url].content == content[7:]
    assert fal.count("part") == 7


async def test_unsupported_async_files_are_refused(
    fal: Emulator, client: AsyncClient, library: str, path: Path
) -> None:
    async with opened_by(library, path, "r") as file:
        with pytest.raises(InvalidRequestError, match="binary mode"):
            await client.run(ECHO, {"a": file})
    async with opened_by(library, path) as file:
        await file.read()
        with pytest.raises(InvalidRequestError, match=r"seek\(0\)"):
            await client.upload(file, "a/b")
    with pytest.raises(InvalidRequestError, match="closed file"):
        await client.upload(file, "a/b")
    assert fal.requests == []


async def test_unseekable_async_files_are_uploaded(
    fal: Emulator, client: AsyncClient, library: str
) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"piped")
    os.close(writing)
    async with opened_by(library, reading) as file:
        assert await stored(fal, client, file) == b"piped"


async def test_file_like_streams_are_uploaded(fal: Emulator, client: AsyncClient) -> None:
    class Stream:
        left = b"streamed"

        async def read(self, size: int = -1) -> bytes:
            chunk, self.left = self.left[:size], self.left[size:]
            return chunk

    assert await stored(fal, client, Stream()) == b"streamed"
    url = (await client.run(ECHO, {"a": Upload(Stream(), "a/b", "c")}))["a"]
    assert fal.files[url].content == b"streamed"


async def test_file_at_its_end_is_refused(fal: Emulator, client: AsyncClient, path: Path) -> None:
    memory = io.BytesIO()
    memory.write(b"written")
    spooled: Any = tempfile.SpooledTemporaryFile()  # noqa: SIM115 -- closed below
    spooled.write(b"written")
    with path.open("rb") as file:
        file.read()
        for each in (memory, spooled, file):
            with pytest.raises(InvalidRequestError, match=r"seek\(0\)"):
                await client.run(ECHO, {"a": each})
            each.seek(0)
    spooled.close()
    assert fal.requests == []
    assert await stored(fal, client, memory) == b"written"
    assert memory.tell() == 0


async def test_upload_restores_the_file_position(
    fal: Emulator, client: AsyncClient, path: Path
) -> None:
    path.write_bytes(b"0123456789")  # noqa: ASYNC240 -- no other task uses this loop
    with path.open("rb") as file:
        async with opened_by("anyio", path) as other:
            file.seek(3)
            await other.seek(4)
            arguments = {"a": file, "b": [Upload(other)]}

            async def stands_where_it_stood() -> bool:
                with anyio.move_on_after(5):  # for an abandoned thread
                    while file.tell() != 3:
                        await anyio.lowlevel.checkpoint()
                return (file.tell(), await other.tell()) == (3, 4)

            stood: list[bool] = []
            async for _ in cancel_everywhere(lambda: client.run(ECHO, arguments)):
                stood.append(await stands_where_it_stood())  # noqa: PERF401 -- one by one
            assert len(stood) > 10
            assert all(stood)
            fal.fail(None, Fault(route="upload", status=403, times=None))
            path.write_bytes(b"9876543210")  # noqa: ASYNC240 -- other content is not known yet
            with pytest.raises(FalClientError):
                await client.run(ECHO, arguments)
            assert await stands_where_it_stood()
            fal.reset()
            result = await client.run(ECHO, arguments)
            assert await stands_where_it_stood()
    urls = (result["a"], result["b"][0])
    assert [fal.files[url].content for url in urls] == [b"6543210", b"543210"]


@pytest.mark.parametrize("wrapped", [False, True])
async def test_framework_uploads_keep_name_and_type(
    fal: Emulator, client: AsyncClient, wrapped: bool
) -> None:
    with tempfile.SpooledTemporaryFile() as one, io.BytesIO() as other:
        photo = await upload_of(one, "image/x-photo", b"cat", "../a b.png")
        film = await upload_of(other, "application/octet-stream", b"dog", "dog.webm")
        files = {"photo": photo, "film": film}
        if wrapped:
            files = {name: Upload(file) for name, file in files.items()}
        result = await client.run(ECHO, files)
        assert await client.upload(photo, "a/b")
    kept = [fal.files[result[name]] for name in files]
    assert [(file.content, file.content_type, file.file_name) for file in kept] == [
        (b"cat", "image/x-photo", "a b.png"),
        (b"dog", "video/webm", "dog.webm"),
    ]
    with pytest.raises(InvalidRequestError, match="closed"):
        await client.run(ECHO, {"a": photo})


@pytest.mark.parametrize("make", [anyio.Path, str.encode, Path])
async def test_paths_of_every_kind_are_accepted(
    fal: Emulator, client: AsyncClient, path: Path, make: Any
) -> None:
    if make is not str.encode:
        arguments = {"a": make(path), "b": Upload(make(path), lifecycle=StorageSettings("1h"))}
        for url in (await client.run(ECHO, arguments)).values():
            assert (fal.files[url].content_type, fal.files[url].file_name) == (
                "image/png",
                "cat.png",
            )
        assert await stored(fal, client, make(path)) == b"cat"
    url = await client.upload_file(make(str(path)))
    assert fal.files[url].content == b"cat"


@pytest.mark.parametrize("shape", ["gzip", "NamedTemporaryFile", "BufferedReader", "FileIO"])
async def test_open_files_of_every_kind_are_accepted(
    fal: Emulator, client: AsyncClient, tmp_path: Path, shape: str
) -> None:
    file: Any
    if shape == "gzip":
        with gzip.open(tmp_path / "a.png.gz", "wb") as packed:
            packed.write(b"hello" * 1000)
        file = gzip.open(tmp_path / "a.png.gz")  # noqa: SIM115 -- closed below
    elif shape == "NamedTemporaryFile":
        file = tempfile.NamedTemporaryFile()  # noqa: SIM115 -- closed below
        file.write(b"hello" * 1000)
        file.seek(0)
    else:
        (tmp_path / "a").write_bytes(b"hello" * 1000)
        file = (tmp_path / "a").open("rb", 0 if shape == "FileIO" else -1)
    with file:
        url = (await client.run(ECHO, {"a": file}))["a"]
        assert fal.files[url].content == b"hello" * 1000
        assert (fal.files[url].content_type == "image/png") is (shape == "gzip")


@pytest.mark.parametrize("value", [b"png", bytearray(b"png"), memoryview(b"png")])
async def test_bytes_in_arguments_explain_the_remedy(
    fal: Emulator, client: AsyncClient, value: Any
) -> None:
    with pytest.raises(InvalidRequestError, match=r"Upload\(data, content_type\).*\['a'\]\[0\]"):
        await client.run(ECHO, {"a": [value]})
    assert fal.requests == []


@pytest.mark.parametrize("value", [httpx.Response(200, content=b"x"), {"a": 1}, 7])
async def test_refusal_lists_the_supported_types(client: AsyncClient, value: Any) -> None:
    with pytest.raises(InvalidRequestError, match=f"{type(value).__name__}.*it must be text"):
        await client.upload(value, "a/b")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "jpeg", "argument"])
async def test_image_orientation_is_applied(
    fal: Emulator, client: AsyncClient, orientation: int, kind: str
) -> None:
    plain = Image.new("RGB", (32, 16), "#ff0000")
    plain.paste("#0000ff", (0, 0, 16, 8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = io.BytesIO()
    plain.save(photo, "JPEG", exif=exif, quality=95)
    with Image.open(photo) as image:
        shown = ImageOps.exif_transpose(image)
        if kind == "argument":
            url = (await client.run(ECHO, {"image_url": image}))["image_url"]
        else:
            url = await client.upload_image(image, kind)
        assert image.getexif()[0x0112] == orientation  # the caller's image is as it was
    with Image.open(io.BytesIO(fal.files[url].content)) as sent:
        assert sent.getexif().get(0x0112, 1) == 1
        assert sent.size == shown.size
        for x, y in ((4, 4), (4, sent.height - 4), (sent.width - 4, 4)):
            here, there = sent.getpixel((x, y)), shown.getpixel((x, y))
            assert isinstance(here, tuple)
            assert isinstance(there, tuple)
            assert max(abs(a - b) for a, b in zip(here, there, strict=True)) < 40


async def test_unusual_colour_profile_is_dropped(fal: Emulator, client: AsyncClient) -> None:
    for mode, kept in (("CMYK", False), ("RGB", True)):
        image = Image.new(mode, (2, 2))
        image.info["icc_profile"] = b"profile"
        url = (await client.run(ECHO, {"a": image}))["a"]
        with Image.open(io.BytesIO(fal.files[url].content)) as sent:
            assert ("icc_profile" in sent.info) is kept
        assert image.info["icc_profile"] == b"profile"
