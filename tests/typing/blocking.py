"""What type checkers make of the blocking facade. Nothing here is run."""
# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, assert_type

from pydantic import BaseModel

import fal_async.sync as fal_client
from fal_async.sync import (
    Cancellation,
    File,
    RealtimeConnection,
    Result,
    Status,
    SyncClient,
    SyncDownload,
    SyncEventStream,
    SyncFile,
    SyncHTTPOverWebSocket,
    SyncRequestHandle,
    SyncResult,
    SyncWebSocketConnection,
    SyncWebSocketResponse,
)


class Picture(BaseModel):
    prompt: str


def functions_give_values() -> None:
    assert_type(fal_client.run("acme/app", {}), SyncResult)
    assert_type(fal_client.run("acme/app", Picture(prompt="a cat"), output=Picture), Picture)
    assert_type(fal_client.run("acme/app", {}, output=list[int]), list[int])
    assert_type(fal_client.subscribe("acme/app", {}, with_logs=True), SyncResult)
    assert_type(fal_client.subscribe("acme/app", {}, output=Picture), Picture)
    assert_type(fal_client.submit("acme/app", {}, priority="low"), SyncRequestHandle)
    assert_type(fal_client.status("acme/app", "id", with_logs=True), Status)
    assert_type(fal_client.result("acme/app", "id"), SyncResult)
    assert_type(fal_client.result("acme/app", "id", output=Picture), Picture)
    assert_type(fal_client.cancel("acme/app", "id"), Cancellation)
    assert_type(fal_client.attach({"request_id": "id"}), SyncRequestHandle)
    assert_type(fal_client.upload(b"data", "image/png", on_progress=print), str)


def streams_are_iterators_and_context_managers() -> None:
    assert_type(fal_client.stream("acme/app", {}), SyncEventStream[dict[str, Any]])
    with fal_client.stream("acme/app", {}, output=Picture) as events:
        assert_type(events, SyncEventStream[Picture])
        assert_type(events.request_id, str | None)
        for event in events:
            assert_type(event, Picture)
    assert_type(next(fal_client.stream("acme/app", {})), dict[str, Any])


def results_have_files_that_block() -> None:
    handle = fal_client.submit("acme/app", {})
    assert_type(fal_client.run("acme/app", {}).files(), list[SyncFile])
    assert_type(fal_client.subscribe("acme/app", {}).files(), list[SyncFile])
    assert_type(fal_client.result("acme/app", "id").files(), list[SyncFile])
    assert_type(handle.get().files(), list[SyncFile])
    assert_type(SyncClient().run("acme/app", {}).files(), list[SyncFile])
    for file in handle.get().files():
        assert_type(file.url, str)
        assert_type(file.width, int | None)
        assert_type(file.read(max_bytes=10), bytes)
        assert_type(file.save("picture.png"), Path)
        assert_type(file.iter_bytes(), SyncDownload)
        assert_type(next(file.iter_bytes()), bytes)
        with file.iter_bytes(max_bytes=None) as chunks:
            assert_type(chunks, SyncDownload)
            for chunk in chunks:
                assert_type(chunk, bytes)
    assert_type(fal_client.download("https://fal.ai/a.png", "."), Path)


async def async_results_have_files_that_are_awaited() -> None:
    result = await fal_client.run_async("acme/app", {})
    assert_type(result, Result)
    assert_type(result.files(), list[File])
    assert_type(await result.files()[0].read(), bytes)


def sessions_are_context_managers() -> None:
    assert_type(fal_client.realtime("acme/app"), AbstractContextManager[RealtimeConnection])
    with fal_client.realtime("acme/app", reconnect=True) as connection:
        assert_type(connection, RealtimeConnection)
        assert_type(connection.close_code, int | None)
        assert_type(connection.recv(), Any)
        for message in connection:
            assert_type(message, Any)
    with SyncClient().ws_connect("acme/app") as socket:
        assert_type(socket, SyncWebSocketConnection)
        assert_type(socket.recv(), str | bytes)
        assert_type(next(socket), str | bytes)
    with fal_client.http_over_websocket("acme/app") as requests:
        assert_type(requests, SyncHTTPOverWebSocket)
        response = requests.request(Picture(prompt="a cat"))
        assert_type(response, SyncWebSocketResponse)
        assert_type(response.status_code, int)
        with response as events:
            assert_type(next(events), Any)


