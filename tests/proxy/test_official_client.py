"""The unmodified official JavaScript client, through the proxy on real servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fal_async import AsyncClient
from fal_async.proxy import FalProxy, ProxyRequest, Refusal
from tests.support.http import count, echo, gated_echo, upper
from tests.support.javascript import NODE, NPM, run_script
from tests.support.servers import serve_with_hypercorn, serve_with_uvicorn

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fal_async.emulator import Emulator

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (NODE and NPM), reason="node is not installed"),
]


def authorize(request: ProxyRequest) -> str | Refusal:
    return request.headers.get("x-user") or Refusal()


@pytest.mark.parametrize("serve", [serve_with_uvicorn, serve_with_hypercorn])
def test_official_client_works(
    fal: Emulator, javascript: Path, serve: Callable[[Any], Any]
) -> None:
    fal.register("acme/upper", upper)
    fal.register("acme/count", count)
    fal.register("acme/slow", gated_echo(fal.gate()))
    fal.register("acme/secret", echo)
    fal.realtime("acme/live")(echo)
    proxy = FalProxy(
        AsyncClient(fal.key, hosts=fal.hosts),
        allow=["acme/upper", "acme/count", "acme/slow", "acme/live"],
        authorize=authorize,
        allow_uploads=True,
        allow_realtime=True,
    )
    with serve(proxy) as url:
        command = ["--experimental-websocket", "proxied.cjs"]
        environ = {"EMULATOR_URL": fal.url, "PROXY_URL": f"{url}/api/fal/proxy"}
        seen = run_script(javascript, *command, timeout=60, **environ)
    files = fal.files
    assert files[seen.pop("small")].content == b"hello"
    assert files[seen.pop("large")].parts == 10
    assert seen.pop("invalid")["name"] == "ValidationError"
    output = {"text": "HELLO"}
    waited = {"data": output, "logs": ["step 1", "step 2"], "last": "COMPLETED"}
    assert seen == {
        "run": output,
        "polling": waited,
        "streaming": waited,
        "events": [{"step": 0}, {"step": 1}, {"step": 2}],
        "foreign": {"name": "ApiError", "status": 404, "body": {"status": "NOT_FOUND"}},
        "cancelled": 499,
        "live": {"prompt": "a cat"},
        "refused": {"name": "ApiError", "status": 400, "body": "Invalid request"},
        "anonymous": {"name": "ApiError", "status": 401, "body": "Unauthorized"},
    }
    assert fal.counters("acme/secret").executions == 0
    slow = next(job for job in fal.jobs.values() if job.endpoint == "acme/slow")
    assert slow.priority == "low"
