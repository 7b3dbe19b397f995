"""What several clients may share: a transport, and what goes on over it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlencode

import anyio

from fal_async._protocol.operations import MAX_RESPONSE, Lane, Request
from fal_async._secret import Secret
from fal_async._transport.background import spawn
from fal_async._transport.cancels import Cancels
from fal_async._transport.cdn_tokens import TokenShelves
from fal_async._transport.errors import ExchangeError
from fal_async._transport.exchange import Broken, start
from fal_async._transport.gates import Gates
from fal_async._transport.loops import PerLoop
from fal_async._transport.open_sockets import OpenSockets
from fal_async._transport.routes import Routes
from fal_async._transport.tasks import bounded_shield
from fal_async._transport.transmission import Transmission
from fal_async.errors import ClientClosedError, ConnectionFailedError, TransportError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from fal_async._config import Limits
    from fal_async._protocol.operations import Operation
    from fal_async._transport.exchange import Carrier, OpenReply

__all__ = ["Line"]

#: The bound of connecting, writing and silence when a login is renewed, in seconds.
FORM_TIMEOUT: Final = 10.0


class _Form:
    """The fields of a form as the body of a request, some of them secret."""

    def __init__(self, fields: Mapping[str, str | Secret]) -> None:
        revealed = {
            name: value.reveal() if isinstance(value, Secret) else value
            for name, value in fields.items()
        }
        self._encoded = memoryview(urlencode(revealed).encode())

    @property
    def size(self) -> int:
        return len(self._encoded)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield cast("bytes", self._encoded)  # as good as bytes to send, but its repr shows nothing


class Line:
    """A transport, who waits for it, and which hosts are down.

    Attributes:
        limits: How much goes on at once.
        routes: Where requests go when a host is down.
        gates: The places of each lane, per event loop.
        cancels: The jobs to cancel, per event loop.
        sockets: The WebSockets, which do not use the transport.
        token_shelves: The CDN tokens of the accounts, per event loop.
    """

    def __init__(self, carrier: Carrier, limits: Limits) -> None:
        self.limits = limits
        self.routes: Routes = Routes()
        self.gates: PerLoop[Gates] = PerLoop(lambda: Gates(limits))
        self.cancels: PerLoop[Cancels] = PerLoop(lambda: Cancels(limits.control))
        self.sockets: OpenSockets = OpenSockets()
        self.token_shelves: PerLoop[TokenShelves] = PerLoop(TokenShelves)
        self._carrier = carrier
        self._closing = False
        self._closed = False

    def check_open(self, operation: Operation[Any]) -> None:
        """Raise an error if an operation cannot be begun.

        A closing client still cancels jobs, and fetches the outputs of those that have ended.

        Raises:
            ClientClosedError: The client is closed, or closing.
        """
        finishes = operation.lane is Lane.CANCEL or operation.stage == "result"
        if self._closed or (self._closing and not finishes):
            raise ClientClosedError("the client is closed", request_id=operation.request_id)

    async def start(
        self,
        request: Request,
        url: str,
        *,
        authorization: Secret | None,
        timeout: Mapping[str, float | None],
        transmission: Transmission,
    ) -> OpenReply:
        """Send a request and wait for the head of its reply; raises `Broken`."""
        if self._closed:
            raise ClientClosedError("the client is closed")
        return await start(
            self._carrier,
            request,
            url,
            authorization=authorization,
            timeout=timeout,
            transmission=transmission,
        )

    async def post_form(
        self, url: str, fields: Mapping[str, str | Secret]
    ) -> tuple[int, memoryview]:
        """Send a form, without the key, to where logins are renewed.

        Returns:
            The status and the body of the answer.

        Raises:
            TransportError: There was no answer.
        """
        headers = {
            "accept": "application/json",
            "content-type": "application/x-www-form-urlencoded",
        }
        request = Request("POST", url, headers, _Form(fields))
        timeout: dict[str, float | None] = dict.fromkeys(("connect", "read", "write"), FORM_TIMEOUT)
        try:
            opened = await self.start(
                request, url, authorization=None, timeout=timeout, transmission=Transmission()
            )
            reply = await opened.read(limit=MAX_RESPONSE)
        except Broken as error:
            raise TransportError(f"the login could not be renewed: {error}") from error.__cause__
        return reply.status_code, memoryview(reply.body)

    async def prepare(self) -> None:
        """Do what the first exchange would have to do otherwise.

        Raises:
            ConnectionFailedError: The trusted certificates cannot be read.
        """
        try:
            await self._carrier.prepare()
        except ExchangeError as error:
            raise ConnectionFailedError(str(error)) from error

    async def aclose(self) -> None:
        """Refuse calls, cancel the jobs of those who wait, close the sockets and the transport.

        It is done in the background, and goes on when the caller is cancelled.
        """
        self._closing = True
        cancels = self.cancels.get()
        if cancels.idle and cancels.closing is None:
            await self._close()
            return
        if cancels.closing is None:

            async def finish() -> None:
                try:
                    await cancels.finish()
                finally:
                    with bounded_shield():  # a transport that is not ours may take its time
                        await self._close()

            cancels.closing = spawn(finish, grace=cancels.patience)
        with anyio.CancelScope(shield=True):
            await cancels.closing.wait()

    async def _close(self) -> None:
        self._closed = True
        try:
            await self.sockets.aclose()
        finally:
            await self._carrier.aclose()
