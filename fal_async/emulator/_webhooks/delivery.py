"""Delivery of webhooks: attempts, backoff, and the end of both."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import re
import ssl
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import quote, urlsplit

from fal_async.emulator._recorder import RecordedRequest
from fal_async.emulator._tasks import cancel_tasks
from fal_async.emulator._webhooks.encoding import encode_response
from fal_async.emulator._webhooks.signing import SignedWebhook

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fal_async.emulator._faults import Fault, Faults
    from fal_async.emulator._jobs import Job, Jobs
    from fal_async.emulator._recorder import Recorder
    from fal_async.emulator._registry import Endpoint
    from fal_async.emulator._settings import Settings
    from fal_async.emulator._webhooks.signing import WebhookSigner

__all__ = ["WebhookAttempt", "WebhookDelivery"]

logger = logging.getLogger("fal_async.emulator")

_MAX_ATTEMPTS: Final = 31
#: Seconds before the first retry, and the most before a later one: 31 attempts take an hour.
_BACKOFF: Final = 1.0
_MAX_BACKOFF: Final = 150.0
_CANCELLED: Final = 499
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})\b")
#: The characters of a URL that are sent as they are.
_URL_CHARACTERS: Final = "%/:?#[]@!$&'()*+,;=~"
#: How many deliveries are kept for inspection.
_MAX_DELIVERIES: Final = 10_000
#: The context of all connections: it takes 20 ms to make one.
_default_tls_context = cache(ssl.create_default_context)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookAttempt:
    """One request that was sent to a webhook.

    Attributes:
        headers: The headers, the signature included.
        body: The body.
        status: The HTTP status of the receiver's response. ``None`` without a response.
        error: The reason for which there is no response. ``None`` with a response.
    """

    headers: Mapping[str, str]
    body: bytes
    status: int | None
    error: str | None = None


@dataclass(slots=True, kw_only=True)
class WebhookDelivery:
    """The delivery of one job to its webhook. Tests find it in `Emulator.webhooks`.

    Attributes:
        request_id: The id of the job.
        url: The URL of the webhook.
        state: ``"pending"`` until the job has completed and while attempts continue;
            ``"delivered"`` after a response with a status from 200 to 299; ``"failed"`` after a
            redirect, after 31 attempts, or when the result has expired; ``"dropped"`` if nothing is
            ever sent.
        reason: The reason of a failed or dropped delivery. ``None`` otherwise.
        attempts: The requests that were sent, oldest first.
    """

    request_id: str
    url: str
    state: Literal["pending", "delivered", "failed", "dropped"] = "pending"
    reason: str | None = None
    attempts: list[WebhookAttempt] = field(default_factory=list[WebhookAttempt])


class WebhookSender:
    """Delivers the results of jobs to their webhooks.

    Args:
        settings: The speed, the timeouts, and which jobs and targets are delivered.
        signer: Signs each attempt.
        jobs: The jobs, to see whether a result has expired.
        faults: The scripted faults.
        recorder: Notified of every change.
    """

    def __init__(
        self,
        settings: Settings,
        signer: WebhookSigner,
        jobs: Jobs,
        faults: Faults,
        recorder: Recorder,
    ) -> None:
        self._settings = settings
        self._signer = signer
        self._jobs = jobs
        self._faults = faults
        self._recorder = recorder
        self._deliveries: OrderedDict[str, WebhookDelivery] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, job: Job, endpoint: Endpoint, url: str) -> None:
        """Deliver a job once it has completed."""
        delivery = WebhookDelivery(request_id=job.request_id, url=url)
        self._deliveries[job.request_id] = delivery
        if len(self._deliveries) > _MAX_DELIVERIES:
            self._deliveries.popitem(last=False)
        task = asyncio.get_running_loop().create_task(self._deliver(delivery, job, endpoint))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def snapshot(self) -> dict[str, WebhookDelivery]:
        """Return the deliveries by request id, oldest first."""
        return dict(self._deliveries)

    def clear(self) -> None:
        """Remove all deliveries."""
        self._deliveries.clear()

    async def cancel(self) -> None:
        """Stop to deliver."""
        await cancel_tasks(lambda: {task for task in self._tasks if not task.done()})

    async def _deliver(self, delivery: WebhookDelivery, job: Job, endpoint: Endpoint) -> None:
        """Wait until a job has completed, and deliver it."""
        while job.response is None:
            await job._wait_for_change()
        try:
            if job.response.status == _CANCELLED and not self._settings.cancelled_webhooks:
                delivery.state, delivery.reason = "dropped", "the job was cancelled"
            else:
                body = encode_response(job.request_id, job.gateway_request_id, job.response)
                await self._send_until_final(delivery, job, endpoint, body)
        except ImportError as error:
            delivery.state, delivery.reason = "failed", str(error)
            logger.error("Cannot deliver the webhook of %s: %s", job.request_id, error)  # noqa: TRY400 - the message says it all
        finally:
            self._recorder.notify()

    async def _send_until_final(
        self, delivery: WebhookDelivery, job: Job, endpoint: Endpoint, body: bytes
    ) -> None:
        backoff = _BACKOFF
        for number in range(_MAX_ATTEMPTS):
            if number > 0:
                await asyncio.sleep(backoff / self._settings.speed)
                backoff = min(backoff * 2, _MAX_BACKOFF)
            if self._jobs.get(job.request_id) is None:
                delivery.state, delivery.reason = "failed", "the result has expired"
                return
            if not self._settings.private_webhooks and await _is_private(delivery.url):
                delivery.state, delivery.reason = "dropped", "the host has a private address"
                return
            timeout = self._settings.webhook_timeouts[number > 0]
            attempts = await self._attempt(delivery.url, job, endpoint, body, timeout)
            delivery.attempts += attempts
            statuses = [attempt.status or 0 for attempt in attempts]
            if any(200 <= status < 300 for status in statuses):
                delivery.state = "delivered"
                return
            if any(300 <= status < 400 for status in statuses):
                delivery.state, delivery.reason = "failed", "redirects are not followed"
                return
            self._recorder.notify()
        delivery.state, delivery.reason = "failed", f"{_MAX_ATTEMPTS} attempts failed"

    async def _attempt(
        self, url: str, job: Job, endpoint: Endpoint, body: bytes, timeout: float
    ) -> list[WebhookAttempt]:
        """Sign and send a webhook once; with a fault, perhaps never or twice."""
        parts = urlsplit(url)
        request = RecordedRequest(
            route="webhook",
            endpoint=job.endpoint,
            method="POST",
            host=parts.netloc,
            path=parts.path,
            query=parts.query,
            headers={},
            body=body,
            request_id=job.request_id,
        )
        fault = self._faults.match(request, (endpoint.id, job.endpoint))
        if fault is not None:
            await fault._wait()
        signed = self._signer.sign(
            body,
            request_id=job.request_id,
            user_id=job.user_id,
            timestamp=int(time.time()),
        )
        if fault is None:
            return [await _post(url, signed, timeout)]
        signed = _modify(signed, fault)
        if fault.status is not None:
            return [_make_attempt(signed, fault.status)]
        if fault._closes or fault.cut is not None or fault.raw_bytes is not None:
            return [_make_attempt(signed, None, "the request was lost")]
        copies = 2 if fault.duplicate else 1
        attempts = await asyncio.gather(*(_post(url, signed, timeout) for _ in range(copies)))
        if fault.drop_response:
            return [_make_attempt(signed, None, "the response was lost") for _ in attempts]
        return attempts


def _make_attempt(
    signed: SignedWebhook, status: int | None, error: str | None = None
) -> WebhookAttempt:
    return WebhookAttempt(headers=signed.headers, body=signed.body, status=status, error=error)


def _modify(signed: SignedWebhook, fault: Fault) -> SignedWebhook:
    """Return a signed webhook with the headers and the body that a fault gives it."""
    body = signed.body
    if fault.transform is not None:
        body = json.dumps(fault.transform(json.loads(body)), sort_keys=True).encode()
    replaced = {name.lower(): value for name, value in fault.headers.items()}
    headers = {
        name: value for name, value in signed.headers.items() if name.lower() not in replaced
    }
    headers |= {name: value for name, value in fault.headers.items() if value is not None}
    return SignedWebhook(headers, body)


async def _post(url: str, signed: SignedWebhook, timeout: float) -> WebhookAttempt:
    """Send a webhook on a connection of its own, and return the status of the response.

    A client of httpx would need several times as much CPU for each of thousands of webhooks.
    """
    parts = urlsplit(url)
    is_tls = parts.scheme == "https"
    target = quote(parts.path or "/", safe=_URL_CHARACTERS)
    if parts.query:
        target += f"?{quote(parts.query, safe=_URL_CHARACTERS)}"
    headers = {
        "Host": parts.netloc.rpartition("@")[2],
        **signed.headers,
        "Content-Length": len(signed.body),
        "Connection": "close",
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    message = f"POST {target} HTTP/1.1\r\n{head}\r\n".encode() + signed.body
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(
                parts.hostname,
                parts.port or (443 if is_tls else 80),
                ssl=_default_tls_context() if is_tls else None,
            )
            try:
                writer.write(message)
                # A receiver may respond, and close, before it has read everything.
                response = await reader.readuntil(b"\r\n\r\n")
            finally:
                writer.close()
    except TimeoutError:
        return _make_attempt(signed, None, f"no response within {timeout:g} seconds")
    except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
        return _make_attempt(signed, None, str(error) or type(error).__name__)
    if (status_line := _STATUS_LINE.match(response)) is None:
        return _make_attempt(signed, None, "the response is not HTTP")
    return _make_attempt(signed, int(status_line[1]))


async def _is_private(url: str) -> bool:
    """Return whether the host of a URL has an address that is not on the internet."""
    try:
        host = urlsplit(url).hostname or ""
        found = await asyncio.get_running_loop().getaddrinfo(host, None)
    except OSError:
        return False  # the attempt fails by itself, and is retried
    return any(not ipaddress.ip_address(address[4][0]).is_global for address in found)
