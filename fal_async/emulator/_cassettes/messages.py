"""Requests and responses on their way between clients and cassettes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fal_async.emulator._cassettes.addresses import local_bases, recorded_url, to_local, to_recorded
from fal_async.emulator._cassettes.cassette import Interaction
from fal_async.emulator._responses import raw_headers

if TYPE_CHECKING:
    from fal_async.emulator._request import GatewayRequest

__all__ = ["make_interaction", "send_chunk", "send_head"]


def make_interaction(request: GatewayRequest) -> Interaction:
    """Return the interaction of a request, still without its response."""
    return Interaction(
        method=request.method,
        url=recorded_url(request.location, request.query),
        range=request.headers.get("range"),
        content=to_recorded(request.body, local_bases(request.location)),
    )


async def send_head(
    request: GatewayRequest, interaction: Interaction, local: dict[str, str]
) -> None:
    """Send the status and the headers of a response."""
    headers = dict(interaction.headers)
    request.request_id = headers.get("x-fal-request-id", request.request_id)
    if "location" in headers:
        headers["location"] = to_local(headers["location"].encode(), local).decode()
    head = {"status": interaction.status, "headers": raw_headers(headers)}
    await request.send({"type": "http.response.start", **head})


async def send_chunk(
    request: GatewayRequest, interaction: Interaction, chunk: bytes, local: dict[str, str]
) -> None:
    """Send a part of the body of a response, with the addresses of the client."""
    if interaction.is_text:
        chunk = to_local(chunk, local)
    await request.send({"type": "http.response.body", "body": chunk, "more_body": True})
