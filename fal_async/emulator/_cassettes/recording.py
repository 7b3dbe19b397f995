"""Recording of a platform, and replay of a cassette, in the place of registered endpoints."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, cast
from urllib.parse import urlsplit

import httpx

from fal_async._config import Hosts
from fal_async.emulator._cassettes.addresses import (
    Addresses,
    local_bases,
    recorded_url,
    to_local,
    to_recorded,
)
from fal_async.emulator._cassettes.cassette import Cassette, Interaction
from fal_async.emulator._responses import RejectedError, error_response, raw_headers
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from fal_async.emulator._request import GatewayRequest, Responder
    from fal_async.emulator._server.http import Server
    from fal_async.emulator._state import PlatformState

__all__ = ["RecordingMixin"]

#: Headers of a request that are not sent upstream.
_OWN_HEADERS: Final = frozenset(
    {
        "accept-encoding",
        "authorization",
        "connection",
        "content-length",
        "host",
        "origin",
        "transfer-encoding",
    }
)
#: Headers of a response that are recorded, besides those that begin with ``x-fal-``.
_KEPT_HEADERS: Final = frozenset(
    {"accept-ranges", "content-range", "content-type", "etag", "location", "retry-after"}
)
_END_OF_EVENT: Final = b"\n\n"
_TIMEOUT: Final = httpx.Timeout(None, connect=10.0)


class Recording:
    """Forwards requests to a platform, and records them and the responses.

    Args:
        path: The path of the cassette.
        hosts: The base URLs of the platform.
        key: The key for the platform.
    """

    def __init__(self, path: Path, hosts: Hosts, key: str) -> None:
        self._cassette = Cassette(path)
        self._hosts = hosts
        self._addresses = Addresses(hosts)
        self._key = key
        self._token: str | None = None
        self._client: httpx.AsyncClient | None = None

    async def respond(self, request: GatewayRequest) -> None:
        """Forward a request, and send the response while it is received."""
        local = local_bases(request.location)
        interaction = _interaction(request)
        self._cassette.interactions.append(interaction)
        task = cast("asyncio.Task[object]", asyncio.current_task())
        try:
            with request.connection.on_disconnect(task.cancel):
                await self._forward(request, interaction, local)
        except (httpx.HTTPError, RuntimeError) as error:
            self._cassette.interactions.remove(interaction)
            if request.status is not None:  # the response has started
                return await request.connection.close()
            text = f"cannot record {interaction.method} {interaction.url}: {error}"
            raise RejectedError(error_response(502, text)) from error

    async def aclose(self) -> None:
        """Write the cassette, and close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()
        secrets = [self._key, self._key.rpartition(":")[2]]
        self._cassette.save([secret for secret in secrets if secret])

    async def _forward(
        self, request: GatewayRequest, interaction: Interaction, local: dict[str, str]
    ) -> None:
        if self._client is None:
            self._client = httpx.AsyncClient(timeout=_TIMEOUT, limits=httpx.Limits())
        headers = {n: v for n, v in request.headers.items() if n not in _OWN_HEADERS}
        url = self._addresses.to_upstream(interaction.url.encode()).decode()
        if request.location.host != "cdn":
            headers["authorization"] = f"Key {self._key}"
        elif request.method != "GET" and not request.location.path.startswith("recorded/"):
            headers["authorization"] = f"Bearer {await self._cdn_token(self._client)}"
        began = time.perf_counter()
        content = self._addresses.to_upstream(interaction.content)
        async with self._client.stream(
            interaction.method, url, headers=headers, content=content
        ) as response:
            interaction.delay = time.perf_counter() - began
            interaction.status = response.status_code
            for name, value in response.headers.items():
                if name in _KEPT_HEADERS or name.startswith("x-fal-"):
                    text = self._addresses.from_upstream(value.encode("latin-1", "replace"))
                    interaction.headers[name] = text.decode("latin-1")
            is_stream = interaction.media_type == "text/event-stream"
            await _send_head(request, interaction, local)
            began = time.perf_counter()
            async for chunk in _events(response) if is_stream else _whole(response):
                now = time.perf_counter()
                recorded = self._addresses.from_upstream(chunk) if interaction.is_text else chunk
                interaction.chunks.append((now - began, recorded))
                began = now
                await _send_chunk(request, interaction, recorded, local)
        await request.send({"type": "http.response.body", "body": b""})

    async def _cdn_token(self, client: httpx.AsyncClient) -> str:
        if self._token is None:
            url = f"{self._hosts.rest}/storage/auth/token?storage_type=fal-cdn-v3"
            headers = {"authorization": f"Key {self._key}"}
            response = await client.post(url, json={}, headers=headers)
            self._token = str(response.raise_for_status().json()["token"])
        return self._token


class Replay:
    """Responds as a cassette does, in the order of its responses and with their pace.

    Args:
        path: The path of the cassette.
        pace: The factor of all delays.
    """

    def __init__(self, path: Path, pace: float) -> None:
        self._cassette = Cassette(path)
        self._cassette.load()
        self._pace = pace

    async def respond(self, request: GatewayRequest) -> None:
        """Send the recorded response to a request."""
        asked = _interaction(request)
        found = self._cassette.find(asked)
        if found is None:
            urls = {(each.method, each.url) for each in self._cassette.interactions}
            is_known = (asked.method, asked.url) in urls
            text = f"{self._cassette.path} has no {'more ' if is_known else ''}response to "
            text += f"{asked.method} {asked.url}{' with this body' if is_known else ''}"
            raise RejectedError(error_response(404, text))
        local = local_bases(request.location)
        await asyncio.sleep(found.delay * self._pace)
        await _send_head(request, found, local)
        for delay, chunk in found.chunks:
            await asyncio.sleep(delay * self._pace)
            await _send_chunk(request, found, chunk, local)
        await request.send({"type": "http.response.body", "body": b""})

    async def aclose(self) -> None:
        """Do nothing: there are no resources."""


