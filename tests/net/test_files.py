"""Saved files: complete or absent after cancellation, errors and kills."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest

from fal_async import InvalidRequestError
from fal_async._net.files import save, write_file
from fal_async._net.threads import ResourceClosedError, ThreadResource
from tests.support.cancel_points import cancel_everywhere
from tests.support.disks import limit_file_size

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

OLD = b"old"
#: Ten chunks, each of them written on its own.
CHUNK = 1000
CONTENT = os.urandom(10 * CHUNK)

needs_modes = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions")


@pytest.fixture(autouse=True)
def small_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fal_async._net.files.WRITE_BUFFER_SIZE", CHUNK)


async def chunks() -> AsyncGenerator[bytes, None]:
    for start in range(0, len(CONTENT), CHUNK):
        await anyio.lowlevel.checkpoint()
        yield CONTENT[start : start + CHUNK]


async def save_to(target: str | Path) -> Path:
    async with aclosing(chunks()) as content:
        return await save(content, target, lambda: "a.bin")


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


async def test_save_is_cancellable_at_every_wait(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(OLD)
    async for _ in cancel_everywhere(lambda: save_to(path)):
        (content,) = content_of(tmp_path).values()
        assert content in {OLD, CONTENT}
        path.write_bytes(OLD)
    assert content_of(tmp_path) == {"a.bin": CONTENT}


async def test_save_into_folder_is_cancellable(tmp_path: Path) -> None:
    times = 0
    async for _ in cancel_everywhere(lambda: save_to(tmp_path)):
        assert set(content_of(tmp_path).values()) <= {CONTENT}
        times += 1
    assert times > 10
    assert set(content_of(tmp_path).values()) == {CONTENT}


async def settled(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder after the abandoned threads have ended."""
    with anyio.move_on_after(5):
        while True:
            with suppress(FileNotFoundError):  # a thread that started late removes its file
                content = content_of(folder)
                if not any(name.endswith(".part") for name in content):
                    return content
            await anyio.lowlevel.checkpoint()
    return content_of(folder)


@pytest.mark.parametrize("apart", range(4))
async def test_asyncio_tasks_may_be_cancelled_twice(
    tmp_path: Path, anyio_backend_name: str, apart: int
) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("only asyncio has tasks that are cancelled more than once")
    for waits in range(60):
        task = asyncio.create_task(save_to(tmp_path / "a.bin"))
        for _ in range(waits):
            await asyncio.sleep(0)
        task.cancel()
        for _ in range(apart):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert set((await settled(tmp_path)).values()) <= {CONTENT}


async def test_late_thread_does_nothing() -> None:
    closed: list[str] = []
    resource = ThreadResource(lambda: closed.append("closed"))
    used: list[str] = []
    entered, resume = threading.Event(), threading.Event()

    def use() -> None:
        entered.set()
        resume.wait(10)
        used.append("used")

    async with anyio.create_task_group() as group:
        group.start_soon(resource.run, use)
        await anyio.to_thread.run_sync(entered.wait, 10)
        group.cancel_scope.cancel()
    resource.close()
    assert closed == []
    resume.set()
    with anyio.fail_after(10):
        while not closed:
            await anyio.lowlevel.checkpoint()
    assert used == ["used"]
    with pytest.raises(ResourceClosedError):
        await resource.run(lambda: used.append("too late"))
    assert used == ["used"]


@pytest.mark.parametrize("size", [0, 1, *range(CHUNK - 1, len(CONTENT), CHUNK)])
@pytest.mark.parametrize("target", ["a.bin", "."])
async def test_every_failed_write_leaves_no_file(tmp_path: Path, size: int, target: str) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(OLD)
    with limit_file_size(size), pytest.raises(OSError, match="File too large") as raised:
        await save_to(tmp_path / target)
    assert (raised.value.errno, raised.value.filename) == (errno.EFBIG, str(tmp_path / target))
    assert content_of(tmp_path) == {"a.bin": OLD}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk with space for half of the content."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this user may not mount a disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("target", ["a.bin", ""])
async def test_full_disk_keeps_the_old_file(small_disk: Path, target: str) -> None:
    (small_disk / "a.bin").write_bytes(OLD)
    with pytest.raises(OSError, match="No space left") as raised:
        await save_to(small_disk / target)
    assert raised.value.errno == errno.ENOSPC
    assert raised.value.filename == str(small_disk / target)
    assert content_of(small_disk) == {"a.bin": OLD}


