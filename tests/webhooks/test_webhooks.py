"""`Webhooks`: the verdict on a callback, whose account it is, and where the keys come from."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

from fal_async import (
    AsyncClient,
    ForeignWebhookError,
    Hosts,
    InvalidRequestError,
    InvalidWebhookEventError,
    InvalidWebhookSignatureError,
    RetryPolicy,
    UnverifiedWebhookError,
    WebhookError,
)
from fal_async.webhooks import ANY_ACCOUNT, Webhooks, _keys
from tests.support.webhooks import JOB, SIGNED_AT, Clock, KeyServer, Signer, key_server, vector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from fal_async.emulator import Emulator

OK, HEADERS = vector("first key")
_, OTHER_HEADERS = vector("second key")
HOUR = 3600.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys() -> Iterator[KeyServer]:
    with key_server() as server:
        yield server


@pytest.fixture
async def caller() -> AsyncIterator[AsyncClient]:
    """A client that does not retry, whose hosts are not there."""
    retry = RetryPolicy(attempts=1)
    hosts = Hosts.at("http://127.0.0.1:9")
    async with AsyncClient("a:b", hosts=hosts, retry=retry) as client:
        yield client


@pytest.fixture
def webhooks(caller: AsyncClient, keys: KeyServer, clock: Clock) -> Webhooks:
    return Webhooks(caller, user_id="user_own", jwks_url=keys.url, clock=clock)


async def test_emulated_callback_is_accepted(fal: Emulator, client: AsyncClient) -> None:
    webhooks = Webhooks(client)
    signed = fal.sign({"seed": 2**64 - 1}, request_id=JOB)
    await webhooks.verify_signature(signed.body, signed.headers)
    event = await webhooks.unwrap(signed.body.decode(), signed.headers)
    assert (event.request_id, event.user_id) == (JOB, fal.user_id)
    assert event.result() == {"seed": 2**64 - 1}


async def test_account_is_learnt_once(fal: Emulator, client: AsyncClient) -> None:
    webhooks = Webhooks(client)
    signed = fal.sign({})
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(webhooks.verify_signature, signed.body, signed.headers)
    requests = [request.path for request in fal.requests]
    assert sum(path.endswith("/users/current") for path in requests) == 1
    assert sum(path.endswith("jwks.json") for path in requests) == 1


async def test_callback_of_another_account_is_refused(fal: Emulator, client: AsyncClient) -> None:
    signed = fal.sign({}, user_id="user_attacker")
    with pytest.raises(ForeignWebhookError, match="for another account: user_attacker") as caught:
        await Webhooks(client).unwrap(signed.body, signed.headers)
    assert caught.value.user_id == "user_attacker"
    event = await Webhooks(client, user_id=ANY_ACCOUNT).unwrap(signed.body, signed.headers)
    assert event.user_id == "user_attacker"
    await Webhooks(client, user_id=["a", "user_attacker"]).unwrap(signed.body, signed.headers)


async def test_account_may_come_from_the_environment(
    fal: Emulator, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAL_WEBHOOK_USER_ID", " user_named ")
    webhooks = Webhooks(client)
    mine, other = fal.sign({}, user_id="user_named"), fal.sign({})
    await webhooks.verify_signature(mine.body, mine.headers)
    with pytest.raises(ForeignWebhookError):
        await webhooks.verify_signature(other.body, other.headers)


async def test_unknown_account_asks_for_a_setting(
    caller: AsyncClient, keys: KeyServer, clock: Clock
) -> None:
    webhooks = Webhooks(caller, jwks_url=keys.url, clock=clock)
    with pytest.raises(UnverifiedWebhookError, match="pass user_id or set FAL_WEBHOOK"):
        await webhooks.verify_signature(OK, HEADERS)
    wrong = {**HEADERS, "X-Fal-Webhook-User-Id": "user_other"}
    with pytest.raises(InvalidWebhookSignatureError):  # which needs no account
        await webhooks.verify_signature(OK, wrong)


async def test_default_client_fetches_the_keys(
    fal: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in fal.environ.items():
        monkeypatch.setenv(name, value)
    signed = fal.sign({"a": 1})
    event = await Webhooks().unwrap(signed.body, signed.headers)
    assert event.result() == {"a": 1}


async def test_changed_body_is_refused(webhooks: Webhooks) -> None:
    await webhooks.verify_signature(OK, HEADERS)
    with pytest.raises(InvalidWebhookSignatureError, match="none of the platform's keys"):
        await webhooks.verify_signature(OK + b" ", HEADERS)
    with pytest.raises(ValueError, match="none of the platform's keys"):  # as in openai
        await webhooks.unwrap(OK + b" ", HEADERS)


async def test_old_callback_is_refused_unfetched(
    webhooks: Webhooks, keys: KeyServer, clock: Clock
) -> None:
    clock.now = SIGNED_AT + 301
    with pytest.raises(InvalidWebhookSignatureError, match="signed 301 seconds ago"):
        await webhooks.verify_signature(OK, HEADERS)
    assert keys.requests == []


async def test_tolerance_can_be_changed(caller: AsyncClient, keys: KeyServer, clock: Clock) -> None:
    strict = Webhooks(caller, user_id="user_own", tolerance=5.0, jwks_url=keys.url, clock=clock)
    with pytest.raises(InvalidWebhookSignatureError, match="which is more than 5 seconds"):
        await strict.verify_signature(OK, HEADERS)


async def test_signed_body_must_be_an_event(webhooks: Webhooks) -> None:
    body, headers = vector("empty body")
    await webhooks.verify_signature(body, headers)
    with pytest.raises(InvalidWebhookEventError, match="must be JSON"):
        await webhooks.unwrap(body, headers)


async def test_large_bodies_are_verified(webhooks: Webhooks) -> None:
    text = "a" * 2**20
    body = json.dumps({"request_id": JOB, "status": "OK", "payload": {"text": text}}).encode()
    event = await webhooks.unwrap(body, Signer().sign(body))
    assert event.payload == {"text": text}


async def test_many_callbacks_share_one_fetch(webhooks: Webhooks, keys: KeyServer) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(100):
            group.start_soon(webhooks.unwrap, OK, HEADERS)
    assert len(keys.requests) == 1
    assert b"authorization" not in keys.requests[0].lower()


async def test_new_key_is_fetched_once_a_minute(
    webhooks: Webhooks, keys: KeyServer, clock: Clock
) -> None:
    await webhooks.verify_signature(OK, HEADERS)
    keys.serve(Signer(100), Signer(132))
    with pytest.raises(InvalidWebhookSignatureError):  # fetched less than a minute ago
        await webhooks.verify_signature(OK, OTHER_HEADERS)
    assert len(keys.requests) == 1
    clock.now += 60
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(webhooks.verify_signature, OK, OTHER_HEADERS)
    assert len(keys.requests) == 2
    forged = Signer(7).sign(OK)
    for _ in range(20):
        with pytest.raises(InvalidWebhookSignatureError):
            await webhooks.verify_signature(OK, forged)
    assert len(keys.requests) == 2
    await webhooks.verify_signature(OK, HEADERS)  # the older key is still in the set


async def test_keys_are_renewed_after_six_hours(
    webhooks: Webhooks, keys: KeyServer, clock: Clock
) -> None:
    await webhooks.verify_signature(OK, HEADERS)
    keys.serve(Signer(132))
    clock.now += 6 * HOUR
    now = int(clock.now)
    await webhooks.verify_signature(OK, Signer(132).sign(OK, at=now))
    assert len(keys.requests) == 2
    with pytest.raises(InvalidWebhookSignatureError):  # a withdrawn key
        await webhooks.verify_signature(OK, Signer(100).sign(OK, at=now))


@pytest.mark.parametrize("status", [500, 404, 302])
async def test_old_keys_serve_while_a_refresh_fails(
    webhooks: Webhooks, keys: KeyServer, clock: Clock, status: int
) -> None:
    await webhooks.verify_signature(OK, HEADERS)
    keys.respond(status, b"", f"Location: {keys.url}\r\n")
    clock.now += 23 * HOUR
    headers = Signer().sign(OK, at=int(clock.now))
    for _ in range(3):
        await webhooks.verify_signature(OK, headers)
    assert len(keys.requests) == 2  # and not again within a minute
    clock.now += HOUR
    with pytest.raises(UnverifiedWebhookError, match="its keys cannot be fetched"):
        await webhooks.verify_signature(OK, Signer().sign(OK, at=int(clock.now)))
    keys.serve(Signer())
    await webhooks.verify_signature(OK, Signer().sign(OK, at=int(clock.now)))


BAD_KEYS = {
    "redirect": (302, b"", "a redirect, which is not followed"),
    "error": (503, b"down", "down"),
    "too large": (200, b" " * (_keys.MAX_KEY_SET + 1), "must have at most 65536 bytes"),
    "not JSON": (200, b"<html>", "the key set is not JSON"),
    "no keys": (200, b'{"keys": []}', "the key set has no Ed25519 key"),
}


@pytest.mark.parametrize(("status", "body", "says"), BAD_KEYS.values(), ids=BAD_KEYS)
async def test_unusable_keys_are_unverified(
    webhooks: Webhooks, keys: KeyServer, status: int, body: bytes, says: str
) -> None:
    keys.respond(status, body, f"Location: {keys.url}\r\n")
    with pytest.raises(UnverifiedWebhookError, match=says):
        await webhooks.verify_signature(OK, HEADERS)
    assert len(keys.requests) == 1


async def test_waiting_callbacks_share_a_failure(webhooks: Webhooks, keys: KeyServer) -> None:
    keys.pause()
    keys.respond(503, b"down")
    errors: list[WebhookError] = []

    async def verify() -> None:
        try:
            await webhooks.verify_signature(OK, HEADERS)
        except UnverifiedWebhookError as error:
            errors.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(verify)
        await anyio.wait_all_tasks_blocked()
        keys.resume()
    assert len(errors) == 20
    assert len(keys.requests) == 1


async def test_silent_key_server_is_given_up(
    webhooks: Webhooks, keys: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_keys, "FETCH_TIMEOUT", 0.05)
    keys.pause()
    with pytest.raises(UnverifiedWebhookError, match=r"no response within 0\.05 seconds"):
        await webhooks.verify_signature(OK, HEADERS)
    keys.resume()


async def test_cancelled_fetch_is_repeated(webhooks: Webhooks, keys: KeyServer) -> None:
    keys.pause()
    async with anyio.create_task_group() as group:
        group.start_soon(webhooks.verify_signature, OK, HEADERS)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    keys.resume()
    await webhooks.verify_signature(OK, HEADERS)


def test_each_event_loop_has_its_keys(keys: KeyServer, clock: Clock) -> None:
    caller = AsyncClient("a:b", hosts=Hosts.at("http://127.0.0.1:9"))
    webhooks = Webhooks(caller, user_id="user_own", jwks_url=keys.url, clock=clock)
    for backend in ("asyncio", "trio", "asyncio"):
        anyio.run(webhooks.verify_signature, OK, HEADERS, backend=backend)
    assert len(keys.requests) == 3


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"client": httpx.AsyncClient}, "client must be an AsyncClient or None, got <class"),
        ({"user_id": ""}, "user_id must be the id of an account, or several, got "),
        ({"user_id": []}, "user_id must be the id of an account, or several, got "),
        ({"user_id": ["a", 7]}, "user_id must be the id of an account, or several, got "),
        ({"user_id": 7}, "user_id must be a Collection, got 7"),
        ({"tolerance": -1}, "tolerance must be zero or a positive, finite number of seconds"),
        ({"tolerance": "300"}, "tolerance must be a number of seconds, got '300'"),
        ({"jwks_url": "http://keys.example.com/jwks.json"}, "jwks_url must be an https:// URL"),
        ({"jwks_url": "http://localhost.example.com/"}, "jwks_url must be an https:// URL"),
        ({"jwks_url": "https://user@rest.fal.ai/"}, "jwks_url must be an https:// URL"),
        ({"jwks_url": "ftp://rest.fal.ai/"}, "jwks_url must be an https:// URL"),
        ({"jwks_url": 7}, "jwks_url must be an https:// URL"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says):
        Webhooks(**options)


@pytest.mark.parametrize(
    "url",
    [
        "https://keys.example.com/jwks.json",
        "http://localhost/keys",
        "http://localhost:8000/keys",
        "http://127.0.0.1:8000/keys",
        "http://[::1]:8000/keys",
    ],
)
def test_keys_come_over_https_or_from_here(url: str) -> None:
    Webhooks(jwks_url=url)


NO_CRYPTOGRAPHY = """
import sys
sys.modules["cryptography"] = None
from fal_async.webhooks import Webhooks
try:
    Webhooks()
except ImportError as error:
    print(error)
"""


def test_missing_extra_is_named_at_once() -> None:
    done = subprocess.run(
        [sys.executable, "-c", NO_CRYPTOGRAPHY], capture_output=True, text=True, check=True
    )
    assert done.stdout == 'webhooks require cryptography: pip install "fal-async[webhooks]"\n'


def test_import_leaves_cryptography_alone() -> None:
    code = "import sys, fal_async.webhooks as w; w.Webhooks(); print('cryptography' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
