"""Login: refresh, storage, locking and cancellation."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from fal_async._auth import login
from fal_async._auth.credentials import Credentials
from fal_async.errors import FalClientError, MissingCredentialsError, ServerError, TransportError
from tests.support.disks import limit_file_size
from tests.support.oauth_server import (
    NOW,
    Clock,
    Issuer,
    at_once,
    credentials_of,
    jwt,
    lock_is_free,
    log_in,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.fixture
def fal_home(tmp_path: Path) -> Path:
    directory = tmp_path / "fal"
    directory.mkdir()
    return directory


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def test_fresh_login_is_used_unchanged(fal_home: Path) -> None:
    file = log_in(fal_home, access=Issuer.access(1))
    before = file.read_text()
    credentials = credentials_of(fal_home, None)
    assert await credentials.authorization() == f"Bearer {Issuer.access(1)}"
    assert at_once(credentials) == f"Bearer {Issuer.access(1)}"
    assert credentials.can_refresh
    assert file.read_text() == before
    assert os.listdir(fal_home) == ["auth0_token"]  # noqa: PTH208 -- of names


async def test_login_is_read_from_the_home_directory(tmp_path: Path) -> None:
    (tmp_path / ".fal").mkdir()
    log_in(tmp_path / ".fal", access=Issuer.access(1))
    credentials = Credentials(environ={"FAL_HOME_DIR": " "}, home=tmp_path, clock=Clock())
    assert await credentials.authorization() == f"Bearer {Issuer.access(1)}"


@pytest.mark.parametrize(
    "access",
    [None, "opaque", jwt("old", NOW - 1), jwt("old", NOW + 300)],
    ids=["none", "unreadable", "expired", "about to expire"],
)
async def test_stale_login_is_refreshed_and_stored(fal_home: Path, access: str | None) -> None:
    file = log_in(fal_home, access=access)
    file.chmod(0o644)
    issuer = Issuer()
    credentials = credentials_of(fal_home, issuer)
    assert await credentials.authorization() == f"Bearer {Issuer.access(1)}"
    assert file.read_text() == f"refresh-1\n{Issuer.access(1)}"
    assert [form["refresh_token"] for form in issuer.forms] == ["refresh-0"]
    assert at_once(credentials) == f"Bearer {Issuer.access(1)}"


async def test_stored_login_is_readable_by_owner_only(fal_home: Path) -> None:
    file = log_in(fal_home)
    file.chmod(0o644)
    before = os.umask(0)
    try:
        await credentials_of(fal_home, Issuer()).authorization()
    finally:
        os.umask(before)
    for name in ("auth0_token", ".portalock"):
        assert (fal_home / name).stat().st_mode & 0o777 == 0o600


async def test_login_is_refreshed_while_in_use(fal_home: Path) -> None:
    log_in(fal_home)
    issuer, clock = Issuer(), Clock()
    credentials = credentials_of(fal_home, issuer, clock)
    for serial in (1, 2, 3):
        assert await credentials.authorization() == f"Bearer {Issuer.access(serial)}"
        clock.now = NOW + serial * 86_400 - 301
        assert at_once(credentials) == f"Bearer {Issuer.access(serial)}"
        clock.now += 1
    assert [form["refresh_token"] for form in issuer.forms] == [
        "refresh-0",
        "refresh-1",
        "refresh-2",
    ]


async def test_short_lived_token_is_reused(fal_home: Path) -> None:
    async def post_form(url: str, fields: Mapping[str, str]) -> tuple[int, bytes]:
        return 200, b'{"access_token":"opaque"}'

    log_in(fal_home)
    credentials = credentials_of(fal_home, post_form)
    assert await credentials.authorization() == "Bearer opaque"
    assert at_once(credentials) == "Bearer opaque"


async def test_refused_login_is_refreshed_once_for_all(fal_home: Path) -> None:
    log_in(fal_home, access=jwt("revoked", NOW + 86_400))
    issuer = Issuer()
    credentials = credentials_of(fal_home, issuer)
    refused = await credentials.authorization()
    assert refused == f"Bearer {jwt('revoked', NOW + 86_400)}"
    credentials.invalidate(refused)
    assert await credentials.authorization() == f"Bearer {Issuer.access(1)}"
    credentials.invalidate(refused)
    assert at_once(credentials) == f"Bearer {Issuer.access(1)}"
    assert len(issuer.forms) == 1


async def test_rejected_token_is_not_pickled(fal_home: Path) -> None:
    log_in(fal_home, access=jwt("revoked", NOW + 86_400))
    credentials = credentials_of(fal_home, None)
    rejected = await credentials.authorization()
    credentials.invalidate(rejected)

    state = credentials.__getstate__()
    assert not [name for name, value in state.items() if value == rejected]


async def test_token_of_another_process_is_used(fal_home: Path) -> None:
    log_in(fal_home, access=jwt("old", NOW + 600))
    issuer, clock = Issuer(), Clock()
    credentials = credentials_of(fal_home, issuer, clock)
    await credentials.authorization()
    log_in(fal_home, "refresh-7", Issuer.access(7))
    clock.now += 500
    assert await credentials.authorization() == f"Bearer {Issuer.access(7)}"
    assert issuer.forms == []


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (403, MissingCredentialsError, "login of `fal auth login` has ended"),
        (503, ServerError, "could not be refreshed"),
    ],
)
async def test_failed_refresh_keeps_the_login(
    fal_home: Path, status: int, error: type[FalClientError], words: str
) -> None:
    file = log_in(fal_home)
    issuer = Issuer()
    issuer.status = status
    credentials = credentials_of(fal_home, issuer)
    with pytest.raises(error, match=words) as caught:
        await credentials.authorization()
    assert "refresh-0" not in f"{caught.value} {caught.value!r}"
    assert file.read_text() == "refresh-0"
    issuer.status, issuer.forms[:] = 200, []
    assert await credentials.authorization() == f"Bearer {Issuer.access(1)}"


async def test_network_error_is_not_wrapped(fal_home: Path) -> None:
    async def post_form(url: str, fields: Mapping[str, str]) -> tuple[int, bytes]:
        raise TransportError("the network is unreachable")

    log_in(fal_home)
    with pytest.raises(TransportError, match="unreachable"):
        await credentials_of(fal_home, post_form).authorization()
    assert lock_is_free(fal_home)


async def test_unresponsive_server_times_out(
    fal_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def post_form(url: str, fields: Mapping[str, str]) -> tuple[int, bytes]:
        await anyio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(login, "REFRESH_TIMEOUT", 0.01)
    log_in(fal_home)
    with pytest.raises(TransportError, match="did not respond within"):
        await credentials_of(fal_home, post_form).authorization()


async def test_unrefreshable_login_raises_an_error(fal_home: Path) -> None:
    log_in(fal_home)
    with pytest.raises(
        MissingCredentialsError, match=r"cannot refresh the login in .* without a client"
    ):
        await credentials_of(fal_home, None).authorization()


async def test_empty_token_file_is_not_a_login(fal_home: Path) -> None:
    log_in(fal_home, "")
    with pytest.raises(MissingCredentialsError, match="auth0_token contains no tokens"):
        await credentials_of(fal_home, Issuer()).authorization()


async def test_unreadable_token_file_is_named(fal_home: Path) -> None:
    (fal_home / "auth0_token").mkdir()
    with pytest.raises(MissingCredentialsError, match=r"cannot use .*auth0_token: Is a directory"):
        await credentials_of(fal_home, Issuer()).authorization()


async def test_unusable_lock_prevents_the_refresh(fal_home: Path) -> None:
    log_in(fal_home)
    (fal_home / ".portalock").mkdir()
    issuer = Issuer()
    with pytest.raises(MissingCredentialsError, match=r"cannot use .*portalock"):
        await credentials_of(fal_home, issuer).authorization()
    assert issuer.forms == []


async def test_unstorable_tokens_are_kept_in_memory(
    fal_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = log_in(fal_home)
    issuer, clock = Issuer(), Clock()
    credentials = credentials_of(fal_home, issuer, clock)
    with limit_file_size(10), caplog.at_level(logging.WARNING, "fal_async"):
        assert await credentials.authorization() == f"Bearer {Issuer.access(1)}"
    assert "File too large" in caplog.text
    assert names_in(fal_home) <= {file.name, ".portalock"}
    assert "refresh-1" not in caplog.text
    clock.now += 86_400
    assert await credentials.authorization() == f"Bearer {Issuer.access(2)}"
    assert [form["refresh_token"] for form in issuer.forms] == ["refresh-0", "refresh-1"]
    assert file.read_text() == f"refresh-2\n{Issuer.access(2)}"
    log_in(fal_home, "refresh-7", Issuer.access(7))
    clock.now += 86_400
    assert await credentials.authorization() == f"Bearer {Issuer.access(7)}"


async def test_cancelled_refresh_is_stored(fal_home: Path) -> None:
    file = log_in(fal_home)
    issuer = Issuer()
    held = issuer.hold()
    credentials = credentials_of(fal_home, issuer)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(credentials.authorization)
            await held.asked.wait()
            group.cancel_scope.cancel()
            held.may_answer.set()
    assert file.read_text() == f"refresh-1\n{Issuer.access(1)}"
    assert lock_is_free(fal_home)
    assert await credentials.authorization() == f"Bearer {Issuer.access(1)}"
    assert len(issuer.forms) == 1


def test_refresh_survives_asyncio_cancellation(fal_home: Path) -> None:
    file = log_in(fal_home)

    async def main() -> None:
        issuer = Issuer()
        held = issuer.hold()
        task = asyncio.create_task(credentials_of(fal_home, issuer).authorization())
        await held.asked.wait()
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        held.may_answer.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert file.read_text() == f"refresh-1\n{Issuer.access(1)}"
    assert lock_is_free(fal_home)


async def test_cancelled_refresh_has_a_grace_period(
    fal_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login, "GRACE", 0.01)
    file = log_in(fal_home)
    issuer = Issuer()
    held = issuer.hold()
    credentials = credentials_of(fal_home, issuer)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(credentials.authorization)
            await held.asked.wait()
            group.cancel_scope.cancel()
        assert file.read_text() == "refresh-0"
        held.may_answer.set()  # what was paid for with a refresh token is not thrown away
        assert await credentials.authorization() == f"Bearer {Issuer.access(1)}"
    assert lock_is_free(fal_home)
    assert len(issuer.forms) == 1


class Signal(Clock):
    """A clock that notifies the event loop when a worker thread reads it."""

    def __init__(self) -> None:
        self.read_in_thread = anyio.Event()

    def __call__(self) -> float:
        if threading.current_thread() is not threading.main_thread():
            anyio.from_thread.run_sync(self.read_in_thread.set)
        return self.now


async def test_tokens_are_reread_under_the_lock(fal_home: Path) -> None:
    log_in(fal_home, access=jwt("old", NOW))
    issuer, clock = Issuer(), Signal()
    credentials = credentials_of(fal_home, issuer, clock)
    with anyio.fail_after(10), (fal_home / ".portalock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        async with anyio.create_task_group() as group:
            group.start_soon(credentials.authorization)
            await clock.read_in_thread.wait()
            log_in(fal_home, "refresh-7", Issuer.access(7))
            lock.close()
    assert at_once(credentials) == f"Bearer {Issuer.access(7)}"
    assert issuer.forms == []


async def test_lock_timeout_is_named(fal_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "LOCK_TIMEOUT", 0.2)
    log_in(fal_home)
    issuer = Issuer()
    with (fal_home / ".portalock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(MissingCredentialsError, match="another process held"):
            await credentials_of(fal_home, issuer).authorization()
        assert open_files(fal_home / ".portalock") == 1
    assert issuer.forms == []


def open_files(path: Path) -> int:
    """Return the number of open descriptors of a file."""
    descriptors = list(Path("/dev/fd").iterdir())
    return sum(one.exists() and one.samefile(path) for one in descriptors)


async def test_lock_waiter_can_be_cancelled(fal_home: Path) -> None:
    log_in(fal_home, access=jwt("old", NOW))
    clock = Signal()
    credentials = credentials_of(fal_home, Issuer(), clock)
    with anyio.fail_after(10), (fal_home / ".portalock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        async with anyio.create_task_group() as group:
            group.start_soon(credentials.authorization)
            await clock.read_in_thread.wait()
            group.cancel_scope.cancel()
    assert lock_is_free(fal_home)


async def test_late_lock_is_released(fal_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trying, may_have_it, take = threading.Event(), threading.Event(), login._try_flock

    def acquire_late(descriptor: int, path: Path) -> bool:
        trying.set()
        return may_have_it.wait(10) and take(descriptor, path)

    monkeypatch.setattr(login, "_try_flock", acquire_late)
    log_in(fal_home)
    issuer = Issuer()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(credentials_of(fal_home, issuer).authorization)
            await anyio.to_thread.run_sync(trying.wait)
            group.cancel_scope.cancel()
            may_have_it.set()
    assert lock_is_free(fal_home)
    assert issuer.forms == []


def test_deleted_lock_file_is_detected(tmp_path: Path) -> None:
    path = tmp_path / ".portalock"
    with path.open("a") as lock:
        assert login._try_flock(lock.fileno(), path)
    with path.open("a") as lock:
        path.unlink()
        assert not login._try_flock(lock.fileno(), path)
        path.touch()
        assert not login._try_flock(lock.fileno(), path)


RACER = """
import json, os, sys, anyio
from fal_async._auth.credentials import Credentials

