"""ASGI messages of runners: validation and completion."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from fal_async.emulator import AppError, Emulator
from tests.support.http import Arguments, submit, wait_for_completed
from tests.support.websocket_client import assert_not_forwarded, connect_websocket, pack

if TYPE_CHECKING:
    from collections.abc import Callable

    from fal_async.emulator._runners.asgi import AsgiApp


def telling(*messages: dict[str, Any]) -> AsgiApp:
    """Return an app that sends these messages, given by the last word of their types."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            for message in messages:
                await send({**message, "type": f"http.response.{message['type']}"})

    return app


START: dict[str, Any] = {"type": "start", "status": 200}
BODY: dict[str, Any] = {"type": "body", "body": b"{}"}


@pytest.mark.parametrize(
    ("messages", "status", "body"),
    [
        ([START, BODY], 200, b"{}"),
        ([START, {"type": "body"}], 200, b""),
        ([{**START, "headers": [[b"Content-Length", b"2"]]}, BODY], 200, b"{}"),
        ([START, {**BODY, "more_body": True}, {"type": "body"}], 200, b"{}"),
        ([START], 200, b""),
        ([START, BODY, BODY], 200, b"{}"),
        ([START, START, BODY], 200, b""),
        ([{**START, "status": 204, "headers": [(b"content-length", b"2")]}, BODY], 204, b""),
        ([BODY], 500, None),
        ([{"type": "debug"}, START, BODY], 500, None),
        ([{**START, "status": 100}, BODY], 500, None),
        ([{**START, "status": 600}, BODY], 500, None),
        ([{**START, "headers": [(b"x-own", b"a\r\nb")]}, BODY], 500, None),
        ([{**START, "headers": [(b"x own", b"a")]}, BODY], 500, None),
        ([{**START, "headers": [("x-own", "a")]}, BODY], 500, None),
    ],
)
def test_asgi_messages_become_valid_responses(
    fal: Emulator,
    http: httpx.Client,
    caplog: pytest.LogCaptureFixture,
    messages: list[dict[str, Any]],
    status: int,
    body: bytes | None,
) -> None:
    fal.register("acme/app", telling(*messages))
    submitted = submit(http)
    wait_for_completed(fal)
    for response in (http.post("/run/acme/app", json={}), http.get(submitted["response_url"])):
        assert response.status_code == status
        assert response.content == (b'{"detail":"Internal Server Error"}' if body is None else body)
        assert response.headers["x-fal-request-id"]
    assert [record for record in caplog.records if record.name.startswith("uvicorn")] == []


@pytest.mark.parametrize("length", [b"1", b"3"])
def test_body_must_match_its_content_length(
    fal: Emulator, http: httpx.Client, length: bytes
) -> None:
    fal.register("acme/app", telling({**START, "headers": [(b"content-length", length)]}, BODY))
    submitted = submit(http, headers={"X-Fal-No-Retry": "1"})
    wait_for_completed(fal)
    result = http.get(submitted["response_url"])
    assert result.json()["error_type"] == "runner_incomplete_response"
    with pytest.raises(httpx.RemoteProtocolError):
        http.post("/run/acme/app", json={})


def test_app_receives_disconnect_after_response(fal: Emulator, http: httpx.Client) -> None:
    heard: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body"})
            heard.extend([(await receive())["type"] for _ in range(3)])

    fal.register("acme/app", app)
    submit(http)
    wait_for_completed(fal)
    http.post("/run/acme/app", json={})
    fal.wait_for(lambda: fal.counters("acme/app").running == 0)
    assert heard == ["http.request", "http.disconnect", "http.disconnect"] * 2


@pytest.mark.parametrize(
    "error",
    [
        lambda: AppError(400, object()),
        lambda: AppError(400, headers={"X-Own": "a\r\nb"}),
        lambda: AppError(400, headers={"X-Own": "\u20ac"}),
        lambda: AppError(100),
    ],
)
def test_unserializable_error_counts_as_a_crash(
    fal: Emulator, http: httpx.Client, error: Callable[[], AppError]
) -> None:
    def app(arguments: Arguments) -> None:
        raise error()

    fal.register("acme/app", app)
    submitted = submit(http)
    wait_for_completed(fal)
    for response in (http.post("/run/acme/app", json={}), http.get(submitted["response_url"])):
        assert (response.status_code, response.json()) == (500, {"detail": "Internal Server Error"})
        assert response.headers["x-fal-request-id"]
    assert "Error" in fal.jobs[submitted["request_id"]].logs[0]["message"]


def test_app_may_receive_before_accepting(fal: Emulator) -> None:
    @fal.websocket("acme/socket")
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        hearing = asyncio.create_task(receive())
        await asyncio.sleep(0)
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": (await hearing)["text"].upper()})

    with connect_websocket(fal, "run/acme/socket") as socket:
        socket.send("hello")
        assert socket.recv(timeout=10) == "HELLO"


def test_app_receives_disconnect_before_response(fal: Emulator) -> None:
    heard: list[str] = []

    @fal.websocket("acme/socket")
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            heard.extend([(await receive())["type"] for _ in range(2)])

    with pytest.raises(TimeoutError):
        connect_websocket(fal, "run/acme/socket", open_timeout=0.05)
    fal.wait_for(lambda: heard == ["websocket.connect", "websocket.disconnect"])


def test_websocket_scope_has_no_method(fal: Emulator) -> None:
    scopes: list[Any] = []

    @fal.websocket("acme/socket")
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            scopes.append(scope)
            await send({"type": "websocket.close"})
            scopes.extend([(await receive())["type"] for _ in range(2)])

    assert_not_forwarded(fal, "run/acme/socket")
    assert scopes[0]["scheme"] == "ws"
    assert "method" not in scopes[0]
    assert scopes[1:] == ["websocket.connect", "websocket.disconnect"]


@pytest.mark.parametrize("status", [403, 499, 599, 700])
def test_refused_handshake_is_accepted_and_closed(fal: Emulator, status: int) -> None:
    @fal.websocket("acme/socket")
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.http.response.start", "status": status})
        await send({"type": "websocket.http.response.body"})

    assert_not_forwarded(fal, "run/acme/socket")


async def exiting(scope: Any, receive: Any, send: Any) -> None:
    raise SystemExit(1)


async def exiting_session(arguments: Arguments) -> Arguments:
    raise SystemExit(1)


def test_system_exit_of_session_stays_isolated(fal: Emulator, http: httpx.Client) -> None:
    fal.realtime("acme/live")(exiting_session)
    with connect_websocket(fal, "run/acme/live/realtime") as socket:
        socket.send(pack(a=1))
        assert "SystemExit" in str(socket.recv(timeout=10))
    fal.register("acme/app", exiting)
    assert http.post("/run/acme/app", json={}).status_code == 500
    assert_not_forwarded(fal, "run/acme/app")
    fal.register("acme/app", lambda arguments: "alive")
    assert http.post("/run/acme/app", json={}).json() == "alive"
