"""Who may use which connection: those at rest, and whoever waits for one, by origin."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import anyio
from anyio.lowlevel import checkpoint

from fal_async._transport.errors import PoolTimeout

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fal_async._transport.connection import Connection
    from fal_async._transport.transmission import Transmission

__all__ = ["Origin", "Pool"]


class Origin(NamedTuple):
    """What connections are made to.

    Attributes:
        scheme: ``"http"`` or ``"https"``.
        host: A name in ASCII or an IP address, IPv6 without brackets.
        port: The port.
        server_hostname: The name that the peer's certificate has to be for; ``None`` for the host.
    """

    scheme: str
    host: str
    port: int
    server_hostname: str | None = None


Dial: TypeAlias = "Callable[[Origin], Awaitable[Connection]]"


class _Waiter:
    """Someone who waits for a place; it comes with a connection, or with the right to open one."""

    __slots__ = ("connection", "has_place", "woken")

    def __init__(self) -> None:
        self.woken = anyio.Event()
        self.has_place = False
        self.connection: Connection | None = None


class _Berth:
    """The connections of one origin: those in use are counted, those at rest are stacked."""

    __slots__ = ("idle", "taken", "waiters")

    def __init__(self) -> None:
        self.taken = 0
        self.idle: deque[Connection] = deque()
        self.waiters: OrderedDict[_Waiter, None] = OrderedDict()


class Pool:
    """The connections of one event loop.

    A place is the right to have one connection to an origin in use. While someone waits for one, no
    connection of that origin rests: what is given back goes to who has waited longest.

    Args:
        max_connections: How many places each origin has; ``None`` for no bound.
        keepalive_expiry: How long a connection may be idle, in seconds.
    """

    def __init__(self, *, max_connections: int | None, keepalive_expiry: float) -> None:
        self._max_connections = math.inf if max_connections is None else max_connections
        self._keepalive_expiry = keepalive_expiry
        self._berths: dict[Origin, _Berth] = {}
        self._open: set[Connection] = set()
        self._next_sweep = -math.inf
        self._closed = False

    async def acquire(
        self, origin: Origin, dial: Dial, timeout: float | None, transmission: Transmission
    ) -> Connection:
        """Take the connection that was used last, or open one; each is to be released once.

        A request that may not be repeated gets an idle connection only where nothing suggests that
        the peer is about to close it.

        Args:
            origin: Where to.
            dial: Opens a connection.
            timeout: How long to wait for a place, in seconds; ``None`` for as long as it takes.
            transmission: What is to be sent.

        Raises:
            PoolTimeout: No place came free in time.
        """
        berth = self._berths.get(origin)
        if berth is None:
            berth = self._berths[origin] = _Berth()
        careful = not transmission.repeatable
        connection = self._pop_idle(berth, careful=careful)
        if connection is None and berth.taken >= self._max_connections:
            transmission.waiting_for = f"max_connections ({self._max_connections})"
            connection = await self._wait(origin, timeout, careful=careful)
            transmission.waiting_for = ""
        else:
            berth.taken += 1
            if connection is None and berth.taken + len(berth.idle) > self._max_connections:
                self._close(berth.idle.popleft())
        return connection or await self._connect(origin, dial)

    def release(self, connection: Connection, *, reusable: bool) -> None:
        """Give back a connection with its place; one that cannot be used again is closed."""
        if reusable and connection.usable and not self._closed:
            connection.rest(monotonic(), self._keepalive_expiry)
            self._pass_on(connection.origin, connection)
        else:
            self._close(connection)
            self._pass_on(connection.origin, None)

    def close_idle(self) -> None:
        """Close what is not in use; what is in use is closed when it is given back."""
        self._closed = True
        for berth in self._berths.values():
            while berth.idle:
                self._close(berth.idle.pop())
            for waiter in berth.waiters:
                waiter.woken.set()

    def drop_all(self) -> None:
        """Close everything at once; needs no event loop."""
        self._closed = True
        while self._open:
            self._open.pop().drop()

    def _pop_idle(self, berth: _Berth, *, careful: bool) -> Connection | None:
        now = monotonic()
        while berth.idle:
            connection = berth.idle[-1]
            is_open = connection.expires > now and connection.is_quiet()
            if is_open and careful and connection.reliable_until <= now:
                return None  # and nor is any other reliable: those below it are older, or worse
            berth.idle.pop()
            if is_open:
                return connection
            self._close(connection)
        return None

    async def _wait(
        self, origin: Origin, timeout: float | None, *, careful: bool
    ) -> Connection | None:
        """Wait for a place; it may come with a connection."""
        berth = self._berths[origin]
        waiter = _Waiter()
        berth.waiters[waiter] = None
        try:
            with anyio.move_on_after(timeout):
                await waiter.woken.wait()
            await checkpoint()  # who was cancelled while waking up must not send anything
            self._check_turn(waiter, timeout)
        except BaseException:
            berth.waiters.pop(waiter, None)
            if waiter.has_place:
                self._pass_on(origin, waiter.connection)
            raise
        connection = waiter.connection
        if connection is not None and not (
            connection.is_quiet() and (connection.reliable_until > monotonic() or not careful)
        ):
            self._close(connection)
            return None
        return connection

    def _check_turn(self, waiter: _Waiter, timeout: float | None) -> None:
        if self._closed:
            raise RuntimeError("the transport was closed")
        if not waiter.has_place:
            raise PoolTimeout(f"no connection came free for {timeout} s")

    async def _connect(self, origin: Origin, dial: Dial) -> Connection:
        """Open a connection for a place that has been taken."""
        self._sweep()
        try:
            connection = await dial(origin)
        except BaseException:
            self._pass_on(origin, None)
            raise
        self._open.add(connection)
        try:
            await checkpoint()  # who was cancelled in the meantime must not send anything
        except BaseException:
            self.release(connection, reusable=False)
            raise
        return connection

    def _pass_on(self, origin: Origin, connection: Connection | None) -> None:
        """Hand a place to who has waited longest, or let it go."""
        berth = self._berths[origin]
        if berth.waiters:
            waiter, _ = berth.waiters.popitem(last=False)
            waiter.connection = connection
            waiter.has_place = True
            waiter.woken.set()
            return
        berth.taken -= 1
        if connection is not None:
            if connection.reliable_until == -math.inf:
                berth.idle.appendleft(connection)  # the reliable ones are on top
            else:
                berth.idle.append(connection)
        elif not berth.taken and not berth.idle:
            del self._berths[origin]

    def _close(self, connection: Connection) -> None:
        self._open.discard(connection)
        connection.close()

    def _sweep(self) -> None:
        """Now and then, close what rests for too long at origins that nobody asks for any more."""
        now = monotonic()
        if now < self._next_sweep:
            return
        self._next_sweep = now + self._keepalive_expiry
        for origin, berth in list(self._berths.items()):
            for connection in berth.idle:
                if connection.expires <= now:
                    self._close(connection)
            berth.idle = deque(each for each in berth.idle if each.expires > now)
            if not (berth.taken or berth.idle):
                del self._berths[origin]
