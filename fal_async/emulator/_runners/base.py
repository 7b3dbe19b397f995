"""The `Runner` interface, and the parts that runners share."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel

from fal_async.emulator._json import encode
from fal_async.emulator._responses import (
    JSON_TYPE,
    Response,
    method_not_allowed,
    path_not_found,
)
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fal_async.emulator._jobs import Job
    from fal_async.emulator._responses import Send

_BINARY_TYPE = (b"content-type", b"application/octet-stream")
#: The number of parameters of an ASGI app.
_ASGI_PARAMETERS = 3


class Runner(Protocol):
    """Responds to jobs by sending ASGI messages."""

    #: Whether a run ends when the caller disconnects.
    streams: bool

    async def __call__(self, job: Job, send: Send) -> None:
        """Respond to one job."""

    async def cancel(self, job: Job) -> bool:
        """Handle the cancellation of a job. Return whether to cancel the task that runs it."""
        ...

    async def aclose(self) -> None:
        """Release all resources."""


class NoRunner:
    """The runner of an endpoint that serves WebSockets only."""

    streams = False

    async def __call__(self, job: Job, send: Send) -> None:
        """Respond that there is no such path."""
        await path_not_found(job.path).send(send)

    async def cancel(self, job: Job) -> bool:
        """Do nothing: no job is ever running."""
        return False

    async def aclose(self) -> None:
        """Do nothing: there are no resources."""


def check_path(job: Job, paths: tuple[str, ...]) -> Response | None:
    """Return the error response to a request that is not a POST to one of these paths."""
    if job.path not in paths:
        return path_not_found(job.path)
    return None if job.method == "POST" else method_not_allowed("POST")


def response_from(output: object) -> Response:
    """Return the response for an output: bytes unchanged, anything else as JSON."""
    if isinstance(output, bytes | bytearray):
        return Response(200, bytes(output), [_BINARY_TYPE])
    if isinstance(output, BaseModel):
        return Response(200, output.model_dump_json().encode(), [JSON_TYPE])
    return Response(200, encode(output), [JSON_TYPE])


def positional_parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters that can be passed by position."""
    kinds = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    parameters = inspect.signature(function).parameters.values()
    return [parameter for parameter in parameters if parameter.kind in kinds]


def count_arguments(function: Callable[..., Any], expected: str) -> int:
    """Return the number of arguments to pass by position: at most two, and one to ``*args`` alone.

    Args:
        function: The function of a runner.
        expected: The parameters that it may have, for the message.

    Raises:
        InvalidRequestError: The function needs others.
    """
    required = [
        parameter.kind
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is inspect.Parameter.empty
    ]
    positional = positional_parameters(function)
    count = min(len(positional), 2)
    if inspect.Parameter.KEYWORD_ONLY in required or any(
        parameter.default is inspect.Parameter.empty for parameter in positional[2:]
    ):
        raise InvalidRequestError(
            f"a runner must be a function of {expected}, got {function!r} with the parameters "
            f"{inspect.signature(function)}"
        )
    return 1 if not positional and inspect.Parameter.VAR_POSITIONAL in required else count


def is_asgi_app(target: Callable[..., Any]) -> bool:
    """Return whether a callable is an ASGI app, by its parameters: scope, receive and send."""
    parameters = positional_parameters(target)
    if len(parameters) != _ASGI_PARAMETERS:
        return False
    is_blocking = inspect.isfunction(target) and not inspect.iscoroutinefunction(target)
    return not is_blocking or parameters[0].name == "scope"
