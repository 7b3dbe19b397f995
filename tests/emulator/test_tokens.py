"""Tokens for WebSockets and browser streams."""

from __future__ import annotations

import base64
import json
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio.to_thread
import pytest
from websockets.exceptions import ConnectionClosedOK, InvalidStatus

from fal_async.emulator import Emulator, Fault
from tests.support.http import Arguments, echo, make_client, submit
from tests.support.websocket_client import Clock, connect_websocket, create_token, pack, unpack

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import httpx

    from fal_async import AsyncClient

UNAUTHORIZED = {"status": "error", "error": "Unauthorized"}


def opens(fal: Emulator, token: str, app: str = "acme/live") -> bool:
    with connect_websocket(fal, f"run/{app}/realtime?fal_jwt_token={token}", key=None) as socket:
        with suppress(ConnectionClosedOK):  # it may have been closed already
            socket.send(pack(a=1))
        message = socket.recv(timeout=10)
        if isinstance(message, bytes):
            assert unpack(message) == {"a": 1}
            return True
        assert json.loads(message) == UNAUTHORIZED
        with pytest.raises(ConnectionClosedOK):
            socket.recv(timeout=10)
        return False


def test_client_token_is_a_bare_json_string(fal: Emulator, http: httpx.Client) -> None:
    fal.realtime("acme/live")(echo)
    assert opens(fal, create_token(http))
    assert fal.count("token") == 1
    request = fal.requests[-1]
    assert (request.route, request.status) == ("realtime", 101)
    assert fal.counters("acme/live").requests["realtime"] == 1


def test_documented_token_is_in_an_object(fal: Emulator, http: httpx.Client) -> None:
    fal.realtime("acme/live")(echo)
    body = {"allowed_apps": ["acme/live/realtime"], "duration": 60}
    response = http.post("/rest/tokens/realtime", json=body)
    assert opens(fal, response.json()["token"])


def test_token_is_a_jwt_with_an_expiry(fal: Emulator, http: httpx.Client) -> None:
    header, claims, _ = create_token(http, token_expiration=120).split(".")
    assert json.loads(base64.urlsafe_b64decode(header + "==")) == {"alg": "HS256", "typ": "JWT"}
    decoded = json.loads(base64.urlsafe_b64decode(claims + "=="))
    assert decoded["allowed_apps"] == ["live"]
    assert 0 < decoded["exp"] - time.time() <= 121


@pytest.mark.parametrize("app", ["live", "acme/live", "acme/live/realtime", "/acme/live/"])
def test_token_covers_alias_app_or_path(fal: Emulator, http: httpx.Client, app: str) -> None:
    fal.realtime("acme/live")(echo)
    assert opens(fal, create_token(http, allowed_apps=["other/app", app]))


@pytest.mark.parametrize("app", ["li", "acme", "acme/li", "other/live", "acme/live/other"])
def test_token_is_limited_to_its_apps(fal: Emulator, http: httpx.Client, app: str) -> None:
    fal.realtime("acme/live")(echo)
    assert not opens(fal, create_token(http, allowed_apps=[app]))


def test_single_app_may_be_named(fal: Emulator, http: httpx.Client) -> None:
    fal.realtime("acme/live")(echo)
    body = {"app": "acme/live/realtime", "duration": 60}
    response = http.post("/rest/tokens/realtime", json=body)
    assert opens(fal, response.json()["token"])


def test_expired_token_is_reported_over_websocket() -> None:
    clock = Clock()
    with Emulator(clock=clock) as fal, make_client(fal) as http:
        fal.realtime("acme/live")(echo)
        valid_token = create_token(http, token_expiration=120)
        clock.now += 119
        assert opens(fal, valid_token)
        clock.now += 2
        assert not opens(fal, valid_token)


def test_tokens_can_be_revoked(fal: Emulator, http: httpx.Client) -> None:
    fal.realtime("acme/live")(echo)
    old = create_token(http)
    fal.revoke_tokens()
    assert not opens(fal, old)
    assert opens(fal, create_token(http))


