"""Downloads: files in results, resumption, limits, redirects and tokens."""

from __future__ import annotations

import copy
import dataclasses
import gzip
import os
import pickle
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from pydantic import BaseModel

import fal_async
from fal_async import (
    AsyncClient,
    FalClientHTTPError,
    File,
    InvalidRequestError,
    InvalidResponseError,
    LimitUsage,
    NotFoundError,
    PermissionDeniedError,
    RetryPolicy,
    ServerError,
    TransportError,
)
from fal_async._http.transports import PooledBackend
from fal_async.emulator import Emulator, Fault
from tests.support.http import echo
from tests.support.pool_state import in_use
from tests.support.raw_server import RawServer, respond_with

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from pathlib import Path

    from tests.support.raw_server import RawConnection

CONTENT = os.urandom(300_000)
ECHO = "acme/echo"


@pytest.fixture(autouse=True)
def endpoints(fal: Emulator) -> None:
    fal.register(ECHO, echo)


@pytest.fixture
async def client(fal: Emulator) -> AsyncIterator[AsyncClient]:
    retry = RetryPolicy(base_delay=0, attempts=3)
    async with AsyncClient(fal.key, hosts=fal.hosts, retry=retry) as open_client:
        yield open_client


@pytest.fixture
def url(fal: Emulator) -> str:
    return fal.store(CONTENT, "video/mp4", "a b.mp4")


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def file_at(client: AsyncClient, url: str, **facts: Any) -> File:
    (file,) = (await client.run(ECHO, {"video": {"url": url, **facts}})).files()
    return file


async def test_file_objects_are_found_anywhere(client: AsyncClient) -> None:
    picture = {"url": "https://v3.fal.media/a.png", "width": 8, "height": 6}
    video = {"url": "HTTP://v3.fal.media/a.mp4", "content_type": "video/mp4", "fps": 24}
    output = {
        "images": [picture, picture],
        "video": {**video, "poster": {"url": "data:image/png;base64,AA=="}},
        "page": {"url": "ftp://fal.ai"},
        "link": "https://fal.ai",
        "none": {"url": None},
        "deep": [[{"mesh": {"url": "https://a/b", "file_size": 7.5, "file_name": 3}}]],
    }
    for files in (
        (await client.run(ECHO, output)).files(),
        (await client.subscribe(ECHO, output)).files(),
    ):
        assert [file.url for file in files] == [
            picture["url"],
            picture["url"],
            video["url"],
            "data:image/png;base64,AA==",
            "https://a/b",
        ]
        assert (files[0].width, files[0].height, files[0].content_type) == (8, 6, None)
        assert files[2].content_type == "video/mp4"
        assert files[2].model_extra is not None
        assert files[2].model_extra["fps"] == 24
        assert (files[4].file_size, files[4].file_name) == (None, None)


async def test_file_can_be_read_iterated_and_saved(
    fal: Emulator, client: AsyncClient, url: str, tmp_path: Path
) -> None:
    file = await file_at(client, url, file_name="b.mp4")
    assert await file.read() == CONTENT
    async with file.iter_bytes() as chunks:
        assert b"".join([chunk async for chunk in chunks]) == CONTENT
    saved = await file.save(tmp_path / "c.mp4")
    assert (saved, saved.read_bytes()) == (tmp_path / "c.mp4", CONTENT)
    assert names_in(tmp_path) == ["c.mp4"]
    for request in fal.requests:
        assert ("authorization" in request.headers) == (request.host == "run")


async def test_files_in_a_folder_get_distinct_names(
    fal: Emulator, client: AsyncClient, url: str, tmp_path: Path
) -> None:
    file = await file_at(client, url, file_name="b.mp4")
    saved = [await file.save(str(tmp_path)) for _ in range(3)]
    assert [path.name for path in saved] == ["b.mp4", "b-1.mp4", "b-2.mp4"]
    assert (await client.download(url, tmp_path)).name == "a b.mp4"
    evil = await file_at(client, url, file_name="../../evil.mp4")
    assert await evil.save(tmp_path) == tmp_path / "evil.mp4"
    data = await file_at(client, "data:image/png;base64,AAAA")
    assert (await data.save(tmp_path)).name == "file.png"
    assert len(names_in(tmp_path)) == 6


