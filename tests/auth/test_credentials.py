"""Credentials: keys, providers, shared searches, copies and pickles."""

from __future__ import annotations

import asyncio
import copy
import pickle
import platform
import threading
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from fal_async._auth.credentials import Credentials, KeyProvider
from fal_async.errors import FalClientError, InvalidRequestError, MissingCredentialsError
from tests.support.oauth_server import Clock, Issuer, at_once, credentials_of, jwt, log_in

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from fal_async._core.secrets import Secret


@pytest.fixture
def fal_home(tmp_path: Path) -> Path:
    directory = tmp_path / "fal"
    directory.mkdir()
    return directory


@pytest.mark.parametrize("key", ["id:secret", " id:secret\n", "id:secret\r\n"])
def test_explicit_key_is_stripped_and_immediate(key: str) -> None:
    assert at_once(Credentials(key, environ={"FAL_KEY": "other"})) == "Key id:secret"


@pytest.mark.parametrize("key", ["", " ", "\n\t", "id: secret", "id\nsecret", "schlüssel", "a\0b"])
def test_unusable_explicit_key_is_refused(key: str) -> None:
    with pytest.raises(InvalidRequestError, match="the key") as caught:
        Credentials(key)
    assert len(key.strip()) < 2 or key not in str(caught.value)


@pytest.mark.parametrize("key", [b"id:secret", 5, ["id:secret"]])
def test_non_string_explicit_key_is_refused(key: Any) -> None:
    with pytest.raises(InvalidRequestError, match="must be a string, got"):
        Credentials(key)


async def test_provider_is_called_for_each_use() -> None:
    keys = iter(["first", " second\n"])
    credentials = Credentials(lambda: next(keys))
    assert await credentials.authorization() == "Key first"
    assert await credentials.authorization() == "Key second"


async def test_provider_may_be_a_coroutine_function() -> None:
    async def provider() -> str:
        await anyio.lowlevel.checkpoint()
        return "id:secret"

    assert await Credentials(provider).authorization() == "Key id:secret"


async def test_provided_key_is_validated() -> None:
    for wrong in ("", "a b", None):
        provider: Any = lambda wrong=wrong: wrong  # noqa: E731 -- one line says it
        with pytest.raises(InvalidRequestError):
            await Credentials(provider).authorization()


async def test_provider_exception_is_not_wrapped() -> None:
    def provider() -> str:
        raise LookupError("the vault is sealed")

    with pytest.raises(LookupError, match="sealed"):
        await Credentials(provider).authorization()


class CountingEnviron(dict[str, str]):
    """An environment that counts its searches and may hold up the first."""

    searches = 0

    def __init__(self, values: Mapping[str, str]) -> None:
        super().__init__(values)
        self.searched = threading.Event()
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def get(self, name: str, default: Any = None) -> Any:
        if name == "FAL_KEY":
            self.searches += 1
            self.searched.set()
            assert self.may_go_on.wait(10)
        return super().get(name, default)


async def collect(credentials: Credentials, outcomes: list[Secret | FalClientError]) -> None:
    try:
        outcomes.append(await credentials.authorization())
    except FalClientError as error:
        outcomes.append(error)


async def test_concurrent_calls_share_one_search() -> None:
    environ = CountingEnviron({"FAL_KEY": "id:secret"})
    credentials = Credentials(environ=environ)
    outcomes: list[Secret | FalClientError] = []
    async with anyio.create_task_group() as group:
        for _ in range(100):
            group.start_soon(collect, credentials, outcomes)
    assert outcomes == ["Key id:secret"] * 100
    assert environ.searches == 1


async def test_concurrent_calls_share_one_failure(tmp_path: Path) -> None:
    environ = CountingEnviron({})
    credentials = Credentials(environ=environ, home=tmp_path)
    outcomes: list[Secret | FalClientError] = []
    async with anyio.create_task_group() as group:
        for _ in range(100):
            group.start_soon(collect, credentials, outcomes)
    assert {type(outcome) for outcome in outcomes} == {MissingCredentialsError}
    assert len({str(outcome) for outcome in outcomes}) == 1
    assert len({id(outcome) for outcome in outcomes}) == 100
    assert environ.searches == 1


async def test_concurrent_calls_share_one_refresh(fal_home: Path) -> None:
    log_in(fal_home)
    issuer = Issuer()
    credentials = credentials_of(fal_home, issuer)
    outcomes: list[Secret | FalClientError] = []
    async with anyio.create_task_group() as group:
        for _ in range(100):
            group.start_soon(collect, credentials, outcomes)
    assert outcomes == [f"Bearer {Issuer.access(1)}"] * 100
    assert len(issuer.forms) == 1


