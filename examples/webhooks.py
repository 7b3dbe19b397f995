"""Receive the outcomes of jobs: a service that saves the images of each callback.

uvicorn webhooks:app
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.routing import Route

from fal_async import AsyncClient, FalClientHTTPError
from fal_async.stores import SQLiteStore
from fal_async.webhooks import WebhookEvent, WebhookReceiver, Webhooks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

OUTPUT = Path("outputs")


async def on_event(event: WebhookEvent) -> None:
    """Save the files of a job in a folder of its own, or the reason why there are none."""
    folder = OUTPUT / event.request_id
    folder.mkdir(parents=True, exist_ok=True)
    try:
        result = event.result()
    except FalClientHTTPError as error:
        (folder / "error.txt").write_text(error.message)
        return
    for file in result.files():
        await file.save(folder)


client = AsyncClient()
store = SQLiteStore("events.db")
receiver = WebhookReceiver(on_event, webhooks=Webhooks(client), store=store)


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """Close the receiver first, which waits for running calls of `on_event`."""
    logging.basicConfig(level=logging.INFO)
    async with client, store, receiver:
        yield


app = Starlette(routes=[Route("/hooks/fal", receiver)], lifespan=lifespan)
