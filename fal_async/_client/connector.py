"""Opens WebSockets with a token or with the key."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, TypedDict

from fal_async._net.threads import run_in_thread
from fal_async._protocol.error_mapping import exception_from_response
from fal_async._protocol.realtime import with_token
from fal_async.errors import AuthenticationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fal_async._core.secrets import Secret
    from fal_async._dispatch.dispatcher import Dispatcher
    from fal_async._protocol.operation import Operation
    from fal_async._websocket.connection import WebSocket

__all__ = ["ConnectOptions", "WebSocketConnector"]

#: The module that opens WebSockets. A worker thread imports it, since that takes so long.
HANDSHAKE_MODULE: Final = "fal_async._websocket.handshake"


class ConnectOptions(TypedDict):
    """The options of `connect_websocket`."""

    headers: Mapping[str, str]
    open_timeout: float | None
    ping_interval: float | None
    ping_timeout: float | None
    max_message_size: int | None
    compression: bool


@dataclass(frozen=True, slots=True)
class WebSocketConnector:
    """Opens WebSockets for one URL, each with a new token or with the key.

    Attributes:
        call: The name of the method and the endpoint id, for hooks.
    """

    dispatcher: Dispatcher
    call: tuple[str, str]
    url: str
    token_operation: Operation[Secret] | None
    options: ConnectOptions

    async def connect(self) -> WebSocket:
        credentials = self.dispatcher.credentials

        async def authorize_and_connect() -> WebSocket:
            if self.token_operation is not None:
                token = await self.dispatcher.execute(self.token_operation)
                return await self._connect(with_token(self.url, token), None)
            authorization = await credentials.authorization()
            try:
                return await self._connect(self.url, authorization)
            except AuthenticationError:
                if not credentials.can_refresh:
                    raise
            credentials.invalidate(authorization)
            return await self._connect(self.url, await credentials.authorization())

        with self.dispatcher.call(*self.call):
            return await self.dispatcher.resources.websockets.open(authorize_and_connect)

    async def _connect(self, url: str | Secret, authorization: Secret | None) -> WebSocket:
        if HANDSHAKE_MODULE not in sys.modules:
            await run_in_thread(partial(importlib.import_module, HANDSHAKE_MODULE))
        # Late: httpx and websockets are slow to import, and only WebSockets need both.
        from fal_async._websocket.handshake import HandshakeRejected, connect_websocket

        try:
            return await connect_websocket(url, authorization=authorization, **self.options)
        except HandshakeRejected as rejection:
            raise exception_from_response(rejection.response) from None
