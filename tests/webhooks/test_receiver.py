"""`WebhookReceiver`: the status of each response, and that no event is lost or handled twice."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

from fal_async import AsyncClient, Hosts, InvalidRequestError, RetryPolicy, UnknownJobError
from fal_async.stores import MemoryStore, SQLiteStore
from fal_async.webhooks import WebhookEvent, WebhookReceiver, Webhooks, _receiver
from tests.support.webhooks import JOB, Clock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fal_async.emulator import Emulator
    from fal_async.emulator._webhooks.signing import SignedWebhook


class Handler:
    """An `on_event` that keeps events, and can be held or made to fail."""

    def __init__(self) -> None:
        self.events: list[WebhookEvent] = []
        self.errors: list[Exception] = []
        self.entered = anyio.Event()
        self.may_return = anyio.Event()
        self.may_return.set()
        self.finished = 0

    def hold(self) -> None:
        self.may_return = anyio.Event()

    async def __call__(self, event: WebhookEvent) -> None:
        self.events.append(event)
        self.entered.set()
        await self.may_return.wait()
        if self.errors:
            raise self.errors.pop(0)
        self.finished += 1


@pytest.fixture
async def handler() -> Handler:
    return Handler()


@pytest.fixture
def webhooks(client: AsyncClient) -> Webhooks:
    return Webhooks(client, max_body=10_000)


@pytest.fixture
def receiver(handler: Handler, webhooks: Webhooks) -> WebhookReceiver:
    return WebhookReceiver(handler, webhooks=webhooks)


async def deliver(app: Any, signed: SignedWebhook, **options: Any) -> httpx.Response:
    """Send a callback to an app as its server would."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as http:
        request = {"method": "POST", "url": "/", "content": signed.body, "headers": signed.headers}
        return await http.request(**{**request, **options})


async def deliver_until_entered(app: Any, signed: SignedWebhook, handler: Handler) -> None:
    """Deliver a callback to an app whose handler is held, until the handler is running."""
    while not handler.events:
        assert (await deliver(app, signed)).status_code == 503


async def test_event_is_handled_and_acknowledged(
    fal: Emulator, receiver: WebhookReceiver, handler: Handler
) -> None:
    response = await deliver(receiver, fal.sign({"seed": 7}, request_id=JOB))
    assert (response.status_code, response.json()) == (200, {"detail": "received"})
    [event] = handler.events
    assert (event.request_id, event.result()) == (JOB, {"seed": 7})


async def test_repeated_delivery_is_handled_once(
    fal: Emulator, receiver: WebhookReceiver, handler: Handler
) -> None:
    for _ in range(3):
        response = await deliver(receiver, fal.sign({"seed": 7}, request_id=JOB))
        assert response.status_code == 200
    assert len(handler.events) == 1
    await deliver(receiver, fal.sign({"seed": 7}))
    assert len(handler.events) == 2


async def test_failed_event_is_handled_again(
    fal: Emulator,
    receiver: WebhookReceiver,
    handler: Handler,
    caplog: pytest.LogCaptureFixture,
) -> None:
    handler.errors = [UnknownJobError("not recorded yet"), ValueError("boom")]
    statuses = [
        (await deliver(receiver, fal.sign({}, request_id=JOB))).status_code for _ in range(4)
    ]
    assert statuses == [503, 500, 200, 200]
    assert len(handler.events) == 3
    assert f"The event of job {JOB} was not handled" in caplog.text
    assert "boom" in caplog.text


async def test_plain_function_runs_in_a_thread(fal: Emulator, webhooks: Webhooks) -> None:
    threads: list[int] = []

    def on_event(_: WebhookEvent) -> None:
        threads.append(threading.get_ident())

    response = await deliver(WebhookReceiver(on_event, webhooks=webhooks), fal.sign({}))
    assert response.status_code == 200
    [thread] = threads
    assert thread != threading.get_ident()


async def test_function_may_return_an_awaitable(
    fal: Emulator, webhooks: Webhooks, handler: Handler
) -> None:
    receiver = WebhookReceiver(lambda event: handler(event), webhooks=webhooks)
    assert (await deliver(receiver, fal.sign({}))).status_code == 200
    assert handler.finished == 1


BAD: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "changed on the way": ({"tampered": True}, {}, 401),
    "stale": ({"age": 301}, {}, 401),
    "another account": ({"user_id": "user_attacker"}, {}, 401),
    "no headers": ({}, {"headers": {}}, 401),
    "not JSON": ({"payload": b"<html>"}, {}, 400),
    "empty body": ({"payload": b""}, {}, 400),
    "unknown status": ({"payload": b'{"request_id": "a", "status": "LATER"}'}, {}, 400),
    "too large": ({"payload": b"x" * 10_001}, {}, 413),
    "GET": ({}, {"method": "GET"}, 405),
    "HEAD": ({}, {"method": "HEAD"}, 405),
    "OPTIONS": ({}, {"method": "OPTIONS"}, 405),
}