async def test_failing_chunks_leave_no_file(tmp_path: Path) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield CONTENT[: 2 * CHUNK]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await save(failing(), tmp_path / "a.bin", lambda: "")
    assert content_of(tmp_path) == {}


async def test_dropped_coroutine_leaves_no_file(tmp_path: Path, anyio_backend_name: str) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("trio ends all tasks")
    never = anyio.Event()
    reached = anyio.Event()

    class Endless:
        first = True

        def __aiter__(self) -> AsyncIterator[bytes]:
            return self

        async def __anext__(self) -> bytes:
            if self.first:
                self.first = False
                return CONTENT[:CHUNK]
            reached.set()
            await never.wait()
            raise AssertionError

    saving = save(Endless(), tmp_path / "a.bin", lambda: "")
    waiting = saving.send(None)
    while not reached.is_set():
        if waiting is not None:
            waiting._asyncio_future_blocking = False
            await asyncio.wait([waiting])
        waiting = saving.send(None)
    saving.close()
    assert content_of(tmp_path) == {}


KILLED = """
import sys, anyio
from fal_async._net.files import save

async def chunks():
    for _ in range(400):
        yield sys.argv[2].encode() * 1000

async def main():
    while True:
        await save(chunks(), sys.argv[1], lambda: "")
        print("saved", flush=True)

anyio.run(main)
"""


@pytest.mark.slow
def test_killed_process_leaves_a_complete_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    for moment in range(5):
        command = [sys.executable, "-c", KILLED, str(path), str(moment)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.003 * moment)  # to be killed at one moment or another
            process.kill()
        assert path.read_bytes() == str(moment).encode() * 400_000


async def test_concurrent_saves_are_each_complete(tmp_path: Path) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(save_to, tmp_path / "a.bin")
            group.start_soon(save_to, tmp_path)
    found = content_of(tmp_path)
    assert set(found.values()) == {CONTENT}
    assert set(found) >= {"a.bin"}
    assert 20 <= len(found) <= 21  # one name may be taken before the folder's are


@needs_modes
async def test_symlink_is_kept_and_its_target_replaced(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    path = tmp_path / "elsewhere" / "a.bin"
    link = tmp_path / "link"
    link.symlink_to("elsewhere/a.bin")
    for before in (None, OLD):
        if before is not None:
            path.write_bytes(before)
        assert await save_to(link) == link
        assert link.is_symlink()
        assert content_of(path.parent) == {"a.bin": CONTENT}
    link.unlink()
    link.symlink_to("nowhere/a.bin")
    with pytest.raises(FileNotFoundError, match="link"):
        await save_to(link)
    link.unlink()
    link.symlink_to("link")
    with pytest.raises(OSError, match="symbolic links"):
        await save_to(link)


@needs_modes
async def test_dangling_symlink_is_an_existing_name(tmp_path: Path) -> None:
    (tmp_path / "a.bin").symlink_to("nowhere")
    assert await save_to(tmp_path) == tmp_path / "a-1.bin"


@needs_modes
async def test_hard_links_keep_the_old_file(tmp_path: Path) -> None:
    path, other = tmp_path / "a.bin", tmp_path / "other"
    path.write_bytes(OLD)
    other.hardlink_to(path)
    await save_to(path)
    assert content_of(tmp_path) == {"a.bin": CONTENT, "other": OLD}


def modes_of_parts(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.glob(".*.part")}


@needs_modes
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755, 0o666])
async def test_existing_permissions_are_kept(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(OLD)
    path.chmod(mode)
    seen: set[int] = set()

    async def watched() -> AsyncIterator[bytes]:
        async for chunk in chunks():
            seen.update(modes_of_parts(tmp_path))
            yield chunk

    await save(watched(), path, lambda: "")
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert seen
    assert not any(early & ~mode for early in seen)


@needs_modes
@pytest.mark.parametrize("target", ["a.bin", "."])
async def test_new_file_has_default_permissions(tmp_path: Path, target: str) -> None:
    before = os.umask(0o027)
    try:
        path = await save_to(tmp_path / target)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@needs_modes
@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can")
async def test_root_keeps_the_owner_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(OLD)
    os.chown(path, 12345, 54321)
    await save_to(path)
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 54321)


