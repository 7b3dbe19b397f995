"""Identity: copies, pickles and options keep the account of a client."""

from __future__ import annotations

import copy
import dataclasses
import gc
import pickle
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

import fal_async.sync as fal_client
from fal_async import AsyncClient, Hosts, InvalidRequestError, MissingCredentialsError, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from fal_async.emulator import Emulator

ECHO = "demo/echo"
OTHERS = "other:account"


@pytest.fixture(autouse=True)
def someone_elses_environment(monkeypatch: pytest.MonkeyPatch, fal: Emulator) -> None:
    monkeypatch.setenv("FAL_KEY", OTHERS)
    fal.accept_key(OTHERS)
    fal.register(ECHO, lambda arguments: arguments)


def shown(fal: Emulator) -> list[str]:
    """The keys that were shown since this was last asked."""
    keys = [request.headers.get("authorization", "") for request in fal.requests]
    fal.reset()
    return keys


class Tenant(AsyncClient):
    """A client of a user's own, with another constructor and something of its own."""

    def __init__(self, tenant: str, key: str, hosts: Hosts) -> None:
        super().__init__(key, hosts=hosts)
        self.tenant = tenant


class SyncTenant(fal_client.SyncClient):
    def __init__(self, tenant: str, key: str, hosts: Hosts) -> None:
        super().__init__(key, hosts=hosts)
        self.tenant = tenant


@dataclasses.dataclass
class Holder:
    client: Any


COPIES: list[Callable[[Any], Any]] = [
    copy.copy,
    copy.deepcopy,
    lambda client: client.with_options(),
    lambda client: client.with_options(default_timeout=None),
    lambda client: dataclasses.asdict(Holder(client))["client"],
]


@pytest.mark.parametrize("copied", COPIES)
async def test_copy_uses_the_same_account(fal: Emulator, copied: Callable[[Any], Any]) -> None:
    async with Tenant("acme", fal.key, fal.hosts) as client:
        copied_client = copied(client)
        assert await copied_client.run(ECHO, {}) == {}
        assert shown(fal) == [f"Key {fal.key}"]
        assert (type(copied_client), copied_client.tenant) == (Tenant, "acme")
        async with copied_client:
            pass
        assert await client.run(ECHO, {}) == {}  # closing the copy has closed nothing


@pytest.mark.parametrize("copied", COPIES)
def test_blocking_copy_uses_the_same_account(fal: Emulator, copied: Callable[[Any], Any]) -> None:
    with SyncTenant("acme", fal.key, fal.hosts) as client:
        copied_client = copied(client)
        assert copied_client.run(ECHO, {}) == {}
        assert shown(fal) == [f"Key {fal.key}"]
        assert (type(copied_client), copied_client.tenant) == (SyncTenant, "acme")
        with copied_client:
            pass
        del copied_client
        gc.collect()
        assert client.run(ECHO, {}) == {}


async def test_copy_keeps_its_transport() -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"seen": request.headers["authorization"]})

    async with AsyncClient("mine:secret", transport=httpx.MockTransport(respond)) as client:
        assert await copy.copy(client).run(ECHO, {}) == {"seen": "Key mine:secret"}


@pytest.mark.parametrize("kind", [Tenant, SyncTenant])
async def test_unpickled_client_requires_a_key(fal: Emulator, kind: Any) -> None:
    client = kind("acme", fal.key, fal.hosts)
    data = pickle.dumps(client)
    assert fal.key.encode() not in data
    restored = pickle.loads(data)
    again = pickle.loads(pickle.dumps(restored))
    for each in (restored, again, copy.copy(restored)):
        assert (type(each), each.tenant) == (kind, "acme")
        with pytest.raises(MissingCredentialsError, match=r"with_options\(key="):
            await called(each)
    assert shown(fal) == []
    assert await called(restored.with_options(key=fal.key)) == {}


async def called(client: Any) -> Any:
    if isinstance(client, AsyncClient):
        return await client.run(ECHO, {})
    return await anyio.to_thread.run_sync(client.run, ECHO, {})


async def test_unpickled_client_searches_again(
    fal: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with AsyncClient(hosts=fal.hosts) as client:
        await client.run(ECHO, {})
        data = pickle.dumps(client)
    assert OTHERS.encode() not in data
    monkeypatch.setenv("FAL_KEY", fal.key)
    shown(fal)
    async with pickle.loads(data) as restored:
        await restored.run(ECHO, {})
    assert shown(fal) == [f"Key {fal.key}"]


def give_key() -> str:
    return "given:by-a-function"


async def test_pickle_keeps_the_key_provider(fal: Emulator) -> None:
    fal.accept_key(give_key())
    async with pickle.loads(pickle.dumps(AsyncClient(give_key, hosts=fal.hosts))) as client:
        await client.run(ECHO, {})
    assert shown(fal) == [f"Key {give_key()}"]


@pytest.mark.parametrize("make", [AsyncClient, fal_client.SyncClient])
def test_empty_key_option_is_refused(make: Any) -> None:
    client = make("id:secret")
    for key in (None, "", " ", 5, b"id:secret"):
        with pytest.raises(InvalidRequestError, match="key"):
            client.with_options(key=key)


def test_omitted_options_keep_their_values() -> None:
    client = AsyncClient("id:secret", 5, retry=RetryPolicy(attempts=2))
    dispatchers = [
        client.with_options()._dispatcher,
        client.with_options(default_timeout=None)._dispatcher,
        client.with_options(retry=None)._dispatcher,
    ]
    assert [(each.timeout, each.policy.attempts) for each in dispatchers] == [
        (5, 2),
        (None, 2),
        (5, RetryPolicy().attempts),
    ]


async def test_file_tokens_are_shared_per_key(fal: Emulator) -> None:
    fal.accept_key("tenant:1")

    def tokens() -> list[str]:
        wanted = [each for each in fal.requests if each.path.endswith("/storage/auth/token")]
        keys = [each.headers["authorization"] for each in wanted]
        fal.reset()
        return keys

    async with AsyncClient(fal.key, hosts=fal.hosts) as client:
        for _ in range(3):
            await client.upload(b"mine", "text/plain")
            await client.with_options(default_timeout=7).upload(b"mine", "text/plain")
            await client.with_options(key="tenant:1").upload(b"theirs", "text/plain")
        assert tokens() == [f"Key {fal.key}", "Key tenant:1"]


async def test_tokens_follow_the_key_of_the_provider(fal: Emulator) -> None:
    tenant: ContextVar[str] = ContextVar("tenant")
    for name in ("tenant:1", "tenant:2"):
        fal.accept_key(name)
    async with AsyncClient(tenant.get, hosts=fal.hosts) as client:
        for name in ("tenant:1", "tenant:2", "tenant:1"):
            tenant.set(name)
            await client.upload(b"theirs", "text/plain")
    wanted = [each for each in fal.requests if each.path.endswith("/storage/auth/token")]
    assert [each.headers["authorization"] for each in wanted] == ["Key tenant:1", "Key tenant:2"]
