"""Uploads: sources, parts, repositories, progress and failures."""

from __future__ import annotations

import io
import os
import threading
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import numpy as np
import pytest
from anyio.lowlevel import checkpoint
from PIL import Image

import fal_async
import fal_async.sync
from fal_async import (
    AsyncClient,
    AuthenticationError,
    FalClientHTTPError,
    InvalidRequestError,
    InvalidResponseError,
    Limits,
    NotFoundError,
    PermissionDeniedError,
    RetryPolicy,
    ServerError,
    StorageACL,
    StorageACLRule,
    StorageSettings,
    TransportError,
    UploadError,
)
from fal_async._http.transports import PooledBackend
from fal_async.emulator import Emulator, Fault
from tests.support.callbacks import CallbackRecorder
from tests.support.pool_state import idle, in_use

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from fal_async.emulator import RecordedRequest

KIB = 1024
#: Parts and their threshold are small, so that tests are quick.
LIMITS = Limits(part_size=4 * KIB, single_shot=8 * KIB, uploads=4)
QUICK = RetryPolicy(base_delay=0)
SMALL = bytes(range(256)) * 8
LARGE = os.urandom(30 * KIB + 7)


@pytest.fixture(autouse=True)
def small_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("iterators", "uploads"):
        monkeypatch.setattr(f"fal_async._files.{module}.CHUNK_SIZE", KIB)


@pytest.fixture
async def client(fal: Emulator) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(fal.key, hosts=fal.hosts, limits=LIMITS, retry=QUICK) as open_client:
        yield open_client


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large.mp4"
    path.write_bytes(LARGE)
    return path


def bits(content: bytes) -> Iterator[bytes]:
    yield b""
    for start in range(0, len(content), 1000):
        yield content[start : start + 1000]


async def async_bits(content: bytes) -> AsyncIterator[bytes]:
    for bit in bits(content):
        yield bit


class Pipe(io.RawIOBase):
    """A file that cannot seek."""

    def __init__(self, content: bytes) -> None:
        self._inner = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._inner.readinto(buffer)


SHAPES: dict[str, Callable[[bytes], Any]] = {
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "file": io.BytesIO,
    "pipe": Pipe,
    "iterator": bits,
    "list": lambda content: list(bits(content)),
    "async iterator": async_bits,
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("content", [b"", b"x", SMALL, LARGE[: 8 * KIB], LARGE], ids=len)
async def test_data_of_every_kind_arrives_unchanged(
    fal: Emulator, client: AsyncClient, shape: str, content: bytes
) -> None:
    url = await client.upload(SHAPES[shape](content), "video/mp4", "a.mp4")
    stored = fal.files[url]
    assert (stored.content, stored.content_type) == (content, "video/mp4")
    assert stored.file_name == "a.mp4"


async def test_text_is_uploaded_as_utf_8(fal: Emulator, client: AsyncClient) -> None:
    url = await client.upload("naïve", "text/plain")
    assert fal.files[url].content == "naïve".encode()


async def test_large_file_keeps_its_name_and_uses_parts(
    fal: Emulator, client: AsyncClient, large: Path
) -> None:
    url = await client.upload_file(str(large))
    stored = fal.files[url]
    assert (stored.content, stored.content_type) == (LARGE, "video/mp4")
    assert (stored.file_name, stored.parts) == ("large.mp4", 8)
    assert fal.count("cdn_token") == 1
    parts = [request for request in fal.requests if request.route == "part"]
    assert {request.headers["content-length"] for request in parts} == {"4096", str(2 * KIB + 7)}


async def test_open_file_is_read_from_its_position(
    fal: Emulator, client: AsyncClient, large: Path
) -> None:
    with large.open("rb") as file:
        file.seek(7)
        url = await client.upload(file, "video/mp4")
        assert not file.closed
    assert fal.files[url].content == LARGE[7:]


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=len)
async def test_short_reads_upload_the_whole_file(
    fal: Emulator, client: AsyncClient, content: bytes
) -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size or 0, 100))

    url = await client.upload(Slow(content), "video/mp4")
    assert fal.files[url].content == content


VIEWS: dict[str, tuple[Any, bytes]] = {
    "of integers": (memoryview(array("i", [1, 2])), array("i", [1, 2]).tobytes()),
    "with gaps": (memoryview(b"abcdef")[::2], b"ace"),
    "backwards": (memoryview(b"abc")[::-1], b"cba"),
    "of two dimensions": (memoryview(b"abcdef").cast("B", (2, 3)), b"abcdef"),
    "of nothing": (memoryview(b"abc")[3:], b""),
}


