"""`FalProxy`: the ASGI app that forwards requests of web pages."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from fal_async._client.client import AsyncClient
from fal_async._config import MIB
from fal_async._core.annotations import set_module
from fal_async._core.checks import (
    check_callback,
    check_flag,
    check_instance,
    check_number,
    check_sequence,
    describe,
    whole_number,
)
from fal_async._core.secrets import Secret
from fal_async._protocol import queue
from fal_async._protocol.endpoint import parse_endpoint
from fal_async._protocol.operation import (
    JSON_HEADERS,
    MAX_OUTPUT,
    Credential,
    Lane,
    Operation,
    Request,
)
from fal_async._protocol.options import merge_headers
from fal_async._protocol.queue import parse_submission
from fal_async._protocol.retry import Retry
from fal_async._protocol.serialization import decode_json, encode_json
from fal_async._version import __version__
from fal_async.errors import FalClientError, InvalidRequestError
from fal_async.proxy._disconnect import watch_disconnect
from fal_async.proxy._policy import PolicyViolation, ProxyPolicy
from fal_async.proxy._request import (
    FORWARDED,
    Authorize,
    DisconnectedError,
    ProxyRequest,
    Rejection,
    RequestBody,
    check_forwarded,
    forwarded_headers,
    identify,
    read_headers,
)
from fal_async.proxy._responses import (
    EXPOSED,
    rejection_from_error,
    send_body,
    send_head,
    send_rejection,
    stream_response,
)
from fal_async.stores import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping, Sequence

    from fal_async._client.handle import AsyncRequestHandle
    from fal_async._http.response import StreamedResponse
    from fal_async._protocol.response import Response
    from fal_async.proxy._policy import Target
    from fal_async.stores import Store

    Scope: TypeAlias = MutableMapping[str, Any]
    Message: TypeAlias = MutableMapping[str, Any]
    Receive: TypeAlias = Callable[[], Awaitable[Message]]
    Send: TypeAlias = Callable[[Message], Awaitable[None]]

__all__ = ["FalProxy"]

_log = logging.getLogger("fal_async")

#: Actions whose responses may be large or endless, and are forwarded as they arrive.
_STREAMED: Final = {"run": Lane.HELD, "result": Lane.HELD, "status_stream": Lane.WATCH}
_PROXY_NAME: Final = f"fal-async/{__version__}"
#: The prefix of the keys of owners in a store.
_KEY: Final = "fal-proxy-job:"
_NOT_FOUND: Final = {"status": "NOT_FOUND"}


@dataclass(frozen=True, slots=True)
class OwnedJob:
    """A job and its owner.

    Attributes:
        user: The id of the user.
        endpoint: The endpoint id, with its path.
    """

    user: str
    endpoint: str


class JobOwners:
    """The owners of jobs, in a store.

    Args:
        store: The store.
        lifetime: The time for which owners are kept, in seconds.
    """

    def __init__(self, store: Store, lifetime: float) -> None:
        self._store = store
        self._lifetime = lifetime

    async def add(self, request_id: str, job: OwnedJob) -> None:
        """Add a job. A job that has an owner keeps it."""
        value = encode_json([job.user, job.endpoint]).decode()
        await self._store.add(_KEY + request_id, value, expires_in=self._lifetime)

    async def get(self, request_id: str, user: str, app: str) -> OwnedJob | None:
        """Return a job of a user and an app; ``None`` if there is none, or it is too old."""
        value = await self._store.get(_KEY + request_id)
        if value is None:
            return None
        job = OwnedJob(*decode_json(value))
        is_theirs = job.user == user and parse_endpoint(job.endpoint).app == app
        return job if is_theirs else None


@set_module("fal_async.proxy")
class FalProxy:
    """An ASGI app that forwards requests of web pages to the platform, with the key of a client.

    It is the server for the ``proxyUrl`` of the official JavaScript client. Add it to the routes of
    Starlette or FastAPI, or serve it alone. It forwards requests for the listed endpoints, by
    visitors that the hook accepts, for jobs that the same user has started, and refuses all others.
    Cookies, credentials and unknown headers of visitors are never forwarded.

    Args:
        client: Sends the requests, within its limits; give a busy proxy a client of its own. It
            must be closed by its owner.
        allow: The endpoints, such as ``"fal-ai/flux/dev"``. In a pattern, ``*`` stands for any
            characters within a segment, and a segment ``**`` for any number of segments. The
            streams of an endpoint are included.
        authorize: A function (sync or async) that gets each request that the list allows, as a
            `ProxyRequest`. It returns the id of the user, or a `Refusal`; ``None`` refuses with
            401. It may change arguments and headers. If the argument itself is ``None``, everybody
            may send requests, and all visitors are the same user.
        allow_uploads: Whether visitors may upload files to the account.
        allow_realtime: Whether visitors may request tokens for sessions with the listed endpoints.
            A session does not use the proxy. A token for an alias, which the official client
            requests by default, is valid for all paths of that app.
        token_lifetime: The maximum lifetime of a token, in seconds.
        store: Keeps the owners of jobs; ``None`` uses a `MemoryStore`. Several processes need a
            store that they share, such as a `SQLiteStore`.
        job_lifetime: The time for which a user can access a job, in seconds.
        max_body: The maximum size of the body of a request, in bytes.
        forward_headers: The headers of visitors to forward; ``None`` for priority, runner hint and
            start timeout.
        allow_origins: The origins of pages on other sites, such as ``"https://app.example"``, which
            may send requests; ``"*"`` allows all, without cookies. By default, only pages of the
            same site may.

    Raises:
        InvalidRequestError: An argument is invalid; the list of endpoints, for example, is empty.

    Example:
        >>> from fal_async.proxy import FalProxy, ProxyRequest, Refusal
        >>> def authorize(request: ProxyRequest) -> str | Refusal:
        ...     user = request.scope.get("state", {}).get("user")
        ...     return user or Refusal(401)
        >>> client = fal_async.AsyncClient()
        >>> proxy = FalProxy(client, allow=["fal-ai/flux/dev", "acme/*"], authorize=authorize)
        >>> from starlette.applications import Starlette
        >>> from starlette.routing import Route
        >>> app = Starlette(routes=[Route("/api/fal/proxy", proxy)])
    """

    def __init__(
        self,
        client: AsyncClient,
        *,
        allow: Sequence[str],
        authorize: Authorize | None,
        allow_uploads: bool = False,
        allow_realtime: bool = False,
        token_lifetime: int = 120,
        store: Store | None = None,
        job_lifetime: float = 7 * 86400.0,
        max_body: int = 32 * MIB,
        forward_headers: Sequence[str] | None = None,
        allow_origins: Sequence[str] = (),
    ) -> None:
        self._client = check_instance("client", client, AsyncClient)
        check_callback("authorize", authorize)
        self._authorize = authorize
        self._policy = ProxyPolicy(
            client._dispatcher.hosts,
            allow,
            allow_uploads=check_flag("allow_uploads", allow_uploads),
            allow_realtime=check_flag("allow_realtime", allow_realtime),
            token_lifetime=whole_number("token_lifetime", token_lifetime),
        )
        lifetime = check_number("job_lifetime", job_lifetime, unit=" of seconds")
        self._owners = JobOwners(MemoryStore() if store is None else store, lifetime)
        self._max_body = whole_number("max_body", max_body)
        names = FORWARDED if forward_headers is None else forward_headers
        self._forwarded = check_forwarded(names)
        check_sequence("allow_origins", allow_origins)
        self._handler = self._handle
        if allow_origins:
            # Late: starlette is a dependency of the extra, and only this needs it.
            from starlette.middleware.cors import CORSMiddleware

            self._handler = CORSMiddleware(
                self._handle,
                allow_origins=allow_origins,
                allow_methods=("GET", "POST", "PUT"),
                allow_headers=("*",),
                allow_credentials="*" not in allow_origins,
                expose_headers=EXPOSED,
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._client!r})"

    async def assign(self, handle: AsyncRequestHandle, user: str) -> None:
        """Let a user access a job that the service itself has submitted.

        Args:
            handle: The handle of the job. Its endpoint must be listed.
            user: The id of the user, as the hook returns it.

        Example:
            >>> async def main(proxy: fal_async.proxy.FalProxy) -> None:
            ...     handle = await fal_async.submit("demo/echo", {"prompt": "a cat"})
            ...     await proxy.assign(handle, "alice")
        """
        await self._owners.add(handle.request_id, OwnedJob(user, handle.application))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request of ASGI."""
        match scope["type"]:
            case "http":
                await self._handler(scope, receive, send)
            case "websocket":
                await receive()
                await send({"type": "websocket.close", "code": 1008})
            case "lifespan":
                for _ in range(2):
                    message = await receive()
                    await send({"type": f"{message['type']}.complete"})
            case other:
                raise InvalidRequestError(f"the scope must be http, got {describe(other)}")

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            headers = read_headers(scope)
            target = self._policy.check(scope["method"], headers.get("x-fal-target-url", ""))
            size = headers.get("content-length", "")
            declared = int(size) if size.isascii() and size.isdigit() else None
            body = RequestBody(receive, declared, self._max_body)
            forwarded = forwarded_headers(headers, self._forwarded)
            request = ProxyRequest(scope, target, headers, forwarded, body)
            async with watch_disconnect(body.receive):
                await self._forward(request, target, body, send)
        except PolicyViolation as violation:
            _log.info("Refused a request of a visitor: %s", violation)
            await send_rejection(send, Rejection(400, "Invalid request"))
        except Rejection as rejection:
            await send_rejection(send, rejection)
        except DisconnectedError:
            pass

    async def _forward(
        self, request: ProxyRequest, target: Target, body: RequestBody, send: Send
    ) -> None:
        user = await identify(request, self._authorize)
        if target.request_id is not None:
            job = await self._owners.get(target.request_id, user, target.endpoint)
            if job is None or not self._policy.endpoints.match(job.endpoint):
                raise Rejection(404, _NOT_FOUND)  # as if it did not exist
        if target.action == "token":
            request.replace_arguments(self._policy.limit_token(await request.arguments()))
        headers: dict[str, Any] = {
            **merge_headers(JSON_HEADERS, request.forwarded, {"x-fal-client-proxy": _PROXY_NAME})
        }
        is_authorized = "authorization" in headers  # by the hook
        if is_authorized:
            headers["authorization"] = Secret(headers["authorization"])
        operation: Operation[Response] = Operation(
            name="watch" if target.action == "status_stream" else target.action,
            application=target.endpoint or target.action,
            request=Request(request.method, target.url, headers, await request._content()),
            parse=lambda response: response,
            retry=Retry.IF_NOT_SENT,  # the official client retries by the status
            lane=_STREAMED.get(target.action, Lane.CONTROL),
            request_id=target.request_id,
            is_billable=target.action in {"run", "submit"},
            credential=Credential.NONE if is_authorized else Credential.KEY,
            max_body=MAX_OUTPUT,
        )
        try:
            if target.action in _STREAMED:
                await self._stream(operation, body, send)
            elif target.action == "submit":
                await self._submit(operation, user, send)
            else:
                response = await self._client._dispatcher.execute(operation)
                await send_head(send, response)
                await send_body(send, response)
        except FalClientError as error:
            if (rejection := rejection_from_error(error)) is None:
                raise
            raise rejection from error

    async def _submit(self, operation: Operation[Response], user: str, send: Send) -> None:
        """Submit a job and keep its owner. It is cancelled if the visitor cannot receive its id."""
        dispatcher = self._client._dispatcher

        async def cancel(response: Response) -> None:
            if not response.ok:
                return
            endpoint = parse_endpoint(operation.application)
            handle = self._client._bind(endpoint, parse_submission(response))
            cancellation = queue.cancel(
                handle.cancel_url, application=operation.application, request_id=handle.request_id
            )
            # With the key that the job was submitted with, perhaps that of a tenant.
            headers = {**operation.request.headers, **cancellation.request.headers}
            request = replace(cancellation.request, headers=headers)
            cancellation = replace(cancellation, request=request, credential=operation.credential)
            canceller = dispatcher.resources.cancellers.get()
            pending = canceller.cancel(handle.request_id, partial(dispatcher.execute, cancellation))
            await canceller.wait(pending)

        response = await dispatcher.execute(operation, on_abandoned=cancel)
        try:
            if response.ok:
                job = OwnedJob(user, operation.application)
                await self._owners.add(parse_submission(response).request_id, job)
            await send_head(send, response)
        except BaseException:
            await cancel(response)
            raise
        await send_body(send, response)

    async def _stream(self, operation: Operation[Response], body: RequestBody, send: Send) -> None:
        """Forward a response as it arrives, no faster than the visitor receives it."""
        response: StreamedResponse | None = None

        async def receive(streamed: StreamedResponse) -> Response:
            nonlocal response
            response = streamed
            body.stop()
            return streamed.head

        try:
            await self._client._dispatcher.execute(operation, receive=receive)
            await stream_response(send, cast("StreamedResponse", response))
        finally:
            if response is not None:
                await response.aclose()
