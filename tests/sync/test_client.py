"""Blocking client: calls, callbacks, streams, threads and life cycle."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

import fal_async.sync as fal_client
from fal_async.emulator import AppError, Job

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from starlette.requests import Request

    from fal_async.emulator import Emulator, Gate

ECHO, SLOW = "acme/echo", "acme/slow"


@pytest.fixture
def blocking(fal: Emulator) -> Iterator[fal_client.SyncClient]:
    @fal.endpoint(ECHO)
    def echo(arguments: dict[str, Any], job: Job) -> dict[str, Any]:
        job.log("thinking")
        return arguments

    with fal_client.SyncClient(fal.key, hosts=fal.hosts) as client:
        yield client


@pytest.fixture
def gate(fal: Emulator) -> Gate:
    """What the jobs of `acme/slow` wait for."""
    gate = fal.gate()

    @fal.endpoint(SLOW)
    async def slow(arguments: dict[str, Any]) -> dict[str, Any]:
        await gate.wait()
        return arguments

    return gate


def cancels(fal: Emulator) -> list[str | None]:
    return [request.request_id for request in fal.requests if request.route == "cancel"]


def portal_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "fal-portal"}


async def count_to_three(arguments: dict[str, Any]) -> AsyncGenerator[dict[str, int], None]:
    for n in (1, 2, 3):
        yield {"n": n}


class Picture(BaseModel):
    prompt: str


def test_run_returns_the_output(blocking: fal_client.SyncClient) -> None:
    result = blocking.run(ECHO, {"prompt": "a cat"})
    assert result == {"prompt": "a cat"}
    assert isinstance(result, fal_client.Result)
    assert blocking.run(ECHO, {"prompt": "a cat"}, output=Picture) == Picture(prompt="a cat")


def test_submit_returns_a_handle_that_blocks(blocking: fal_client.SyncClient) -> None:
    handle = blocking.submit(ECHO, {"prompt": "a cat"})
    assert isinstance(handle, fal_client.SyncRequestHandle)
    assert handle.get() == {"prompt": "a cat"}
    assert isinstance(handle.status(), fal_client.Completed)
    assert handle.cancel() == "ALREADY_COMPLETED"
    *_, last = handle.iter_events(with_logs=True)
    assert isinstance(last, fal_client.Completed)
    assert blocking.status(ECHO, handle.request_id) == handle.status()
    assert blocking.result(ECHO, handle.request_id) == {"prompt": "a cat"}
    assert blocking.cancel(ECHO, handle.request_id) == "ALREADY_COMPLETED"


def test_handle_is_plain_data(blocking: fal_client.SyncClient) -> None:
    handle = blocking.submit(ECHO, {"prompt": "a cat"})
    by_id = blocking.get_handle(ECHO, handle.request_id)
    by_data = blocking.attach(json.loads(json.dumps(handle.to_dict())))
    by_pickle = blocking.attach(pickle.loads(pickle.dumps(handle)))
    assert by_data == by_pickle == by_id == handle == copy.deepcopy(handle)
    assert hash(by_pickle) == hash(handle)
    assert handle != blocking.submit(ECHO, {})
    assert handle != handle.to_dict()
    assert repr(handle) == (
        f"SyncRequestHandle(request_id={handle.request_id!r}, application={ECHO!r})"
    )
    assert by_pickle.get() == {"prompt": "a cat"}


def test_callbacks_run_on_calling_thread(blocking: fal_client.SyncClient) -> None:
    told: list[object] = []
    threads = set()

    def on_enqueue(request_id: str) -> None:
        threads.add(threading.current_thread())
        told.append(request_id)
        told.append(blocking.get_handle(ECHO, request_id).request_id)  # a call within a call

    def on_queue_update(status: fal_client.Status) -> None:
        threads.add(threading.current_thread())
        told.append(type(status))

    result = blocking.subscribe(
        ECHO, {"prompt": "a cat"}, on_enqueue=on_enqueue, on_queue_update=on_queue_update
    )
    assert threads == {threading.current_thread()}
    assert told[0] == told[1] == result.request_id
    assert told[-1] is fal_client.Completed


def test_subscribe_awaasync_class_callbacks(blocking: fal_client.SyncClient) -> None:
    told = []

    async def on_queue_update(status: fal_client.Status) -> None:
        told.append(type(status))

    blocking.subscribe(ECHO, {}, on_queue_update=on_queue_update)
    assert told[-1] is fal_client.Completed


def test_invalid_callback_sends_no_request(fal: Emulator, blocking: fal_client.SyncClient) -> None:
    calls: Any = blocking
    with pytest.raises(fal_client.InvalidRequestError, match="on_enqueue must be a function"):
        calls.subscribe(ECHO, {}, on_enqueue=3)
    with pytest.raises(fal_client.InvalidRequestError, match="on_queue_update must be a function"):
        calls.subscribe(ECHO, {}, on_queue_update="print")
    with pytest.raises(fal_client.InvalidRequestError, match="on_progress must be a function"):
        calls.upload(b"data", "text/plain", on_progress=3)
    assert fal.requests == []


@pytest.mark.parametrize("error", [LookupError("enough"), KeyboardInterrupt()])
def test_callback_error_cancels_job(
    fal: Emulator, blocking: fal_client.SyncClient, gate: Gate, error: BaseException
) -> None:
    def refuse(status: fal_client.Status) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        blocking.subscribe(SLOW, {}, on_queue_update=refuse)
    assert caught.value is error
    assert cancels(fal) == list(fal.jobs)


def test_deadline_cancels_job(fal: Emulator, blocking: fal_client.SyncClient, gate: Gate) -> None:
    with pytest.raises(fal_client.FalClientTimeoutError) as caught:
        blocking.subscribe(SLOW, {}, client_timeout=0.2)
    assert cancels(fal) == [caught.value.request_id]


def test_close_wakes_waiting_thread(
    fal: Emulator, blocking: fal_client.SyncClient, gate: Gate
) -> None:
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(lambda: blocking.subscribe(SLOW, {}))
        fal.wait_for(lambda: fal.counters(SLOW).executions == 1)
        blocking.close()
        with pytest.raises(fal_client.ClientClosedError):
            waiting.result(10)
    assert cancels(fal) == list(fal.jobs)
    with pytest.raises(fal_client.ClientClosedError):
        blocking.run(ECHO, {})


def test_stream_is_iterator(fal: Emulator, blocking: fal_client.SyncClient) -> None:
    fal.register("acme/count", count_to_three)
    assert list(blocking.stream("acme/count", {})) == [{"n": 1}, {"n": 2}, {"n": 3}]
    stream = blocking.stream("acme/count", {})
    assert next(stream) == {"n": 1}
    assert stream.request_id is not None
    assert list(stream) == [{"n": 2}, {"n": 3}]


def test_stream_continues_after_break(fal: Emulator, blocking: fal_client.SyncClient) -> None:
    fal.register("acme/count", count_to_three)
    with blocking.stream("acme/count", {}) as stream:
        assert stream.response_headers["content-type"].startswith("text/event-stream")
        for event in stream:
            assert event == {"n": 1}
            break
        assert list(stream) == [{"n": 2}, {"n": 3}]
    assert list(stream) == []


def test_stream_exit_closes_connection(fal: Emulator, blocking: fal_client.SyncClient) -> None:
    left = []

    async def endless(arguments: dict[str, Any]) -> AsyncGenerator[dict[str, int], None]:
        try:
            for n in count():
                yield {"n": n}
                await anyio.lowlevel.checkpoint()
        finally:
            left.append(arguments)

    fal.register("acme/endless", endless)
    for leave in (leave_by_with, leave_by_close, leave_by_break):
        leave(blocking.stream("acme/endless", {}))
        blocking.run(ECHO, {})
    fal.wait_for(lambda: len(left) == 3)


def leave_by_with(stream: fal_client.SyncEventStream[Any]) -> None:
    with stream:
        assert next(stream) == {"n": 0}


def leave_by_close(stream: fal_client.SyncEventStream[Any]) -> None:
    assert next(stream) == {"n": 0}
    stream.close()
    stream.close()


def leave_by_break(stream: fal_client.SyncEventStream[Any]) -> None:
    for _ in stream:
        break


def test_stream_errors_match_async_client(fal: Emulator, blocking: fal_client.SyncClient) -> None:
    with pytest.raises(fal_client.NotFoundError), blocking.stream("acme/nothing", {}):
        pass
    with pytest.raises(fal_client.NotFoundError):
        next(blocking.stream("acme/nothing", {}))


def test_upload_progress_on_calling_thread(
    blocking: fal_client.SyncClient,
) -> None:
    threads = set()

    def on_progress(sent: int, size: int | None) -> None:
        threads.add(threading.current_thread())

    url = blocking.upload(b"hello", "text/plain", "hello.txt", on_progress=on_progress)
    assert url.endswith("hello.txt")
    assert threads == {threading.current_thread()}


def test_errors_match_async_client(fal: Emulator, blocking: fal_client.SyncClient) -> None:
    def refuse(arguments: dict[str, Any]) -> None:
        raise AppError(422, "too dark")

    fal.register("acme/refuse", refuse)
    with pytest.raises(fal_client.InvalidInputError) as caught:
        blocking.run("acme/refuse", {})
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    with pytest.raises(fal_client.InvalidRequestError):
        blocking.run("no id", {})


def test_threads_share_one_client(fal: Emulator, blocking: fal_client.SyncClient) -> None:
    before = portal_threads()
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda n: blocking.subscribe(ECHO, {"n": n}), range(64)))
    assert results == [{"n": n} for n in range(64)]
    assert len(portal_threads() - before) == 1


def test_with_options_shares_event_loop(fal: Emulator, blocking: fal_client.SyncClient) -> None:
    before = portal_threads()
    wrong = blocking.with_options(key="wrong:key")
    with pytest.raises(fal_client.AuthenticationError):
        wrong.run(ECHO, {})
    wrong.close()
    assert blocking.run(ECHO, {"n": 1}) == {"n": 1}
    assert len(portal_threads() - before) == 1
    blocking.close()
    with pytest.raises(fal_client.ClientClosedError):
        wrong.run(ECHO, {})


def test_pickled_client_has_no_key(
    blocking: fal_client.SyncClient, fal: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pickle.dumps(blocking)
    assert fal.key.encode() not in data
    monkeypatch.setenv("FAL_KEY", "another:account")
    with pickle.loads(data) as restored:
        with pytest.raises(fal_client.MissingCredentialsError, match="unpickled client"):
            restored.run(ECHO, {"n": 1})
        assert restored.with_options(key=fal.key).run(ECHO, {"n": 1}) == {"n": 1}


def test_repr_hides_key(blocking: fal_client.SyncClient, fal: Emulator) -> None:
    assert repr(blocking).startswith("SyncClient(")
    assert fal.key not in repr(blocking)


async def test_call_inside_running_event_loop(
    blocking: fal_client.SyncClient,
) -> None:
    assert blocking.run(ECHO, {"n": 1}) == {"n": 1}


async def test_call_inside_web_framework_handler(
    blocking: fal_client.SyncClient,
) -> None:
    def in_a_thread(request: Request) -> JSONResponse:
        return JSONResponse(blocking.subscribe(ECHO, {"path": request.url.path}))

    async def on_the_loop(request: Request) -> JSONResponse:
        return JSONResponse(blocking.subscribe(ECHO, {"path": request.url.path}))

    app = Starlette(routes=[Route("/thread", in_a_thread), Route("/loop", on_the_loop)])
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as http:
        with anyio.fail_after(20):
            for path in ("/thread", "/loop", "/thread"):
                assert (await http.get(path)).json() == {"path": path}


def test_close_closes_given_transport(fal: Emulator) -> None:
    closed: list[str] = []

    class Transport(httpx.AsyncHTTPTransport):
        async def aclose(self) -> None:
            await super().aclose()
            closed.append(threading.current_thread().name)

    fal.register(ECHO, lambda arguments: arguments)
    with fal_client.SyncClient(fal.key, hosts=fal.hosts, transport=Transport()) as client:
        assert client.run(ECHO, {"n": 1}) == {"n": 1}
    assert closed == ["fal-portal"]


def test_stream_outlives_client(fal: Emulator, blocking: fal_client.SyncClient) -> None:
    fal.register("acme/count", count_to_three)
    with blocking.stream("acme/count", {}) as stream:
        assert next(stream) == {"n": 1}
        blocking.close()


def test_unused_client_closes_silently(fal: Emulator) -> None:
    with fal_client.SyncClient(fal.key, hosts=fal.hosts) as client:
        pass
    with pytest.raises(fal_client.ClientClosedError):
        client.run(ECHO, {})


def test_dropped_client_closes_connections(fal: Emulator, blocking: fal_client.SyncClient) -> None:
    before = portal_threads()
    client = fal_client.SyncClient(fal.key, hosts=fal.hosts)
    handle = client.submit(ECHO, {"n": 1})
    del client
    assert handle.get() == {"n": 1}  # the handle keeps the loop
    del handle
    assert not portal_threads() - before


def test_async_names_are_exported() -> None:
    assert asyncio.iscoroutinefunction(fal_client.run_async)
    assert fal_client.AsyncClient.__module__ == "fal_async"
