"""Transport, limits and background work that a client shares with its copies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlencode
from weakref import WeakSet

import anyio

from fal_async._auth.cdn_tokens import CdnTokenCache
from fal_async._core.annotations import set_module
from fal_async._core.secrets import Secret
from fal_async._dispatch.cache import PriceCache, UploadCache
from fal_async._dispatch.cancellation import JobCanceller
from fal_async._dispatch.limits import LaneLimits
from fal_async._http.response import ExchangeFailed
from fal_async._http.transmission import Transmission
from fal_async._net.background import spawn
from fal_async._net.errors import ExchangeError
from fal_async._net.event_loops import PerLoop
from fal_async._net.tasks import shielded_cleanup
from fal_async._protocol.operation import MAX_RESPONSE, Lane
from fal_async._protocol.origins import Failover
from fal_async._version import USER_AGENT
from fal_async.errors import ClientClosedError, ConnectionFailedError, TransportError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from fal_async._config import Limits, LimitUsage
    from fal_async._http.response import Transport
    from fal_async._protocol.operation import Operation
    from fal_async._websocket.connection import WebSocket

__all__ = ["SharedResources", "Statistics", "WebSocketRegistry"]

#: The timeouts of connecting, reading and writing while a login is refreshed, in seconds.
FORM_TIMEOUTS: Final = dict[str, float | None](connect=10.0, read=10.0, write=10.0)


@set_module("fal_async")
@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """The use of the limits and of the connections of a client on one event loop.

    Attributes:
        control: Short calls: submit, status, result, tokens.
        cancel: Cancellations.
        held: Calls that use a connection for their whole duration: run and stream.
        streams: Status streams. Jobs that wait for one are polled meanwhile.
        uploads: The files, and parts of files, that are being sent.
        downloads: The files that are being received.
        connections: The HTTP connections in use; ``None`` for a transport of your own.
        idle_connections: The idle HTTP connections; ``None`` for a transport of your own.
        websockets: The open WebSockets.
    """

    control: LimitUsage
    cancel: LimitUsage
    held: LimitUsage
    streams: LimitUsage
    uploads: LimitUsage
    downloads: LimitUsage
    connections: int | None
    idle_connections: int | None
    websockets: int


class SharedResources:
    """The transport, the limits and the background work of a client and its copies.

    Closing them closes the client and all copies that `AsyncClient.with_options` made.

    Args:
        transport: Sends the requests.
        limits: The sizes of the limits.

    Attributes:
        closed: Whether the transport is closed, or about to be.
        failover: The hosts that are replaced by their backup hosts.
        lanes: The concurrency limits of each event loop.
        cancellers: The job cancellations of each event loop.
        cdn_tokens: The CDN tokens of each event loop.
        websockets: The open WebSockets, which do not use the transport.
        prices: The prices that were asked for.
        uploads: The URLs of uploaded content of each event loop.
    """

    def __init__(self, transport: Transport, limits: Limits) -> None:
        self.transport = transport
        self.limits = limits
        self.closed: bool = False
        self.failover: Failover = Failover()
        self.lanes: PerLoop[LaneLimits] = PerLoop(lambda: LaneLimits(limits))
        self.cancellers: PerLoop[JobCanceller] = PerLoop(lambda: JobCanceller(limits.control))
        self.cdn_tokens: PerLoop[CdnTokenCache] = PerLoop(CdnTokenCache)
        self.websockets: WebSocketRegistry = WebSocketRegistry()
        self.prices: PriceCache = PriceCache()
        self.uploads: PerLoop[UploadCache] = PerLoop(lambda: UploadCache(limits.reused_uploads))
        self._closing = False

    def check_open(self, operation: Operation[Any]) -> None:
        """Raise an error if the client is too far closed for an operation.

        A client that is closing still cancels jobs and fetches the outputs of jobs that have ended.

        Raises:
            ClientClosedError: The client is closed, or is closing.
        """
        is_last = operation.lane is Lane.CANCEL or operation.stage == "result"
        if self.closed or (self._closing and not is_last):
            raise ClientClosedError("the client is closed", request_id=operation.request_id)

    async def prepare(self) -> None:
        """Load the trusted certificates before the first request needs them.

        Raises:
            ConnectionFailedError: The trusted certificates cannot be read.
        """
        try:
            await self.transport.prepare()
        except ExchangeError as error:
            raise ConnectionFailedError(str(error)) from error

    async def post_form(
        self, url: str, fields: Mapping[str, str | Secret]
    ) -> tuple[int, memoryview]:
        """Send a form that refreshes a login. The request carries no key.

        Args:
            url: The URL of the token server.
            fields: The fields of the form, some of them secret.

        Returns:
            The status and the body of the response.

        Raises:
            ClientClosedError: The client is closed.
            TransportError: There was no response.
        """
        if self.closed:
            raise ClientClosedError("the client is closed")
        encoded = memoryview(
            urlencode(
                {
                    name: value.reveal() if isinstance(value, Secret) else value
                    for name, value in fields.items()
                }
            ).encode()
        )

        async def body() -> AsyncIterator[bytes]:
            yield cast("bytes", encoded)  # a memoryview, since its repr does not show the secrets

        headers = {
            "user-agent": USER_AGENT,
            "accept": "application/json",
            "content-type": "application/x-www-form-urlencoded",
            "content-length": str(len(encoded)),
        }
        try:
            streamed = await self.transport.send(
                "POST", url, headers, body(), FORM_TIMEOUTS, Transmission()
            )
            response = await streamed.read(limit=MAX_RESPONSE)
        except (ExchangeError, OSError) as error:
            failure = ExchangeFailed.from_error(error, sent=True)
            raise TransportError(f"cannot refresh the login: {failure}") from error
        except ExchangeFailed as error:
            raise TransportError(f"cannot refresh the login: {error}") from error.__cause__
        return response.status_code, memoryview(response.body)

    def statistics(self) -> Statistics:
        """Return the use of the limits and connections of the running event loop."""
        lanes = self.lanes.get()
        slots = lanes.slots
        counts = self.transport.count_connections()
        return Statistics(
            control=slots[Lane.CONTROL].usage,
            cancel=slots[Lane.CANCEL].usage,
            held=slots[Lane.HELD].usage,
            streams=lanes.streams.usage,
            uploads=slots[Lane.UPLOAD].usage,
            downloads=slots[Lane.DOWNLOAD].usage,
            connections=None if counts is None else counts.used,
            idle_connections=None if counts is None else counts.idle,
            websockets=self.websockets.count(),
        )

    async def aclose(self) -> None:
        """Refuse new calls, cancel the jobs of subscriptions, and close all connections.

        A background task does it, so that it is completed when the caller is cancelled.
        """
        self._closing = True
        canceller = self.cancellers.get()
        if canceller.closing is None:
            if canceller.idle:
                await self._close()
                return

            async def finish() -> None:
                try:
                    await canceller.finish()
                finally:
                    with shielded_cleanup():  # an httpx transport may take its time
                        await self._close()

            canceller.closing = spawn(finish, grace_period=canceller.grace_period)
        with anyio.CancelScope(shield=True):
            await canceller.closing.wait()

    async def _close(self) -> None:
        self.closed = True
        try:
            await self.websockets.aclose()
        finally:
            await self.transport.aclose()


class WebSocketRegistry:
    """Opens WebSockets until the client is closed, and then closes those of the running event loop.

    The owner of a WebSocket normally closes it. The registry closes those that are open when the
    client is closed.
    """

    def __init__(self) -> None:
        self._websockets: PerLoop[WeakSet[WebSocket]] = PerLoop(WeakSet, _close_without_loop)
        self._closed = False

    async def open(self, connect: Callable[[], Awaitable[WebSocket]]) -> WebSocket:
        """Call a function that opens a WebSocket, and register the result.

        Raises:
            ClientClosedError: The client was closed before the WebSocket was open.
        """
        self._check_open()
        websocket = await connect()
        try:
            self._check_open()
        except ClientClosedError:
            websocket.abort()
            raise
        self._websockets.get().add(websocket)
        return websocket

    def count(self) -> int:
        """Return the number of open WebSockets of the running event loop."""
        return sum(each.close_code is None for each in self._websockets.get())

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosedError("the client is closed")

    async def aclose(self) -> None:
        """Close the WebSockets of the running event loop concurrently, with close frames."""
        self._closed = True
        websockets = self._websockets.pop()
        if websockets:
            async with anyio.create_task_group() as tasks:
                for websocket in list(websockets):
                    tasks.start_soon(websocket.close)


def _close_without_loop(websockets: WeakSet[WebSocket]) -> None:
    for websocket in list(websockets):
        websocket.close_without_loop()
