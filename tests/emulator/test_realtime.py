"""Realtime apps: inputs, outputs and errors of each kind of function."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from fal_async import AsyncClient
from fal_async.emulator import Emulator, Fault, Job
from fal_async.errors import InvalidRequestError, RealtimeDisconnectedError, RealtimeError
from tests.support.http import Arguments, echo
from tests.support.websocket_client import (
    TIMEOUT,
    assert_not_forwarded,
    connect_websocket,
    pack,
    receive_all,
    unpack,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

PATH = "run/acme/live/realtime"


class Prompt(BaseModel):
    prompt: str


def error_of(message: str | bytes) -> tuple[str, str]:
    assert isinstance(message, str)
    error = json.loads(message)
    assert error["type"] == "x-fal-error"
    return error["error"], error["reason"]


def test_plain_function_maps_input_to_output(fal: Emulator) -> None:
    @fal.realtime("acme/live")
    def double(arguments: Arguments) -> Arguments:
        return {"n": arguments["n"] * 2}

    with connect_websocket(fal, PATH) as socket:
        for n in range(3):
            socket.send(pack(n=n))
        assert [unpack(socket.recv(timeout=10)) for _ in range(3)] == [
            {"n": 0},
            {"n": 2},
            {"n": 4},
        ]
    fal.wait_for(lambda: fal.counters("acme/live").running == 0)
    assert fal.counters("acme/live").executions == 1


def test_bytes_and_large_outputs_are_preserved(fal: Emulator) -> None:
    @fal.realtime("acme/live")
    async def grow(arguments: Arguments) -> Arguments:
        return {"image": arguments["image"] * 20}

    with connect_websocket(fal, PATH, max_size=None) as socket:
        socket.send(pack(image=bytes(1_000_000)))
        assert unpack(socket.recv(timeout=10)) == {"image": bytes(20_000_000)}


def test_models_validate_inputs_and_outputs(fal: Emulator) -> None:
    @fal.realtime("acme/live")
    async def shout(prompt: Prompt, job: Job) -> Prompt:
        return Prompt(prompt=f"{prompt.prompt.upper()} {job.path}")

    with connect_websocket(fal, PATH) as socket:
        socket.send(pack(prompt="cat"))
        assert unpack(socket.recv(timeout=10)) == {"prompt": "CAT /realtime"}
        socket.send(pack(prompt=1))
        error, reason = error_of(socket.recv(timeout=10))
        assert error == "INTERNAL_ERROR"
        assert "1 validation error for Prompt" in reason
        assert receive_all(socket) == []


def test_text_message_ends_the_session(fal: Emulator) -> None:
    fal.realtime("acme/live")(echo)
    with connect_websocket(fal, PATH) as socket:
        socket.send('{"a": 1}')
        (message,) = receive_all(socket)
        assert error_of(message) == ("INTERNAL_ERROR", "'bytes'")
        assert socket.close_code == 1000


def test_errors_are_sent_as_error_frames(fal: Emulator) -> None:
    @fal.realtime("acme/live")
    def crash(arguments: Arguments) -> Arguments:
        raise ValueError("no cats today")

    for message, words in ((b"\xc1", ""), (pack(a=1), "no cats today")):
        with connect_websocket(fal, PATH) as socket:
            socket.send(message)
            error, reason = error_of(socket.recv(timeout=10))
            assert error == "INTERNAL_ERROR"
            assert words in reason
            assert receive_all(socket) == []


def test_non_object_output_is_an_error(fal: Emulator) -> None:
    fal.realtime("acme/live")(lambda arguments: "text")
    with connect_websocket(fal, PATH) as socket:
        socket.send(pack())
        error, reason = error_of(socket.recv(timeout=10))
        assert error == "INTERNAL_ERROR"
        assert "Expected a dict" in reason


def test_requested_timings_follow_each_output(fal: Emulator) -> None:
    fal.realtime("acme/live", timings=True)(echo)
    with connect_websocket(fal, PATH) as socket:
        for n in range(2):
            socket.send(pack(n=n))
            assert unpack(socket.recv(timeout=10)) == {"n": n}
            timing = json.loads(socket.recv(timeout=10))
            assert timing.pop("timing") >= 0
            assert timing == {"type": "x-fal-message", "action": "timings"}


def test_idle_session_ends_after_its_timeout(fal: Emulator) -> None:
    fal.realtime("acme/live", session_timeout=0.05)(echo)
    with connect_websocket(fal, PATH) as socket:
        (message,) = receive_all(socket)
        assert error_of(message) == ("TIMEOUT", TIMEOUT)


@pytest.mark.parametrize("limit", ["app", "client"])
def test_full_buffer_drops_oldest_inputs(fal: Emulator, limit: str) -> None:
    gate = fal.gate()

    @fal.realtime("acme/live", buffering=2 if limit == "app" else None)
    async def slow(arguments: Arguments, job: Job) -> Arguments:
        job.log("began")
        await gate.wait()
        return arguments

    query = "" if limit == "app" else "?max_buffering=2"
    with connect_websocket(fal, PATH + query) as socket:
        socket.send(pack(n=0))
        socket.ping().wait(10)
        for n in range(1, 6):
            socket.send(pack(n=n))
        socket.ping().wait(10)
        gate.open()
        outputs = [unpack(socket.recv(timeout=10))["n"] for _ in range(3)]
    assert outputs == [0, 4, 5]


def test_buffered_inputs_are_batched(fal: Emulator) -> None:
    gate = fal.gate()

    @fal.realtime("acme/live", max_batch_size=3)
    async def together(*inputs: Arguments) -> Arguments:
        await gate.wait()
        return {"ns": [arguments["n"] for arguments in inputs]}

    with connect_websocket(fal, PATH) as socket:
        socket.send(pack(n=0))
        socket.ping().wait(10)
        for n in range(1, 6):
            socket.send(pack(n=n))
        socket.ping().wait(10)
        gate.open()
        outputs = [unpack(socket.recv(timeout=10))["ns"] for _ in range(3)]
    assert outputs == [[0], [1, 2, 3], [4, 5]]


def numbers(arguments: Arguments) -> Iterator[Arguments]:
    for n in range(arguments["to"]):
        yield {"n": n}


async def async_numbers(arguments: Arguments) -> AsyncGenerator[Arguments]:
    for n in range(arguments["to"]):
        yield {"n": n}


def a_list_of_numbers(arguments: Arguments) -> Iterator[Arguments]:
    return iter([{"n": n} for n in range(arguments["to"])])


@pytest.mark.parametrize("function", [numbers, async_numbers, a_list_of_numbers])
def test_generator_yields_many_outputs_per_input(fal: Emulator, function: Any) -> None:
    fal.realtime("acme/live")(function)
    with connect_websocket(fal, PATH) as socket:
        socket.send(pack(to=3))
        *outputs, end = receive_all(socket)
        assert outputs == [{"n": 0}, {"n": 1}, {"n": 2}]
        assert error_of(end) == ("TIMEOUT", TIMEOUT)


def test_input_stream_function_returns_one_output(fal: Emulator) -> None:
    @fal.realtime("acme/live", session_timeout=0.2)
    async def total(prompts: AsyncIterator[Prompt]) -> Arguments:
        return {"all": [prompt.prompt async for prompt in prompts]}

    with connect_websocket(fal, PATH) as socket:
        socket.send(pack(prompt="a"))
        socket.send(pack(prompt="b"))
        output, end = receive_all(socket)
        assert output == {"all": ["a", "b"]}
        assert error_of(end) == ("TIMEOUT", TIMEOUT)


def test_client_close_ends_the_input_stream(fal: Emulator) -> None:
    heard: list[list[int]] = []

    @fal.realtime("acme/live")
    async def listen(inputs: AsyncIterator[Arguments]) -> Arguments:
        heard.append([arguments["n"] async for arguments in inputs])
        return {}

    with connect_websocket(fal, PATH) as socket:
        socket.send(pack(n=1))
        socket.send(pack(n=2))
    fal.wait_for(lambda: bool(heard))
    assert heard == [[1, 2]]


def test_outputs_are_sent_while_inputs_arrive(fal: Emulator) -> None:
    @fal.realtime("acme/live")
    async def respond(inputs: AsyncIterator[Arguments]) -> AsyncGenerator[Arguments]:
        yield {"hello": True}
        async for arguments in inputs:
            if not arguments:
                return
            yield arguments

    with connect_websocket(fal, PATH) as socket:
        assert unpack(socket.recv(timeout=10)) == {"hello": True}
        socket.send(pack(n=1))
        assert unpack(socket.recv(timeout=10)) == {"n": 1}
        socket.send(pack())
        (end,) = receive_all(socket)
        assert error_of(end) == ("TIMEOUT", TIMEOUT)


def test_blocking_function_cannot_take_a_stream(fal: Emulator) -> None:
    def take(inputs: Iterator[Arguments]) -> Arguments:
        return {}

    with pytest.raises(InvalidRequestError, match="async"):
        fal.realtime("acme/live")(take)


def test_client_disconnect_cancels_the_app(fal: Emulator) -> None:
    never = fal.gate()
    began, ended = fal.gate(), fal.gate()

    @fal.realtime("acme/live")
    async def wait(arguments: Arguments) -> Arguments:
        began.open()
        try:
            await never.wait()
        finally:
            ended.open()
        return {}

    with connect_websocket(fal, PATH) as socket:
        socket.send(pack())
        fal.wait_for(lambda: began.is_open)
    fal.wait_for(lambda: ended.is_open)
    assert not never.is_open


def test_http_runner_and_session_share_an_id(
    fal: Emulator,
) -> None:
    fal.realtime("acme/live")(echo)
    fal.register("acme/live", lambda arguments: {"by": "http"})
    with connect_websocket(fal, PATH) as socket:
        socket.send(pack(by="socket"))
        assert unpack(socket.recv(timeout=10)) == {"by": "socket"}


def test_unknown_app_is_refused_at_the_handshake(fal: Emulator) -> None:
    fal.realtime("acme/live")(echo)
    fal.register("acme/plain", echo)
    for path, status in (
        ("run/acme/none/realtime", 404),
        ("cdn/acme/live", 404),
    ):
        with pytest.raises(InvalidStatus) as caught:
            connect_websocket(fal, path)
        assert caught.value.response.status_code == status
    assert_not_forwarded(fal, "run/acme/plain/realtime")
    assert_not_forwarded(fal, "run/acme/live/other")


def test_locked_or_full_account_opens_no_session() -> None:
    with Emulator(concurrency=1) as fal:
        fal.realtime("acme/live")(echo)
        fal.lock()
        with pytest.raises(InvalidStatus) as caught:
            connect_websocket(fal, PATH)
        assert caught.value.response.status_code == 403
        fal.unlock()
        with connect_websocket(fal, PATH), pytest.raises(InvalidStatus) as caught:
            connect_websocket(fal, PATH)
        assert caught.value.response.status_code == 429


def test_session_is_routed_by_host_name(fal: Emulator) -> None:
    fal.realtime("acme/live")(echo)
    with connect_websocket(
        fal, "acme/live/realtime", headers={"X-Forwarded-Host": "fal.run"}
    ) as socket:
        socket.send(pack(a=1))
        assert unpack(socket.recv(timeout=10)) == {"a": 1}


def test_stop_ends_open_sessions(fal: Emulator) -> None:
    fal.realtime("acme/live")(echo)
    with connect_websocket(fal, PATH) as socket:
        fal.stop()
        with pytest.raises(ConnectionClosedError):
            socket.recv(timeout=10)


async def test_client_holds_a_session(fal: Emulator) -> None:
    fal.realtime("acme/live", timings=True)(echo)
    async with AsyncClient(fal.key, hosts=fal.hosts) as client:
        for use_jwt in (True, False):
            async with client.realtime("acme/live", use_jwt=use_jwt) as session:
                for n in range(3):
                    await session.send({"n": n, "raw": b"\x00\xff"})
                    assert await session.recv() == {"n": n, "raw": b"\x00\xff"}


async def test_client_reads_session_to_its_end(fal: Emulator) -> None:
    fal.realtime("acme/live")(async_numbers)
    async with (
        AsyncClient(fal.key, hosts=fal.hosts) as client,
        client.realtime("acme/live") as session,
    ):
        await session.send({"to": 3})
        assert [item["n"] async for item in session] == [0, 1, 2]
        assert session.close_code == 1000


async def test_client_raises_app_errors(fal: Emulator) -> None:
    @fal.realtime("acme/live")
    async def crash(prompt: Prompt) -> Arguments:
        raise RuntimeError(prompt.prompt)

    async with (
        AsyncClient(fal.key, hosts=fal.hosts) as client,
        client.realtime("acme/live") as session,
    ):
        await session.send({"prompt": "boom"})
        with pytest.raises(RealtimeError, match="boom"):
            await session.recv()


async def test_client_reconnects_after_a_fault(fal: Emulator) -> None:
    fal.realtime("acme/live")(echo)
    fal.fail("acme/live", Fault(route="realtime", close=1011, after=1))
    async with (
        AsyncClient(fal.key, hosts=fal.hosts) as client,
        client.realtime("acme/live", reconnect=True) as session,
    ):
        await session.send({"n": 1})
        assert await session.recv() == {"n": 1}
        with pytest.raises(RealtimeDisconnectedError):
            await session.recv()
        await session.send({"n": 2})
        assert await session.recv() == {"n": 2}
    assert fal.count("token") == 2