@pytest.mark.parametrize("view", VIEWS)
async def test_memoryviews_of_every_layout_arrive(
    fal: Emulator, client: AsyncClient, view: str
) -> None:
    data, content = VIEWS[view]

    async def alone() -> AsyncIterator[Any]:
        yield data

    for shape in (data, [data], alone()):
        url = await client.upload(shape, "video/mp4")
        assert fal.files[url].content == content


def closed_file() -> io.BytesIO:
    file = io.BytesIO()
    file.close()
    return file


def released_view() -> memoryview:
    view = memoryview(b"abc")
    view.release()
    return view


class Texts:
    """A text file without the attributes of one."""

    def read(self, size: int = -1) -> str:
        return "text"

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return 4

    def tell(self) -> int:
        return 0


@pytest.mark.parametrize(
    "data",
    [
        7,
        None,
        {"a": 1},
        io.StringIO("text"),
        ["text"],
        "\ud800",
        closed_file(),
        released_view(),
        Texts(),
    ],
)
async def test_unsupported_data_is_refused(fal: Emulator, client: AsyncClient, data: Any) -> None:
    with pytest.raises(InvalidRequestError):
        await client.upload(data, "text/plain")
    assert fal.files == {}


@pytest.mark.parametrize(
    "options",
    [
        {"content_type": "text/plain\r\nx: y"},
        {"content_type": "naïve/plain"},
        {"content_type": ""},
        {"content_type": None},
        {"file_name": Path("a.txt")},
        {"repository": "floppy"},
        {"fallback_repository": ["floppy"]},
    ],
)
async def test_invalid_arguments_are_refused(
    fal: Emulator, client: AsyncClient, options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequestError):
        await client.upload(b"x", **({"content_type": "text/plain"} | options))
    assert fal.requests == []


