"""A web service that draws images.

Start it with `uvicorn --timeout-graceful-shutdown 10 fastapi_service:app`. One client serves all
requests. The job of a visitor who disconnects is cancelled, and so are all jobs when the service
shuts down.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from fal_async import AsyncClient, FalClientError, InvalidInputError, RateLimitError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MODEL = "fal-ai/flux/dev"


class Order(BaseModel):
    """The body of a request."""

    prompt: str


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the client before the first request, and close it after the last."""
    async with AsyncClient() as client:
        await client.prepare()
        app.state.fal = client
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/images")
async def draw(order: Order, request: Request) -> dict[str, str]:
    """Draw an image and respond with its URL."""
    client: AsyncClient = request.app.state.fal
    job = asyncio.create_task(client.subscribe(MODEL, {"prompt": order.prompt}, client_timeout=120))
    disconnected = asyncio.create_task(_wait_until_disconnected(request))
    try:
        await asyncio.wait({job, disconnected}, return_when=asyncio.FIRST_COMPLETED)
        if not job.done():
            raise HTTPException(499, "the visitor has disconnected")
        return {"url": job.result()["images"][0]["url"]}
    finally:
        job.cancel()
        disconnected.cancel()


@app.exception_handler(FalClientError)
async def respond_to_error(request: Request, error: FalClientError) -> JSONResponse:
    """Map errors of the platform to those of this service."""
    match error:
        case InvalidInputError():
            return JSONResponse({"detail": error.message}, 422)
        case RateLimitError():
            return JSONResponse({"detail": "busy, try again later"}, 503)
        case _:
            return JSONResponse({"detail": "the image could not be drawn"}, 502)


async def _wait_until_disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
