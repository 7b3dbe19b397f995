"""Several accounts on one emulator, and an address for clients elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

import fal_async
from fal_async.emulator import Emulator
from fal_async.errors import InvalidRequestError
from tests.support.http import echo, make_client

if TYPE_CHECKING:
    from pathlib import Path

    from fal_async import AsyncClient


async def test_job_of_another_account_is_unknown(fal: Emulator, client: AsyncClient) -> None:
    fal.register("acme/app", echo)
    tenant = fal.add_account()
    own = await client.submit("acme/app", {"a": 1})
    foreign = await client.with_options(key=tenant.key).get_handle("acme/app", own.request_id)
    with pytest.raises(fal_async.NotFoundError):
        await foreign.status()
    with pytest.raises(fal_async.NotFoundError):
        await foreign.get()
    assert await own.get() == {"a": 1}
    assert fal.jobs[own.request_id].user_id == fal.user_id


async def test_accounts_run_jobs_of_their_own(fal: Emulator, client: AsyncClient) -> None:
    fal.register("acme/app", echo)
    tenant = fal.add_account("tenant:key", user_id="user_tenant")
    handle = await client.with_options(key="tenant:key").submit("acme/app", {"a": 2})
    assert await handle.get() == {"a": 2}
    assert fal.jobs[handle.request_id].user_id == tenant.user_id == "user_tenant"
    assert "tenant:key" not in repr(tenant)


async def test_lock_concerns_one_account(fal: Emulator, client: AsyncClient) -> None:
    fal.register("acme/app", echo)
    tenant = fal.add_account("tenant:key")
    other = client.with_options(key="tenant:key")
    tenant.lock("No money")
    with pytest.raises(fal_async.AccountLockedError, match="No money"):
        await other.run("acme/app", {})
    assert await client.run("acme/app", {"a": 1}) == {"a": 1}
    fal.reset()
    assert await other.run("acme/app", {"a": 1}) == {"a": 1}


async def test_private_files_belong_to_an_account(
    fal: Emulator, client: AsyncClient, tmp_path: Path
) -> None:
    fal.add_account("tenant:key")
    tenant = client.with_options(key="tenant:key")
    private = fal_async.StorageSettings(initial_acl=fal_async.StorageACL(default="hide"))
    url = await tenant.upload(b"secret", "text/plain", lifecycle=private)
    assert await tenant.download(url, tmp_path / "own") == tmp_path / "own"
    with pytest.raises(fal_async.NotFoundError):
        await client.download(url, tmp_path / "foreign")


def test_requests_of_another_account_are_not_listed(fal: Emulator) -> None:
    fal.register("acme/app", echo)
    fal.add_account("tenant:key")
    path = "/platform/v1/models/requests/by-endpoint?endpoint_id=acme/app"
    with make_client(fal) as http:
        http.post("/run/acme/app", json={})
        assert len(http.get(path).json()["items"]) == 1
        headers = {"Authorization": "Key tenant:key"}
        assert http.get(path, headers=headers).json()["items"] == []


def test_realtime_token_keeps_its_account(fal: Emulator) -> None:
    fal.register("acme/app", echo)
    tenant = fal.add_account("tenant:key")
    headers = {"Authorization": "Key tenant:key"}
    with make_client(fal) as http:
        job = http.post("/queue/acme/app", json={}, headers=headers).json()
        for key, status in ((tenant.key, 200), (fal.key, 404)):
            allowed = {"allowed_apps": ["app"]}
            token = http.post(
                "/rest/tokens/", json=allowed, headers={"Authorization": f"Key {key}"}
            ).json()
            url = f"{job['status_url']}/stream?fal_jwt_token={token}"
            assert httpx.get(url).status_code == status


def test_keys_and_ids_are_unique(fal: Emulator) -> None:
    for options in ({"key": fal.key}, {"user_id": fal.user_id}):
        with pytest.raises(InvalidRequestError, match="must be those of no other account"):
            fal.add_account(**options)


def test_accounts_of_a_block_are_removed(fal: Emulator) -> None:
    fal.register("acme/app", echo)
    with fal.isolated():
        fal.add_account("tenant:key")
    with make_client(fal) as http:
        headers = {"Authorization": "Key tenant:key"}
        assert http.post("/run/acme/app", json={}, headers=headers).status_code == 401


def test_public_address_replaces_the_own_one() -> None:
    fal = Emulator(public_url="https://fal.test:8443/")
    assert fal.url == "https://fal.test:8443"
    assert fal.hosts.queue == "https://fal.test:8443/queue"
    assert fal.store(b"", "image/png").startswith("https://fal.test:8443/cdn/files/")
    with pytest.raises(InvalidRequestError, match="absolute http:// or https:// URL"):
        Emulator(public_url="fal:8000")
