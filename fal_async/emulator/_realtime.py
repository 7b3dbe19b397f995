"""Functions as realtime apps: messages of msgpack go in, messages of msgpack come out."""

from __future__ import annotations

import functools
import time
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs

from pydantic import BaseModel

from fal_async.emulator._json import decode_packed, encode, encode_packed
from fal_async.emulator._replies import Refusal, path_not_found
from fal_async.emulator._sessions import Inputs, unless_closed
from fal_async.emulator._shapes import shape_of
from fal_async.emulator._streams import stepped
from fal_async.emulator._websocket import DisconnectedError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable

    from fal_async.emulator._job import Job
    from fal_async.emulator._record import Route
    from fal_async.emulator._shapes import Shape
    from fal_async.emulator._threads import Threads
    from fal_async.emulator._websocket import WebSocket

_PATHS = frozenset({"/", "/realtime"})
_NO_INPUTS = "no inputs, reconnect when needed!"


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How a realtime app treats its sessions; `Emulator.realtime` documents each."""

    buffering: int | None = None
    session_timeout: float | None = None
    max_batch_size: int = 1
    timings: bool = False


class RealtimeRunner:
    """A function of an input or of an iterator of inputs, with an output or several."""

    route: Route = "realtime"

    def __init__(self, function: Callable[..., Any], threads: Threads, habits: Habits) -> None:
        self._function = function
        self._threads = threads
        self._habits = habits
        self._shape = shape_of(function, batches=habits.max_batch_size > 1)

    async def serve(self, job: Job, websocket: WebSocket) -> None:
        """Hold a session."""
        if job.path not in _PATHS:
            raise Refusal(path_not_found(job.path))
        await websocket.accept()
        try:
            last_words = await self._session(job, websocket)
            await websocket.send(encode(last_words).decode())
            await websocket.close()
        except DisconnectedError:
            return

    async def aclose(self) -> None:
        """A function holds nothing."""

    async def _session(self, job: Job, websocket: WebSocket) -> dict[str, str]:
        """Let the session run its course; gives what is to be said at its end."""
        inputs = Inputs(
            websocket,
            functools.partial(_read, self._shape),
            keep=_buffering_wanted(job) or self._habits.buffering,
            timeout=self._habits.session_timeout,
        )
        session = _Session(self._function, self._shape, self._habits, self._threads, job, websocket)
        try:
            async with inputs.arriving():
                if self._shape.takes_stream:
                    await session.run(inputs)
                else:
                    await unless_closed(websocket, session.run(inputs))
        except DisconnectedError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - it is for the client to read
            return {"type": "x-fal-error", "error": "INTERNAL_ERROR", "reason": str(error)}
        return {"type": "x-fal-error", "error": "TIMEOUT", "reason": _NO_INPUTS}


@dataclass(slots=True)
class _Session:
    """One session of an app."""

    function: Callable[..., Any]
    shape: Shape
    habits: Habits
    threads: Threads
    job: Job
    websocket: WebSocket

    async def run(self, inputs: Inputs) -> None:
        """Answer inputs until there are no more, or the app has said all that it has to say."""
        if self.shape.takes_stream:
            await self._answer(inputs)
        elif self.shape.gives_stream:
            with suppress(StopAsyncIteration):
                await self._answer(await anext(inputs))
        else:
            async for first in inputs:
                await self._answer(first, *inputs.batch(self.habits.max_batch_size - 1))

    async def _answer(self, *arguments: object) -> None:
        began = time.perf_counter()
        if self.shape.gives_stream:
            async with aclosing(self._outputs(*arguments)) as outputs:
                async for output in outputs:
                    await self.websocket.send(_packed(output))
        else:
            await self.websocket.send(_packed(await self._call(*arguments)))
        if self.habits.timings:
            seconds = time.perf_counter() - began
            timing = {"type": "x-fal-message", "action": "timings", "timing": seconds}
            await self.websocket.send(encode(timing).decode())

    async def _outputs(self, *arguments: object) -> AsyncGenerator[object]:
        outputs = await self._call(*arguments)
        if hasattr(outputs, "__aiter__"):
            async for output in cast("AsyncIterable[object]", outputs):
                yield output
        else:
            steps = (output for output in cast("Iterable[object]", outputs))
            async with aclosing(stepped(steps, self.threads)) as items:
                async for output in items:
                    yield output

    async def _call(self, *arguments: object) -> Any:
        if self.shape.takes_job:
            arguments = (*arguments, self.job)
        if not self.shape.is_async:
            return await self.threads.call(functools.partial(self.function, *arguments))
        result = self.function(*arguments)
        return result if hasattr(result, "__aiter__") else await result


def _read(shape: Shape, message: str | bytes) -> Any:
    if isinstance(message, str):
        raise KeyError("bytes")
    value = decode_packed(message)
    return value if shape.model is None else shape.model.model_validate(value)


def _packed(output: object) -> bytes:
    if not isinstance(output, dict | BaseModel):
        raise TypeError(f"Expected a dict or pydantic model as output, got {type(output)}")
    return encode_packed(cast("object", output))


def _buffering_wanted(job: Job) -> int | None:
    """How many inputs the client wants to be kept, if it says."""
    text = parse_qs(job.query).get("max_buffering", [""])[-1]
    return int(text) if text.isdecimal() and int(text) else None