async def test_missing_file_raises_file_not_found(client: AsyncClient, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await client.upload_file(tmp_path / "nothing.png")


@pytest.mark.parametrize("path", [7, None, "a\0b"])
async def test_invalid_path_is_refused(fal: Emulator, client: AsyncClient, path: Any) -> None:
    with pytest.raises(InvalidRequestError):
        await client.upload_file(path)
    assert fal.requests == []


async def test_irregular_file_is_refused(
    fal: Emulator, client: AsyncClient, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/null"):
        with pytest.raises(InvalidRequestError, match="no regular file"):
            await client.upload_file(path)
    assert fal.requests == []


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="files of Linux")
async def test_file_reporting_zero_size_is_an_error(client: AsyncClient) -> None:
    with pytest.raises(UploadError, match="changed"):
        await client.upload_file("/proc/self/status")


@pytest.mark.parametrize("repository", ["fal_v3", "fal"])
async def test_undecodable_file_names_are_repaired(
    fal: Emulator, client: AsyncClient, tmp_path: Path, repository: Any
) -> None:
    path = os.fsencode(tmp_path) + b"/\xff.png"
    Path(os.fsdecode(path)).write_bytes(b"x")  # noqa: ASYNC240 -- no other task uses this loop
    for each in (path, os.fsdecode(path)):
        url = await client.upload_file(each, repository=repository)  # type: ignore[arg-type]  # a path of bytes
        assert fal.files[url].file_name == "?.png"
        assert fal.files[url].content_type == "image/png"


@pytest.mark.parametrize(
    "mode", ["1", "CMYK", "HSV", "I;16", "L", "LA", "LAB", "P", "PA", "RGB", "RGBA", "YCbCr"]
)
@pytest.mark.parametrize("kind", ["jpeg", "png", "jpg", "WEBP"])
async def test_images_are_uploaded_as_files(
    fal: Emulator, client: AsyncClient, mode: str, kind: str
) -> None:
    if (mode, kind) == ("I;16", "WEBP"):
        pytest.skip("WebP has no such images")
    url = await client.upload_image(Image.new(mode, (3, 2)), kind, "a")
    stored = fal.files[url]
    name = {"jpg": "jpeg"}.get(kind, kind.lower())
    assert (stored.content_type, stored.file_name) == (f"image/{name}", "a")
    with Image.open(io.BytesIO(stored.content)) as image:
        assert (image.size, image.format) == ((3, 2), name.upper())


async def test_unsupported_image_is_refused(fal: Emulator, client: AsyncClient) -> None:
    with pytest.raises(InvalidRequestError, match="floppy"):
        await client.upload_image(Image.new("RGB", (1, 1)), "floppy")
    assert fal.requests == []


@pytest.mark.parametrize(
    ("pixels", "mode"),
    [
        ("full((2, 3), 255)", "L"),
        ("full((2, 3, 2), 255, dtype='int64')", "LA"),
        ("full((2, 3, 3), 1.001)", "RGB"),
        ("zeros((2, 3, 3), dtype='uint8') + 255", "RGB"),
        ("ones((2, 3, 4))", "RGBA"),
        ("ones((2, 3, 1), dtype='float32')", "L"),
        ("ones((2, 3), dtype='bool')", "L"),
    ],
)
async def test_arrays_are_uploaded_as_images(
    fal: Emulator, client: AsyncClient, pixels: str, mode: str
) -> None:
    url = await client.upload_image(eval(f"numpy.{pixels}", {"numpy": np}), "png")
    with Image.open(io.BytesIO(fal.files[url].content)) as image:
        assert (image.size, image.mode) == ((3, 2), mode)
        assert image.getextrema() == (((255, 255),) * len(mode) if len(mode) > 1 else (255, 255))


@pytest.mark.parametrize(
    "pixels",
    [
        "zeros(3)",
        "zeros((2, 3, 5))",
        "zeros((3, 2, 2, 2))",
        "zeros((0, 3))",
        "full((2, 3), 256)",
        "full((2, 3), -1)",
        "full((2, 3), 200.0)",
        "full((2, 3), float('nan'))",
        "full((2, 3), 1j)",
        "full((2, 3), 'a')",
        "full((2, 3), None)",
    ],
)
async def test_arrays_without_image_shape_are_refused(
    fal: Emulator, client: AsyncClient, pixels: str
) -> None:
    with pytest.raises(InvalidRequestError, match="an image has"):
        await client.upload_image(eval(f"numpy.{pixels}", {"numpy": np}), "png")
    assert fal.requests == []


async def test_lifetime_and_access_rules_are_sent(fal: Emulator, client: AsyncClient) -> None:
    acl = StorageACL(default="hide", rules=[StorageACLRule("ann", "allow")])
    settings = StorageSettings(expires_in="1h", initial_acl=acl)
    lifecycle = {
        "expiration_duration_seconds": 3600,
        "initial_acl": {"default": "hide", "rules": [{"user": "ann", "decision": "allow"}]},
    }
    for repository in ("fal_v3", "fal"):
        for data in (SMALL, LARGE):
            url = await client.upload(data, "video/mp4", repository=repository, lifecycle=settings)
            assert fal.files[url].lifecycle == lifecycle


async def test_unicode_names_are_percent_encoded(fal: Emulator, client: AsyncClient) -> None:
    url = await client.upload(b"x", "text/plain", "naïve\r\n.txt")
    assert fal.files[url].file_name == "na%C3%AFve%0D%0A.txt"


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=len)
@pytest.mark.parametrize("repository", ["fal_v3", "fal"])
async def test_key_is_not_sent_to_cdn_or_presigned_urls(
    fal: Emulator, client: AsyncClient, content: bytes, repository: Any
) -> None:
    url = await client.upload(content, "video/mp4", repository=repository)
    assert fal.files[url].content == content
    for request in fal.requests:
        shown = request.headers.get("authorization", "")
        assert shown.startswith("Key") == (request.host == "rest")


async def test_refused_tokens_are_refreshed(fal: Emulator, client: AsyncClient) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(client.upload, b"x", "text/plain")
    assert fal.count("cdn_token") == 1
    fal.fail(None, Fault(route="upload", status=401))
    await client.upload(b"x", "text/plain")
    assert fal.count("cdn_token") == 2


async def test_token_failure_is_raised_for_every_waiter(fal: Emulator, client: AsyncClient) -> None:
    gate = fal.gate()
    fal.fail(None, Fault(route="cdn_token", status=403, delay=gate, times=None))
    failures: list[PermissionDeniedError] = []

    async def upload() -> None:
        with pytest.raises(PermissionDeniedError) as caught:
            await client.upload(b"x", "text/plain")
        failures.append(caught.value)

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(upload)
        await fal.wait_for_async(lambda: fal.count("cdn_token") == 1)
        await anyio.wait_all_tasks_blocked()
        gate.open()
    assert len({id(failure) for failure in failures}) == 10
    assert (
        fal.count("cdn_token") <= 2
    )  # a caller that arrived during the first request retries once
    fal.reset()
    await client.upload(b"x", "text/plain")


