"""The unmodified official JavaScript client and its server proxy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fal_async.emulator import Fault
from tests.support.http import count, echo, gated_echo, upper
from tests.support.javascript import NODE, NPM, run_script

if TYPE_CHECKING:
    from pathlib import Path

    from fal_async.emulator import Emulator

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (NODE and NPM), reason="node is not installed"),
]


def environment(fal: Emulator) -> dict[str, str]:
    """Return the environment of a script."""
    return {"EMULATOR_URL": fal.url, "PROXY_URL": fal.proxy_url, "FAL_KEY": fal.key}


@pytest.mark.parametrize("access", ["middleware", "proxy", "official-proxy"])
def test_javascript_client_works(fal: Emulator, javascript: Path, access: str) -> None:
    fal.register("acme/upper", upper)
    fal.register("acme/count", count)
    fal.register("acme/slow", gated_echo(fal.gate()))
    fal.register("workflows/acme/flow", echo)
    seen = run_script(javascript, "calls.cjs", access, timeout=50, **environment(fal))
    problem = {
        "type": "string_type",
        "loc": ["body", "text"],
        "msg": "Input should be a valid string",
        "input": 5,
    }
    cancelled = {"detail": "Request cancelled by the client.", "error_type": "client_cancelled"}
    output = {"text": "HELLO"}
    waited = {"data": output, "logs": ["step 1", "step 2"], "last": "COMPLETED"}
    assert seen == {
        "run": output,
        "runId": True,
        "status": {"status": "COMPLETED", "logs": ["step 1", "step 2"]},
        "result": output,
        "sameId": True,
        "polling": waited,
        "streaming": waited,
        "events": [{"step": 0}, {"step": 1}, {"step": 2}],
        "last": {"step": 2},
        "cancelled": {
            "name": "ApiError",
            "status": 499,
            "body": cancelled,
            "hasRequestId": True,
        },
        "tooLate": {
            "name": "ApiError",
            "status": 400,
            "body": {"status": "ALREADY_COMPLETED"},
            "hasRequestId": True,
        },
        "invalid": {
            "name": "ValidationError",
            "status": 422,
            "body": {"detail": [problem]},
            "hasRequestId": True,
            "fieldErrors": [problem],
        },
        "unknown": {
            "name": "ApiError",
            "status": 404,
            "body": {"detail": 'Application "nothing" not found'},
            "hasRequestId": True,
        },
        "workflow": {"a": 1},
    }
    submitted = next(job for job in fal.jobs.values() if job.endpoint == "acme/upper")
    assert (submitted.priority, submitted.headers["x-fal-runner-hint"]) == ("low", "lora")


def test_javascript_client_uploads_files(fal: Emulator, javascript: Path) -> None:
    fal.register("acme/echo", echo)
    fal.fail(None, Fault(route="part", status=503, skip=1))
    size = 91 * 1024 * 1024  # the client uploads in parts of 10 MiB above 90 MiB
    uploaded = run_script(javascript, "uploads.cjs", timeout=50, SIZE=str(size), **environment(fal))
    stored = {name: fal.files[url] for name, url in uploaded.items()}
    lifecycle = {"expiration_duration_seconds": 3600, "initial_acl": {"default": "hide"}}
    kinds = {name: (file.content_type, file.parts) for name, file in stored.items()}
    assert kinds == {
        "named": ("text/plain", 0),
        "unnamed": ("image/png", 0),
        "large": ("application/octet-stream", 10),
        "input": ("image/png", 0),
        "proxied": ("text/plain", 0),
    }
    assert stored["named"].file_name == "a b.txt"
    assert stored["named"].lifecycle == stored["large"].lifecycle == lifecycle
    assert stored["input"].content == b"input"
    assert stored["proxied"].content == b"proxied"
    assert stored["large"].content == bytes([7]) * size
    assert fal.count("part") == 11
    assert all("authorization" not in call.headers for call in fal.requests if call.host == "cdn")
