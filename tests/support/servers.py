"""Fixtures: real servers in threads, and a transport."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal

import pytest
import trustme
import uvicorn
from hypercorn.asyncio import serve
from hypercorn.config import Config

from fal_async._http.httpx_transport import PooledTransport
from tests.support.asgi_app import app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@contextmanager
def serve_with_uvicorn(
    application: Any, lifespan: Literal["on", "off"] = "off", certificate: Path | None = None
) -> Iterator[str]:
    """Serve an application with uvicorn, over https with a certificate; yield its URL."""
    scheme = "http" if certificate is None else "https"
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        config = uvicorn.Config(
            application,
            log_level="error",
            lifespan=lifespan,
            ws="none",
            ssl_certfile=certificate,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def serve_with_hypercorn(application: Any) -> Iterator[str]:
    """Serve an application with hypercorn, and yield its URL."""
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        config = Config()
        config.bind = [f"fd://{listener.dup().detach()}"]
        config.errorlog = None
        config.graceful_timeout = 0.1
        loop = asyncio.new_event_loop()
        stop = asyncio.Event()

        def run() -> None:
            with (
                suppress(asyncio.CancelledError),
                asyncio.Runner(loop_factory=lambda: loop) as runner,
            ):
                runner.run(serve(application, config, shutdown_trigger=stop.wait))

        def end() -> None:
            """On shutdown, hypercorn may wait indefinitely for its open connections."""
            for task in asyncio.all_tasks(loop):
                task.cancel()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(2)
            if thread.is_alive():
                loop.call_soon_threadsafe(end)
            thread.join()


@pytest.fixture(scope="session")
def uvicorn_url() -> Iterator[str]:
    """Start uvicorn; return the URL of the test application."""
    with serve_with_uvicorn(app) as url:
        yield url


@pytest.fixture(scope="session")
def hypercorn_url() -> Iterator[str]:
    """Start hypercorn; return the URL of the test application."""
    with serve_with_hypercorn(app) as url:
        yield url


@pytest.fixture(params=["uvicorn_url", "hypercorn_url"])
def server_url(request: pytest.FixtureRequest) -> str:
    """Return the URL of the test application on each server."""
    url: str = request.getfixturevalue(request.param)
    return url


@pytest.fixture
async def transport() -> AsyncIterator[PooledTransport]:
    """Return a transport that is closed after the test."""
    async with PooledTransport() as transport:
        yield transport


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Return a certificate authority for the tests."""
    return trustme.CA()