@pytest.mark.parametrize(("signing", "sending", "status"), BAD.values(), ids=BAD)
async def test_bad_callback_gets_its_status(
    fal: Emulator,
    receiver: WebhookReceiver,
    handler: Handler,
    signing: dict[str, Any],
    sending: dict[str, Any],
    status: int,
) -> None:
    signed = fal.sign(**{"payload": {}, **signing})
    response = await deliver(receiver, signed, **sending)
    assert response.status_code == status
    assert response.headers.get("allow") == ("POST" if status == 405 else None)
    assert handler.events == []


async def test_body_of_unknown_length_is_bounded(receiver: WebhookReceiver) -> None:
    parts: list[bytes] = []
    sent: list[Any] = []

    async def receive() -> Any:
        parts.append(b"x" * 1000)
        return {"type": "http.request", "body": parts[-1], "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    await receiver({"type": "http", "method": "POST", "headers": []}, receive, send)
    assert (sent[0]["status"], len(parts)) == (413, 11)


async def test_reason_is_logged_and_not_sent(
    fal: Emulator, receiver: WebhookReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    response = await deliver(receiver, fal.sign({}, user_id="user_attacker"))
    assert response.json() == {"detail": "the signature is invalid"}
    assert "refused with status 401: the callback is signed for another account" in caplog.text


async def test_unreachable_keys_are_unavailable(fal: Emulator, handler: Handler) -> None:
    retry = RetryPolicy(attempts=1)
    async with AsyncClient("a:b", hosts=Hosts.at("http://127.0.0.1:9"), retry=retry) as client:
        receiver = WebhookReceiver(handler, webhooks=Webhooks(client))
        response = await deliver(receiver, fal.sign({}))
    assert (response.status_code, handler.events) == (503, [])


async def test_slow_handler_goes_on_after_response(
    fal: Emulator, handler: Handler, webhooks: Webhooks
) -> None:
    receiver = WebhookReceiver(handler, webhooks=webhooks, respond_within=0.05)
    handler.hold()
    await deliver_until_entered(receiver, fal.sign({}, request_id=JOB), handler)
    assert (await deliver(receiver, fal.sign({}, request_id=JOB))).status_code == 503
    handler.may_return.set()
    await receiver.aclose()
    assert handler.finished == 1
    patient = WebhookReceiver(handler, webhooks=webhooks, store=receiver._store)
    assert (await deliver(patient, fal.sign({}, request_id=JOB))).status_code == 200
    assert len(handler.events) == 1


async def test_close_waits_for_running_handlers(
    fal: Emulator, handler: Handler, webhooks: Webhooks
) -> None:
    handler.hold()
    async with anyio.create_task_group() as group:
        async with WebhookReceiver(handler, webhooks=webhooks, respond_within=0.05) as receiver:
            await deliver_until_entered(receiver, fal.sign({}), handler)

            async def release() -> None:
                await anyio.wait_all_tasks_blocked()
                handler.may_return.set()

            group.start_soon(release)
        assert handler.finished == 1


async def test_handler_cut_off_at_the_end_runs_again(
    fal: Emulator, handler: Handler, webhooks: Webhooks
) -> None:
    store = MemoryStore()
    handler.hold()
    options: dict[str, Any] = {"webhooks": webhooks, "store": store, "respond_within": 0.05}
    async with WebhookReceiver(handler, grace_period=0, **options) as receiver:
        await deliver_until_entered(receiver, fal.sign({}, request_id=JOB), handler)
    assert (handler.finished, len(store)) == (0, 0)
    handler.may_return.set()
    again = WebhookReceiver(handler, webhooks=webhooks, store=store)
    assert (await deliver(again, fal.sign({}, request_id=JOB))).status_code == 200
    assert handler.finished == 1


async def test_caller_that_leaves_cancels_nothing(
    fal: Emulator, receiver: WebhookReceiver, handler: Handler
) -> None:
    handler.hold()
    async with anyio.create_task_group() as group:
        group.start_soon(deliver, receiver, fal.sign({}))
        await handler.entered.wait()
        group.cancel_scope.cancel()
    handler.may_return.set()
    await receiver.aclose()
    assert handler.finished == 1


async def test_lease_is_renewed_while_handling(
    fal: Emulator, handler: Handler, webhooks: Webhooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Counting(MemoryStore):
        renewed = anyio.Event()

        async def set(self, key: str, value: str, *, expires_in: float) -> None:
            await super().set(key, value, expires_in=expires_in)
            if value == _receiver.RUNNING:
                self.renewed.set()

    monkeypatch.setattr(_receiver, "LEASE", 0.03)
    store = Counting()
    Counting.renewed = anyio.Event()
    receiver = WebhookReceiver(handler, webhooks=webhooks, store=store)
    handler.hold()
    async with anyio.create_task_group() as group:
        group.start_soon(deliver, receiver, fal.sign({}, request_id=JOB))
        await Counting.renewed.wait()
        handler.may_return.set()
    assert await store.get(_receiver.event_key(fal.user_id, JOB)) == _receiver.DONE


async def test_mark_of_a_dead_process_expires(
    fal: Emulator, handler: Handler, webhooks: Webhooks
) -> None:
    clock = Clock(1000.0)
    store = MemoryStore(clock=clock)
    key = _receiver.event_key(fal.user_id, JOB)
    await store.add(key, _receiver.RUNNING, expires_in=_receiver.LEASE)
    receiver = WebhookReceiver(handler, webhooks=webhooks, store=store)
    assert (await deliver(receiver, fal.sign({}, request_id=JOB))).status_code == 503
    clock.now += _receiver.LEASE
    assert (await deliver(receiver, fal.sign({}, request_id=JOB))).status_code == 200


async def test_receivers_share_a_file(
    fal: Emulator, handler: Handler, webhooks: Webhooks, tmp_path: Path
) -> None:
    for _ in range(2):
        async with SQLiteStore(tmp_path / "events.db") as store:
            receiver = WebhookReceiver(handler, webhooks=webhooks, store=store)
            response = await deliver(receiver, fal.sign({}, request_id=JOB))
            assert response.status_code == 200
    assert len(handler.events) == 1


async def test_broken_store_is_unavailable(
    fal: Emulator,
    handler: Handler,
    webhooks: Webhooks,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = SQLiteStore(tmp_path / "missing" / "events.db")
    receiver = WebhookReceiver(handler, webhooks=webhooks, store=store)
    with caplog.at_level(logging.WARNING):
        assert (await deliver(receiver, fal.sign({}))).status_code == 503
    assert "cannot use the store" in caplog.text
    assert handler.events == []


async def run_scope(app: Any, scope: dict[str, Any], *messages: dict[str, Any]) -> list[Any]:
    sent: list[Any] = []
    left = iter(messages)

    async def receive() -> Any:
        return next(left)

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


async def test_lifespan_waits_for_handlers(
    fal: Emulator, handler: Handler, webhooks: Webhooks
) -> None:
    receiver = WebhookReceiver(handler, webhooks=webhooks, respond_within=0.05)
    handler.hold()
    await deliver_until_entered(receiver, fal.sign({}), handler)
    async with anyio.create_task_group() as group:
        messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
        sent: list[Any] = []

        async def serve() -> None:
            sent.extend(await run_scope(receiver, {"type": "lifespan"}, *messages))
            assert handler.finished == 1

        group.start_soon(serve)
        await anyio.wait_all_tasks_blocked()
        handler.may_return.set()
    assert [message["type"] for message in sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]


async def test_websocket_is_refused(receiver: WebhookReceiver) -> None:
    [message] = await run_scope(receiver, {"type": "websocket"}, {"type": "websocket.connect"})
    assert message["type"] == "websocket.close"


async def test_peer_that_disconnects_gets_no_response(receiver: WebhookReceiver) -> None:
    scope = {"type": "http", "method": "POST", "headers": []}
    part = {"type": "http.request", "body": b"{", "more_body": True}
    assert await run_scope(receiver, scope, part, {"type": "http.disconnect"}) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"on_event": None}, "on_event must be a function, got None"),
        ({"webhooks": None}, "webhooks must be a Webhooks, got None"),
        ({"respond_within": 0}, "respond_within must be a positive, finite number of seconds"),
        ({"remember_for": "1"}, "remember_for must be a number of seconds"),
        ({"grace_period": -1}, "grace_period must be zero or a positive, finite number"),
    ],
)
def test_bad_arguments_are_refused(change: dict[str, Any], says: str) -> None:
    options: dict[str, Any] = {"on_event": print, "webhooks": Webhooks(), **change}
    make: Callable[..., object] = WebhookReceiver
    with pytest.raises(InvalidRequestError, match=says):
        make(options.pop("on_event"), **options)