home, access = sys.argv[1:]

async def post_form(url, fields):
    try:
        os.close(os.open(f"{home}/used-{fields['refresh_token'].reveal()}", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return 403, b""
    return 200, json.dumps({"access_token": access, "refresh_token": "refresh-1"}).encode()

print("ready", flush=True)
sys.stdin.readline()
credentials = Credentials(post_form=post_form, environ={"FAL_HOME_DIR": home})
print(anyio.run(credentials.authorization).reveal(), flush=True)
"""


@pytest.mark.slow
def test_processes_share_one_refresh(fal_home: Path) -> None:
    log_in(fal_home)
    access = jwt("shared", 10_000_000_000)
    command = [sys.executable, "-c", RACER, str(fal_home), access]
    racers = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        for _ in range(4)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
    for racer in racers:
        out, _ = racer.communicate(timeout=30)
        assert out == f"Bearer {access}\n"
    assert sorted(path.name for path in fal_home.glob("used-*")) == ["used-refresh-0"]
    assert (fal_home / "auth0_token").read_text() == f"refresh-1\n{access}"


def test_threads_share_one_refresh(fal_home: Path) -> None:
    log_in(fal_home)
    issuer = Issuer()
    shared = credentials_of(fal_home, issuer)
    values: list[str] = []
    start = threading.Barrier(8)

    def work(credentials: Credentials) -> None:
        start.wait()
        values.append(anyio.run(credentials.authorization).reveal())

    threads = [
        threading.Thread(target=work, args=[shared if n % 2 else credentials_of(fal_home, issuer)])
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert values == [f"Bearer {Issuer.access(1)}"] * 8
    assert len(issuer.forms) == 1