async def test_tokens_are_refreshed_before_expiry(
    fal: Emulator, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_000_000.0]
    monkeypatch.setattr(client._dispatcher.cdn_tokens, "_clock", lambda: now[0])
    end = "1970-01-12T14:20:00"  # 2,000 seconds later
    fal.fail(
        None,
        Fault(route="cdn_token", transform=lambda body: {**body, "expires_at": end}, times=None),
    )
    seen = []
    for moment in (1_000_000, 1_000_000, 1_001_699, 1_001_700, 1_001_701, 1_001_999, 1_002_500):
        now[0] = float(moment)
        await client.upload(b"x", "text/plain")
        seen.append(fal.count("cdn_token"))
    assert seen == [1, 1, 1, 2, 2, 3, 4]


async def test_foreign_token_is_sent_only_to_the_cdn(fal: Emulator, client: AsyncClient) -> None:
    elsewhere = Fault(
        route="cdn_token", transform=lambda body: {**body, "base_url": "http://evil.test"}
    )
    fal.fail(None, elsewhere)
    await client.upload(b"x", "text/plain")
    evil = Fault(
        route="begin_parts", transform=lambda body: {**body, "access_url": "http://evil.test/a"}
    )
    fal.fail(None, evil)
    with pytest.raises(InvalidResponseError, match=r"evil\.test"):
        await client.upload(LARGE, "video/mp4", fallback_repository=[])


@pytest.mark.parametrize(
    ("route", "edit", "words"),
    [
        ("cdn_token", {"token": None}, "no token"),
        ("upload", {"access_url": None}, "access_url"),
        ("upload", {"access_url": "file:///etc/passwd"}, "access_url"),
        ("initiate", {"upload_url": "nonsense"}, "upload_url"),
    ],
)
async def test_error_names_the_missing_field(
    fal: Emulator, client: AsyncClient, route: Any, edit: dict[str, Any], words: str
) -> None:
    fal.fail(None, Fault(route=route, transform=lambda body: {**body, **edit}))
    repository: Any = "fal" if route == "initiate" else "fal_v3"
    with pytest.raises(InvalidResponseError, match=words):
        await client.upload(b"x", "text/plain", repository=repository, fallback_repository=[])


async def test_part_etag_is_in_header_or_body(fal: Emulator, client: AsyncClient) -> None:
    fal.fail(None, Fault(route="part", headers={"etag": ""}, times=None))
    url = await client.upload(LARGE, "video/mp4")
    assert fal.files[url].content == LARGE
    fal.fail(None, Fault(route="part", headers={"etag": ""}, transform=lambda body: {}, times=None))
    fal.reset()
    fal.fail(None, Fault(route="part", status=200, body={}, times=None))
    with pytest.raises(InvalidResponseError, match="ETag"):
        await client.upload(LARGE, "video/mp4", fallback_repository=[])


def is_part(number: int) -> Callable[[RecordedRequest], bool]:
    return lambda request: request.path.endswith(f"/{number}")


@pytest.mark.parametrize("repository", ["fal_v3", "fal"])
@pytest.mark.parametrize("shape", ["bytes", "async iterator"])
async def test_failed_part_is_retried_alone(
    fal: Emulator, client: AsyncClient, repository: Any, shape: str
) -> None:
    fal.fail(None, Fault(route="part", status=503, when=is_part(1)))
    fal.fail(None, Fault(route="part", drop=True, when=is_part(3)))
    fal.fail(None, Fault(route="part", drop_response=True, when=is_part(5)))
    fal.fail(None, Fault(route="complete", status=502))
    url = await client.upload(SHAPES[shape](LARGE), "video/mp4", repository=repository)
    assert fal.files[url].content == LARGE
    assert (fal.count("part"), fal.count("complete")) == (8 + 3, 2)


