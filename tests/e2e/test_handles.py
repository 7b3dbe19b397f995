"""Handles: storage, pickling and the origins that they may contact."""

from __future__ import annotations

import copy
import json
import os
import pickle
import sys
from typing import Any

import anyio
import pytest

from fal_async import (
    AsyncClient,
    AsyncRequestHandle,
    FalClientHTTPError,
    Hosts,
    InvalidRequestError,
    ServerError,
)
from fal_async.emulator import AppError, Emulator, Fault
from tests.support.callbacks import stderr_lines

ECHO = "acme/echo/deep/path"


@pytest.fixture(autouse=True)
def echo(fal: Emulator) -> None:
    @fal.endpoint(ECHO)
    def echo(arguments: dict[str, Any]) -> dict[str, Any]:
        return arguments


async def test_handle_survives_json(client: AsyncClient) -> None:
    handle = await client.submit(ECHO, {"n": 1})
    restored = client.attach(json.loads(json.dumps(handle.to_dict())))

    assert restored == handle
    assert hash(restored) == hash(handle)
    assert await restored.get() == {"n": 1}


async def test_pickled_handle_works_in_another_process(fal: Emulator, client: AsyncClient) -> None:
    handle = await client.submit(ECHO, {"n": 1})
    script = (
        "import anyio, pickle, sys, fal_async\n"
        "handle = pickle.loads(sys.stdin.buffer.read())\n"
        "async def main():\n"
        "    print((await handle.get())['n'])\n"
        "    async with fal_async.AsyncClient() as client:\n"
        "        print((await client.attach(handle).get())['n'])\n"
        "anyio.run(main)\n"
    )
    done = await anyio.run_process(
        [sys.executable, "-X", "dev", "-W", "error", "-c", script],
        input=pickle.dumps(handle),
        env=os.environ | fal.environ,
    )

    assert done.stdout.split() == [b"1", b"1"]
    assert stderr_lines(done.stderr) == []


async def test_pickled_handle_carries_no_key(fal: Emulator, client: AsyncClient) -> None:
    handle = await client.submit(ECHO, {})
    secret = fal.key.partition(":")[2]

    assert secret.encode() not in pickle.dumps(handle)
    assert secret not in repr(handle)
    assert copy.deepcopy(handle) == handle
    assert copy.copy(handle) is handle


async def test_client_repr_hides_the_key(fal: Emulator, client: AsyncClient) -> None:
    secret = fal.key.partition(":")[2]

    assert secret not in repr(client)
    assert secret not in repr(vars(client))
    assert fal.hosts.run in repr(client)


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"application": "acme/echo"},
        {"application": "acme/echo", "request_id": "../../evil"},
        {"application": "nothing", "request_id": "764cabcf"},
    ],
)
async def test_invalid_handle_data_is_refused(client: AsyncClient, facts: dict[str, str]) -> None:
    with pytest.raises(InvalidRequestError):
        client.attach(facts)


async def test_handle_from_request_id_reaches_the_job(client: AsyncClient) -> None:
    submitted = await client.submit(ECHO, {"n": 1})
    handle = await client.get_handle(ECHO, submitted.request_id)

    assert isinstance(handle, AsyncRequestHandle)
    assert await handle.get() == {"n": 1}
    assert await client.result(ECHO, handle.request_id) == {"n": 1}
    assert await client.cancel(ECHO, handle.request_id) == "ALREADY_COMPLETED"
    await client.status(ECHO, handle.request_id)


async def test_foreign_hosts_are_never_contacted(fal: Emulator, client: AsyncClient) -> None:
    with Emulator(key="other:key") as foreign:
        foreign.register(ECHO, lambda arguments: arguments)

        def misdirect(body: dict[str, Any]) -> dict[str, Any]:
            for name in ("status_url", "response_url", "cancel_url"):
                body[name] = body[name].replace(fal.url, foreign.url)
            return body

        fal.fail(ECHO, Fault(route="submit", transform=misdirect))
        result = await client.subscribe(ECHO, {"n": 1})
        handle = await client.submit(ECHO, {})
        moved = {
            name: value.replace(fal.url, foreign.url) for name, value in handle.to_dict().items()
        }
        await client.attach(moved).get()

        assert result == {"n": 1}
        assert foreign.requests == []


async def test_handmade_handle_cannot_leak_the_key(fal: Emulator, client: AsyncClient) -> None:
    with Emulator(key="other:key") as foreign:
        handle = await client.submit(ECHO, {})
        facts = handle.to_dict() | {
            "status_url": f"{foreign.url}/queue/acme/echo/requests/1/status"
        }
        elsewhere = AsyncRequestHandle(**facts)._bind(handle._dispatcher)
        with pytest.raises(InvalidRequestError):
            await elsewhere.status()

        assert foreign.requests == []


async def test_redirects_are_not_followed(fal: Emulator, client: AsyncClient) -> None:
    with Emulator(key="other:key") as foreign:
        location = {"location": f"{foreign.url}/run/{ECHO}"}
        fal.fail(ECHO, Fault(route="run", status=307, headers=location, body=""))
        with pytest.raises(FalClientHTTPError) as caught:
            await client.run(ECHO, {})

        assert caught.value.status_code == 307
        assert "redirect" in caught.value.message
        assert foreign.requests == []


async def test_pickled_error_keeps_its_request_id(fal: Emulator, client: AsyncClient) -> None:
    @fal.endpoint("acme/broken")
    def broken(arguments: dict[str, Any]) -> dict[str, Any]:
        raise AppError(500, "out of paint")

    handle = await client.submit("acme/broken", {})
    with pytest.raises(ServerError, match="out of paint") as caught:
        await handle.get()

    error = caught.value
    assert error.request_id == handle.request_id
    for copied in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(copied) is ServerError
        assert vars(copied) == vars(error)
        assert str(copied) == str(error)
    assert len({error, error}) == 1
    assert fal.key.partition(":")[2] not in repr(error) + str(error) + repr(vars(error))


async def test_client_pickle_keeps_options_without_key(
    fal: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAL_KEY", fal.key)
    async with AsyncClient(None, 7.5, hosts=fal.hosts) as client:
        assert await client.run(ECHO, {"n": 1}) == {"n": 1}
        pickled = pickle.dumps(client)

    assert fal.key.encode() not in pickled
    async with pickle.loads(pickled) as copied:
        assert await copied.run(ECHO, {"n": 1}) == {"n": 1}
        assert "7.5" in repr(copied)


def test_environment_hosts_are_read_by_the_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAL_ASYNC_BASE_URL", "http://127.0.0.1:9/")

    assert repr(Hosts.at("http://127.0.0.1:9")) in repr(AsyncClient("a:b"))


@pytest.mark.parametrize("bad", [{"default_timeout": 0}, {"key": ""}, {"key": "a\nb"}])
def test_invalid_client_options_raise_an_error(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError):
        AsyncClient(**bad)
