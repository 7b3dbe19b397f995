"""The status stream of a job: events, logs and heartbeats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest

from fal_async.emulator import Emulator, Job
from tests.support.http import Arguments, echo, gated_echo, make_client, submit

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx


def events_of(response: httpx.Response) -> Iterator[dict[str, Any]]:
    for line in response.iter_lines():
        if line.startswith("data: "):
            yield orjson.loads(line.removeprefix("data: "))


def test_stream_ends_after_the_final_status(fal: Emulator, http: httpx.Client) -> None:
    first = fal.gate()
    fal.register("acme/app", gated_echo(first), concurrency=1)
    running = submit(http)
    ahead = submit(http)
    watched = submit(http)
    with http.stream("GET", watched["status_url"] + "/stream") as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["x-fal-request-id"] == watched["request_id"]
        events = events_of(response)
        assert next(events) == {
            "status": "IN_QUEUE",
            "request_id": watched["request_id"],
            "response_url": watched["response_url"],
            "status_url": watched["status_url"],
            "cancel_url": watched["cancel_url"],
            "queue_position": 1,
            "logs": None,
            "metrics": {},
        }
        http.put(ahead["cancel_url"])
        assert next(events)["queue_position"] == 0
        http.put(running["cancel_url"])
        assert next(events)["status"] == "IN_PROGRESS"
        first.open()
        last = next(events)
        assert last["status"] == "COMPLETED"
        assert last["metrics"]["inference_time"] > 0
        assert list(events) == []


def test_stream_of_completed_job_is_one_event(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    submitted = submit(http)
    fal.wait_for(lambda: fal.counters("acme/app").completed == 1)
    response = http.get(submitted["status_url"] + "/stream")
    assert [event["status"] for event in events_of(response)] == ["COMPLETED"]


def test_each_log_entry_is_sent_once(fal: Emulator, http: httpx.Client) -> None:
    steps = [fal.gate() for _ in range(3)]

    @fal.endpoint("acme/app")
    def app(arguments: Arguments, job: Job) -> None:
        for step in steps:
            step.wait_sync()
            job.log("the same line")

    submitted = submit(http)
    with http.stream("GET", submitted["status_url"] + "/stream?logs=1") as response:
        messages = []
        for event in events_of(response):
            messages += [line["message"] for line in event["logs"]]
            if len(messages) < len(steps):
                steps[len(messages)].open()
    assert messages == ["the same line"] * 3


def test_idle_stream_sends_heartbeats() -> None:
    with Emulator(keep_alive=0.01) as fal, make_client(fal) as http:
        gate = fal.gate()
        fal.register("acme/app", gated_echo(gate))
        submitted = submit(http)
        with http.stream("GET", submitted["status_url"] + "/stream") as response:
            lines = (line for line in response.iter_lines() if line)
            assert next(lines).startswith("data: ")
            assert next(lines).startswith(":")
            assert next(lines).startswith(":")
            gate.open()
            assert '"COMPLETED"' in next(line for line in lines if not line.startswith(":"))


def test_stream_ends_when_client_disconnects(fal: Emulator) -> None:
    fal.register("acme/app", gated_echo(fal.gate()))
    with make_client(fal) as http:
        submitted = submit(http)
        with http.stream("GET", submitted["status_url"] + "/stream") as response:
            next(response.iter_lines())
    fal.wait_for(lambda: fal.connections == 0)


def test_last_queued_job_receives_its_position(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", gated_echo(fal.gate()), concurrency=1)
    jobs = [submit(http) for _ in range(60)]
    with http.stream("GET", jobs[-1]["status_url"] + "/stream") as response:
        events = events_of(response)
        assert next(events)["queue_position"] == 58
        http.put(jobs[1]["cancel_url"])
        assert next(events)["queue_position"] == 57


@pytest.mark.parametrize("logs", ["1", "true"])
def test_event_without_new_logs_has_empty_list(
    fal: Emulator, http: httpx.Client, logs: str
) -> None:
    fal.register("acme/app", echo)
    submitted = submit(http)
    response = http.get(submitted["status_url"] + "/stream", params={"logs": logs})
    assert [event["logs"] for event in events_of(response)][-1] == []