def handles_give_values() -> None:
    handle = fal_client.submit("acme/app", {})
    assert_type(handle.request_id, str)
    assert_type(handle.get(), SyncResult)
    assert_type(handle.get(output=Picture, timeout=1), Picture)
    assert_type(handle.status(), Status)
    assert_type(handle.cancel(), Cancellation)
    assert_type(handle.to_dict(), dict[str, str])
    assert_type(handle.iter_events(with_logs=True), Generator[Status, None, None])


def clients_have_the_same_methods() -> None:
    with SyncClient("key", 60.0) as client:
        assert_type(client, SyncClient)
        assert_type(client.run("acme/app", {}), SyncResult)
        assert_type(client.submit("acme/app", {}), SyncRequestHandle)
        assert_type(client.subscribe("acme/app", {}, output=Picture), Picture)
        assert_type(client.attach(client.get_handle("acme/app", "id")), SyncRequestHandle)
        assert_type(client.with_options(key="other"), SyncClient)
        assert_type(client.stream("acme/app", {}, output=Picture), SyncEventStream[Picture])


def callbacks_may_be_sync_or_async() -> None:
    async def on_queue_update(status: Status) -> None: ...

    fal_client.subscribe("acme/app", {}, on_enqueue=print, on_queue_update=on_queue_update)
    statuses: list[Status] = []
    fal_client.subscribe("acme/app", {}, on_queue_update=statuses.append)


class Studio(SyncClient):
    """A client may be subclassed."""


def subclasses_stay_what_they_are() -> None:
    with Studio() as studio:
        assert_type(studio, Studio)
        assert_type(studio.with_options(default_timeout=1), Studio)


# Each of these is wrong, and both type checkers have to say so: an unneeded `ignore` is an error.


def wrong_calls() -> None:
    fal_client.run(1, {})  # type: ignore[arg-type]
    fal_client.run("acme/app", {}, timout=1)  # type: ignore[call-arg]
    fal_client.run("acme/app")  # type: ignore[call-arg]
    fal_client.submit("acme/app", {}, priority="high")  # type: ignore[arg-type]
    fal_client.submit("acme/app", {}, "path")  # type: ignore[call-arg]
    fal_client.subscribe("acme/app", {}, on_queue_update=len)  # type: ignore[arg-type]
    fal_client.submit("acme/app", {}).request_id = "other"  # type: ignore[misc]
    fal_client.SyncClient(timeout=1)  # type: ignore[call-arg]
    SyncClient().aclose()  # type: ignore[attr-defined]
    fal_client.run("acme/app", {}, output=Picture).files()  # type: ignore[attr-defined]
    fal_client.run("acme/app", {}).files()[0].read(10)  # type: ignore[call-arg]
    fal_client.realtime("acme/app").send({})  # type: ignore[attr-defined]
    fal_client.ws_connect("acme/app", "/path")  # type: ignore[call-arg]
    fal_client.upload_file(1)  # type: ignore[arg-type]
    fal_client.upload("data", "text/plain", repository="s3")  # type: ignore[arg-type]
    fal_client.get_handle("acme/app")  # type: ignore[call-arg]
    fal_client.submit("acme/app", {}).get(output=1)  # type: ignore[arg-type]
    for _ in fal_client.run_async("acme/app", {}):  # type: ignore[attr-defined]
        pass


def results_tell_files_that_block_from_those_that_are_awaited() -> None:
    def show(result: Result) -> None: ...

    result = fal_client.run("acme/app", {})
    show(result)  # type: ignore[arg-type]


async def faces_are_not_awaited() -> None:
    await fal_client.run("acme/app", {}).files()[0].read()  # type: ignore[misc]
    await fal_client.run("acme/app", {})  # type: ignore[misc]
    async with SyncClient():  # type: ignore[attr-defined]
        pass
    async with fal_client.realtime("acme/app"):  # type: ignore[attr-defined]
        pass
    async for _ in fal_client.stream("acme/app", {}):  # type: ignore[attr-defined]
        pass
