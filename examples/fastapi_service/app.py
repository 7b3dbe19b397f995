"""A web service for several tenants: images, jobs, previews, sessions, files and a web page.

Start it in the root of the repository with

    uvicorn --timeout-graceful-shutdown 10 examples.fastapi_service.app:app

and open http://127.0.0.1:8000/login?token=demo. One client serves all requests. When the service
shuts down, the images that visitors wait for are cancelled, and the jobs of the queue go on.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import anyio
from fastapi import Depends, FastAPI, HTTPException, Request, UploadFile, WebSocket
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse, StreamingResponse
from pydantic import BaseModel
from starlette.routing import Route
from starlette.websockets import WebSocketDisconnect

from examples.fastapi_service.tenants import TENANTS, Tenant, current_tenant
from fal_async import (
    AsyncClient,
    Completed,
    FalClientError,
    InvalidInputError,
    NotFoundError,
    RateLimitError,
)
from fal_async.proxy import FalProxy, ProxyRequest, cancel_on_disconnect
from fal_async.stores import SQLiteStore
from fal_async.webhooks import WebhookEvent, WebhookReceiver, Webhooks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DRAW, WRITE, LIVE = "fal-ai/flux/dev", "fal-ai/any-llm", "acme/live"
DAY = 86400.0

#: The address at which the platform reaches this service; without one, no webhooks are sent.
PUBLIC_URL = os.environ.get("SERVICE_URL", "")

client = AsyncClient()
store = SQLiteStore(os.environ.get("SERVICE_STORE", "service.db"))
CurrentTenant = Annotated[Tenant, Depends(current_tenant)]


def authorize(request: ProxyRequest) -> str:
    """Name the visitor of the proxy, and send the key of the tenant."""
    tenant = current_tenant(Request(dict(request.scope)))
    if tenant.key is not None:
        request.forwarded["authorization"] = f"Key {tenant.key}"
    return tenant.name


proxy = FalProxy(
    client,
    allow=[DRAW, WRITE, LIVE],
    authorize=authorize,
    allow_uploads=True,
    allow_realtime=True,
    store=store,
)


async def keep_event(event: WebhookEvent) -> None:
    """Keep the output that the platform delivers, for `read_job`."""
    outcome = {"output": event.payload} if event.ok else {"error": event.error}
    await store.set(f"event:{event.request_id}", json.dumps(outcome), expires_in=DAY)


receiver = WebhookReceiver(keep_event, webhooks=Webhooks(client), store=store)


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the client before the first request, and close it after the last."""
    async with store, client, receiver:
        await client.prepare()
        yield


app = FastAPI(
    lifespan=lifespan, routes=[Route("/api/fal/proxy", proxy), Route("/webhook", receiver)]
)


class Order(BaseModel):
    """The body of a request for an image."""

    prompt: str


@app.post("/generate")
async def generate(order: Order, request: Request, tenant: CurrentTenant) -> dict[str, Any]:
    """Draw an image while the visitor waits. The job of a visitor who leaves is cancelled."""
    async with cancel_on_disconnect(request.receive):
        result = await tenant.client(client).subscribe(
            DRAW, {"prompt": order.prompt}, client_timeout=120
        )
    return {"url": result["images"][0]["url"]}


@app.post("/jobs", status_code=202)
async def submit_job(order: Order, tenant: CurrentTenant) -> dict[str, str]:
    """Start a job that outlives the request, and the service. The page may watch it, too."""
    handle = await tenant.client(client).submit(
        DRAW,
        {"prompt": order.prompt},
        webhook_url=f"{PUBLIC_URL}/webhook" if PUBLIC_URL else None,
    )
    job = json.dumps({"tenant": tenant.name, "handle": handle.to_dict()})
    await store.set(f"job:{handle.request_id}", job, expires_in=DAY)
    await proxy.assign(handle, tenant.name)
    return {"id": handle.request_id}


@app.get("/jobs/{job_id}")
async def read_job(job_id: str, tenant: CurrentTenant) -> dict[str, Any]:
    """Return the progress of a job, or its output."""
    job = json.loads(await store.get(f"job:{job_id}") or "{}")
    if job.get("tenant") != tenant.name:
        raise HTTPException(404, "no such job")
    if (delivered := await store.get(f"event:{job_id}")) is not None:
        return {"status": "Completed", **json.loads(delivered)}
    handle = tenant.client(client).attach(job["handle"])
    status = await handle.status()
    if not isinstance(status, Completed):
        return {"status": type(status).__name__}
    return {"status": "Completed", "output": await handle.get()}


@app.get("/previews")
async def preview(prompt: str, tenant: CurrentTenant) -> StreamingResponse:
    """Relay the events of a stream as they arrive. It is closed when the visitor leaves."""
    stream = tenant.client(client).stream(WRITE, {"prompt": prompt})

    async def events() -> AsyncIterator[str]:
        async with stream:
            async for event in stream:
                yield f"data: {json.dumps(event)}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


@app.websocket("/live")
async def relay_session(socket: WebSocket, tenant: CurrentTenant) -> None:
    """Relay a session in both directions, with JSON on the side of the visitor."""
    await socket.accept()
    async with (
        tenant.client(client).realtime(LIVE) as session,
        anyio.create_task_group() as group,
    ):

        async def relay_inputs() -> None:
            with contextlib.suppress(WebSocketDisconnect):
                while True:
                    await session.send(await socket.receive_json())
            group.cancel_scope.cancel()

        group.start_soon(relay_inputs)
        async for result in session:
            await socket.send_json(result)
        group.cancel_scope.cancel()


@app.post("/files")
async def pass_file(file: UploadFile, tenant: CurrentTenant) -> dict[str, str]:
    """Pass a file on without keeping it in memory."""
    kind = file.content_type or "application/octet-stream"
    return {"url": await tenant.client(client).upload(file, kind, file.filename)}


@app.get("/login")
async def log_in(token: str) -> RedirectResponse:
    """Remember the tenant in a cookie, which pages of other sites cannot use."""
    if token not in TENANTS:
        raise HTTPException(401, "unknown token")
    response = RedirectResponse("/")
    response.set_cookie("token", token, httponly=True, samesite="strict")
    return response


@app.get("/")
async def show_page() -> FileResponse:
    """Show a page that uses the official JavaScript client through the proxy."""
    return FileResponse(Path(__file__).with_name("page.html"))


@app.exception_handler(FalClientError)
async def respond_to_error(request: Request, error: FalClientError) -> JSONResponse:
    """Map errors of the platform to those of this service."""
    match error:
        case InvalidInputError():
            return JSONResponse({"detail": error.message}, 422)
        case NotFoundError():
            return JSONResponse({"detail": "no such job"}, 404)
        case RateLimitError():
            return JSONResponse({"detail": "busy, try again later"}, 503)
        case _:
            return JSONResponse({"detail": "the platform has failed"}, 502)
