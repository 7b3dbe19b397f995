"""The names of spans, attributes and metrics.

GenAI names come from the semantic conventions of OpenTelemetry for generative AI, which are still
in development, so they are constants of this package. The others begin with ``fal.``.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "ATTEMPTS",
    "BILLABLE_UNITS",
    "BYTES_RECEIVED",
    "BYTES_SENT",
    "CALL",
    "DIRECTION",
    "ERROR_TYPE",
    "EVENTS",
    "FILE_SIZE",
    "LIMIT",
    "METHOD",
    "MODEL",
    "OPERATION",
    "OPERATIONS",
    "OUTCOME",
    "PORT",
    "PROVIDER",
    "PROVIDER_NAME",
    "QUEUE_POSITION",
    "QUEUE_SECONDS",
    "REQUEST_ID",
    "RESEND_COUNT",
    "RESPONSE_ID",
    "RETRIES",
    "RUN_SECONDS",
    "SERVER",
    "SLOT_SECONDS",
    "STATUS_CODE",
    "STREAM",
    "TIME_TO_FIRST_CHUNK",
]

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
MODEL: Final = "gen_ai.request.model"
STREAM: Final = "gen_ai.request.stream"
RESPONSE_ID: Final = "gen_ai.response.id"
TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
ERROR_TYPE: Final = "error.type"
SERVER: Final = "server.address"
PORT: Final = "server.port"
METHOD: Final = "http.request.method"
STATUS_CODE: Final = "http.response.status_code"
RESEND_COUNT: Final = "http.request.resend_count"

CALL: Final = "fal.call"
OUTCOME: Final = "fal.outcome"
REQUEST_ID: Final = "fal.request_id"
ATTEMPTS: Final = "fal.attempts"
RETRIES: Final = "fal.retries"
EVENTS: Final = "fal.events"
BYTES_SENT: Final = "fal.bytes_sent"
BYTES_RECEIVED: Final = "fal.bytes_received"
BILLABLE_UNITS: Final = "fal.billable_units"
LIMIT: Final = "fal.limit"
SLOT_SECONDS: Final = "fal.slot.seconds"
QUEUE_SECONDS: Final = "fal.queue.seconds"
QUEUE_POSITION: Final = "fal.queue.position"
RUN_SECONDS: Final = "fal.run.seconds"
FILE_SIZE: Final = "fal.file.size"
DIRECTION: Final = "fal.direction"

PROVIDER_NAME: Final = "fal_ai"
#: The operations of calls that start or fetch inference; others have the name of the call.
OPERATIONS: Final = {
    "run": "generate_content",
    "stream": "generate_content",
    "subscribe": "generate_content",
    "submit": "generate_content",
    "get": "fetch_response",
    "result": "fetch_response",
}
