"""The official Python client, unmodified except for the platform addresses."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import fal_client
import fal_client.client
import httpx
import pytest
import trustme

from fal_async.emulator import AppError, Emulator, Fault, Job
from tests.support.http import Arguments, echo, gated_echo, wait_for_completed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from pathlib import Path


@pytest.fixture
def official(fal: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[fal_client.SyncClient]:
    rebase(fal, monkeypatch)
    client = fal_client.SyncClient(key=fal.key)
    yield client
    client._client.close()


def rebase(fal: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fal_client.client, "RUN_URL_FORMAT", f"{fal.hosts.run}/")
    monkeypatch.setattr(fal_client.client, "QUEUE_URL_FORMAT", f"{fal.hosts.queue}/")
    monkeypatch.setattr(fal_client.client, "REST_URL", fal.hosts.rest)
    monkeypatch.setattr(fal_client.client, "CDN_URL", fal.hosts.cdn)


def test_official_client_runs(fal: Emulator, official: fal_client.SyncClient) -> None:
    fal.register("acme/app", echo)
    assert official.run("acme/app", {"a": 1}) == {"a": 1}
    (request,) = fal.requests
    assert request.headers["authorization"] == f"Key {fal.key}"
    assert request.headers["user-agent"] == "fal-client/1.0.3 (python)"


def test_official_client_runs_a_path(fal: Emulator, official: fal_client.SyncClient) -> None:
    fal.register("acme/app/fast", lambda arguments: {"path": "fast"})
    assert official.run("acme/app", {}, path="/fast") == {"path": "fast"}
    assert official.run("acme/app/fast", {}) == {"path": "fast"}


def test_path_of_legacy_id_works(fal: Emulator, official: fal_client.SyncClient) -> None:
    fal.register("123/app/fast", lambda arguments: {"path": "fast"})
    assert official.run("123-app", {}, path="/fast") == {"path": "fast"}
    assert official.submit("123-app", {}, path="/fast").get() == {"path": "fast"}


def test_submit_status_and_result(fal: Emulator, official: fal_client.SyncClient) -> None:
    gate = fal.gate()
    fal.register("acme/app", gated_echo(gate), concurrency=1)
    first = official.submit("acme/app", {"job": 1}, hint="lora", priority="low")
    second = official.submit("acme/app", {"job": 2})
    third = official.submit("acme/app", {"job": 3})
    assert first.status() == fal_client.InProgress(logs=None)
    assert second.status() == fal_client.Queued(position=0)
    assert third.status() == fal_client.Queued(position=1)
    gate.open()
    assert [handle.get() for handle in (first, second, third)] == [
        {"job": 1},
        {"job": 2},
        {"job": 3},
    ]
    job = fal.jobs[first.request_id]
    assert (job.priority, job.headers["x-fal-runner-hint"]) == ("low", "lora")


def test_handle_from_request_id_works(fal: Emulator, official: fal_client.SyncClient) -> None:
    for endpoint in ("acme/app/path", "workflows/acme/app", "comfy/acme/app", "123-app"):
        fal.register(endpoint, echo)
        handle = official.submit(endpoint, {"to": endpoint})
        handle = official.get_handle(endpoint, handle.request_id)
        assert handle.get() == {"to": endpoint}
        assert isinstance(handle.status(), fal_client.Completed)


def test_subscribe_reports_progress(fal: Emulator, official: fal_client.SyncClient) -> None:
    first, second = fal.gate(), fal.gate()

    @fal.endpoint("acme/app")
    async def app(arguments: Arguments, job: Job) -> Arguments:
        job.log("step 1")
        await first.wait()
        job.log("step 2")
        await second.wait()
        return {"done": True}

    enqueued: list[str] = []
    seen: list[list[str]] = []

    def on_queue_update(status: fal_client.Status) -> None:
        logs = getattr(status, "logs", None)
        if logs is not None:
            messages = [line["message"] for line in logs]
            if messages not in seen:
                seen.append(messages)
            (first if len(messages) == 1 else second).open()

    result = official.subscribe(
        "acme/app",
        {},
        with_logs=True,
        on_enqueue=enqueued.append,
        on_queue_update=on_queue_update,
    )
    assert result == {"done": True}
    assert enqueued == list(fal.jobs)
    assert seen[-2:] == [["step 1"], ["step 1", "step 2"]]


def test_cancel_works_in_every_state(fal: Emulator, official: fal_client.SyncClient) -> None:
    fal.register("acme/app", gated_echo(fal.gate()), concurrency=1)
    running = official.submit("acme/app", {})
    queued = official.submit("acme/app", {})
    queued.cancel()
    running.cancel()
    wait_for_completed(fal, 2)
    for handle in (running, queued):
        status = handle.status()
        assert isinstance(status, fal_client.Completed)
        assert status.error_type == "client_cancelled"
        with pytest.raises(fal_client.FalClientHTTPError) as caught:
            handle.get()
        assert caught.value.status_code == 499
        assert caught.value.error_type == "client_cancelled"
        with pytest.raises(fal_client.FalClientHTTPError) as caught:
            handle.cancel()
        assert caught.value.status_code == 400


def test_official_client_streams(fal: Emulator, official: fal_client.SyncClient) -> None:
    @fal.endpoint("acme/app")
    async def app(arguments: Arguments) -> AsyncGenerator[Arguments]:
        for step in range(3):
            yield {"step": step}

    assert list(official.stream("acme/app", {})) == [{"step": 0}, {"step": 1}, {"step": 2}]


def test_client_timeout_cancels_the_job(fal: Emulator, official: fal_client.SyncClient) -> None:
    fal.register("acme/app", gated_echo(fal.gate()), concurrency=1)
    official.submit("acme/app", {})
    with pytest.raises(fal_client.FalClientTimeoutError):
        official.subscribe("acme/app", {}, client_timeout=1.1)
    wait_for_completed(fal)
    assert fal.count("cancel") == 1
    assert fal.requests[1].headers["x-fal-request-timeout"] == "1.1"


def test_errors_carry_response_details(fal: Emulator, official: fal_client.SyncClient) -> None:
    problem = {"loc": ["body", "seed"], "msg": "must be even", "type": "value_error"}

    @fal.endpoint("acme/app")
    def app(arguments: Arguments) -> None:
        raise AppError(422, [problem])

    with pytest.raises(fal_client.FalClientHTTPError) as caught:
        official.run("acme/app", {})
    assert caught.value.status_code == 422
    assert caught.value.response.json() == {"detail": [problem]}
    with pytest.raises(fal_client.FalClientHTTPError) as caught:
        official.subscribe("acme/app", {})
    assert caught.value.response.json() == {"detail": [problem]}
    with pytest.raises(fal_client.FalClientHTTPError, match="not found"):
        official.run("acme/nothing", {})


def test_only_ingress_errors_are_retried(fal: Emulator, official: fal_client.SyncClient) -> None:
    fal.register("acme/app", echo)
    fal.fail("acme/app", Fault(route="run", status=503, body="<html>nginx</html>"))
    with pytest.raises(fal_client.FalClientHTTPError):
        official.run("acme/app", {})
    assert fal.count("run") == 1  # it carries a request id, so it is the platform's own


def test_lost_submit_response_is_submitted_again(
    fal: Emulator, official: fal_client.SyncClient
) -> None:
    fal.register("acme/app", echo)
    fal.fail("acme/app", Fault(route="submit", drop_response=True))
    official.submit("acme/app", {}).get()
    assert len(fal.jobs) == 2


def test_official_async_client_works(fal: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    rebase(fal, monkeypatch)
    gate = fal.gate()
    fal.register("acme/app", gated_echo(gate))

    @fal.endpoint("acme/stream")
    async def stream(arguments: Arguments) -> AsyncGenerator[Arguments]:
        yield {"step": 0}

    async def calls() -> None:
        client = fal_client.AsyncClient(key=fal.key)
        handle = await client.submit("acme/app", {"a": 1})
        assert isinstance(await handle.status(), fal_client.InProgress)
        gate.open()
        events = [event async for event in handle.iter_events(with_logs=True)]
        assert isinstance(events[-1], fal_client.Completed)
        assert await handle.get() == {"a": 1}
        assert await client.run("acme/app", {"b": 2}) == {"b": 2}
        assert await client.subscribe("acme/app", {"c": 3}) == {"c": 3}
        assert [event async for event in client.stream("acme/stream", {})] == [{"step": 0}]
        await (await client._client).aclose()

    asyncio.run(asyncio.wait_for(calls(), 10))


@pytest.mark.slow
def test_environment_hosts_work_over_https(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certfile, ca = tmp_path / "server.pem", tmp_path / "ca.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(certfile)
    authority.cert_pem.write_to_path(ca)
    with Emulator(certfile=str(certfile)) as fal:
        fal.register("acme/app", echo)
        authority_and_port = httpx.URL(fal.url).netloc.decode()
        script = (
            "import fal_client; print(fal_client.run('acme/app', {'a': 1}), "
            "fal_client.subscribe('acme/app', {'b': 2}))"
        )
        environ = os.environ | {
            "FAL_KEY": fal.key,
            "FAL_RUN_HOST": f"{authority_and_port}/run",
            "FAL_QUEUE_RUN_HOST": f"{authority_and_port}/queue",
            "SSL_CERT_FILE": str(ca),
        }
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=environ,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (done.stdout, done.stderr) == ("{'a': 1} {'b': 2}\n", "")
