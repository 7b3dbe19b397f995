"""Mocks of httpx: requests that bypass httpx honour them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest import mock

import httpx
import pytest

import fal_async.sync
from fal_async import AsyncClient, PooledTransport, Status, TransportError
from fal_async._http.transports import httpx_is_mocked

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fal_async.emulator import Emulator

#: A host that the key goes to, and that nothing in a test may reach.
RUN = "https://fal.run/acme/echo"
QUEUE = "https://queue.fal.run/acme/echo"
JOB = "764cabcf-b745-4b3e-ae38-1200304cf45b"


async def respond(self: object, request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json={"mocked": request.url.path}, request=request)


@pytest.fixture
def respx() -> Any:
    return pytest.importorskip("respx")


@pytest.mark.parametrize("using", ["httpcore", "httpx"])
async def test_respx_router_responds(respx: Any, using: str) -> None:
    with respx.mock(using=using) as router:
        route = router.post(RUN).mock(return_value=httpx.Response(200, json={"mocked": True}))
        async with AsyncClient("a:b") as client:
            assert await client.run("acme/echo", {"prompt": "a cat"}) == {"mocked": True}

    [call] = route.calls
    assert call.request.headers["authorization"] == "Key a:b"
    assert call.request.content == b'{"prompt":"a cat"}'


async def test_unmatched_request_is_not_sent(respx: Any) -> None:
    with respx.mock:
        async with AsyncClient("a:b") as client:
            with pytest.raises(AssertionError, match="not mocked"):
                await client.run("acme/echo", {})


def test_blocking_requests_are_mocked(respx: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with respx.mock, fal_async.sync.SyncClient("a:b") as client:
        respx.post(RUN).mock(return_value=httpx.Response(422, json={"detail": "too small"}))
        with pytest.raises(fal_async.InvalidInputError, match="too small"):
            client.run("acme/echo", {})


async def test_polling_requests_of_a_job_are_mocked(respx: Any) -> None:
    job = f"{QUEUE}/requests/{JOB}"
    urls = {"response_url": job, "status_url": f"{job}/status", "cancel_url": f"{job}/cancel"}
    seen: list[Status] = []
    with respx.mock:
        respx.post(QUEUE).mock(return_value=httpx.Response(200, json={"request_id": JOB, **urls}))
        respx.get(url__startswith=f"{job}/status").mock(
            side_effect=[
                httpx.Response(200, json={"status": "IN_QUEUE", "queue_position": 1}),
                httpx.Response(200, json={"status": "COMPLETED", "logs": None, "metrics": {}}),
            ]
        )
        respx.get(job).mock(return_value=httpx.Response(200, json={"seed": 7}))
        async with AsyncClient("a:b") as client:
            result = await client.subscribe("acme/echo", {}, on_queue_update=seen.append)

    assert result == {"seed": 7}
    assert [type(status).__name__ for status in seen] == ["Queued", "Completed"]


async def test_stream_is_mocked(respx: Any) -> None:
    events = b'data: {"n": 1}\n\ndata: {"n": 2}\n\n'
    head = {"content-type": "text/event-stream"}
    with respx.mock:
        respx.post(f"{RUN}/stream").mock(
            return_value=httpx.Response(200, headers=head, content=events)
        )
        async with AsyncClient("a:b") as client:
            assert [event async for event in client.stream("acme/echo", {})] == [
                {"n": 1},
                {"n": 2},
            ]


@pytest.mark.parametrize(
    "replace",
    [
        lambda patch: patch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", respond),
        lambda patch: patch.setattr(
            httpx.AsyncHTTPTransport,
            "handle_async_request",
            mock.AsyncMock(return_value=httpx.Response(200, json={"mocked": "/acme/echo"})),
        ),
        lambda patch: patch.setattr(
            httpx.AsyncClient,
            "_transport_for_url",
            lambda self, url: httpx.MockTransport(lambda request: httpx.Response(200, json={})),
        ),
    ],
    ids=["function", "mock", "of the client"],
)
async def test_replaced_httpx_methods_are_used(
    replace: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    replace(monkeypatch)
    for transport in (None, PooledTransport()):
        async with AsyncClient("a:b", transport=transport) as client:
            assert await client.run("acme/echo", {}) in ({"mocked": "/acme/echo"}, {})


async def test_failing_mock_is_a_transport_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(self: object, request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("mocked")

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", fail)
    policy = fal_async.RetryPolicy(attempts=1)
    async with AsyncClient("a:b", retry=policy) as client:
        with pytest.raises(TransportError, match="mocked"):
            await client.run("acme/echo", {})


async def test_client_recovers_after_the_mock(fal: Emulator, client: AsyncClient) -> None:
    fal.register("acme/echo", lambda arguments: arguments)
    assert await client.run("acme/echo", {"n": 1}) == {"n": 1}
    with mock.patch.object(httpx.AsyncHTTPTransport, "handle_async_request", respond):
        assert httpx_is_mocked()
        assert await client.run("acme/echo", {"n": 2}) == {"mocked": "/run/acme/echo"}
    assert not httpx_is_mocked()
    assert await client.run("acme/echo", {"n": 3}) == {"n": 3}
    assert fal.count("run") == 2


async def test_cassette_is_recorded_and_replayed(
    fal: Emulator, client: AsyncClient, tmp_path: Path
) -> None:
    vcr = pytest.importorskip("vcr")
    fal.register("acme/echo", lambda arguments: arguments)
    cassette = str(tmp_path / "calls.yaml")
    for mode in ("once", "none"):
        with vcr.use_cassette(cassette, record_mode=mode):
            assert await client.run("acme/echo", {"n": 1}) == {"n": 1}
    assert fal.count("run") == 1

    with (
        vcr.use_cassette(str(tmp_path / "empty.yaml"), record_mode="none"),
        pytest.raises(Exception, match="cassette"),
    ):
        await client.run("acme/echo", {"n": 2})
    assert fal.count("run") == 1


class Traced:
    """A wrapper, as tracing puts it around methods: it shows everything of what it wraps."""

    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped

    def __get__(self, instance: object, owner: type) -> Traced:
        return Traced(self._wrapped.__get__(instance, owner)) if instance else self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)

    async def __call__(self, *args: Any) -> Any:
        return await self._wrapped(*args)


async def test_tracing_is_not_a_mock(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = httpx.AsyncHTTPTransport.handle_async_request
    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", Traced(genuine))
    assert not httpx_is_mocked()
