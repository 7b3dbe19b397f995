"""Lifecycle: start, stop, ports, threads and processes."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import httpx
import pytest

from fal_async.emulator import Emulator
from tests.support.http import echo, make_client, submit
from tests.support.raw_client import connect, read_all

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.support.http import Arguments


def own_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("fal-")]


def test_stop_releases_thread_and_port() -> None:
    with Emulator() as fal, make_client(fal) as http:
        fal.register("acme/app", echo)
        http.post("/run/acme/app", json={})
        port = httpx.URL(fal.url).port
        assert "fal-emulator" in own_threads()
    assert own_threads() == []
    assert fal.connections == 0
    with Emulator(port=port or 0) as again:
        assert again.url == fal.url


def test_stop_closes_idle_connections() -> None:
    with Emulator() as fal, connect(fal) as peer:
        fal.wait_for(lambda: fal.connections == 1)
        fal.stop()
        assert read_all(peer) == b""


async def test_emulator_is_an_async_context_manager() -> None:
    async with Emulator() as fal:
        fal.register("acme/app", echo)
        async with httpx.AsyncClient() as http:
            headers = {"Authorization": f"Key {fal.key}"}
            response = await http.post(f"{fal.url}/run/acme/app", json={"a": 1}, headers=headers)
        assert response.json() == {"a": 1}
    assert "fal-emulator" not in own_threads()


def test_occupied_port_is_an_error() -> None:
    with Emulator() as fal:
        second = Emulator(port=httpx.URL(fal.url).port or 0)
        with pytest.raises(OSError, match="in use"):
            second.start()
        second.stop()


def test_emulator_can_start_only_once() -> None:
    with Emulator() as fal, pytest.raises(RuntimeError, match="twice"):
        fal.start()
    fal.stop()


def test_emulators_are_independent() -> None:
    with Emulator() as one, Emulator() as other:
        one.register("acme/app", lambda arguments: "one")
        other.register("acme/app", lambda arguments: "other")
        for fal, name in ((one, "one"), (other, "other")):
            with make_client(fal) as http:
                assert http.post("/run/acme/app", json={}).json() == name
            assert fal.counters("acme/app").executions == 1


def test_emulator_supports_ipv6() -> None:
    try:
        fal = Emulator(host="::1").start()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with make_client(fal) as http:
        assert fal.url.startswith("http://[::1]:")
        assert http.get("/").status_code == 404
    fal.stop()


def test_wildcard_address_yields_a_usable_url() -> None:
    with Emulator(host="0.0.0.0") as fal:
        assert fal.url.startswith("http://127.0.0.1:")


def test_stop_cancels_running_jobs(recwarn: pytest.WarningsRecorder) -> None:
    ended: list[str] = []

    with Emulator() as fal, make_client(fal) as http:
        fal.register("acme/waiting", echo, concurrency=0)

        @fal.endpoint("acme/async")
        async def coroutine(arguments: Arguments) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("async")

        @fal.endpoint("acme/stream")
        async def stream(arguments: Arguments) -> AsyncGenerator[int]:
            try:
                yield 1
                await asyncio.Event().wait()
            finally:
                ended.append("stream")

        @fal.endpoint("acme/gate")
        def gated(arguments: Arguments) -> None:
            gate.wait_sync()
            ended.append("gate")

        gate = fal.gate()
        submit(http, "acme/waiting")
        jobs = [submit(http, f"acme/{name}") for name in ("async", "gate")]
        fal.wait_for(lambda: all(fal.jobs[job["request_id"]].executions == 1 for job in jobs))
        status = http.stream("GET", jobs[0]["status_url"] + "/stream")
        with status as statuses, http.stream("POST", "/run/acme/stream", json={}) as streamed:
            lines = [statuses.iter_lines(), streamed.iter_lines()]
            for each in lines:
                next(each)
            fal.stop()
            for each in lines:
                with pytest.raises(httpx.RemoteProtocolError):
                    list(each)
    gc.collect()
    assert sorted(ended) == ["async", "gate", "stream"]
    assert own_threads() == []
    assert [str(warning.message) for warning in recwarn] == []


def test_resisting_runner_is_cancelled_again() -> None:
    cancellations: list[int] = []
    with Emulator() as fal, make_client(fal) as http:

        @fal.endpoint("acme/app")
        async def app(arguments: Arguments) -> None:
            for attempt in range(3):
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    cancellations.append(attempt)

        submit(http)
        fal.wait_for(lambda: fal.counters("acme/app").executions == 1)
    assert cancellations == [0, 1, 2]


def test_hanging_thread_does_not_block_stop() -> None:
    gate = threading.Event()
    with Emulator() as fal, make_client(fal) as http:

        @fal.endpoint("acme/app")
        def app(arguments: Arguments) -> None:
            gate.wait()

        submit(http)
        fal.wait_for(lambda: fal.counters("acme/app").executions == 1)
    assert own_threads() == ["fal-runner"]
    gate.set()
    for thread in threading.enumerate():
        if thread.name == "fal-runner":
            thread.join(10)
    assert own_threads() == []


def python(script: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *options, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.slow
def test_development_mode_emits_no_warnings() -> None:
    done = python(
        """
import asyncio, httpx, logging, sys, uvloop
from fal_async.emulator import Emulator, Fault

logging.getLogger("asyncio").setLevel(logging.ERROR)  # not that the machine is slow

for module in (uvloop, None):  # without uvloop, the emulator uses the event loop of asyncio
    sys.modules["uvloop"] = module
    with Emulator() as fal:
        @fal.endpoint("acme/app")
        async def app(arguments):
            await asyncio.Event().wait()

        @fal.endpoint("acme/stream")
        def stream(arguments):
            yield 1

        headers = {"Authorization": f"Key {fal.key}"}
        with httpx.Client(base_url=fal.url, headers=headers, timeout=10) as http:
            job = http.post("/queue/acme/app", json={}).json()
            http.post("/run/acme/stream", json={})
            fal.fail(None, Fault(reset=True), Fault(drop_response=True), Fault(cut=0))
            for _ in range(3):
                try:
                    http.post("/run/acme/stream", json={})
                except httpx.TransportError:
                    pass
            with http.stream("GET", job["status_url"] + "/stream") as response:
                next(response.iter_lines())
                fal.stop()
""",
        "-X",
        "dev",
        "-W",
        "error",
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
def test_process_may_exit_without_stop() -> None:
    done = python("from fal_async.emulator import Emulator; fal = Emulator().start(); print('on')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "on\n", "")


@pytest.mark.slow
def test_missing_extra_explains_the_install() -> None:
    for missing in ("starlette", "uvicorn"):
        done = python(f"import sys; sys.modules[{missing!r}] = None; import fal_async.emulator")
        assert done.returncode == 1
        assert 'pip install "fal-async[emulator]"' in done.stderr
        assert f"the emulator requires {missing}" in done.stderr