@pytest.mark.parametrize("repository", ["fal_v3", "fal"])
@pytest.mark.parametrize("shape", ["bytes", "async iterator"])
async def test_lost_completion_response_completes_once(
    fal: Emulator, client: AsyncClient, repository: Any, shape: str
) -> None:
    fal.fail(None, Fault(route="complete", drop_response=True))
    private = StorageSettings(initial_acl=StorageACL(default="hide"))
    url = await client.upload(
        SHAPES[shape](LARGE), "video/mp4", repository=repository, lifecycle=private
    )
    assert [stored.content for stored in fal.files.values()] == [LARGE]
    assert fal.files[url].content == LARGE
    fal.fail(None, Fault(route="complete", status=404))
    with pytest.raises(NotFoundError):
        await client.upload(LARGE, "video/mp4", repository=repository, fallback_repository=[])


async def test_lost_presigned_response_is_retried(fal: Emulator, client: AsyncClient) -> None:
    fal.fail(None, Fault(route="put", drop_response=True))
    url = await client.upload(SMALL, "video/mp4", repository="fal", fallback_repository=[])
    assert [stored.url for stored in fal.files.values()] == [url]


async def test_parts_are_completed_in_order(fal: Emulator, client: AsyncClient) -> None:
    gate = fal.gate()
    fal.fail(None, Fault(route="part", delay=gate, when=is_part(1)))
    async with anyio.create_task_group() as group:
        group.start_soon(client.upload, LARGE, "video/mp4")
        await fal.wait_for_async(lambda: fal.count("part") == 8)
        gate.open()
    (completion,) = [request for request in fal.requests if request.route == "complete"]
    assert [part["partNumber"] for part in completion.arguments["parts"]] == list(range(1, 9))


async def test_failed_upload_reports_its_progress(fal: Emulator, client: AsyncClient) -> None:
    gate = fal.gate()
    fal.fail(None, Fault(route="part", status=500, times=None, when=is_part(4)))
    fal.fail(None, Fault(route="part", delay=gate, times=None, when=is_part(5)))
    with pytest.raises(ServerError) as caught:
        await client.upload(LARGE, "video/mp4", "a.mp4", fallback_repository=[])
    (note,) = caught.value.__notes__
    assert f"of {len(LARGE)} bytes of a.mp4 had been uploaded" in note
    assert fal.count("complete") == 0
    gate.open()
    await fal.wait_for_async(lambda: not any(request.status is None for request in fal.requests))
    assert not [task for task in anyio.get_running_tasks() if "FileUpload" in (task.name or "")]


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=len)
async def test_next_repository_is_used_on_failure(
    fal: Emulator, client: AsyncClient, data: bytes
) -> None:
    seen: list[int] = []
    fal.fail(None, Fault(route="begin_parts", status=400), Fault(route="upload", status=400))
    url = await client.upload(data, "video/mp4", on_progress=lambda sent, _: seen.append(sent))
    assert fal.files[url].content == data
    assert fal.count("initiate") == 1
    assert seen == sorted(seen)
    assert seen[-1] == len(data)


async def test_next_repository_receives_all_parts(fal: Emulator, client: AsyncClient) -> None:
    progress: list[int] = []
    last = Fault(route="part", status=400, when=is_part(8))
    fal.fail(None, last)
    url = await client.upload(LARGE, "video/mp4", on_progress=lambda sent, _: progress.append(sent))
    assert (fal.files[url].content, fal.files[url].parts) == (LARGE, 8)
    assert fal.count("part") == 2 * 8
    assert progress == sorted(progress)
    assert progress[-1] == len(LARGE)


async def test_next_repository_accepts_iterators(fal: Emulator, client: AsyncClient) -> None:
    fal.fail(None, Fault(route="begin_parts", status=400), Fault(route="upload", status=400))
    for content in (SMALL, LARGE):
        url = await client.upload(async_bits(content), "video/mp4")
        assert fal.files[url].content == content
    assert fal.count("initiate") == 2


@pytest.mark.parametrize(
    ("status", "error"), [(401, AuthenticationError), (403, PermissionDeniedError)]
)
@pytest.mark.parametrize("route", ["cdn_token", "upload", "begin_parts", "part"])
async def test_invalid_key_does_not_change_repository(
    fal: Emulator, client: AsyncClient, status: int, error: type[Exception], route: Any
) -> None:
    fal.fail(None, Fault(route=route, status=status, times=None))
    with pytest.raises(error):
        await client.upload(SMALL if route == "upload" else LARGE, "video/mp4")
    assert fal.count("initiate") == 0


