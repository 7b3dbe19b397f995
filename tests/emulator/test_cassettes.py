"""Recording of a platform, here another emulator, and replay without it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import fal_async
from fal_async import AsyncClient, NotFoundError
from fal_async.emulator import AppError, Emulator, Fault
from fal_async.emulator._cassettes.addresses import Addresses
from fal_async.errors import InvalidRequestError
from tests.support.http import Arguments, echo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from fal_async.emulator import Job

IMAGE = bytes(range(256)) * 10


@pytest.fixture
def upstream() -> Iterator[Emulator]:
    """The platform that is recorded."""
    with Emulator(key="upstream-id:upstream-secret") as emulator:

        @emulator.endpoint("acme/draw")
        async def draw(arguments: Arguments, job: Job) -> Arguments:
            job.log("drawing")
            url = emulator.store(IMAGE, "image/png", "fox.png")
            return {"images": [{"url": url}], "seen": arguments}

        @emulator.endpoint("acme/tell")
        async def tell(arguments: Arguments) -> AsyncIterator[Arguments]:
            for word in ("a", "red", "fox"):
                yield {"word": word}

        @emulator.endpoint("acme/fails")
        async def fail(arguments: Arguments) -> None:
            detail = [{"loc": ["body", "prompt"], "msg": "too short", "type": "too_short"}]
            raise AppError(422, detail)

        yield emulator


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cassettes" / "fox.json"


def read(path: Path) -> bytes:
    return path.read_bytes()


def read_files(path: Path) -> set[bytes]:
    return {file.read_bytes() for file in path.with_suffix(".files").iterdir()}


def write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


async def work(client: AsyncClient) -> list[Any]:
    """The code under test: all calls that are recorded."""
    upload = await client.upload(b"my image", "image/png", file_name="mine.png")
    result = await client.subscribe("acme/draw", {"image_url": upload}, with_logs=True)
    (file,) = result.files()
    async with client.stream("acme/tell", {}) as events:
        words = [event["word"] async for event in events]
    with pytest.raises(fal_async.InvalidInputError) as caught:
        await client.run("acme/fails", {})
    return [await file.read(), words, caught.value.details[0].type, result.request_id]


async def test_recording_is_replayed_alone(
    fal: Emulator, client: AsyncClient, upstream: Emulator, path: Path
) -> None:
    with fal.record(path, hosts=upstream.hosts, key=upstream.key):
        recorded = await work(client)
    assert recorded[:3] == [IMAGE, ["a", "red", "fox"], "too_short"]
    assert fal.unexpected_requests == []
    upstream.stop()
    with fal.replay(path, pace=0):
        assert await work(client) == recorded
        assert fal.unexpected_requests == []


async def test_cassette_has_no_secrets_and_no_hosts(
    fal: Emulator, client: AsyncClient, upstream: Emulator, path: Path
) -> None:
    with fal.record(path, hosts=upstream.hosts, key=upstream.key):
        await work(client)
        upload = await client.run("acme/draw", {"password": "upstream-secret"})
        assert upload["seen"] == {"password": "upstream-secret"}
    text = read(path).decode()
    assert "upstream-id" not in text
    assert "upstream-secret" not in text
    assert fal.key not in text
    assert "127.0.0.1" not in text
    assert "https://queue.fal.run/acme/draw/requests/" in text
    cassette = json.loads(text)
    urls = [each["request"]["url"] for each in cassette["interactions"]]
    assert urls[:2] == ["https://v3.fal.media/files/upload", "https://queue.fal.run/acme/draw"]
    assert read_files(path) == {IMAGE}
    stream = cassette["interactions"][urls.index("https://fal.run/acme/tell/stream")]
    assert len(stream["response"]["chunks"]) == 3


async def test_registered_endpoints_are_not_recorded(
    fal: Emulator, client: AsyncClient, upstream: Emulator, path: Path
) -> None:
    fal.register("acme/draw", echo)
    url = fal.store(b"mine", "text/plain", "mine.txt")
    with fal.record(path, hosts=upstream.hosts, key=upstream.key):
        assert await client.subscribe("acme/draw", {"a": 1}) == {"a": 1}
        saved = await client.download(url, path.parent.with_suffix(".txt"))
        assert read(saved) == b"mine"
    assert json.loads(read(path))["interactions"] == []


async def test_other_requests_are_not_replayed(
    fal: Emulator, client: AsyncClient, upstream: Emulator, path: Path
) -> None:
    upstream.register("acme/echo", echo)
    with fal.record(path, hosts=upstream.hosts, key=upstream.key):
        await client.run("acme/echo", {"a": 1, "b": 2})
    with fal.replay(path):
        with pytest.raises(
            NotFoundError, match=rf"POST .* was never recorded with this body in .*{path.name}"
        ):
            await client.run("acme/echo", {"a": 2})
        assert await client.run("acme/echo", {"b": 2, "a": 1}) == {"a": 1, "b": 2}
        with pytest.raises(NotFoundError, match=r"has no more response to POST .* with this body"):
            await client.run("acme/echo", {"a": 1, "b": 2})
        with pytest.raises(
            NotFoundError, match=rf"POST .*/other was never recorded in .*{path.name}"
        ):
            await client.run("acme/other", {})
        wrong = client.with_options(key="wrong:key")
        with pytest.raises(fal_async.AuthenticationError):
            await wrong.run("acme/echo", {"a": 1, "b": 2})
    assert [request.endpoint for request in fal.unexpected_requests] == [
        "acme/echo",
        "acme/echo",
        "acme/other",
    ]


async def test_pace_is_recorded(
    fal: Emulator, client: AsyncClient, upstream: Emulator, path: Path
) -> None:
    upstream.fail("acme/draw", Fault(route="run", delay=0.02))
    with fal.record(path, hosts=upstream.hosts, key=upstream.key):
        await client.run("acme/draw", {})
    (entry,) = json.loads(read(path))["interactions"]
    assert entry["response"]["delay"] >= 0.02


@pytest.mark.parametrize("place", ["response", "chunk"])
async def test_recorded_pace_is_kept(
    fal: Emulator, client: AsyncClient, path: Path, place: str
) -> None:
    day = 86_400
    request: dict[str, Any] = {"method": "POST", "url": "https://fal.run/acme/slow", "json": {}}
    chunks = [{"delay": day if place == "chunk" else 0, "json": {"a": 1}}]
    response: dict[str, Any]
    response = {"status": 200, "headers": {}, "delay": day if place == "response" else 0}
    entry = {"request": request, "response": {**response, "chunks": chunks}}
    write(path, json.dumps({"version": 1, "interactions": [entry, entry]}))
    fal.register("acme/echo", echo)
    outputs: list[object] = []

    async def call() -> None:
        outputs.append(await client.run("acme/slow", {}))

    with fal.replay(path):
        async with anyio.create_task_group() as group:
            group.start_soon(call)
            await fal.wait_for_async(lambda: fal.count("run") == 1)
            await client.run("acme/echo", {})  # the emulator has done what it could do at once
            assert outputs == []
            group.cancel_scope.cancel()
    with fal.replay(path, pace=0):
        await call()
    assert outputs == [{"a": 1}]


async def test_unreachable_platform_is_an_error(
    fal: Emulator, client: AsyncClient, upstream: Emulator, path: Path
) -> None:
    upstream.stop()
    impatient = client.with_options(retry=fal_async.RetryPolicy(attempts=1))
    with (
        fal.record(path, hosts=upstream.hosts, key=upstream.key),
        pytest.raises(fal_async.ServerError, match="cannot record POST https://fal"),
    ):
        await impatient.run("acme/draw", {})
    assert json.loads(read(path))["interactions"] == []


async def test_websockets_are_refused(
    fal: Emulator, client: AsyncClient, upstream: Emulator, path: Path
) -> None:
    with (
        fal.record(path, hosts=upstream.hosts, key=upstream.key),
        pytest.raises(fal_async.FalClientHTTPError, match="WebSockets are not recorded"),
    ):
        async with client.ws_connect("acme/talk"):
            pass


def test_signed_urls_are_renamed() -> None:
    addresses = Addresses(fal_async.Hosts())
    text = (
        rb'{"upload_url": "https://storage.example/b/fox.png?X-Goog-Signature=s3cret\u0026e=1",'
        rb' "file": "https://v3b.fal.media/files/b/x/fox.png", "page": "https://example.com/?a=1",'
        rb' "old": "https://storage.googleapis.com/falserverless/old.png",'
        rb' "own": "https://v3.fal.media/files/b/x/own.png"}'
    )
    recorded = addresses.from_upstream(text)
    assert json.loads(recorded) == {
        "upload_url": "https://v3.fal.media/recorded/0/fox.png",
        "file": "https://v3.fal.media/recorded/1/fox.png",
        "page": "https://example.com/?a=1",
        "old": "https://v3.fal.media/recorded/2/old.png",
        "own": "https://v3.fal.media/files/b/x/own.png",
    }
    url = addresses.to_upstream(b"https://v3.fal.media/recorded/0/fox.png")
    assert url == b"https://storage.example/b/fox.png?X-Goog-Signature=s3cret&e=1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file or directory; Emulator.record makes one"),
        ("no JSON", "cannot read the cassette"),
        ("[]", "cannot read the cassette"),
        ('{"version": 2}', "the version of .* must be 1, got 2"),
    ],
)
def test_invalid_cassette_is_an_error(
    fal: Emulator, path: Path, text: str | None, message: str
) -> None:
    if text is not None:
        write(path, text)
    with pytest.raises(InvalidRequestError, match=message):
        fal.replay(path)


def test_recording_needs_a_key_and_a_start(
    fal: Emulator, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAL_KEY", fal.key)
    with pytest.raises(InvalidRequestError, match="key must be the key for the recorded platform"):
        fal.record(path, hosts=fal.hosts)
    with pytest.raises(RuntimeError, match="before the emulator has started"):
        Emulator().record(path, hosts=fal.hosts, key="a:b")
    with (
        fal.record(path, hosts=fal.hosts, key="a:b"),
        pytest.raises(RuntimeError, match="cannot use two cassettes at once"),
    ):
        fal.replay(path)


def test_recording_is_written_when_isolation_ends(
    fal: Emulator, upstream: Emulator, path: Path
) -> None:
    with fal.isolated():
        fal.record(path, hosts=upstream.hosts, key=upstream.key)
    assert path.exists()
