"""Recording of a platform: its responses are forwarded and kept."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, cast

import httpx

from fal_async.emulator._cassettes.addresses import Addresses, local_bases
from fal_async.emulator._cassettes.cassette import Cassette
from fal_async.emulator._cassettes.messages import make_interaction, send_chunk, send_head
from fal_async.emulator._responses import RejectedError, error_response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from fal_async._config import Hosts
    from fal_async.emulator._cassettes.cassette import Interaction
    from fal_async.emulator._request import GatewayRequest

__all__ = ["Recording"]

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
        interaction = make_interaction(request)
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
            if self._token is None:
                token_url = f"{self._hosts.rest}/storage/auth/token?storage_type=fal-cdn-v3"
                key = {"authorization": f"Key {self._key}"}
                created = await self._client.post(token_url, json={}, headers=key)
                self._token = str(created.raise_for_status().json()["token"])
            headers["authorization"] = f"Bearer {self._token}"
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
            await send_head(request, interaction, local)
            began = time.perf_counter()
            async for chunk in _read(response, by_event=is_stream):
                now = time.perf_counter()
                recorded = self._addresses.from_upstream(chunk) if interaction.is_text else chunk
                interaction.chunks.append((now - began, recorded))
                began = now
                await send_chunk(request, interaction, recorded, local)
        await request.send({"type": "http.response.body", "body": b""})


async def _read(response: httpx.Response, *, by_event: bool) -> AsyncIterator[bytes]:
    """Yield the whole body, or each event as it arrives, so that no address is divided."""
    buffer = b""
    if by_event:
        async for chunk in response.aiter_bytes():
            *events, buffer = (buffer + chunk.replace(b"\r\n", b"\n")).split(_END_OF_EVENT)
            for event in events:
                yield event + _END_OF_EVENT
    else:
        buffer = await response.aread()
    if buffer:
        yield buffer