async def test_file_names_keep_unicode_letters(
    fal: Emulator, client: AsyncClient, tmp_path: Path
) -> None:
    names = ["übel näme.png", "日本 100%.png", "a+b&c=d#e?.png", "😀.webp"]
    for name in names:
        target = tmp_path / name
        target.write_bytes(name.encode())
        for url in (await client.upload_file(target), (await client.run(ECHO, {"f": target}))["f"]):
            folder = tmp_path / "out"
            folder.mkdir()
            saved = await client.download(url, folder)
            assert (saved.name, saved.read_bytes()) == (name.replace("?", "_"), name.encode())
            saved.unlink()
            folder.rmdir()


async def test_suggested_file_name_is_used(client: AsyncClient, tmp_path: Path) -> None:
    suggestion = b"attachment; filename*=UTF-8''..%2F%C3%BC.png"
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Disposition: %s\r\n\r\nx"
    with RawServer(respond_with(head % suggestion)) as peer:
        assert (await client.download(f"{peer.url}/1?a", tmp_path)).name == "ü.png"
        file = File(url=f"{peer.url}/1", file_name="own.png")._bind(client._dispatcher)
        assert (await file.save(tmp_path)).name == "own.png"
        assert (await client.download(f"{peer.url}/1", tmp_path / "a")).name == "a"


async def test_existing_target_file_is_replaced(
    client: AsyncClient, url: str, tmp_path: Path
) -> None:
    target = tmp_path / "a.mp4"
    target.write_bytes(b"old")
    assert await client.download(url, target) == target
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("target", ["nothing/", "nothing/a.mp4"])
async def test_missing_folders_are_not_created(
    fal: Emulator, client: AsyncClient, url: str, tmp_path: Path, target: str
) -> None:
    with pytest.raises(FileNotFoundError):
        await client.download(url, f"{tmp_path}/{target}")
    assert names_in(tmp_path) == []
    assert fal.count("download") == 0


async def test_special_files_are_not_replaced(
    fal: Emulator, client: AsyncClient, url: str, tmp_path: Path
) -> None:
    device = tmp_path / "device"
    os.mkfifo(device)
    with pytest.raises(FileExistsError):
        await client.download(url, device)
    assert device.is_fifo()
    assert names_in(tmp_path) == ["device"]
    wrong: Any
    for wrong in (7, None, "a\0b"):
        with pytest.raises(InvalidRequestError):
            await client.download(url, wrong)
    with pytest.raises(InvalidRequestError):
        await client.download(wrong and 7, tmp_path)  # type: ignore[arg-type]  # as the test is about
    assert fal.count("download") == 0


@pytest.mark.parametrize("reset", [False, True])
async def test_interrupted_download_resumes(
    fal: Emulator, client: AsyncClient, url: str, reset: bool
) -> None:
    fal.fail(None, Fault(route="download", cut=60_000, reset=reset, times=4))
    assert await (await file_at(client, url)).read() == CONTENT  # three in a row would be too many
    ranges = [
        request.headers.get("range") for request in fal.requests if request.route == "download"
    ]
    assert ranges[0] is None
    assert ranges[1:] == [f"bytes={start}-" for start in (60_000, 120_000, 180_000, 240_000)]


async def test_ignored_range_restarts_the_download(
    fal: Emulator, client: AsyncClient, url: str
) -> None:
    whole = {"etag": fal.files[url].etag, "content-type": "video/mp4"}
    cut = Fault(route="download", status=200, body=CONTENT, headers=whole, cut=100_000)
    fal.fail(None, cut, Fault(route="download", status=200, body=CONTENT, headers=whole))
    assert await (await file_at(client, url)).read() == CONTENT


