"""Runners that cannot be called or that crash, and waits that fail."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

from fal_async.errors import InvalidRequestError
from tests.support.http import Arguments, echo, make_client, submit, wait_for_completed

if TYPE_CHECKING:
    from collections.abc import Callable

    from fal_async import AsyncClient
    from fal_async.emulator import Emulator, Job, Socket


def three(arguments: Arguments, job: Job, another: int) -> None: ...
def keyword(arguments: Arguments, *, seed: int) -> None: ...
async def four(one: int, two: int, three: int, four: int) -> None: ...
def stream(arguments: Arguments, job: Job, another: int) -> Any:
    yield {}


@pytest.mark.parametrize("runner", [three, keyword, four, stream])
def test_wrong_parameters_are_refused(fal: Emulator, runner: Callable[..., Any]) -> None:
    with pytest.raises(InvalidRequestError, match="must be a function of the arguments, or of "):
        fal.register("acme/app", runner)
    assert fal.endpoints == []


def test_socket_app_with_wrong_parameters_is_refused(fal: Emulator) -> None:
    async def app(socket: Socket, job: Job, *, more: int) -> None: ...

    with pytest.raises(InvalidRequestError, match=r"function of a Socket, or .* \(socket: "):
        fal.websocket("acme/app")(app)


def defaults(arguments: Arguments, job: Job | None = None, third: int = 3) -> Arguments:
    return {**arguments, "job": job is not None, "third": third}


@pytest.mark.parametrize(
    ("runner", "output"),
    [
        (defaults, {"a": 1, "job": True, "third": 3}),
        (partial(defaults, third=4), {"a": 1, "job": True, "third": 4}),
        (lambda *arguments: {"count": len(arguments)}, {"count": 1}),
        (lambda: {"no": "parameters"}, {"no": "parameters"}),
    ],
)
def test_parameters_may_have_defaults(
    fal: Emulator, runner: Callable[..., Any], output: Arguments
) -> None:
    fal.register("acme/app", runner)
    with make_client(fal) as http:
        assert http.post("/run/acme/app", json={"a": 1}).json() == output


def test_mock_receives_the_arguments(fal: Emulator) -> None:
    runner = Mock(return_value={"b": 2})
    fal.register("acme/app", runner)
    with make_client(fal) as http:
        assert http.post("/run/acme/app", json={"a": 1}).json() == {"b": 2}
    runner.assert_called_once_with({"a": 1})


def test_blocking_asgi_wrapper_is_an_app(fal: Emulator) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 201, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def wrapper(scope: Any, receive: Any, send: Any) -> Any:
        return app(scope, receive, send)

    fal.register("acme/app", wrapper)
    with make_client(fal) as http:
        assert http.post("/run/acme/app", json={}).status_code == 201


def test_exception_is_logged_and_can_be_raised(
    fal: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    fal.register("acme/app", lambda arguments: arguments["missing"])
    fal.raise_runner_errors()
    with make_client(fal) as http, caplog.at_level(logging.ERROR, "fal_async.emulator"):
        assert http.post("/run/acme/app", json={}).status_code == 500
        submit(http)
        wait_for_completed(fal)
    assert [str(error) for error in fal.runner_errors] == ["'missing'"] * 2
    with pytest.raises(KeyError, match="missing") as caught:
        fal.raise_runner_errors()
    assert caught.traceback[-1].name == "<lambda>"
    assert "The runner of acme/app crashed in request" in caplog.text
    fal.reset()
    assert fal.runner_errors == []


async def test_errors_of_sessions_can_be_raised(fal: Emulator, client: AsyncClient) -> None:
    @fal.realtime("acme/live")
    async def live(arguments: Arguments) -> Arguments:
        raise OSError("no more memory")

    @fal.websocket("acme/socket")
    async def talk(socket: Socket) -> None:
        raise LookupError("nothing to say")

    async with client.realtime("acme/live") as session:
        await session.send({})
        await fal.wait_for_async(lambda: len(fal.runner_errors) == 1)
    with pytest.raises(OSError, match="no more memory"):
        fal.raise_runner_errors()
    fal.reset()
    async with client.ws_connect("acme/socket"):
        await fal.wait_for_async(lambda: len(fal.runner_errors) == 1)
    with pytest.raises(LookupError, match="nothing to say"):
        fal.raise_runner_errors()


def test_failed_wait_shows_the_counters(fal: Emulator) -> None:
    fal.register("acme/app", echo)
    with make_client(fal) as http:
        http.post("/run/acme/app", json={})
        http.post("/run/acme/missing", json={})
    with pytest.raises(TimeoutError) as caught:
        fal.wait_for(lambda: False, timeout=0.0)
    assert str(caught.value) == (
        "the condition is still false after 0 seconds: acme/app has executions=1 running=0 "
        "queued=0 completed=0 cancelled=0, requests: run=1; acme/missing is not registered"
    )


async def test_failed_wait_for_counters_says_for_which(fal: Emulator) -> None:
    fal.register("acme/app", echo)
    with pytest.raises(TimeoutError, match="waited for executions=2 of acme/app, but acme/app has"):
        await fal.wait_for_counters("acme/app", executions=2, timeout=0.0)