async def test_empty_repository_list_is_an_error(fal: Emulator, client: AsyncClient) -> None:
    fal.fail(None, Fault(route="upload", status=500, times=None))
    with pytest.raises(ServerError):
        await client.upload(b"x", "text/plain", fallback_repository=[])
    assert fal.count("initiate") == 0


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=len)
async def test_progress_callbacks_may_be_sync_or_async(
    fal: Emulator, client: AsyncClient, content: bytes
) -> None:
    progress: list[tuple[int, int | None]] = []

    async def record(sent: int, size: int | None) -> None:
        await checkpoint()
        progress.append((sent, size))

    fal.fail(None, Fault(route="part", status=503, when=is_part(2)))
    await client.upload(content, "video/mp4", on_progress=record)
    assert [size for _, size in progress] == [len(content)] * len(progress)
    assert [sent for sent, _ in progress] == sorted({sent for sent, _ in progress})
    assert progress[-1][0] == len(content)
    progress.clear()
    await client.upload(
        bits(content), "video/mp4", on_progress=lambda *update: progress.append(update)
    )
    assert progress[-1][0] == len(content)


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=len)
@pytest.mark.parametrize("error", [ValueError("no"), OSError("no")], ids=repr)
async def test_callback_exception_ends_the_upload(
    fal: Emulator, client: AsyncClient, content: bytes, error: Exception
) -> None:
    def fail(sent: int, size: int | None) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        await client.upload(content, "video/mp4", on_progress=fail)
    assert caught.value is error
    assert fal.files == {}
    assert (await client.upload(b"x", "text/plain")).startswith("http")


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=len)
async def test_iterator_exception_ends_the_upload(
    fal: Emulator, client: AsyncClient, content: bytes
) -> None:
    closed: list[str] = []

    async def broken() -> AsyncIterator[bytes]:
        try:
            yield content
            raise OSError("the disk is gone")
        finally:
            closed.append("closed")

    with pytest.raises(OSError, match="the disk is gone"):
        await client.upload(broken(), "video/mp4")
    assert closed == ["closed"]
    assert fal.files == {}


@pytest.mark.parametrize("raises", [False, True])
async def test_failed_upload_closes_its_generators(
    fal: Emulator, client: AsyncClient, raises: bool
) -> None:
    closed: list[str] = []

    def many() -> Iterator[bytes]:
        try:
            while True:
                yield LARGE
        finally:
            closed.append("closed")

    async def async_many() -> AsyncIterator[bytes]:
        try:
            while True:
                yield LARGE
        finally:
            await checkpoint()  # cleanup may wait
            closed.append("closed")

    for each in (many(), async_many()):
        closed.clear()
        with anyio.CancelScope() as scope:
            if raises:
                fal.fail(None, Fault(route="part", status=400))
                with pytest.raises(FalClientHTTPError):
                    await client.upload(each, "video/mp4")
            else:
                await client.upload(each, "video/mp4", on_progress=lambda *_: scope.cancel())
        assert closed == ["closed"]


async def test_running_generator_is_closed_afterwards(client: AsyncClient) -> None:
    entered, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    def slow() -> Iterator[bytes]:
        try:
            entered.set()
            go_on.wait(10)
            while True:
                yield LARGE
        finally:
            closed.set()

    each = slow()
    async with anyio.create_task_group() as group:
        group.start_soon(client.upload, each, "video/mp4")
        await anyio.to_thread.run_sync(entered.wait)
        group.cancel_scope.cancel()
    assert not closed.is_set()
    go_on.set()
    await anyio.to_thread.run_sync(closed.wait)


async def test_blocking_reads_use_their_own_threads(fal: Emulator, client: AsyncClient) -> None:
    busy = anyio.to_thread.current_default_thread_limiter()
    borrowers = [object() for _ in range(int(busy.available_tokens))]
    for borrower in borrowers:
        busy.acquire_on_behalf_of_nowait(borrower)
    names: set[str] = set()

    def bits_of_threads() -> Iterator[bytes]:
        names.add(threading.current_thread().name)
        yield SMALL

    for data in (bits_of_threads(), io.BytesIO(SMALL), Pipe(SMALL)):
        url = await client.upload(data, "video/mp4")
        assert fal.files[url].content == SMALL
    assert threading.current_thread().name not in names
    for borrower in borrowers:
        busy.release_on_behalf_of(borrower)


