"""Blocking batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import fal_async.sync as fal_client

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from fal_async.emulator import Emulator

ECHO = "acme/echo"


def echo(arguments: dict[str, Any]) -> dict[str, Any]:
    return arguments


def test_files_of_jobs_are_read_by_the_client(
    fal: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAL_KEY", "wrong")  # of the shared client
    fal.register(ECHO, echo)
    private = fal.store(b"secret", "text/plain", lifecycle={"initial_acl": {"default": "forbid"}})
    inputs = [{"file": {"url": private}}]
    with fal_client.SyncClient(fal.key, hosts=fal.hosts) as client:
        for is_resumed in (False, True):
            with client.batch(ECHO, inputs, journal=tmp_path / "journal.db") as batch:
                [job] = batch
            assert job.resumed is is_resumed
            assert isinstance(job.result, fal_client.SyncResult)
            assert [file.read() for file in job.result.files()] == [b"secret"]
            assert job.output == job.result