def test_foreign_token_is_refused(fal: Emulator, http: httpx.Client) -> None:
    fal.realtime("acme/live")(echo)
    header, claims, signature = create_token(http).split(".")
    forged = base64.urlsafe_b64encode(b'{"allowed_apps":["live"],"exp":9999999999}').decode()
    for wrong in ("", "x", "a.b.c", f"{header}.{forged}.{signature}", f"{header}.{claims}."):
        assert not opens(fal, wrong)


def test_only_minting_requires_the_key(fal: Emulator, http: httpx.Client) -> None:
    http.headers["authorization"] = "Key wrong"
    assert http.post("/rest/tokens/", json={"allowed_apps": ["live"]}).status_code == 401
    del http.headers["authorization"]
    assert http.post("/rest/tokens/", json={"allowed_apps": ["live"]}).status_code == 401


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"allowed_apps":[]}', b'{"allowed_apps":["a"],"token_expiration":0}'],
)
def test_token_without_apps_is_refused(http: httpx.Client, body: bytes) -> None:
    assert http.post("/rest/tokens/", content=body).status_code == 422


def test_faults_apply_to_token_requests(fal: Emulator, http: httpx.Client) -> None:
    fal.fail(None, Fault(route="token", status=403))
    assert http.post("/rest/tokens/", json={"allowed_apps": ["live"]}).status_code == 403
    assert create_token(http)


def test_valid_key_opens_a_websocket(fal: Emulator) -> None:
    fal.realtime("acme/live")(echo)
    with connect_websocket(fal, "run/acme/live/realtime") as socket:
        socket.send(pack(a=1))
        assert unpack(socket.recv(timeout=10)) == {"a": 1}
    for key, words in (("wrong", b"invalid key credentials"), (None, b"Cannot access")):
        with pytest.raises(InvalidStatus) as caught:
            connect_websocket(fal, "run/acme/live/realtime", key=key)
        assert caught.value.response.status_code == 401
        assert words in (caught.value.response.body or b"")
        assert caught.value.response.headers["x-fal-request-id"]


def test_token_opens_a_stream_without_key() -> None:
    clock = Clock()
    with Emulator(clock=clock) as fal, make_client(fal) as http:

        @fal.endpoint("acme/live")
        async def stream(arguments: Arguments) -> AsyncGenerator[Arguments]:
            yield arguments

        def status(path: str, valid_token: str, **headers: str) -> int:
            parameters = {"fal_jwt_token": valid_token}
            return http.post(path, json={}, params=parameters, headers=headers).status_code

        valid_token = create_token(http)
        elsewhere = create_token(http, allowed_apps=["acme/live/realtime"])
        del http.headers["authorization"]
        assert status("/run/acme/live/stream", valid_token) == 200
        assert status("/run/acme/live", valid_token, accept="text/event-stream") == 200
        assert status("/run/acme/live/stream", elsewhere) == 401
        assert status("/run/acme/live", valid_token) == 401  # the token is valid for streams only
        assert status("/queue/acme/live", valid_token) == 401
        clock.now += 121
        assert status("/run/acme/live/stream", valid_token) == 401


def test_token_opens_status_stream() -> None:
    clock = Clock()
    with Emulator(clock=clock) as fal, make_client(fal) as http:
        fal.register("acme/live", echo)
        url = submit(http, "acme/live")["status_url"]
        valid_token, elsewhere = create_token(http), create_token(http, allowed_apps=["other"])
        del http.headers["authorization"]

        def status(url: str, valid_token: str) -> int:
            return http.get(url, params={"fal_jwt_token": valid_token}).status_code

        assert status(f"{url}/stream", valid_token) == 200
        assert status(f"{url}/stream", elsewhere) == 401
        assert status(f"{url}/stream", "") == 401
        assert status(url, valid_token) == 401
        clock.now += 121
        assert status(f"{url}/stream", valid_token) == 401


async def test_token_of_client_opens_one_path(fal: Emulator, client: AsyncClient) -> None:
    fal.realtime("acme/live")(echo)
    fal.realtime("acme/other")(echo)
    token = await client.realtime_token("acme/live", expires_in=60)

    assert await anyio.to_thread.run_sync(opens, fal, token)
    assert not await anyio.to_thread.run_sync(opens, fal, token, "acme/other")
