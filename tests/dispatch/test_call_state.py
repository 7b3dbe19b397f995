"""Call state: whether a response shows that a job was started."""

from __future__ import annotations

import pytest

from fal_async import Hosts
from fal_async._dispatch.call_state import started_by
from fal_async._protocol import credentials, downloads, inference, queue
from fal_async._protocol.endpoint import parse_endpoint
from fal_async._protocol.operation import Credential, Operation
from fal_async._protocol.response import Response
from fal_async._protocol.retry import Retry

ID = {"x-fal-request-id": "abc"}
HOSTS = Hosts()
APP = parse_endpoint("acme/app")


@pytest.mark.parametrize(
    ("status", "headers", "direct", "queued"),
    [
        (200, ID, True, True),
        (401, ID, False, False),
        (403, ID, False, False),
        (429, ID, False, False),
        (429, {"x-fal-billable-units": "1"}, True, True),
        (401, {"x-fal-served-from": "runner"}, True, True),
        (422, ID, None, False),
        (422, {"x-fal-billable-units": "0"}, True, True),
        (404, ID, None, False),
        (500, ID, None, None),
        (500, {"x-fal-needs-retry": "1"}, False, False),
        (502, {}, False, False),
        (502, ID, None, None),
        (503, {}, False, False),
        (504, {"x-fal-request-timeout-type": "user"}, False, False),
        (504, {}, None, None),
    ],
)
def test_response_shows_whether_a_job_started(
    status: int, headers: dict[str, str], direct: bool | None, queued: bool | None
) -> None:
    response = Response(status_code=status, headers=headers)
    assert started_by(response, direct=True) is direct
    assert started_by(response, direct=False) is queued


@pytest.mark.parametrize(
    "operation",
    [
        inference.run(HOSTS, APP, {}),
        *(inference.run(HOSTS, APP, {}, method=method) for method in ("GET", "PUT", "DELETE")),
        inference.stream(HOSTS, APP, {}),
        queue.submit(HOSTS, APP, {}),
        queue.submit(HOSTS, APP, {}, query={"fal_max_queue_length": 1}),
        queue.status("https://queue.fal.run/x", application="acme/app", request_id="abc"),
        queue.status_stream("https://queue.fal.run/x", application="acme/app", request_id="abc"),
        queue.result("https://queue.fal.run/x", application="acme/app", request_id="abc"),
        queue.cancel("https://queue.fal.run/x", application="acme/app", request_id="abc"),
        downloads.download("https://fal.media/x", Credential.NONE, start=0, etag=None),
        credentials.cdn_token(HOSTS, now=lambda: 0.0),
    ],
    ids=lambda operation: f"{operation.name}-{operation.request.method}",
)
def test_harmless_operations_may_be_retried(operation: Operation[object]) -> None:
    harmless = {Retry.IDEMPOTENT, Retry.RESULT, Retry.FAILED_RESULT}
    assert operation.is_billable == (operation.name in {"run", "stream", "submit"})
    if operation.is_billable:
        assert operation.retry not in harmless