@pytest.mark.parametrize("second", [CONTENT, bytes(300_000), CONTENT[:-1], CONTENT + b"x"])
async def test_resume_without_etag_compares_the_start(
    fal: Emulator, client: AsyncClient, url: str, second: bytes
) -> None:
    fal.fail(
        None,
        Fault(route="download", status=200, body=CONTENT, cut=100_000),
        Fault(route="download", status=200, body=second),
    )
    file = await file_at(client, url)
    if second == CONTENT:
        assert await file.read() == CONTENT
    else:
        with pytest.raises(TransportError, match="changed after 100000 bytes"):
            await file.read()
    assert all("range" not in request.headers for request in fal.requests)


async def test_file_changed_between_ranges_is_an_error(
    fal: Emulator, client: AsyncClient, url: str
) -> None:
    other = Fault(route="download", status=200, body=CONTENT, headers={"etag": '"other"'})
    fal.fail(None, Fault(route="download", cut=10), other)
    with pytest.raises(TransportError, match="changed"):
        await (await file_at(client, url)).read()


@pytest.mark.parametrize("start", [5, 50])
async def test_range_start_in_response_is_checked(
    fal: Emulator, client: AsyncClient, url: str, start: int
) -> None:
    size, etag = len(CONTENT), fal.files[url].etag
    headers = {"etag": etag, "content-range": f"bytes {start}-{size - 1}/{size}"}
    wrong = Fault(route="download", status=206, body=CONTENT[start:], headers=headers)
    fal.fail(None, Fault(route="download", cut=10), wrong)
    file = await file_at(client, url)
    if start < 10:  # the overlap is dropped
        assert await file.read() == CONTENT
    else:
        with pytest.raises(InvalidResponseError, match="start at byte 10, but starts at 50"):
            await file.read()