async def test_cancelled_search_is_repeated_for_waiters() -> None:
    environ = CountingEnviron({"FAL_KEY": "id:secret"})
    environ.may_go_on.clear()
    credentials = Credentials(environ=environ)
    outcomes: list[Secret | FalClientError] = []
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            async with anyio.create_task_group() as first:
                first.start_soon(collect, credentials, outcomes)
                await anyio.to_thread.run_sync(environ.searched.wait)
                group.start_soon(collect, credentials, outcomes)
                first.cancel_scope.cancel()
            environ.may_go_on.set()
    assert outcomes == ["Key id:secret"]


def test_credentials_work_in_consecutive_loops(fal_home: Path) -> None:
    log_in(fal_home)
    issuer, clock = Issuer(), Clock()
    credentials = credentials_of(fal_home, issuer, clock)
    for serial, backend in enumerate(["asyncio", "trio", "asyncio", "asyncio"], start=1):
        value = anyio.run(credentials.authorization, backend=backend)
        assert value == f"Bearer {Issuer.access(serial)}"
        clock.now += 86_400


def test_search_survives_a_dead_event_loop() -> None:
    environ = CountingEnviron({"FAL_KEY": "id:secret"})
    environ.may_go_on.clear()
    credentials = Credentials(environ=environ)
    loop = asyncio.new_event_loop()
    task = loop.create_task(credentials.authorization())
    loop.run_until_complete(asyncio.sleep(0))
    environ.may_go_on.set()
    assert anyio.run(credentials.authorization) == "Key id:secret"
    loop.run_until_complete(task)
    loop.close()


def provide() -> str:
    return "id:secret"


async def test_repr_shows_no_secret(fal_home: Path) -> None:
    log_in(fal_home, access=Issuer.access(1))
    found = Credentials(environ={"FAL_KEY": "id:secret"})
    login = credentials_of(fal_home, None)
    shown = {repr(found): "Credentials()"}
    await found.authorization()
    await login.authorization()
    shown |= {
        repr(Credentials("id:secret")): "Credentials(<key=>)",
        repr(Credentials(provide)): "Credentials(<provider>)",
        repr(found): "Credentials(<FAL_KEY>)",
        repr(login): f"Credentials(<{fal_home / 'auth0_token'}>)",
    }
    assert list(shown) == list(shown.values())


async def test_pickle_contains_no_secret(fal_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log_in(fal_home, access=jwt("access-1", 10_000_000_000))
    monkeypatch.setenv("FAL_KEY", "of-there")
    monkeypatch.delenv("FAL_FORCE_AUTH_BY_USER", raising=False)
    issuer, connection = Issuer(), threading.Lock()

    async def post_form(url: str, fields: Mapping[str, str]) -> tuple[int, bytes]:
        with connection:  # which no pickle can hold
            return await issuer(url, fields)

    environ = {"FAL_HOME_DIR": str(fal_home), "OTHER": "secret"}
    login = Credentials(post_form=post_form, environ=environ)
    found = Credentials(environ={"FAL_KEY": "id:secret"})
    given = Credentials("id:secret")
    for credentials in (login, found, given):
        await credentials.authorization()
        pickled = pickle.dumps(credentials)
        for secret in (b"secret", b"refresh-0", jwt("access-1", 10_000_000_000).encode()):
            assert secret not in pickled
        restored = pickle.loads(pickled)
        if credentials is not given:
            assert await restored.authorization() == "Key of-there"
            continue
        with pytest.raises(MissingCredentialsError, match="unpickled client"):
            await restored.authorization()  # another key may be another account's


def test_provider_is_pickled_by_reference() -> None:
    restored = pickle.loads(pickle.dumps(Credentials(platform.node)))
    assert repr(restored) == "Credentials(<provider>)"


def test_copy_keeps_its_key() -> None:
    credentials = Credentials("id:secret")
    for copied in (copy.copy(credentials), copy.deepcopy({"key": credentials})["key"]):
        assert at_once(copied) == "Key id:secret"


def test_any_function_may_provide_a_key() -> None:
    async def coroutine() -> str:
        return "key"

    providers: list[KeyProvider] = [provide, coroutine, lambda: "key"]
    assert all(repr(Credentials(provider)) for provider in providers)
