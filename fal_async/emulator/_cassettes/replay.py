"""Replay of a cassette."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fal_async.emulator._cassettes.addresses import local_bases
from fal_async.emulator._cassettes.cassette import Cassette
from fal_async.emulator._cassettes.messages import make_interaction, send_chunk, send_head
from fal_async.emulator._responses import RejectedError, error_response

if TYPE_CHECKING:
    from pathlib import Path

    from fal_async.emulator._cassettes.cassette import Interaction
    from fal_async.emulator._request import GatewayRequest

__all__ = ["Replay"]


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
        interaction = make_interaction(request)
        found = self._cassette.find(interaction)
        if found is None:
            raise RejectedError(error_response(404, self._describe_missing(interaction)))
        local = local_bases(request.location)
        await asyncio.sleep(found.delay * self._pace)
        await send_head(request, found, local)
        for delay, chunk in found.chunks:
            await asyncio.sleep(delay * self._pace)
            await send_chunk(request, found, chunk, local)
        await request.send({"type": "http.response.body", "body": b""})

    def _describe_missing(self, interaction: Interaction) -> str:
        """Explain why the cassette has no response to a request."""
        path, request = self._cassette.path, f"{interaction.method} {interaction.url}"
        recorded = self._cassette.interactions
        if any(each.key == interaction.key for each in recorded):
            return f"{path} has no more response to {request} with this body"
        is_known = any(
            (each.method, each.url) == (interaction.method, interaction.url) for each in recorded
        )
        return f"{request} was never recorded {'with this body ' if is_known else ''}in {path}"

    async def aclose(self) -> None:
        """Do nothing: there are no resources."""