class CassetteInUse:
    """A cassette that is recorded or replayed, until `close` or the end of a ``with`` block."""

    def __init__(self, platform: PlatformState, server: Server, current: Responder) -> None:
        self._platform = platform
        self._server = server
        self._current = current

    def close(self) -> None:
        """Stop to record or replay; write the cassette if it was recorded.

        Raises:
            OSError: The cassette cannot be written.
        """
        if self._platform.substitute is self._current:
            self._platform.substitute = None
            self._server.call(self._current.aclose)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class RecordingMixin:
    """Records and replays the traffic of an `Emulator` with another platform."""

    _platform: PlatformState
    _server: Server | None
    _cassette: CassetteInUse | None = None

    def record(
        self, path: str | os.PathLike[str], *, hosts: Hosts | None = None, key: str | None = None
    ) -> CassetteInUse:
        """Record the responses of another platform to requests for endpoints not registered here.

        The requests are forwarded, which costs what they cost there. The cassette contains no key,
        no token and no signature of a URL; binary content is in files beside it. The arguments of
        calls and their outputs are recorded as they are. WebSockets are not recorded. The cassette
        is written at the end of the ``with`` block, by ``close()``, or when the emulator stops.

        Args:
            path: The path of the cassette, a JSON file. An existing one is replaced.
            hosts: The base URLs of the platform, such as those of another emulator. ``None`` for
                the real platform.
            key: The key for the platform. ``None`` uses ``FAL_KEY``.

        Raises:
            InvalidRequestError: There is no key.
            RuntimeError: The emulator has not started, or has a cassette in use.
        """
        own, upstream = self._platform.accounts.main.key, self._platform.upstream_key()
        key = key or upstream or os.environ.get("FAL_KEY")
        if not key or key == own:
            raise InvalidRequestError("key must be the key for the recorded platform, got none")
        hosts = hosts or Hosts()
        with contextlib.suppress(OSError):  # the first request will show it
            # In this thread, where a refusal of real hosts fails the test.
            socket.getaddrinfo(urlsplit(hosts.run).hostname, None)
        return self._use(partial(Recording, Path(path), hosts, key))

    def replay(self, path: str | os.PathLike[str], *, pace: float = 1.0) -> CassetteInUse:
        """Replay a cassette that `record` made, for endpoints that are not registered here.

        A request gets the next response that was recorded for its method, URL and body, events and
        statuses with their pace. Requests that can be repeated get the last one again; for others,
        the response is a 404. It ends as a recording does.

        Args:
            path: The path of the cassette.
            pace: The factor of all delays; 0 disables them.

        Raises:
            InvalidRequestError: The cassette cannot be read.
            RuntimeError: The emulator has not started, or has a cassette in use.
        """
        return self._use(partial(Replay, Path(path), pace))

    def _use(self, make: Callable[[], Responder]) -> CassetteInUse:
        if self._server is None:
            raise RuntimeError("cannot use a cassette before the emulator has started")
        if self._platform.substitute is not None:
            raise RuntimeError("cannot use two cassettes at once: close the other one")
        self._platform.substitute = current = make()
        self._cassette = CassetteInUse(self._platform, self._server, current)
        return self._cassette

    def _close_cassette(self) -> None:
        if self._cassette is not None:
            self._cassette.close()


def _interaction(request: GatewayRequest) -> Interaction:
    """Return the interaction of a request, still without its response."""
    return Interaction(
        method=request.method,
        url=recorded_url(request.location, request.query),
        range=request.headers.get("range"),
        content=to_recorded(request.body, local_bases(request.location)),
    )


async def _send_head(
    request: GatewayRequest, interaction: Interaction, local: dict[str, str]
) -> None:
    headers = dict(interaction.headers)
    request.request_id = headers.get("x-fal-request-id", request.request_id)
    if "location" in headers:
        headers["location"] = to_local(headers["location"].encode(), local).decode()
    head = {"status": interaction.status, "headers": raw_headers(headers)}
    await request.send({"type": "http.response.start", **head})


async def _send_chunk(
    request: GatewayRequest, interaction: Interaction, chunk: bytes, local: dict[str, str]
) -> None:
    if interaction.is_text:
        chunk = to_local(chunk, local)
    await request.send({"type": "http.response.body", "body": chunk, "more_body": True})


async def _whole(response: httpx.Response) -> AsyncIterator[bytes]:
    content = await response.aread()
    if content:
        yield content


async def _events(response: httpx.Response) -> AsyncIterator[bytes]:
    """Yield each event of a stream as it arrives, so that none is divided between chunks."""
    buffer = b""
    async for chunk in response.aiter_bytes():
        *events, buffer = (buffer + chunk.replace(b"\r\n", b"\n")).split(_END_OF_EVENT)
        for event in events:
            yield event + _END_OF_EVENT
    if buffer:
        yield buffer
