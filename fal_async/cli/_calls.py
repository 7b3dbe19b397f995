"""The call commands: JSON in, JSON out."""

from __future__ import annotations

import math
import signal
import sys
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import anyio

from fal_async import AsyncClient
from fal_async._net.tasks import open_task_group
from fal_async._net.threads import Work, run_in_thread
from fal_async.cli._console import Display, as_json
from fal_async.cli._errors import Terminated
from fal_async.cli._input import read_messages
from fal_async.cli._output import MessageFiles, emit, emit_line
from fal_async.cli._streams import check_stdout
from fal_async.errors import InvalidResponseError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
    from pathlib import Path

    from fal_async.cli._output import Output
    from fal_async.types import Status

__all__ = [
    "call",
    "cancel",
    "download",
    "realtime",
    "result",
    "run",
    "status",
    "stream",
    "submit",
    "subscribe",
    "upload",
]

#: The recursion limit of a command: outputs may be nested more deeply than Python's limit allows.
_RECURSION_LIMIT: Final = 10_000


def call(command: Callable[..., Awaitable[None]], *arguments: object) -> None:
    """Run one of the commands below; write the body of an invalid response as it is.

    Raises:
        UsageError: Stdout is closed, so that the output would be lost.
        Terminated: The process received SIGTERM.
    """
    check_stdout()
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, _RECURSION_LIMIT))
    try:
        with _sigterm_as_interrupt():
            anyio.run(command, *arguments)
    except InvalidResponseError as error:
        if error.body:
            emit(error.body)
        raise
    finally:
        sys.setrecursionlimit(limit)


@contextmanager
def _sigterm_as_interrupt() -> Generator[None]:
    """Treat SIGTERM like Ctrl-C, so that both cancel what the command has started."""
    received = False

    def interrupt(number: int, frame: object) -> None:
        nonlocal received
        received = True
        signal.raise_signal(signal.SIGINT)

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt as error:
        if received:
            raise Terminated from error
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)


async def run(
    endpoint: str, arguments: Mapping[str, Any], timeout: float | None, output: Output
) -> None:
    """Call an endpoint directly, and write its output."""
    async with AsyncClient() as client:
        with _note_if_cancelled(output, "cancelled the call"):
            result = await client.run(endpoint, arguments, timeout=timeout)
        await output.finish(result)


async def subscribe(
    endpoint: str, arguments: Mapping[str, Any], timeout: float | None, output: Output
) -> None:
    """Put a job into the queue, show its progress on stderr, and write its output."""
    request_id = ""

    def on_enqueue(job: str) -> None:
        nonlocal request_id
        request_id = job
        output.event("enqueued", request_id=job, application=endpoint)
        output.note(f"request {job}")

    with _note_if_cancelled(output, lambda: f"cancelled request {request_id}".strip()):
        async with AsyncClient() as client:
            with Display(sys.stderr).progress() as progress:

                def on_queue_update(status: Status) -> None:
                    output.event("status", **as_json(status))
                    if not output.quiet:
                        progress(status)

                result = await client.subscribe(
                    endpoint,
                    arguments,
                    with_logs=True,
                    on_enqueue=on_enqueue,
                    on_queue_update=on_queue_update,
                    client_timeout=timeout,
                )
            await output.finish(result)


@contextmanager
def _note_if_cancelled(output: Output, text: str | Callable[[], str]) -> Generator[None]:
    """Say what an interrupt has cancelled, once that is done."""
    try:
        yield
    except anyio.get_cancelled_exc_class():
        output.note(text if isinstance(text, str) else text())
        raise


async def submit(endpoint: str, arguments: Mapping[str, Any], webhook_url: str | None) -> None:
    """Put a job into the queue, and write its handle."""
    async with AsyncClient() as client:
        handle = await client.submit(endpoint, arguments, webhook_url=webhook_url)
        emit(handle.to_dict())


async def status(handle: Mapping[str, str]) -> None:
    """Write the status of a job."""
    async with AsyncClient() as client:
        emit(as_json(await client.attach(handle).status(with_logs=True)))


async def result(handle: Mapping[str, str], output: Output) -> None:
    """Wait for a job, and write its output."""
    job = handle["request_id"]
    async with AsyncClient() as client:
        with _note_if_cancelled(output, f"request {job} was not cancelled"):
            await output.finish(await client.attach(handle).get())


async def cancel(handle: Mapping[str, str]) -> None:
    """Cancel a job, and write the outcome."""
    async with AsyncClient() as client:
        emit({"status": await client.attach(handle).cancel()})


async def stream(
    endpoint: str, arguments: Mapping[str, Any], timeout: float | None, path: str
) -> None:
    """Write the events of an app, one JSON value a line."""
    async with (
        AsyncClient() as client,
        client.stream(endpoint, arguments, path=path, timeout=timeout) as events,
    ):
        async for event in events:
            emit_line(event)


async def realtime(endpoint: str, linger: float, save: Path | None) -> None:
    """Send the lines of stdin to a realtime app, and write its messages, one JSON value a line."""
    files = MessageFiles(save)
    messages = read_messages(iter(sys.stdin.buffer.readline, b""))
    end = object()
    async with (
        AsyncClient() as client,
        client.realtime(endpoint) as session,
        open_task_group() as group,
    ):
        has_sent_all = False

        async def send() -> None:
            nonlocal has_sent_all
            following = partial(next, messages, end)
            while (message := await run_in_thread(following, Work.SOURCES)) is not end:
                await session.send(message)
            has_sent_all = True
            idle.deadline = anyio.current_time() + linger

        with anyio.CancelScope(deadline=math.inf) as idle:
            group.start_soon(send)
            async for message in session:
                emit_line(files.replace(message))
                if has_sent_all:
                    idle.deadline = anyio.current_time() + linger
        group.cancel_scope.cancel()


async def upload(paths: Sequence[Path], output: Output) -> None:
    """Upload files, and write their URLs, one a line."""
    async with AsyncClient() as client:
        for path in paths:
            url = await client.upload_file(path)
            output.line(url, "uploaded", path=str(path), url=url)


async def download(urls: Sequence[str], folder: Path, output: Output) -> None:
    """Download files into a folder, and write their paths, one a line."""
    async with AsyncClient() as client:
        for url in urls:
            path = await client.download(url, folder)
            output.line(str(path), "downloaded", url=url, path=str(path))
