"""Files of results: blocking downloads."""

from __future__ import annotations

import copy
import os
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

import fal_async.sync as fal_client
from fal_async.emulator import Fault
from fal_async.sync._portal import Portal
from tests.support.shared_client import close_shared_client

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator
    from pathlib import Path

    from fal_async.emulator import Emulator

CONTENT = os.urandom(300_000)
ECHO = "acme/echo"


@pytest.fixture(autouse=True)
def blocking(fal: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[fal_client.SyncClient]:
    """A client of its own beside the shared one, which has another key."""
    fal.register(ECHO, lambda arguments: arguments)
    close_shared_client()
    for name, value in fal.environ.items():
        monkeypatch.setenv(name, value)
    with fal_client.SyncClient(fal.key, hosts=fal.hosts) as client:
        yield client
    close_shared_client()


@pytest.fixture
def url(fal: Emulator) -> str:
    return fal.store(CONTENT, "video/mp4", "a b.mp4")


@pytest.fixture
def private(fal: Emulator) -> str:
    """What only its owner may read."""
    return fal.store(b"secret", "text/plain", lifecycle={"initial_acl": {"default": "forbid"}})


def shared_client_is_a_stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the shared client one that may read nothing."""
    close_shared_client()
    monkeypatch.setenv("FAL_KEY", "wrong")


def by_run(calls: Any, arguments: dict[str, Any]) -> fal_client.SyncResult:
    result: fal_client.SyncResult = calls.run(ECHO, arguments)
    return result


def by_subscribe(calls: Any, arguments: dict[str, Any]) -> fal_client.SyncResult:
    result: fal_client.SyncResult = calls.subscribe(ECHO, arguments)
    return result


def by_handle(calls: Any, arguments: dict[str, Any]) -> fal_client.SyncResult:
    result: fal_client.SyncResult = calls.submit(ECHO, arguments).get()
    return result


def by_result(calls: Any, arguments: dict[str, Any]) -> fal_client.SyncResult:
    request_id = calls.submit(ECHO, arguments).request_id
    result: fal_client.SyncResult = calls.result(ECHO, request_id)
    return result


def by_output(calls: Any, arguments: dict[str, Any]) -> fal_client.SyncResult:
    result: fal_client.SyncResult = calls.run(ECHO, arguments, output=fal_client.SyncResult)
    return result


CALLS = [by_run, by_subscribe, by_handle, by_result, by_output]


@pytest.mark.parametrize("call", CALLS)
def test_every_result_has_blocking_files(
    blocking: fal_client.SyncClient,
    call: Callable[[Any, dict[str, Any]], fal_client.SyncResult],
    url: str,
) -> None:
    for calls in (blocking, fal_client):
        result = call(calls, {"video": {"url": url, "fps": 24}})
        assert type(result) is fal_client.SyncResult
        assert isinstance(result, fal_client.Result)
        assert result.request_id is not None
        assert result.headers["content-type"] == "application/json"
        (file,) = result.files()
        assert type(file) is fal_client.SyncFile
        assert file == fal_client.SyncFile(url=url, fps=24)  # type: ignore[call-arg] # an extra
        assert file.read() == CONTENT


def test_queue_results_have_metrics(blocking: fal_client.SyncClient) -> None:
    assert "inference_time" in blocking.subscribe(ECHO, {}).metrics


def test_other_outputs_are_unchanged(fal: Emulator, blocking: fal_client.SyncClient) -> None:
    fal.register("acme/list", lambda arguments: [1, 2])
    assert blocking.run("acme/list", {}, output=list[int]) == [1, 2]
    assert not hasattr(blocking.run("acme/list", {}), "files")


def test_save_writes_whole_file(
    fal: Emulator, blocking: fal_client.SyncClient, url: str, tmp_path: Path
) -> None:
    fal.fail(None, Fault(route="download", cut=100_000))
    (file,) = blocking.run(ECHO, {"video": {"url": url, "file_name": "b.mp4"}}).files()
    saved = [file.save(tmp_path), file.save(tmp_path), file.save(tmp_path / "c")]
    assert [path.name for path in saved] == ["b.mp4", "b-1.mp4", "c"]
    assert {path.read_bytes() for path in saved} == {CONTENT}
    assert blocking.download(url, tmp_path / "d").read_bytes() == CONTENT
    assert fal_client.download(url, tmp_path).name == "a b.mp4"
    with pytest.raises(fal_client.InvalidResponseError):
        file.read(max_bytes=10)
    with pytest.raises(FileNotFoundError):
        file.save(tmp_path / "nowhere" / "c")


def test_iter_bytes_yields_chunks(blocking: fal_client.SyncClient, url: str) -> None:
    (file,) = blocking.run(ECHO, {"video": {"url": url}}).files()
    assert b"".join(file.iter_bytes()) == CONTENT
    with file.iter_bytes() as chunks:
        assert b"".join(chunks) == CONTENT
    with file.iter_bytes() as chunks:
        first = next(chunks)
        assert CONTENT.startswith(first)
    assert list(chunks) == []
    for chunk in file.iter_bytes():
        assert chunk == first
        break


def test_break_releases_download_slot(fal: Emulator, blocking: fal_client.SyncClient) -> None:
    (file,) = blocking.run(ECHO, {"f": {"url": fal.store(bytes(16 * 1024 * 1024), "x/y")}}).files()
    for _ in range(4):
        for _ in file.iter_bytes():
            break
        with file.iter_bytes() as chunks:
            next(chunks)

    assert blocking.statistics().downloads.used == 0


def test_file_errors_match_async_files(blocking: fal_client.SyncClient, url: str) -> None:
    (file,) = blocking.run(ECHO, {"f": {"url": url.replace("/b/", "/b/0")}}).files()
    with pytest.raises(fal_client.NotFoundError) as caught:
        file.read()
    assert caught.value.__context__ is None
    with pytest.raises(fal_client.NotFoundError):
        next(file.iter_bytes())


def test_files_use_client_of_result(
    fal: Emulator,
    blocking: fal_client.SyncClient,
    private: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (file,) = blocking.run(ECHO, {"f": {"url": private}}).files()
    shared_client_is_a_stranger(monkeypatch)
    assert file.read() == b"secret"
    with pytest.raises(fal_client.PermissionDeniedError):
        fal_client.SyncFile(url=private).read()


class Album(BaseModel):
    pictures: list[fal_client.SyncFile]


def test_typed_output_files_use_client_loop(
    fal: Emulator,
    blocking: fal_client.SyncClient,
    private: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @fal.endpoint("acme/stream")
    async def stream(arguments: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        yield arguments

    shared_client_is_a_stranger(monkeypatch)
    arguments = {"pictures": [{"url": private}]}
    albums = [
        blocking.run(ECHO, arguments, output=Album),
        blocking.submit(ECHO, arguments).get(output=Album),
        *blocking.stream("acme/stream", arguments, output=Album),
    ]
    files = [album.pictures[0] for album in albums]
    assert [file.read() for file in files] == [b"secret"] * 3
    assert {file._portal for file in files} == {blocking._portal}


def test_file_keeps_loop_of_dropped_client(fal: Emulator, url: str) -> None:
    client = fal_client.SyncClient(fal.key, hosts=fal.hosts)
    (file,) = client.run(ECHO, {"f": {"url": url}}).files()
    (picture,) = client.run(ECHO, {"pictures": [{"url": url}]}, output=Album).pictures
    del client
    assert file.read() == picture.read() == CONTENT


def test_file_of_closed_client_fails(blocking: fal_client.SyncClient, url: str) -> None:
    (file,) = blocking.run(ECHO, {"f": {"url": url}}).files()
    blocking.close()
    with pytest.raises(fal_client.ClientClosedError):
        file.read()


def test_unpickled_files_use_default_client(
    fal: Emulator, blocking: fal_client.SyncClient, url: str, tmp_path: Path
) -> None:
    result = blocking.subscribe(ECHO, {"f": {"url": url}})
    data = pickle.dumps((result, result.files()))
    assert fal.key.encode() not in data
    stored, files = pickle.loads(data)
    for again in (stored, copy.copy(result), copy.deepcopy(result)):
        assert type(again) is fal_client.SyncResult
        assert again == result
        assert again.request_id == result.request_id
        assert again.metrics == result.metrics
        files += again.files()
    files += copy.deepcopy(result.files())
    blocking.close()
    assert files == 5 * result.files()
    for file in files:
        assert file.read() == CONTENT
        assert file.save(tmp_path).name
    assert b"".join(files[0].iter_bytes()) == CONTENT


def test_file_argument_is_sent_as_url(blocking: fal_client.SyncClient, url: str) -> None:
    (file,) = blocking.run(ECHO, {"f": {"url": url, "fps": 24}}).files()
    assert blocking.run(ECHO, {"f": file})["f"] == url


def test_read_on_own_loop_is_rejected(blocking: fal_client.SyncClient, url: str) -> None:
    (file,) = blocking.run(ECHO, {"f": {"url": url}}).files()
    refused = []

    async def on_enqueue(request_id: str) -> None:
        try:
            file.read()
        except fal_client.InvalidRequestError as error:
            refused.append(error)

    blocking.subscribe(ECHO, {}, on_enqueue=on_enqueue)
    assert len(refused) == 1


def test_blocking_code_has_no_current_portal(blocking: fal_client.SyncClient) -> None:
    async def current() -> Portal | None:
        return Portal.current()

    assert blocking._portal.call(current) is blocking._portal
    assert Portal.current() is None
