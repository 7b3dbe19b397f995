"""`WebhookEvent`: the outcome of a job, as a callback brings it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, cast

from fal_async._client.handle import Bound, SupportsAttach, check_client
from fal_async._client.result import (
    Result,
    check_output_type,
    finalize_output,
    make_result,
)
from fal_async._core.annotations import set_module
from fal_async._core.checks import describe, explain
from fal_async._protocol.error_mapping import exception_from_response
from fal_async._protocol.response import Output, Response, read_id
from fal_async._protocol.serialization import decode_json, encode_json, object_or_empty
from fal_async.errors import InvalidRequestError, InvalidResponseError, InvalidWebhookEventError

if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    T = TypeVarWithDefault("T", default=Result)
else:
    T = TypeVar("T")

__all__ = ["WebhookEvent"]

HandleT = TypeVar("HandleT")
#: The status of the job's response, in the error text of a callback.
_STATUS: Final = re.compile(r"\bstatus code:? ([45][0-9]{2})\b", re.IGNORECASE)


@set_module("fal_async.webhooks")
@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookEvent(Bound):
    """The outcome of a job, which the platform has sent to the webhook of the job.

    An event is plain data: store `raw` anywhere, and continue with `WebhookEvent.parse`.

    Attributes:
        request_id: The id of the job, which its handle has too.
        gateway_request_id: The id of the job's last attempt; ``None`` if the platform did not send
            it. It differs from `request_id` after a retry by the platform.
        ok: Whether the job succeeded.
        payload: The output of the job, or the error body of a job that failed.
        error: The error text of a job that failed, such as ``"Invalid status code: 422"``.
        payload_error: The reason why the output of a job that succeeded could not be sent, usually
            ``None``. The payload is ``None`` then, and the output can be fetched from the queue.
        user_id: The account that the callback was signed for; ``None`` for an event that was
            parsed without its headers.
        raw: The body as it was received.
        query: The query of the URL that the callback was sent to, such as ``"order=7"``. It is not
            signed. Empty for an event that was parsed without it.

    Example:
        >>> body = b'{"request_id": "764cabcf", "status": "OK", "payload": {"seed": 7}}'
        >>> event = WebhookEvent.parse(body)
        >>> event.request_id, event.result()
        ('764cabcf', {'seed': 7})
    """

    request_id: str
    gateway_request_id: str | None
    ok: bool
    payload: Any
    error: str | None
    payload_error: str | None
    user_id: str | None = None
    raw: bytes = field(default=b"", repr=False)
    query: str = ""

    @classmethod
    def parse(cls, raw: bytes | str, *, user_id: str | None = None, query: str = "") -> Self:
        """Parse a body that was verified before. Nothing is verified here.

        Args:
            raw: The body as it was received.
            user_id: The account that the callback was signed for.
            query: The query of the URL that the callback was sent to.

        Raises:
            InvalidRequestError: `raw` is neither bytes nor text.
            InvalidWebhookEventError: The body is not JSON, or has no request id, or a status that
                the library does not know.
        """
        # Text comes from a text column of a database.
        source = cast("object", raw.encode() if isinstance(raw, str) else raw)
        if not isinstance(source, bytes):
            raise InvalidRequestError(f"raw must be the bytes of the body, got {describe(source)}")
        raw = source
        try:
            value: object = decode_json(raw)
        except ValueError as invalid:
            raise InvalidWebhookEventError(
                f"the callback must be JSON, got {raw[:100]!r}: {explain(invalid)}", raw
            ) from invalid
        body = object_or_empty(value)
        request_id, status = read_id(body.get("request_id")), body.get("status")
        if request_id is None:
            raise InvalidWebhookEventError(
                f"the callback must have a request id, got {raw[:100]!r}", raw
            )
        if status not in ("OK", "ERROR"):
            raise InvalidWebhookEventError(
                f"the callback must have the status 'OK' or 'ERROR', got {status!r}", raw
            )
        error, payload_error = body.get("error"), body.get("payload_error")
        return cls(
            request_id=request_id,
            gateway_request_id=read_id(body.get("gateway_request_id")),
            ok=status == "OK",
            payload=body.get("payload"),
            error=error if isinstance(error, str) else None,
            payload_error=payload_error if isinstance(payload_error, str) else None,
            user_id=user_id,
            query=query,
            raw=raw,
        )

    def result(self, output: type[T] | None = None) -> T:
        """Return the output of the job, or raise its error, like `AsyncRequestHandle.get`.

        The files of the output are downloaded by the client of the `Webhooks`, or by the
        module-level client if it has none.

        Args:
            output: A pydantic model, or any type that pydantic can validate; the output is
                validated against it. ``None`` returns a `Result`, or the plain value of an
                output that is not a JSON object.

        Raises:
            FalClientHTTPError: The job failed. The subclass is the kind of the error.
            InvalidResponseError: The output does not have the type `output`, or could not be sent.
        """
        check_output_type(output)
        if not self.ok:
            # The error that the result call would raise.
            fields = object_or_empty(self.payload)
            found = _STATUS.search(self.error or "")
            # A list of problems is about the input.
            guess = 422 if isinstance(fields.get("detail"), list) else 500
            body = encode_json(self.payload or {"detail": self.error or ""})
            failure = exception_from_response(
                Response(status_code=int(found[1]) if found else guess, body=body),
                request_id=self.request_id,
            )
            failure.stage, failure.started = "job", True
            raise failure
        if self.payload_error is not None:
            error = InvalidResponseError(
                f"the callback has no output: {self.payload_error}; fetch it from the queue",
                request_id=self.request_id,
            )
            error.stage, error.started = "result", True
            raise error
        value = make_result(Output(value=self.payload), request_id=self.request_id)
        return finalize_output(value, output, getattr(self, "_dispatcher", None))

    def handle(self, client: SupportsAttach[HandleT], application: str) -> HandleT:
        """Return the handle of the job.

        Args:
            client: The client of the handle.
            application: The endpoint id of the job, which callbacks do not contain.

        Raises:
            InvalidRequestError: The endpoint id is invalid, or the client is not of this library.
        """
        check_client(client)
        return client.attach({"application": application, "request_id": self.request_id})
