"""Auto-upload: files in arguments are uploaded once and replaced by their URLs."""

from __future__ import annotations

import io
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import numpy as np
import pytest
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, RootModel, field_serializer

from fal_async import (
    AsyncClient,
    FalClientTimeoutError,
    InvalidRequestError,
    Limits,
    PermissionDeniedError,
    RetryPolicy,
    StorageSettings,
    Upload,
)
from fal_async.emulator import Emulator, Fault
from tests.support.http import echo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

ECHO = "acme/echo"
LIMITS = Limits(part_size=4096, single_shot=8192)


@pytest.fixture(autouse=True)
def endpoints(fal: Emulator) -> None:
    fal.register(ECHO, echo)

    @fal.endpoint(f"{ECHO}/stream")
    def stream(arguments: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield arguments


@pytest.fixture
async def client(fal: Emulator) -> AsyncIterator[AsyncClient]:
    retry = RetryPolicy(base_delay=0)
    async with AsyncClient(fal.key, hosts=fal.hosts, limits=LIMITS, retry=retry) as open_client:
        yield open_client


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "cat.png"
    path.write_bytes(b"cat")
    return path


class Model(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True, extra="allow")

    prompt: str = "a cat"
    image: Path | None = Field(default=None, serialization_alias="image_url")
    images: list[Path] = []
    upload: Upload | None = None
    picture: Image.Image | None = None
    inner: Model | None = None


@dataclass
class Plain:
    image: Path
    strength: float = 0.5


async def subscribe(client: AsyncClient, arguments: Any, **options: Any) -> Any:
    return await client.subscribe(ECHO, arguments, **options)


async def submit(client: AsyncClient, arguments: Any, **options: Any) -> Any:
    return await (await client.submit(ECHO, arguments, **options)).get()


async def run(client: AsyncClient, arguments: Any, **options: Any) -> Any:
    return await client.run(ECHO, arguments, **options)


async def stream(client: AsyncClient, arguments: Any, **options: Any) -> Any:
    async with client.stream(ECHO, arguments, **options) as events:
        (event,) = [event async for event in events]
    return event


CALLS = [run, submit, subscribe, stream]


@pytest.mark.parametrize("call", CALLS)
async def test_file_is_replaced_by_its_url(
    fal: Emulator, client: AsyncClient, path: Path, call: Any
) -> None:
    result = await call(client, {"prompt": "a cat", "image_url": path})
    stored = fal.files[result["image_url"]]
    assert (stored.content, stored.content_type) == (b"cat", "image/png")
    assert stored.file_name == "cat.png"
    assert result["prompt"] == "a cat"


@pytest.mark.parametrize("call", CALLS)
async def test_disabled_upload_refuses_files(
    fal: Emulator, client: AsyncClient, path: Path, call: Any
) -> None:
    for arguments in ({"a": [path]}, Model(image=path)):
        with pytest.raises(InvalidRequestError, match="PosixPath"):
            await call(client, arguments, auto_upload=False)
    assert await call(client, {"a": str(path)}, auto_upload=False) == {"a": str(path)}
    assert fal.count("cdn_token") == 0


@pytest.mark.parametrize("call", CALLS)
async def test_failed_upload_submits_nothing(
    fal: Emulator, client: AsyncClient, path: Path, call: Any
) -> None:
    fal.fail(None, Fault(route="upload", status=403))
    with pytest.raises(PermissionDeniedError):
        await call(client, {"image_url": path, "other": Upload(b"dog", "image/png")})
    with pytest.raises(FileNotFoundError):
        await call(client, {"image_url": path, "other": path.with_name("nothing.png")})
    assert {request.host for request in fal.requests} <= {"rest", "cdn"}


@pytest.mark.parametrize("call", [run, subscribe, stream])
async def test_deadline_covers_the_uploads(
    fal: Emulator, client: AsyncClient, path: Path, call: Any
) -> None:
    fal.fail(None, Fault(route="upload", delay=fal.gate()))
    name = "client_timeout" if call is subscribe else "timeout"
    with pytest.raises(FalClientTimeoutError):
        await call(client, {"image_url": path}, **{name: 0.2})
    assert {request.host for request in fal.requests} <= {"rest", "cdn"}


async def test_files_of_every_kind_are_found_anywhere(
    fal: Emulator, client: AsyncClient, path: Path
) -> None:
    async def bits() -> AsyncIterator[bytes]:
        yield b"bi"
        yield b"ts"

    image = Image.new("RGBA", (2, 2))
    with path.open("rb") as file:
        arguments: dict[str, Any] = {
            "path": path,
            "file": file,
            "memory": io.BytesIO(b"memory"),
            "deep": [{"a": ({"b": Upload(b"deep", "audio/wav", "deep.wav")},)}],
            "text": Upload("text", file_name="a.txt"),
            "stream": Upload(bits(), "video/mp4"),
            "picture": image,
            "mapping": OrderedDict(a=Upload(b"ordered")),
            "plain": Plain(path),
            "untouched": [1, 2.5, None, True, "cat.png", str(path)],
        }
        result = await client.run(ECHO, arguments)
    found = {
        name: (stored.content, stored.content_type, stored.file_name)
        for name, url in {
            **{name: result[name] for name in ("path", "file", "memory", "text", "stream")},
            "deep": result["deep"][0]["a"][0]["b"],
            "mapping": result["mapping"]["a"],
            "plain": result["plain"]["image"],
        }.items()
        for stored in [fal.files[url]]
    }
    assert found == {
        "path": (b"cat", "image/png", "cat.png"),
        "file": (b"cat", "image/png", "cat.png"),
        "memory": (b"memory", "application/octet-stream", None),
        "deep": (b"deep", "audio/wav", "deep.wav"),
        "text": (b"text", "text/plain", "a.txt"),
        "stream": (b"bits", "video/mp4", None),
        "mapping": (b"ordered", "application/octet-stream", None),
        "plain": (b"cat", "image/png", "cat.png"),
    }
    assert fal.files[result["picture"]].content_type == "image/png"
    assert result["untouched"] == arguments["untouched"]
    assert result["plain"]["strength"] == 0.5
    assert arguments["path"] is path  # the caller's value is unchanged


async def test_identical_content_is_uploaded_once(
    fal: Emulator, client: AsyncClient, path: Path
) -> None:
    twin = path.with_name("twin.png")
    twin.write_bytes(b"cat")
    image = Image.new("RGB", (2, 2))
    upload = Upload(b"dog", "image/png")
    result = await client.run(
        ECHO,
        {
            "paths": [path, Path(str(path)), path],
            "uploads": [upload, upload, Upload(bytearray(b"dog"), "image/png")],
            "pictures": [image, image.copy()],
            "others": [Upload(b"dog", "image/jpeg"), Upload(b"cow", "image/png")],
            "lives": [Upload(b"dog", "image/png", lifecycle=StorageSettings("1h"))],
        },
    )
    counts = {name: len(set(urls)) for name, urls in result.items()}
    assert counts == {"paths": 1, "uploads": 1, "pictures": 1, "others": 2, "lives": 1}
    assert len({url for urls in result.values() for url in urls}) == len(fal.files) == 6


async def test_content_is_uploaded_once_in_a_client(
    fal: Emulator, client: AsyncClient, path: Path
) -> None:
    arguments = {"a": path, "b": Upload(b"dog", "image/png"), "c": io.BytesIO(b"cow")}
    first = await client.run(ECHO, arguments)
    again = client.with_options(default_timeout=9)
    queued = await (await client.submit(ECHO, arguments)).get()
    assert first == queued == await again.run(ECHO, arguments)
    assert fal.count("upload") == 3
    path.write_bytes(b"new")  # noqa: ASYNC240 -- no other task uses this loop
    changed = await client.run(ECHO, arguments)
    assert fal.files[changed["a"]].content == b"new"
    assert (changed["b"], fal.count("upload")) == (first["b"], 4)
    other = client.with_options(key=lambda: fal.key)  # as the provider of the same account
    assert await other.run(ECHO, arguments) == changed


async def test_calls_side_by_side_upload_once(fal: Emulator, client: AsyncClient) -> None:
    fal.fail(None, Fault(route="upload", status=403, times=1))
    failures: list[PermissionDeniedError] = []

    async def call() -> None:
        try:
            await client.run(ECHO, {"a": Upload(b"dog", "image/png")})
        except PermissionDeniedError as error:
            failures.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(call)
    assert len(failures) == 1  # the next one tried again, for all others
    assert len(fal.files) == 1


async def test_uploads_may_be_made_each_time(fal: Emulator, path: Path) -> None:
    limits = Limits(reused_uploads=0)
    async with AsyncClient(fal.key, hosts=fal.hosts, limits=limits) as client:
        urls = {(await client.run(ECHO, {"a": path}))["a"] for _ in range(3)}
    assert len(urls) == fal.count("upload") == 3


async def test_one_shot_sources_are_read_once(fal: Emulator, client: AsyncClient) -> None:
    async def bits() -> AsyncIterator[bytes]:
        yield b"bits"

    for data in (bits(), io.BytesIO(b"bits")):
        result = await client.run(ECHO, {"a": Upload(data, "a/b"), "b": Upload(data, "a/b")})
        assert result["a"] == result["b"]
        assert fal.files[result["a"]].content == b"bits"
    for data in (bits(), io.BytesIO(b"bits")):
        with pytest.raises(InvalidRequestError, match="two names or types"):
            await client.run(ECHO, {"a": Upload(data, "a/b"), "b": Upload(data, "a/c")})
    assert fal.count("upload") == 2


async def test_uploads_may_exceed_the_open_file_limit(
    fal: Emulator, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = 0
    most = 0

    class Counted(io.FileIO):
        def __init__(self, *args: Any, **options: Any) -> None:
            nonlocal opened, most
            super().__init__(*args, **options)
            opened += 1
            most = max(most, opened)

        def close(self) -> None:
            nonlocal opened
            opened -= not self.closed
            super().close()

    monkeypatch.setattr("fal_async._files.sources.io.FileIO", Counted)
    paths = [path.with_name(f"{number}.png") for number in range(20)]
    for each in paths:
        each.write_bytes(each.name.encode())
    limits = Limits(uploads=3)
    async with AsyncClient(fal.key, hosts=fal.hosts, limits=limits) as client:
        result = await client.run(ECHO, {"images": paths})
    contents = [fal.files[url].content for url in result["images"]]
    assert contents == [each.name.encode() for each in paths]
    assert most <= 3
    assert opened == 0


async def test_files_are_uploaded_concurrently(fal: Emulator, client: AsyncClient) -> None:
    gate = fal.gate()
    fal.fail(None, Fault(route="upload", delay=gate, times=None))
    async with anyio.create_task_group() as group:
        group.start_soon(
            run, client, {"files": [Upload(b"%d" % n, "text/plain") for n in range(5)]}
        )
        await fal.wait_for_async(lambda: fal.count("upload") == 5)
        assert fal.count("run") == 0
        gate.open()


async def test_large_files_are_uploaded_in_parts(
    fal: Emulator, client: AsyncClient, path: Path
) -> None:
    path.write_bytes(bytes(20_000))  # noqa: ASYNC240 -- no other task uses this loop
    result = await client.run(ECHO, {"a": path, "b": Upload(bytes(9000), "video/mp4")})
    stored = [fal.files[result[name]] for name in ("a", "b")]
    assert [(len(each.content), each.parts) for each in stored] == [(20_000, 5), (9000, 3)]


@pytest.mark.parametrize("call", CALLS)
async def test_model_fields_may_hold_files(
    fal: Emulator, client: AsyncClient, path: Path, call: Any
) -> None:
    model = Model(
        image=path,
        images=[path, path],
        upload=Upload(b"dog", "image/png"),
        picture=Image.new("RGB", (1, 1)),
        inner=Model(image=path, prompt="inner"),
        more={"deep": [path]},  # type: ignore[call-arg]  # an extra field
    )
    result = await call(client, model)
    url = result["image_url"]
    assert fal.files[url].content == b"cat"
    assert fal.files[result["upload"]].content == b"dog"
    assert fal.files[result["picture"]].content_type == "image/png"
    assert result["images"] == [url, url]
    assert (result["inner"]["image_url"], result["inner"]["prompt"]) == (url, "inner")
    assert result["more"] == {"deep": [url]}
    assert model.image is path


async def test_models_in_mappings_and_root_models_work(
    fal: Emulator, client: AsyncClient, path: Path
) -> None:
    class Paths(RootModel[list[Path]]):
        pass

    result = await client.run(ECHO, {"model": Model(image=path), "paths": Paths([path])})
    url = result["model"]["image_url"]
    assert result["paths"] == [url]
    assert await client.run(ECHO, {"model": Model()}) == {
        "model": Model().model_dump(by_alias=True)
    }


@pytest.mark.parametrize("value", [b"bytes", bytearray(b"bytes"), {1, 2}, object()])
async def test_unsupported_values_are_refused(
    fal: Emulator, client: AsyncClient, value: object
) -> None:
    with pytest.raises(InvalidRequestError):
        await client.run(ECHO, {"value": value})
    circle: dict[str, Any] = {}
    circle["circle"] = circle
    with pytest.raises(InvalidRequestError):
        await client.run(ECHO, circle)
    assert fal.requests == []


@pytest.mark.parametrize("number", [np.float32(0.5), np.int64(7), np.bool_(True)])
async def test_numpy_scalars_are_sent_as_numbers(
    fal: Emulator, client: AsyncClient, number: Any
) -> None:
    assert await client.run(ECHO, {"a": number}) == {"a": number.item()}
    assert [request.route for request in fal.requests] == ["run"]


@pytest.mark.parametrize("mode", ["CMYK", "PA", "RGB", "RGBA", "P", "YCbCr"])
async def test_images_of_every_mode_are_uploaded(
    fal: Emulator, client: AsyncClient, mode: str
) -> None:
    result = await client.run(ECHO, {"image_url": Image.new(mode, (3, 2))})
    with Image.open(io.BytesIO(fal.files[result["image_url"]].content)) as image:
        assert (image.size, image.format) == ((3, 2), "PNG")


async def test_file_only_serializers_are_named(
    fal: Emulator, client: AsyncClient, path: Path
) -> None:
    class Named(BaseModel):
        image: Path

        @field_serializer("image")
        def name_only(self, image: Path) -> str:
            return image.name

    with pytest.raises(InvalidRequestError, match="Named cannot be written with URLs"):
        await client.run(ECHO, Named(image=path))
    assert fal.count("run") == 0


async def test_text_files_are_refused(fal: Emulator, client: AsyncClient, path: Path) -> None:
    with path.open() as file, pytest.raises(InvalidRequestError, match="binary mode"):
        await client.run(ECHO, {"a": path, "b": file})
    assert fal.requests == []


def test_upload_repr_hides_its_data() -> None:
    assert "secret" not in repr(Upload(b"secret", "text/plain"))


async def test_array_is_uploaded_as_an_image(fal: Emulator, client: AsyncClient) -> None:
    result = await client.run(ECHO, {"image_url": np.zeros((2, 3, 3), dtype="uint8")})
    with Image.open(io.BytesIO(fal.files[result["image_url"]].content)) as image:
        assert image.size == (3, 2)


async def test_deeply_nested_files_are_an_error(client: AsyncClient) -> None:
    arguments: dict[str, Any] = {"file": Upload(b"x", "text/plain")}
    for _ in range(980):  # the recursion limit of Python is 1,000
        arguments = {"a": arguments}
    with pytest.raises(InvalidRequestError, match="nested too deeply"):
        await client.run("acme/echo", arguments)
