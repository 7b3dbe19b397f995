"""Bodies of webhooks, byte for byte as the platform writes them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from fal_async.emulator._json import decode

if TYPE_CHECKING:
    from fal_async.emulator._responses import Response

_NOT_SERIALIZABLE = (
    "Response payload is not JSON serializable. Either return a JSON serializable object or use "
    "the queue endpoint to retrieve the response."
)


def encode_result(request_id: str, gateway_request_id: str, payload: object) -> bytes:
    """Return the body for an output.

    Args:
        request_id: The request id.
        gateway_request_id: The id of the last run.
        payload: The output. One that has no JSON form is replaced by a note of that.
    """
    ids = {"request_id": request_id, "gateway_request_id": gateway_request_id}
    try:
        return _encode({**ids, "status": "OK", "error": None, "payload": payload})
    except (TypeError, ValueError):
        return encode_payload_error(request_id, gateway_request_id)


def encode_error(request_id: str, gateway_request_id: str, error: str, payload: object) -> bytes:
    """Return the body for a failed job.

    Args:
        request_id: The request id.
        gateway_request_id: The id of the last run.
        error: The error text.
        payload: The decoded body of the error response.
    """
    ids = {"request_id": request_id, "gateway_request_id": gateway_request_id}
    return _encode({**ids, "status": "ERROR", "error": error, "payload": payload})


def encode_payload_error(request_id: str, gateway_request_id: str) -> bytes:
    """Return the body for an output that has no JSON form."""
    # The only body whose keys are not sorted, in the documentation of the platform.
    body = {
        "request_id": request_id,
        "gateway_request_id": gateway_request_id,
        "status": "OK",
        "payload": None,
        "payload_error": _NOT_SERIALIZABLE,
    }
    return json.dumps(body).encode()


def encode_response(request_id: str, gateway_request_id: str, response: Response) -> bytes:
    """Return the body for the response of a completed job."""
    try:
        payload: object = decode(response.body)
    except ValueError:
        if response.status < 400:
            return encode_payload_error(request_id, gateway_request_id)
        payload = None
    if response.status < 400:
        return encode_result(request_id, gateway_request_id, payload)
    error = f"Invalid status code: {response.status}"
    return encode_error(request_id, gateway_request_id, error, payload)


def _encode(body: dict[str, object]) -> bytes:
    return json.dumps(body, sort_keys=True, allow_nan=False).encode()
