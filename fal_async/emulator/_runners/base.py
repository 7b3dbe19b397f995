"""What stands behind an endpoint id."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pydantic import BaseModel

from fal_async.emulator._json import encode
from fal_async.emulator._responses import Response, method_not_allowed, path_not_found

if TYPE_CHECKING:
    from fal_async.emulator._jobs import Job
    from fal_async.emulator._responses import Send

_JSON = (b"content-type", b"application/json")
_BYTES = (b"content-type", b"application/octet-stream")


class Runner(Protocol):
    """Answers jobs by sending ASGI response messages."""

    #: Whether a run is over when the caller hangs up.
    streams: bool

    async def __call__(self, job: Job, send: Send) -> None:
        """Answer one job."""

    async def cancel(self, job: Job) -> bool:
        """Tell it that a job was called off; says whether to cancel the task that runs the job."""
        ...

    async def aclose(self) -> None:
        """Give back what it holds."""


class NoRunner:
    """Where an endpoint has sockets only."""

    streams = False

    async def __call__(self, job: Job, send: Send) -> None:
        """Answer that there is nothing."""
        await path_not_found(job.path).send(send)

    async def cancel(self, job: Job) -> bool:
        """Nothing goes on that could be cancelled."""
        return False

    async def aclose(self) -> None:
        """There is nothing to close."""


def check_path(job: Job, paths: tuple[str, ...]) -> Response | None:
    """The refusal of a call that is not a POST to one of these paths."""
    if job.path not in paths:
        return path_not_found(job.path)
    return None if job.method == "POST" else method_not_allowed("POST")


def response_from(output: object) -> Response:
    """The response that an output makes: bytes as they are, anything else as JSON."""
    if isinstance(output, bytes | bytearray):
        return Response(200, bytes(output), [_BYTES])
    if isinstance(output, BaseModel):
        return Response(200, output.model_dump_json().encode(), [_JSON])
    return Response(200, encode(output), [_JSON])