@pytest.mark.parametrize("size", [KIB, len(LARGE)])
@pytest.mark.parametrize("change", ["shrunk", "grown", "rewritten"])
async def test_file_changed_during_upload_is_an_error(
    fal: Emulator, client: AsyncClient, large: Path, change: str, size: int
) -> None:
    os.truncate(large, size)

    def alter(sent: int, _: int | None) -> None:
        if sent < size:
            return
        if change == "shrunk":
            os.truncate(large, 100)
        elif change == "grown":
            with large.open("ab") as file:
                file.write(b"more")
        else:
            large.write_bytes(bytes(size))
            os.utime(large, ns=(1, 1))

    with pytest.raises(UploadError, match="changed") as caught:
        await client.upload_file(large, on_progress=alter)
    assert caught.value.size == size
    assert fal.count("complete") == 0


@pytest.mark.parametrize("change", ["shrunk", "grown"])
async def test_changed_open_file_is_an_error(client: AsyncClient, change: str) -> None:
    file = io.BytesIO(SMALL)

    def alter(sent: int, _: int | None) -> None:
        if change == "shrunk":
            file.truncate(10)
        elif sent == len(SMALL):
            file.write(b"more")

    with pytest.raises(UploadError, match="fewer" if change == "shrunk" else "changed"):
        await client.upload(file, "text/plain", on_progress=alter)


async def test_file_shrunk_during_upload_is_an_error(
    fal: Emulator, client: AsyncClient, large: Path
) -> None:
    def shrink(sent: int, _: int | None) -> None:
        if sent >= 20 * KIB:
            os.truncate(large, 100)

    with pytest.raises(UploadError, match=f"fewer than the {len(LARGE)} bytes") as caught:
        await client.upload_file(large, on_progress=shrink)
    assert 0 < caught.value.uploaded < len(LARGE)
    assert (fal.count("complete"), fal.count("initiate")) == (0, 0)


async def test_unreadable_open_file_is_an_error(fal: Emulator, client: AsyncClient) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 20 * KIB:
                raise OSError("the disk is gone")
            return super().read(size)

    with pytest.raises(UploadError, match="the disk is gone") as caught:
        await client.upload(Failing(LARGE), "video/mp4")
    assert caught.value.size == len(LARGE)
    assert fal.count("complete") == 0


async def test_unreadable_file_is_an_error(client: AsyncClient, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="directory"):
        await client.upload_file(tmp_path)


async def test_uploads_of_a_client_share_one_budget(fal: Emulator) -> None:
    limits = Limits(part_size=4 * KIB, single_shot=8 * KIB, uploads=2)
    gate = fal.gate()
    fal.fail(None, Fault(route="part", delay=gate, times=None))
    held = 0

    async def counting(content: bytes) -> AsyncIterator[bytes]:
        nonlocal held
        for start in range(0, len(content), KIB):
            held += KIB
            yield content[start : start + KIB]

    async with (
        AsyncClient(fal.key, hosts=fal.hosts, limits=limits) as client,
        anyio.create_task_group() as group,
    ):
        for _ in range(6):
            group.start_soon(client.upload, counting(LARGE), "video/mp4")
        await fal.wait_for_async(lambda: fal.count("part") == 2)
        await anyio.wait_all_tasks_blocked()
        assert fal.count("part") == 2
        assert held <= 2 * (4 + 1) * KIB
        gate.open()
    assert [stored.content for stored in fal.files.values()] == [LARGE] * 6


async def test_iterators_are_read_within_the_budget(fal: Emulator) -> None:
    limits = Limits(part_size=4 * KIB, single_shot=8 * KIB, uploads=2)
    gate = fal.gate()
    fal.fail(None, Fault(route="part", delay=gate, skip=6, times=None))
    given = 0

    async def counting() -> AsyncIterator[bytes]:
        nonlocal given
        for start in range(0, len(LARGE), KIB):
            given += KIB
            yield LARGE[start : start + KIB]

    async with (
        AsyncClient(fal.key, hosts=fal.hosts, limits=limits) as client,
        anyio.create_task_group() as group,
    ):
        for _ in range(6):
            group.start_soon(client.upload, counting(), "video/mp4")
        await fal.wait_for_async(lambda: fal.count("part") == 6 + 2)
        await anyio.wait_all_tasks_blocked()
        budget = (6 + 2) * limits.part_size  # six parts are sent, two are buffered
        assert given <= budget + 6 * KIB  # and one more read of each to detect its end
        gate.open()
    assert [stored.content for stored in fal.files.values()] == [LARGE] * 6