async def test_unrequested_range_is_an_error(fal: Emulator, client: AsyncClient, url: str) -> None:
    headers = {"content-range": f"bytes 5-{len(CONTENT) - 1}/{len(CONTENT)}"}
    fal.fail(None, Fault(route="download", status=206, body=CONTENT[5:], headers=headers))
    with pytest.raises(InvalidResponseError, match="start at byte 0, but starts at 5"):
        await (await file_at(client, url)).read()


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_announced_size_over_limit_is_refused(client: AsyncClient) -> None:
    def script(connection: RawConnection) -> None:
        connection.respond(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n")
        connection.wait_closed()

    with (
        RawServer(script) as peer,
        pytest.raises(InvalidResponseError, match="more than 6 bytes"),
    ):
        await File(url=peer.url)._bind(client._dispatcher).read(max_bytes=6)


async def test_oversized_download_is_stopped(client: AsyncClient) -> None:
    def script(connection: RawConnection) -> None:
        connection.respond(CHUNKED, b"4\r\nfour\r\n4\r\nfive\r\n")
        connection.wait_closed()

    with (
        RawServer(script) as peer,
        pytest.raises(InvalidResponseError, match="more than 6 bytes"),
    ):
        await File(url=peer.url)._bind(client._dispatcher).read(max_bytes=6)


async def test_file_that_shrinks_is_incomplete(client: AsyncClient) -> None:
    def script(connection: RawConnection) -> None:
        whole = connection.number > 1
        connection.respond(CHUNKED, b"2\r\nhe\r\n0\r\n\r\n" if whole else b"5\r\nhello\r\n")

    with (
        RawServer(script) as peer,
        pytest.raises(TransportError, match="was interrupted after 5 bytes"),
    ):
        await File(url=peer.url)._bind(client._dispatcher).read()


@pytest.mark.parametrize("beyond", ["5", "6", "*"])
async def test_lost_connection_after_last_byte_is_fine(client: AsyncClient, beyond: str) -> None:
    def script(connection: RawConnection) -> None:
        request = connection.request()
        if b"range: bytes=5-" in request.lower():
            connection.send(b"HTTP/1.1 416 Beyond\r\nContent-Length: 0\r\n")
            connection.send(b"Content-Range: bytes */%s\r\n\r\n" % beyond.encode())
        else:
            connection.send(b'HTTP/1.1 200 OK\r\nETag: "a"\r\nTransfer-Encoding: chunked\r\n\r\n')
            connection.send(b"5\r\nhello\r\n")  # and no last chunk

    with RawServer(script) as peer:
        file = File(url=f"{peer.url}/a")._bind(client._dispatcher)
        if beyond == "5":
            assert await file.read() == b"hello"
        else:
            with pytest.raises(TransportError, match="changed after 5 bytes"):
                await file.read()


async def test_compressed_download_is_never_resumed(
    fal: Emulator, client: AsyncClient, url: str
) -> None:
    headers = {"etag": fal.files[url].etag, "content-encoding": "gzip"}
    packed = Fault(route="download", status=200, body=gzip.compress(CONTENT), headers=headers)
    fal.fail(None, dataclasses.replace(packed, cut=150_000), packed)
    assert await (await file_at(client, url)).read() == CONTENT
    assert all("range" not in request.headers for request in fal.requests)


async def test_redirects_carry_no_key(fal: Emulator, client: AsyncClient, url: str) -> None:
    with Emulator() as other:
        target = other.store(CONTENT, "video/mp4", "b.mp4")
        fal.fail(None, Fault(route="download", status=302, headers={"location": target}, times=2))
        other.fail(None, Fault(route="download", cut=100_000))
        assert await (await file_at(client, url)).read() == CONTENT
        assert [dict(request.headers).get("authorization") for request in other.requests] == [
            None,
            None,
        ]
        assert other.requests[-1].headers["range"] == "bytes=100000-"


async def test_file_token_is_not_sent_after_a_redirect(fal: Emulator, client: AsyncClient) -> None:
    private = fal.store(b"secret", "text/plain", lifecycle={"initial_acl": {"default": "forbid"}})
    with Emulator() as other:
        moved = Fault(
            route="download",
            status=307,
            headers={"location": other.store(b"moved", "text/plain")},
            when=lambda request: "authorization" in request.headers,
        )
        fal.fail(None, moved)
        assert await (await file_at(client, private)).read() == b"moved"
        assert [dict(request.headers).get("authorization") for request in other.requests] == [None]


async def test_endless_redirects_are_an_error(fal: Emulator, client: AsyncClient, url: str) -> None:
    fal.fail(None, Fault(route="download", status=302, headers={"location": url}, times=None))
    with pytest.raises(InvalidResponseError, match="redirected more than 10 times"):
        await (await file_at(client, url)).read()
    assert fal.count("download") == 11
    fal.reset()
    fal.fail(None, Fault(route="download", status=302))
    with pytest.raises(FalClientHTTPError, match="302"):
        await (await file_at(client, url)).read()


async def test_response_without_a_file_is_an_error(
    fal: Emulator, client: AsyncClient, url: str, tmp_path: Path
) -> None:
    fal.fail(None, Fault(route="download", status=204))
    transport = client._dispatcher.resources.transport
    assert isinstance(transport, PooledBackend)
    with pytest.raises(InvalidResponseError, match="204"):
        await client.download(url, tmp_path / "a.mp4")
    assert names_in(tmp_path) == []
    assert in_use(transport) == 0


async def test_server_size_determines_completeness(client: AsyncClient, url: str) -> None:
    assert await (await file_at(client, url, file_size=5)).read() == CONTENT


async def test_spaces_in_urls_are_encoded(fal: Emulator, client: AsyncClient, url: str) -> None:
    assert "a%20b.mp4" in url
    assert await (await file_at(client, url.replace("%20", " "))).read() == CONTENT


async def test_repeated_interruptions_fail_the_download(
    fal: Emulator, client: AsyncClient, url: str, tmp_path: Path
) -> None:
    fal.fail(None, Fault(route="download", cut=100))
    fal.fail(None, Fault(route="download", cut=0, times=None))
    with pytest.raises(TransportError, match="was interrupted after 100 bytes"):
        await client.download(url, tmp_path / "a.mp4")
    assert names_in(tmp_path) == []
    assert fal.count("download") == 3


async def test_failing_server_is_retried(fal: Emulator, client: AsyncClient, url: str) -> None:
    fal.fail(None, Fault(route="download", status=503, times=2))
    assert await (await file_at(client, url)).read() == CONTENT
    fal.fail(None, Fault(route="download", status=500, times=None))
    with pytest.raises(ServerError):
        await (await file_at(client, url)).read()


@pytest.mark.parametrize("decision", ["forbid", "hide"])
async def test_owner_can_download_a_private_file(
    fal: Emulator, client: AsyncClient, decision: str
) -> None:
    url = fal.store(b"secret", "text/plain", lifecycle={"initial_acl": {"default": decision}})
    assert await (await file_at(client, url)).read() == b"secret"
    shown = [request.headers.get("authorization", "") for request in fal.requests]
    assert [value.partition(" ")[0] for value in shown] == ["Key", "", "Key", "Bearer"]
    async with AsyncClient("wrong", hosts=fal.hosts) as stranger:
        error = NotFoundError if decision == "hide" else PermissionDeniedError
        with pytest.raises(error):
            await File(url=url)._bind(stranger._dispatcher).read()


async def test_resumed_private_download_sends_the_token(fal: Emulator, client: AsyncClient) -> None:
    url = fal.store(CONTENT, "text/plain", lifecycle={"initial_acl": {"default": "hide"}})
    fal.fail(None, Fault(route="download", cut=100_000, skip=1))
    assert await (await file_at(client, url)).read() == CONTENT
    shown = [request.headers.get("authorization", "") for request in fal.requests]
    assert [value.partition(" ")[0] for value in shown] == ["Key", "", "Key", "Bearer", "Bearer"]


async def test_tokens_are_sent_only_to_the_cdn(fal: Emulator, client: AsyncClient) -> None:
    with Emulator() as other:
        url = other.store(b"x", "text/plain", lifecycle={"initial_acl": {"default": "forbid"}})
        with pytest.raises(PermissionDeniedError):
            await (await file_at(client, url)).read()
    assert [dict(request.headers).get("authorization") for request in other.requests] == [None]
    assert fal.count("cdn_token") == 0


async def test_missing_file_raises_not_found(client: AsyncClient, url: str) -> None:
    with pytest.raises(NotFoundError):
        await (await file_at(client, url.replace("/b/", "/b/0"))).read()


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://a/b", "nonsense", "http://u@a/"])
async def test_only_http_and_data_urls_are_allowed(
    client: AsyncClient, url: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequestError, match="http"):
        await client.download(url, tmp_path / "a")


@pytest.mark.parametrize(
    ("url", "content"),
    [
        ("data:text/plain;base64,aGVsbG8=", b"hello"),
        ("DATA:text/plain;charset=utf-8;base64,aGVsbG8", b"hello"),
        ("data:,a%20b", b"a b"),
        ("data:text/plain;base64,", b""),
    ],
)
async def test_data_urls_are_decoded(client: AsyncClient, url: str, content: bytes) -> None:
    assert await (await file_at(client, url)).read() == content


@pytest.mark.parametrize("url", ["data:nothing", "data:;base64,a", "data:;base64,%%%%"])
async def test_invalid_data_urls_are_refused(client: AsyncClient, url: str) -> None:
    with pytest.raises(InvalidResponseError, match="data URL"):
        await (await file_at(client, url)).read()


async def test_file_over_the_limit_is_refused(
    fal: Emulator, client: AsyncClient, url: str, tmp_path: Path
) -> None:
    file = await file_at(client, url)
    size = len(CONTENT)
    assert len(await file.read(max_bytes=size)) == size
    with pytest.raises(InvalidResponseError, match=f"more than {size - 1} bytes"):
        await file.save(tmp_path / "a", max_bytes=size - 1)
    with pytest.raises(InvalidResponseError, match="more than 2 bytes"):
        await (await file_at(client, "data:,abc")).read(max_bytes=2)
    assert names_in(tmp_path) == []


async def test_cancelled_download_leaves_no_file(
    fal: Emulator, client: AsyncClient, url: str, tmp_path: Path
) -> None:
    gate = fal.gate()
    fal.fail(None, Fault(route="download", cut=100_000, delay=gate))
    transport = client._dispatcher.resources.transport
    assert isinstance(transport, PooledBackend)
    async with anyio.create_task_group() as group:
        group.start_soon(client.download, url, tmp_path)
        await fal.wait_for_async(lambda: fal.count("download") == 1)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert in_use(transport) == 0
    assert names_in(tmp_path) == []
    assert await (await file_at(client, url)).read() == CONTENT


async def test_early_exit_releases_the_connection(
    fal: Emulator, client: AsyncClient, url: str
) -> None:
    file = await file_at(client, url)
    transport = client._dispatcher.resources.transport
    assert isinstance(transport, PooledBackend)
    async with file.iter_bytes() as chunks:
        async for _ in chunks:
            break
    assert in_use(transport) == 0
    async for _ in file.iter_bytes():
        break
    assert in_use(transport) == 0
    assert client.statistics().downloads == LimitUsage(limit=64, used=0, waiting=0)


async def test_stored_results_use_the_default_client(
    fal: Emulator, client: AsyncClient, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in fal.environ.items():
        monkeypatch.setenv(name, value)
    result = await client.run(ECHO, {"video": {"url": url}})
    for again in (copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        (file,) = again.files()
        assert await file.read() == CONTENT
    assert await File(url=url).read() == CONTENT


async def test_copied_files_lose_their_client(
    fal: Emulator, client: AsyncClient, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in fal.environ.items():
        monkeypatch.setenv(name, value)
    file = await file_at(client, url, fps=24)
    data = pickle.dumps(file)
    assert fal.key.encode() not in data
    for again in (pickle.loads(data), copy.deepcopy(file), copy.copy(file)):
        assert again == file == File(url=url, fps=24)  # type: ignore[call-arg] # an extra
        assert await again.read() == CONTENT
    assert file != await file_at(client, url)


async def test_files_in_typed_events_use_the_client(fal: Emulator, client: AsyncClient) -> None:
    class Event(BaseModel):
        image: File

    url = fal.store(b"secret", "text/plain", lifecycle={"initial_acl": {"default": "forbid"}})

    @fal.endpoint("acme/stream")
    async def pictures(arguments: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        yield {"image": {"url": url}}

    async with client.stream("acme/stream", {}, output=Event) as events:
        assert [await event.image.read() async for event in events] == [b"secret"]


async def test_output_attributes_do_not_shadow_methods(client: AsyncClient, url: str) -> None:
    names = ("read", "save", "_dispatcher", "model_config", "_bind", "iter_bytes")
    file = await file_at(client, url, **dict.fromkeys(names, 1))
    assert await file.read() == CONTENT


async def test_files_in_typed_outputs_use_the_client(fal: Emulator, client: AsyncClient) -> None:
    class Output(BaseModel):
        images: list[File]

    url = fal.store(b"secret", "text/plain", lifecycle={"initial_acl": {"default": "forbid"}})
    output = await client.run(ECHO, {"images": [{"url": url}]}, output=Output)
    assert await output.images[0].read() == b"secret"


async def test_file_of_a_result_is_a_valid_argument(
    fal: Emulator, client: AsyncClient, url: str
) -> None:
    class Album(BaseModel):
        cover: File
        pages: list[Any]

    @fal.realtime("acme/turn")
    def turn(message: dict[str, Any]) -> dict[str, Any]:
        return message

    for there in (url, "data:,hello", "https://elsewhere.example/a%20b.png?signed=1#x"):
        file = await file_at(client, there, width=8)
        arguments = {"image_url": file, "all": [file, {"deep": (file,)}], "as_it_came": dict(file)}
        for call in (client.run, client.subscribe):
            got: dict[str, Any] = await call(ECHO, arguments)
            assert got["image_url"] == there
            assert got["all"] == [there, {"deep": [there]}]
            assert got["as_it_came"]["width"] == 8
        assert (await client.run(ECHO, {"f": file}, auto_upload=False))["f"] == there
        album = Album(cover=file, pages=[file])
        got = await client.run(ECHO, album)
        assert got["cover"]["url"] == there  # as in the caller's model
        async with client.realtime("acme/turn") as session:
            await session.send({"image_url": file})
            assert (await session.recv())["image_url"] == there
    assert fal.count("download") == fal.count("upload") == 0


async def test_module_level_download_functions_work(
    fal: Emulator, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in fal.environ.items():
        monkeypatch.setenv(name, value)
    assert (await fal_async.download(url, tmp_path)).read_bytes() == CONTENT
