"""The queue as it is seen on the wire."""

from __future__ import annotations

from typing import Any

import httpx

from fal_async.emulator import Emulator


def test_a_job_goes_through_submit_status_and_result() -> None:
    with Emulator() as fal:

        @fal.endpoint("acme/upper")
        def upper(arguments: dict[str, Any]) -> dict[str, Any]:
            return {"text": arguments["text"].upper()}

        headers = {"Authorization": f"Key {fal.key}"}
        with httpx.Client(base_url=fal.url, headers=headers) as http:
            submitted = http.post("/queue/acme/upper", json={"text": "hello"}).json()
            fal.wait_for(lambda: fal.counters("acme/upper").completed == 1)
            assert http.get(submitted["status_url"]).json()["status"] == "COMPLETED"
            assert http.get(submitted["response_url"]).json() == {"text": "HELLO"}
