"""The proxy: forwarding, the hook, ownership of jobs, streams and disconnects."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Route

from fal_async import AsyncClient, Hosts, InvalidRequestError, StreamInterruptedError
from fal_async.emulator import Fault
from fal_async.proxy import FalProxy, ProxyRequest, Refusal, cancel_on_disconnect
from fal_async.stores import MemoryStore
from tests.support.http import echo, gated_echo
from tests.support.visitors import Visitor

if TYPE_CHECKING:
    from fal_async.emulator import Emulator, RecordedRequest

RUN = "https://fal.run/acme/app"
QUEUE = "https://queue.fal.run/acme/app"
TOKENS = "https://rest.fal.ai/tokens/"
UPLOAD = "https://rest.fal.ai/storage/upload/initiate?storage_type=fal-cdn-v3"

Arguments = dict[str, Any]
Make = Callable[..., Visitor]


@pytest.fixture
def make(fal: Emulator, client: AsyncClient) -> Make:
    """A function that makes a proxy with these options, and a visitor of it."""
    fal.register("acme/app", echo)

    def make(headers: dict[str, str] | None = None, **options: Any) -> Visitor:
        options = {"allow": ["acme/app"], "authorize": by_header, **options}
        return Visitor(FalProxy(client, **options), headers or {"x-user": "alice"})

    return make


class BrokenStore(MemoryStore):
    async def add(self, key: str, value: str, *, expires_in: float) -> bool:
        raise OSError("disk full")


def by_header(request: ProxyRequest) -> str | Refusal:
    return request.headers.get("x-user") or Refusal()


def last(fal: Emulator, route: str) -> RecordedRequest:
    return [request for request in fal.requests if request.route == route][-1]


async def test_run_is_forwarded_with_key(fal: Emulator, make: Make) -> None:
    received = await make().post(RUN, {"text": "hello"})

    assert (received.status, received.json()) == (200, {"text": "hello"})
    assert received.headers["x-fal-request-id"]
    assert last(fal, "run").headers["authorization"] == f"Key {fal.key}"


async def test_headers_of_visitors_stay_here(fal: Emulator, make: Make) -> None:
    await make().post(
        RUN,
        {},
        cookie="session=secret",
        authorization="Key of-the-visitor",
        x_fal_store_io="0",
        x_fal_tags="a=b",
        x_fal_runner_hint="lora",
        x_forwarded_for="192.0.2.1",
        connection="x-fal-runner-hint",
        x_other="1",
        user_agent="Firefox",
    )

    assert set(last(fal, "run").headers) - {"content-length", "host"} == {
        "accept",
        "authorization",
        "content-type",
        "user-agent",
        "x-fal-client-proxy",
        "x-fal-runner-hint",
    }
    assert last(fal, "run").headers["authorization"] == f"Key {fal.key}"


async def test_listed_headers_are_forwarded(fal: Emulator, make: Make) -> None:
    visitor = make(forward_headers=["X-Fal-Store-IO", "x-own"])
    await visitor.post(RUN, {}, x_fal_store_io="0", x_own="1", x_fal_runner_hint="lora")

    headers = last(fal, "run").headers
    assert (headers["x-fal-store-io"], headers["x-own"]) == ("0", "1")
    assert "x-fal-runner-hint" not in headers
    assert (await visitor.post(RUN, {}, x_own="ü")).status == 400


@pytest.mark.parametrize(
    "target",
    ["", "https://fal.run/acme/other", "https://evil.example/acme/app", TOKENS, UPLOAD],
)
async def test_other_target_is_refused(fal: Emulator, make: Make, target: str) -> None:
    calls: list[ProxyRequest] = []

    def authorize(request: ProxyRequest) -> str:
        calls.append(request)
        return "alice"

    received = await make(authorize=authorize).post(target)

    assert (received.status, received.json()) == (400, "Invalid request")
    assert (calls, fal.requests) == ([], [])


async def test_repeated_target_is_refused(fal: Emulator, make: Make) -> None:
    received = await make({"X-Fal-Target-Url": RUN}).post(RUN)

    assert (received.status, fal.requests) == (400, [])


@pytest.mark.parametrize(
    ("refusal", "status", "text", "retry_after"),
    [
        (None, 401, "Unauthorized", None),
        (Refusal(), 401, "Unauthorized", None),
        (Refusal(403), 403, "Forbidden", None),
        (Refusal(429, "one a minute", retry_after=59.2), 429, "one a minute", "60"),
        (Refusal(429, retry_after=0), 429, "Too many requests", "0"),
    ],
)
async def test_hook_refuses_request(
    fal: Emulator, make: Make, refusal: Refusal, status: int, text: str, retry_after: str | None
) -> None:
    async def authorize(request: ProxyRequest) -> Refusal:
        return refusal

    received = await make(authorize=authorize).post(RUN)

    assert (received.status, received.json()) == (status, text)
    assert received.headers.get("retry-after") == retry_after
    assert fal.requests == []


def return_value(value: object, request: ProxyRequest) -> object:
    return value


async def test_hook_must_return_user_or_refusal(fal: Emulator, make: Make) -> None:
    for returned in (True, "", 7):
        with pytest.raises(InvalidRequestError, match="authorize must return"):
            await make(authorize=partial(return_value, returned)).post(RUN)
    assert fal.requests == []


async def test_hook_sees_request(make: Make) -> None:
    seen: list[tuple[object, ...]] = []

    async def authorize(request: ProxyRequest) -> str:
        arguments = await request.arguments()
        seen.append((request.action, request.endpoint, request.method, arguments))
        assert request.scope["type"] == "http"
        return "alice"

    visitor = make(authorize=authorize, allow_realtime=True, allow_uploads=True)
    await visitor.post(RUN, {"a": 1})
    submitted = (await visitor.post(QUEUE, {"a": 2})).json()
    await visitor.get(f"{QUEUE}/requests/{submitted['request_id']}/status")
    await visitor.post(UPLOAD, {"content_type": "image/png"})

    assert seen == [
        ("run", "acme/app", "POST", {"a": 1}),
        ("submit", "acme/app", "POST", {"a": 2}),
        ("status", "acme/app", "GET", None),
        ("upload", "", "POST", {"content_type": "image/png"}),
    ]


async def test_hook_rewrites_arguments_and_key(fal: Emulator, make: Make) -> None:
    fal.accept_key("tenant:key")

    async def authorize(request: ProxyRequest) -> str:
        arguments = await request.arguments()
        request.replace_arguments({**arguments, "steps": min(arguments["steps"], 4)})
        request.forwarded["authorization"] = "Key tenant:key"
        return "alice"

    received = await make(authorize=authorize).post(RUN, {"text": "a", "steps": 100})

    assert received.json() == {"text": "a", "steps": 4}
    assert last(fal, "run").headers["authorization"] == "Key tenant:key"


async def test_key_of_hook_needs_no_other(fal: Emulator) -> None:
    def no_key() -> str:
        raise AssertionError("the key of the client is not needed")

    def authorize(request: ProxyRequest) -> str:
        request.forwarded["authorization"] = f"Key {fal.key}"
        return "alice"

    fal.register("acme/app", gated_echo(fal.gate()))
    async with AsyncClient(no_key, hosts=fal.hosts) as client:
        visitor = Visitor(FalProxy(client, allow=["acme/app"], authorize=authorize))
        submitted = (await visitor.post(QUEUE, {})).json()
        job = f"{QUEUE}/requests/{submitted['request_id']}"
        assert (await visitor.get(f"{job}/status")).status == 202
        proxy = FalProxy(client, allow=["acme/app"], authorize=authorize, store=BrokenStore())
        with pytest.raises(OSError, match="disk full"):
            await Visitor(proxy).post(QUEUE, {})
        await fal.wait_for_counters("acme/app", cancelled=1)


async def test_hooks_of_client_see_requests(fal: Emulator, client: AsyncClient) -> None:
    events: list[Any] = []
    fal.register("acme/app", echo)
    proxy = FalProxy(client.with_options(hooks=events.append), allow=["acme/app"], authorize=None)
    submitted = (await Visitor(proxy).post(QUEUE, {})).json()
    url = f"{QUEUE}/requests/{submitted['request_id']}/status/stream"
    await Visitor(proxy).get(url)

    names = [event.operation for event in events if hasattr(event, "operation")]
    assert list(dict.fromkeys(names)) == ["submit", "watch"]


async def test_invalid_json_is_refused(fal: Emulator, make: Make) -> None:
    async def authorize(request: ProxyRequest) -> str:
        return str(await request.arguments())

    received = await make(authorize=authorize).post(RUN, b"{")

    assert (received.status, received.json()) == (400, "Invalid request")


async def test_large_body_is_refused(fal: Emulator, make: Make) -> None:
    visitor = make(max_body=100)

    assert (await visitor.post(RUN, {"text": "x" * 50})).status == 200
    assert (await visitor.post(RUN, {"text": "x" * 100})).status == 413
    async with visitor.open("POST", RUN) as exchange:  # of unknown size
        await exchange.send(b"x" * 60)
        await exchange.send(b"x" * 60)
        assert (await exchange.head()).status == 413
    assert fal.count("run") == 1


async def test_job_is_visible_to_its_user(fal: Emulator, make: Make) -> None:
    visitor = make()
    submitted = (await visitor.post(QUEUE, {"a": 1})).json()
    job = f"{QUEUE}/requests/{submitted['request_id']}"
    await fal.wait_for_counters("acme/app", completed=1)

    assert (await visitor.get(f"{job}/status")).json()["status"] == "COMPLETED"
    assert (await visitor.get(job)).json() == {"a": 1}
    before = len(fal.requests)
    for method, path in (("GET", ""), ("GET", "/status"), ("PUT", "/cancel")):
        received = await visitor.request(method, job + path, x_user="mallory")
        assert (received.status, received.json()) == (404, {"status": "NOT_FOUND"})
    assert len(fal.requests) == before


async def test_unknown_job_is_not_forwarded(fal: Emulator, client: AsyncClient, make: Make) -> None:
    handle = await client.submit("acme/app", {})

    received = await make().get(f"{QUEUE}/requests/{handle.request_id}")
    assert received.status == 404
    assert fal.count("result") == 0


async def test_job_of_service_is_assigned(fal: Emulator, client: AsyncClient, make: Make) -> None:
    proxy = FalProxy(client, allow=["acme/app"], authorize=by_header)
    handle = await client.submit("acme/app", {"a": 1})
    await proxy.assign(handle, "alice")
    await fal.wait_for_counters("acme/app", completed=1)

    visitor = Visitor(proxy)
    url = f"{QUEUE}/requests/{handle.request_id}"
    assert (await visitor.get(url, x_user="alice")).json() == {"a": 1}
    assert (await visitor.get(url, x_user="mallory")).status == 404


async def test_job_belongs_to_its_endpoint(fal: Emulator, make: Make) -> None:
    store = MemoryStore()
    fal.register("acme/app/secret", echo)
    everything = make(store=store, allow=["**"])
    submitted = (await everything.post(f"{QUEUE}/secret", {})).json()
    job = f"/requests/{submitted['request_id']}"

    assert (await everything.get(f"{QUEUE}{job}/status")).status in {200, 202}
    assert (await everything.get(f"https://queue.fal.run/other/app{job}/status")).status == 404
    assert (await make(store=store).get(f"{QUEUE}{job}/status")).status == 404  # no longer listed


async def test_cancel_reaches_the_job(fal: Emulator, make: Make) -> None:
    fal.register("acme/app", gated_echo(fal.gate()))
    visitor = make()
    submitted = (await visitor.post(QUEUE, {})).json()

    received = await visitor.request("PUT", f"{QUEUE}/requests/{submitted['request_id']}/cancel")
    assert received.status == 202
    await fal.wait_for_counters("acme/app", cancelled=1)


async def test_errors_of_the_platform_pass(fal: Emulator, make: Make) -> None:
    fal.fail("acme/app", Fault(route="submit", status=429, headers={"retry-after": "7"}))
    received = await make().post(QUEUE, {})

    assert (received.status, received.headers["retry-after"]) == (429, "7")
    assert fal.count("submit") == 1  # the official client retries itself


async def test_lost_response_is_not_retried(fal: Emulator, make: Make) -> None:
    fal.fail("acme/app", Fault(route="run", drop_response=True, times=5))
    received = await make().post(RUN, {})

    # After a 502, the official client would run the model again.
    assert (received.status, received.json()) == (500, "Internal Server Error")
    assert fal.count("run") == 1


async def test_unreachable_platform_is_bad_gateway() -> None:
    async with AsyncClient("id:key", hosts=Hosts.at("http://127.0.0.1:9")) as client:
        client = client.with_options(retry=None)
        proxy = FalProxy(client, allow=["acme/app"], authorize=None)
        received = await Visitor(proxy).post(QUEUE, {})
    assert (received.status, received.json()) == (502, "Bad Gateway")


async def test_closed_client_is_unavailable(fal: Emulator, make: Make, client: AsyncClient) -> None:
    await client.aclose()
    assert (await make().post(RUN, {})).status == 503


async def test_store_failure_cancels_the_job(fal: Emulator, make: Make) -> None:
    fal.register("acme/app", gated_echo(fal.gate()))
    with pytest.raises(OSError, match="disk full"):
        await make(store=BrokenStore()).post(QUEUE, {})
    await fal.wait_for_counters("acme/app", cancelled=1)


async def test_stream_arrives_event_by_event(fal: Emulator, make: Make) -> None:
    gate = fal.gate()

    async def count(arguments: Arguments) -> AsyncGenerator[Arguments]:
        yield {"step": 1}
        await gate.wait()
        yield {"step": 2}

    fal.register("acme/app", count)
    async with make().open("POST", f"{RUN}/stream", content_length="2") as exchange:
        await exchange.send(b"{}", more=False)
        head = await exchange.head()
        assert head.headers["content-type"].startswith("text/event-stream")
        assert await exchange.chunk() == b'data: {"step":1}\n\n'
        gate.open()
        assert await exchange.chunk() == b'data: {"step":2}\n\n'
        assert await exchange.chunk() is None


async def test_status_stream_is_forwarded(fal: Emulator, make: Make) -> None:
    visitor = make()
    submitted = (await visitor.post(QUEUE, {})).json()
    url = f"{QUEUE}/requests/{submitted['request_id']}/status/stream?logs=1"
    received = await visitor.get(url, accept="text/event-stream")
    assert b"COMPLETED" in received.body


async def test_disconnect_closes_the_stream(fal: Emulator, make: Make) -> None:
    gate = fal.gate()

    async def wait(arguments: Arguments) -> AsyncGenerator[Arguments]:
        yield {"step": 1}
        await gate.wait()

    fal.register("acme/app", wait)
    async with make().open("POST", f"{RUN}/stream", content_length="2") as exchange:
        await exchange.send(b"{}", more=False)
        await exchange.head()
        await exchange.chunk()
        assert fal.counters("acme/app").running == 1
        await exchange.disconnect()
        await fal.wait_for_async(lambda: fal.counters("acme/app").running == 0)


async def test_disconnect_cancels_submitted_job(fal: Emulator, make: Make) -> None:
    fal.register("acme/app", gated_echo(fal.gate()))
    held = fal.gate()
    fal.fail("acme/app", Fault(route="submit", delay=held))
    async with make().open("POST", QUEUE, content_length="2") as exchange:
        await exchange.send(b"{}", more=False)
        await fal.wait_for_async(lambda: fal.count("submit") == 1)
        await exchange.disconnect()
        held.open()
        await fal.wait_for_async(lambda: fal.counters("acme/app").cancelled == 1)


async def test_disconnect_within_the_body(fal: Emulator, make: Make) -> None:
    async with make().open("POST", RUN, content_length="100") as exchange:
        await exchange.send(b"{")
        await exchange.disconnect()
    assert fal.counters("acme/app").executions == 0


@pytest.mark.slow
async def test_slow_visitor_slows_the_platform(fal: Emulator, make: Make) -> None:
    sent = 0

    async def flood(arguments: Arguments) -> AsyncGenerator[Arguments]:
        nonlocal sent
        for _ in range(800):
            sent += 1
            yield {"data": "x" * 50_000}

    fal.register("acme/app", flood)
    async with make().open("POST", f"{RUN}/stream", content_length="2") as exchange:
        await exchange.send(b"{}", more=False)
        await exchange.head()
        received = 0
        while (chunk := await exchange.chunk()) is not None:
            received += len(chunk)
            assert sent * 50_000 - received < 24_000_000  # what sockets may buffer
    assert received > 800 * 50_000


async def test_truncated_stream_is_no_normal_end(fal: Emulator, make: Make) -> None:
    async def count(arguments: Arguments) -> AsyncGenerator[Arguments]:
        yield {"step": 1}
        yield {"step": 2}

    fal.register("acme/app", count)
    fal.fail("acme/app", Fault(route="stream", cut=25))
    with pytest.raises(StreamInterruptedError):
        await make().post(f"{RUN}/stream", {})


async def test_large_body_is_streamed_upstream(fal: Emulator, make: Make) -> None:
    chunk = b" " * 1_000_000
    async with make().open("POST", RUN, content_length=str(10_000_002)) as exchange:
        await exchange.send(b"{")
        for _ in range(10):
            await exchange.send(chunk)
        await exchange.send(b"}", more=False)
        head = await exchange.head()
        assert (head.status, await exchange.chunk()) == (200, b"{}")


async def test_token_is_bounded_and_listed(fal: Emulator, make: Make) -> None:
    visitor = make(allow_realtime=True, token_lifetime=60)
    received = await visitor.post(TOKENS, {"allowed_apps": ["app"], "token_expiration": 9999})

    assert received.status == 200
    assert isinstance(received.json(), str)
    assert last(fal, "token").body == b'{"allowed_apps":["app"],"token_expiration":60}'
    bodies: list[object] = [{"allowed_apps": ["other"]}, [], "x"]
    for body in bodies:
        assert (await visitor.post(TOKENS, body)).status == 400
    assert fal.count("token") == 1


async def test_upload_begins_at_the_emulator(fal: Emulator, make: Make) -> None:
    visitor = make(allow_uploads=True)
    received = await visitor.post(UPLOAD, {"content_type": "image/png", "file_name": "a.png"})

    assert received.json()["upload_url"].startswith(f"{fal.url}/cdn/")


async def test_request_by_get_is_forwarded(fal: Emulator, make: Make) -> None:
    await make().get(f"{RUN}?size=1")

    request = last(fal, "run")
    assert (request.method, request.query, request.body) == ("GET", "size=1", b"")


async def test_everybody_is_one_user(make: Make) -> None:
    visitor = make(authorize=None)
    submitted = (await visitor.post(QUEUE, {})).json()
    status = await visitor.get(f"{QUEUE}/requests/{submitted['request_id']}/status")
    assert status.json()["status"] in {"IN_QUEUE", "IN_PROGRESS", "COMPLETED"}


async def test_pages_of_listed_origins_may_read(fal: Emulator, make: Make) -> None:
    visitor = make(allow_origins=["https://app.example"])
    preflight = {"access_control_request_method": "POST", "origin": "https://app.example"}
    received = await visitor.request("OPTIONS", RUN, **preflight)
    assert received.headers["access-control-allow-origin"] == "https://app.example"

    received = await visitor.post(RUN, {}, origin="https://app.example")
    assert received.headers["access-control-allow-credentials"] == "true"
    received = await visitor.post(RUN, {}, origin="https://evil.example")
    assert "access-control-allow-origin" not in received.headers
    received = await make().post(RUN, {}, origin="https://app.example")
    assert "access-control-allow-origin" not in received.headers


async def test_http_exception_of_hook_is_raised(make: Make) -> None:
    def authorize(request: ProxyRequest) -> str:
        raise HTTPException(418)

    visitor = make(authorize=authorize)
    with pytest.raises(HTTPException):
        await visitor.post(RUN, {})


async def test_proxy_is_mounted_in_starlette(make: Make, client: AsyncClient) -> None:
    proxy = FalProxy(client, allow=["acme/app"], authorize=by_header)
    routes: list[BaseRoute] = [Route("/api/fal/proxy", proxy)]
    for app in (Starlette(routes=routes), FastAPI(routes=routes)):
        visitor = Visitor(app, {"x-user": "alice"})
        assert (await visitor.post(RUN, {"a": 1})).json() == {"a": 1}


async def test_websocket_and_lifespan_are_handled(client: AsyncClient) -> None:
    proxy = FalProxy(client, allow=["acme/app"], authorize=None)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    for kind, types in (("websocket", ["connect"]), ("lifespan", ["startup", "shutdown"])):
        messages = iter([{"type": f"{kind}.{name}"} for name in types])

        async def receive(messages: Any = messages) -> Any:
            return next(messages)

        await proxy({"type": kind}, receive, send)
    assert sent == ["websocket.close", "lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_refusal_is_logged_without_key(
    fal: Emulator, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "fal_async"):
        await make().post("https://fal.run/acme/other")
    assert "acme/other is not listed" in caplog.text
    assert fal.key not in caplog.text


@pytest.mark.parametrize(
    "options",
    [
        {"allow": []},
        {"allow": "acme/app"},
        {"authorize": "alice"},
        {"token_lifetime": 0},
        {"job_lifetime": -1},
        {"max_body": 0},
        {"forward_headers": ["authorization"]},
        {"forward_headers": ["Cookie"]},
        {"forward_headers": ["x-fal-target-url"]},
        {"forward_headers": "x-own"},
        {"forward_headers": ["a b"]},
        {"allow_origins": "https://app.example"},
        {"allow_uploads": "no"},
    ],
)
async def test_invalid_argument_is_an_error(make: Make, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError):
        make(**options)


def test_proxy_needs_list_and_client() -> None:
    with pytest.raises(TypeError, match="allow"):
        FalProxy(AsyncClient("id:key"), authorize=None)  # type: ignore[call-arg]  # as the test is about
    with pytest.raises(InvalidRequestError, match="client must be an AsyncClient"):
        FalProxy("id:key", allow=["a/b"], authorize=None)  # type: ignore[arg-type]  # as the test is about
    with pytest.raises(InvalidRequestError, match="status must be"):
        Refusal(500)  # type: ignore[arg-type]  # as the test is about


async def test_work_is_cancelled_on_disconnect(fal: Emulator, client: AsyncClient) -> None:
    fal.register("acme/app", gated_echo(fal.gate()))
    left = anyio.Event()

    async def receive() -> dict[str, str]:
        await left.wait()
        return {"type": "http.disconnect"}

    async def leave() -> None:
        await fal.wait_for_counters("acme/app", executions=1)
        left.set()

    async def work() -> None:
        async with cancel_on_disconnect(receive):
            await client.subscribe("acme/app", {})

    async with anyio.create_task_group() as group:
        group.start_soon(leave)
        with pytest.raises(HTTPException) as raised:
            await work()
        assert raised.value.status_code == 499
    await fal.wait_for_counters("acme/app", cancelled=1)


async def test_work_without_disconnect_is_undisturbed() -> None:
    async def receive() -> dict[str, str]:
        await anyio.sleep_forever()
        raise AssertionError

    async with cancel_on_disconnect(receive):
        await anyio.lowlevel.checkpoint()
    with pytest.raises(KeyError, match="own"):
        async with cancel_on_disconnect(receive):
            raise KeyError("own")