@pytest.mark.parametrize("route", ["cdn_token", "upload", "begin_parts", "part", "complete"])
@pytest.mark.parametrize("shape", ["file", "async iterator"])
async def test_cancelled_upload_closes_everything(
    fal: Emulator, client: AsyncClient, large: Path, route: Any, shape: str
) -> None:
    content = SMALL if route == "upload" else LARGE
    large.write_bytes(content)  # noqa: ASYNC240 -- no other task uses this loop
    fal.fail(None, Fault(route=route, delay=fal.gate(), times=None))
    transport = client._dispatcher.resources.transport
    assert isinstance(transport, PooledBackend)
    async with anyio.create_task_group() as group:
        if shape == "file":
            group.start_soon(client.upload_file, large)
        else:
            group.start_soon(client.upload, async_bits(content), "video/mp4")
        await fal.wait_for_async(lambda: fal.count(route) > 0)
        group.cancel_scope.cancel()
    assert in_use(transport) == 0
    resting = idle(transport)
    await fal.wait_for_async(lambda: fal.connections == resting)
    fal.reset()
    assert (await client.upload(LARGE, "video/mp4")).startswith("http")
    assert client._dispatcher.resources.lanes.get().buffers.value == LIMITS.uploads


async def test_upload_waiting_for_data_can_be_cancelled(client: AsyncClient) -> None:
    closed: list[str] = []

    async def endless() -> AsyncIterator[bytes]:
        try:
            yield LARGE[:KIB]
            await anyio.sleep_forever()
        finally:
            closed.append("closed")

    with anyio.move_on_after(0.05) as scope:
        await client.upload(endless(), "video/mp4")
    assert scope.cancelled_caught
    assert closed == ["closed"]
    assert client._dispatcher.resources.lanes.get().buffers.value == LIMITS.uploads


async def test_closed_connection_is_a_transport_error(fal: Emulator) -> None:
    hosts = fal_async.Hosts.at("http://127.0.0.1:9")
    async with AsyncClient("k", hosts=hosts, retry=RetryPolicy(attempts=1)) as client:
        with pytest.raises(TransportError):
            await client.upload(b"x", "text/plain")


async def test_other_transports_can_upload(fal: Emulator, large: Path) -> None:
    transport = httpx.AsyncHTTPTransport()
    async with AsyncClient(fal.key, hosts=fal.hosts, limits=LIMITS, transport=transport) as client:
        url = await client.upload_file(large)
    assert fal.files[url].content == LARGE


async def test_module_level_upload_functions_work(
    fal: Emulator, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in fal.environ.items():
        monkeypatch.setenv(name, value)
    urls = [
        await fal_async.upload("hello", "text/plain"),
        await fal_async.upload_file(large),
        await fal_async.upload_image(Image.new("L", (1, 1))),
    ]
    kinds = [fal.files[url].content_type for url in urls]
    assert kinds == ["text/plain", "video/mp4", "image/jpeg"]


def test_blocking_uploads_work(fal: Emulator, large: Path) -> None:
    progress: CallbackRecorder[tuple[int, int | None]] = CallbackRecorder()
    with fal_async.sync.SyncClient(fal.key, hosts=fal.hosts, limits=LIMITS) as client:
        url = client.upload_file(large, on_progress=lambda *sent: progress((sent[0], sent[1])))
        assert fal.files[url].content == LARGE
        assert progress[-1] == (len(LARGE), len(LARGE))


def test_data_urls_are_encoded(large: Path) -> None:
    assert fal_async.encode("hello", "text/plain") == "data:text/plain;base64,aGVsbG8="
    assert fal_async.encode(b"hello", "text/plain") == "data:text/plain;base64,aGVsbG8="
    large.write_bytes(b"hello")
    assert fal_async.encode_file(large) == "data:video/mp4;base64,aGVsbG8="
    assert fal_async.encode_file(str(large)) == "data:video/mp4;base64,aGVsbG8="
    image = Image.new("RGB", (1, 1))
    assert fal_async.encode_image(image).startswith("data:image/jpeg;base64,/9j/")
    assert fal_async.encode_image(image, "png").startswith("data:image/png;base64,iVBOR")
