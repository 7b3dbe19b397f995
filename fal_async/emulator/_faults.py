"""Scripted faults: what shall go wrong, where, and how often."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fal_async.emulator._gate import Gate
from fal_async.emulator._replies import Reply, json_reply, raw_headers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fal_async.emulator._record import RecordedRequest, Route

__all__ = ["Fault"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that goes wrong with calls of an endpoint.

    Attributes:
        route: The kind of call that it befalls; ``None`` for all. ``"run"`` and ``"stream"`` are
            also requests that a WebSocket carries; ``"runner"`` is the platform's own call of the
            runner, to see the platform's retries at work.
        when: A further condition on the request; ``None`` for all requests.
        status: Answer with this HTTP status in place of the real answer.
        headers: Headers of that answer; without `status`, more headers of the real one.
        body: The body of that answer: bytes and text as they are, anything else as JSON. ``None``
            gives the usual ``{"detail": ...}``.
        edit: Changes the decoded JSON of the real answer, or of each event of a stream.
        delay: How many seconds to wait, or the gate to wait at, before the fault strikes. Alone,
            it is all that happens.
        cut: Break off after so many bytes of the body.
        drop: Close the connection without looking at the call.
        lost: Do what the call asks for, then close the connection without an answer.
        garbage: Send these bytes in place of an answer, and close the connection.
        reset: Reset the connection (RST) where it is closed; alone, it is as `drop`.
        close: Close a WebSocket with this code, and the `body`, if that is text, as the reason.
        message: Send this over a WebSocket, text or bytes, before whatever else the fault does;
            bytes that are not msgpack, say.
        stall: Let a WebSocket fall silent: nothing is read any more, nothing sent, not even pongs.
        after: How many messages go to the client over a WebSocket before the fault strikes, be it
            `close`, `message`, `stall`, `garbage` or `cut`, which counts bytes from there on. For a
            request that a WebSocket carries it counts from that request on.
        times: How many calls it befalls; ``None`` for all.
        skip: How many calls pass first.

    Example:
        >>> Fault(route="status", status=503, times=2).status
        503
    """

    route: Route | None = None
    when: Callable[[RecordedRequest], bool] | None = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: Any = None
    edit: Callable[[Any], Any] | None = None
    delay: float | Gate | None = None
    cut: int | None = None
    drop: bool = False
    lost: bool = False
    garbage: bytes | None = None
    reset: bool = False
    close: int | None = None
    message: str | bytes | None = None
    stall: bool = False
    after: int = 0
    times: int | None = 1
    skip: int = 0

    @property
    def closes(self) -> bool:
        """Whether the connection is closed before the call is looked at."""
        return self.drop or (self.reset and not self.lost and self.cut is None)

    def spoils(self, *, carried: bool) -> bool:
        """Whether it befalls the messages of a WebSocket, not a request.

        Args:
            carried: Whether the request is one that the WebSocket carries, not that for it.
        """
        if self.status is not None or self.drop or self.lost:
            return False
        if self.close is not None or self.message is not None or self.stall:
            return True
        if self.after > 0:
            return self.cut is not None or self.garbage is not None
        return self.cut is not None and not carried

    @property
    def breaks_off(self) -> bool:
        """Whether no whole answer arrives."""
        return self.closes or self.lost or self.cut is not None or self.garbage is not None

    async def wait(self) -> None:
        """Wait as long as `delay` says."""
        if isinstance(self.delay, Gate):
            await self.delay.wait()
        elif self.delay is not None:
            await asyncio.sleep(self.delay)

    def reply(self) -> Reply | None:
        """The answer that it gives in place of the real one, if it gives one."""
        if self.status is None:
            return None
        if isinstance(self.body, str | bytes):
            body = self.body.encode() if isinstance(self.body, str) else self.body
            return Reply(self.status, body, raw_headers(self.headers))
        usual = {"detail": f"scripted fault {self.status}"}
        return json_reply(self.status, usual if self.body is None else self.body, self.headers)


class Faults:
    """The faults that are still to strike, in the order in which they were scripted."""

    def __init__(self) -> None:
        self._scripts: list[_Script] = []

    @property
    def pending(self) -> bool:
        """Whether anything may go wrong at all."""
        return bool(self._scripts)

    def add(self, endpoint_id: str | None, fault: Fault) -> None:
        """Script a fault for an endpoint, or for all."""
        self._scripts.append(_Script(endpoint_id, fault, fault.skip, fault.times))

    def clear(self) -> None:
        """Let everything go well again."""
        self._scripts.clear()

    def strike(self, request: RecordedRequest, names: tuple[str, ...]) -> Fault | None:
        """The fault that befalls a request for an endpoint of these names, if one does."""
        for script in list(self._scripts):
            if script.concerns(request, names) and script.take():
                if script.left == 0:
                    self._scripts.remove(script)
                return script.fault
        return None


@dataclass(slots=True, eq=False)
class _Script:
    endpoint_id: str | None
    fault: Fault
    skip: int
    left: int | None

    def concerns(self, request: RecordedRequest, names: tuple[str, ...]) -> bool:
        if self.endpoint_id is not None and self.endpoint_id not in names:
            return False
        route = self.fault.route
        if request.route != route and (route is not None or request.route == "runner"):
            return False
        return self.fault.when is None or self.fault.when(request)

    def take(self) -> bool:
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.left is not None:
            self.left -= 1
        return True