READ_ONLY = """
import os, sys, anyio
from pathlib import Path
from fal_async._net.files import save

async def chunks():
    raise AssertionError("nothing is fetched for what cannot be written")
    yield b""

async def main():
    for target in sys.argv[1:]:
        try:
            await save(chunks(), target, lambda: "a.bin")
        except PermissionError as error:
            assert error.filename == target, error
            print(error)

async def load():
    await anyio.to_thread.run_sync(int)

anyio.run(load)  # which another user may not
if os.getuid() == 0:
    os.setgid(12345)
    os.setuid(12345)
anyio.run(main)
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@needs_modes
def test_unwritable_target_fails_before_download(open_folder: Path) -> None:
    folder = open_folder / "folder"
    folder.mkdir()
    file = open_folder / "file"
    file.write_bytes(OLD)
    file.chmod(0o444)
    folder.chmod(0o555)
    targets = [str(folder / "a.bin"), str(folder), str(file)]
    command = [sys.executable, "-c", READ_ONLY, *targets]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = process.stdout.splitlines()
    assert len(lines) == 3
    for line, target, reason in zip(
        lines, targets, ["Permission denied", "Permission denied", "read-only"], strict=True
    ):
        assert reason in line
        assert target in line
    assert content_of(folder) == {}
    assert file.read_bytes() == OLD


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("nothing/", FileNotFoundError),
        ("nothing/a.bin", FileNotFoundError),
        ("file/", NotADirectoryError),
        ("file/a.bin", NotADirectoryError),
        ("x" * 300, OSError),
        ("fifo", FileExistsError),
    ],
)
async def test_invalid_targets_are_named(tmp_path: Path, target: str, kind: type[OSError]) -> None:
    (tmp_path / "file").write_bytes(OLD)
    os.mkfifo(tmp_path / "fifo")
    path = f"{tmp_path}/{target}"
    with pytest.raises(kind) as raised:
        await save_to(path)
    assert (raised.value.filename, bool(raised.value.strerror)) == (path, True)
    assert names_in(tmp_path) == {"file", "fifo"}


@pytest.mark.parametrize("target", ["", "a\0b", b"a", 7, None, "\ud800"])
async def test_invalid_path_is_refused(target: object) -> None:
    with pytest.raises(InvalidRequestError, match="path"):
        await save_to(target)  # type: ignore[arg-type]  # which is the point


async def test_longest_file_names_are_supported(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 255)
    assert await save_to(path) == path


async def test_hard_links_are_not_required(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    for name in ("a.bin", "a-1.bin"):
        assert await save_to(tmp_path) == tmp_path / name
    with pytest.raises(OSError, match="too long"):
        async with aclosing(chunks()) as content:
            await save(content, tmp_path, lambda: "x" * 300)
    assert set(content_of(tmp_path)) == {"a.bin", "a-1.bin"}


@needs_modes
def test_failed_replacement_keeps_the_old_file(
    tmp_path: Path,
) -> None:
    path = tmp_path / "secret"
    write_file(path, OLD, mode=0o600)
    path.chmod(0o644)
    with limit_file_size(2), pytest.raises(OSError, match="too large"):
        write_file(path, b"new", mode=0o600)
    assert content_of(tmp_path) == {"secret": OLD}
    write_file(path, b"new", mode=0o600)
    assert content_of(tmp_path) == {"secret": b"new"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.slow
@needs_modes
def test_keyboard_interrupt_leaves_no_file(tmp_path: Path) -> None:
    script = """
import sys, fal_async.sync
from fal_async.emulator import Emulator
with Emulator(bandwidth=2_000_000) as fal:
    client = fal_async.sync.SyncClient(fal.key, hosts=fal.hosts)
    url = fal.store(bytes(20_000_000), "video/mp4", "a.mp4")
    print("begun", flush=True)
    try:
        client.download(url, sys.argv[1])
    except KeyboardInterrupt:
        print("interrupted")
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        while not any(path.stat().st_size for path in tmp_path.iterdir()):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30)[0] == "interrupted\n"
    assert content_of(tmp_path) == {}
