"""`Webhooks`: verify the callbacks of the platform."""

from __future__ import annotations

import importlib.util
import logging
import os
import time
from collections.abc import Collection
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import anyio

from fal_async._core.annotations import set_module
from fal_async._core.checks import check_instance, check_number, describe, whole_number
from fal_async._core.secrets import Variables
from fal_async._dispatch.binding import load_default_dispatcher
from fal_async._net.event_loops import PerLoop
from fal_async._net.threads import decode
from fal_async._protocol.account import account
from fal_async._protocol.origins import origin_of
from fal_async.errors import (
    FalClientError,
    ForeignWebhookError,
    InvalidRequestError,
    InvalidWebhookSignatureError,
    UnverifiedWebhookError,
    WebhookError,
)
from fal_async.webhooks._asgi import DETAILS, read_body, status_code
from fal_async.webhooks._event import WebhookEvent
from fal_async.webhooks._keys import KeySet
from fal_async.webhooks._signature import (
    Headers,
    SignedHeaders,
    check_age,
    raw_body,
    read_headers,
    signed_message,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from fal_async._client.client import AsyncClient
    from fal_async._dispatch.dispatcher import Dispatcher

__all__ = ["ANY_ACCOUNT", "AnyAccount", "Webhooks"]

_log = logging.getLogger("fal_async")

#: The default of the largest body, in bytes: outputs may contain files.
MAX_BODY: Final = 32 * 1024 * 1024
_LOCAL: Final = ("http://localhost", "http://127.0.0.1", "http://[::1]")


class AnyAccount(Enum):
    """The type of `ANY_ACCOUNT`."""

    ANY_ACCOUNT = auto()

    def __repr__(self) -> str:
        return "ANY_ACCOUNT"


#: The `user_id` of `Webhooks` that accept callbacks of all accounts.
ANY_ACCOUNT: Final = AnyAccount.ANY_ACCOUNT


@set_module("fal_async.webhooks")
class Webhooks:
    """Verifies the callbacks of the platform.

    The platform signs the callbacks for all accounts with the same keys. So the signature alone
    does not show that a callback is yours, and the account that it is signed for is compared.

    The keys are fetched on first use, over https and without redirects. They are used for 24 hours
    at most, and fetched again when a signature fits none of them, at most once a minute.

    Args:
        client: The client that fetches the keys and the account, and downloads files of outputs;
            ``None`` uses the module-level client.
        user_id: The id of the account whose callbacks are accepted, or several ids. ``None`` uses
            ``FAL_WEBHOOK_USER_ID``, or else asks the platform once for the account of the client's
            key. `ANY_ACCOUNT` accepts callbacks that other accounts can send; compare
            `WebhookEvent.user_id` yourself.
        tolerance: The largest difference between the time of the signature and this clock, in
            seconds.
        jwks_url: The URL of the keys; ``None`` uses that of the client's hosts.
        max_body: The size of the largest body that a `WebhookReceiver` and `event` accept, in
            bytes.
        clock: Returns the Unix time in seconds.

    Attributes:
        max_body: The size of the largest body, in bytes.

    Raises:
        InvalidRequestError: An argument is invalid, such as a URL without https.
        ImportError: The extra ``webhooks`` is not installed.

    Example:
        >>> webhooks = fal_async.webhooks.Webhooks(user_id="user_2abc")
        >>> async def receive(body: bytes, headers: dict[str, str]) -> None:
        ...     event = await webhooks.unwrap(body, headers)
        ...     print(event.request_id, event.result())
    """

    def __init__(
        self,
        client: AsyncClient | None = None,
        *,
        user_id: str | Collection[str] | AnyAccount | None = None,
        tolerance: float = 300.0,
        jwks_url: str | None = None,
        max_body: int = MAX_BODY,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if importlib.util.find_spec("cryptography") is None:  # imported on first use
            raise ImportError('webhooks require cryptography: pip install "fal-async[webhooks]"')
        if client is not None and not hasattr(client, "_dispatcher"):
            raise InvalidRequestError(
                f"client must be an AsyncClient or None, got {describe(client)}"
            )
        self._client = client
        self._accounts = _check_accounts(user_id)
        self._lock = PerLoop(anyio.Lock)
        self._tolerance = check_number("tolerance", tolerance, zero=True, unit=" of seconds")
        self.max_body: int = whole_number("max_body", max_body)
        self._clock = clock
        self._keys = KeySet(self._dispatcher, _check_url(jwks_url), clock)

    async def verify_signature(self, payload: bytes | str, headers: Headers) -> None:
        """Check that a callback is from the platform, for this account, and recent.

        Args:
            payload: The raw body of the request. Text is encoded in UTF-8.
            headers: The headers of the request, in the form that the web framework has.

        Raises:
            InvalidWebhookSignatureError: A header is missing or malformed, the signature is too
                old, or none of the platform's keys has made it.
            ForeignWebhookError: The callback is signed for another account.
            UnverifiedWebhookError: The keys or the account cannot be fetched now.
            InvalidRequestError: An argument is not the body or the headers of a request.
        """
        await self._verify(raw_body(payload), read_headers(headers))

    async def unwrap(
        self, payload: bytes | str, headers: Headers, *, query: str = ""
    ) -> WebhookEvent:
        """Verify a callback, and parse it.

        Args:
            payload: The raw body of the request. Text is encoded in UTF-8.
            headers: The headers of the request, in the form that the web framework has.
            query: The query of the URL, for `WebhookEvent.query`. It is not verified.

        Raises:
            InvalidWebhookSignatureError: A header is missing or malformed, the signature is too
                old, or none of the platform's keys has made it.
            ForeignWebhookError: The callback is signed for another account.
            UnverifiedWebhookError: The keys or the account cannot be fetched now.
            InvalidWebhookEventError: The body is no event that the library knows.
            InvalidRequestError: An argument is not the body or the headers of a request.
        """
        body, signed = raw_body(payload), read_headers(headers)
        await self._verify(body, signed)
        parse = partial(WebhookEvent.parse, body, user_id=signed.user_id, query=query)
        event = await decode(parse, len(body))
        return event if self._client is None else event._bind(self._client._dispatcher)

    async def event(self, request: Request) -> WebhookEvent:
        """Verify and parse the request of a callback, as a dependency of FastAPI.

        ``event: Annotated[WebhookEvent, Depends(webhooks.event)]`` is a parameter of a route.

        Args:
            request: The request.

        Raises:
            HTTPException: The callback is not accepted, with the status of the response: 401 for an
                invalid signature, 400 for a body that is no event, 413 for one that is too large,
                and 503 if the keys cannot be fetched.
        """
        from starlette.exceptions import HTTPException  # of the framework that calls this

        length = request.headers.get("content-length")
        body = await read_body(request.stream(), length, self.max_body)
        if body is None:
            raise HTTPException(413, DETAILS[413])
        try:
            return await self.unwrap(body, request.headers, query=request.url.query)
        except WebhookError as error:
            status = status_code(error)
            _log.warning("A callback was refused with status %d: %s", status, error)
            raise HTTPException(status, DETAILS[status]) from error

    async def _verify(self, body: bytes, headers: SignedHeaders) -> None:
        check_age(headers, self._clock(), self._tolerance)
        message = await decode(partial(signed_message, headers, body), len(body))
        if not await self._keys.verify(headers.signature, message):
            raise InvalidWebhookSignatureError(
                "the signature of the callback was made with none of the platform's keys, or the "
                "body has been changed"
            )
        if self._accounts is ANY_ACCOUNT:
            return
        if self._accounts is None:
            async with self._lock.get():
                if self._accounts is None:  # otherwise another task has asked meanwhile
                    self._accounts = frozenset({await self._own_account()})
        if headers.user_id not in self._accounts:
            raise ForeignWebhookError(
                f"the callback is signed for another account: {headers.user_id}", headers.user_id
            )

    async def _own_account(self) -> str:
        try:
            dispatcher = await self._dispatcher()
            return (await dispatcher.execute(account(dispatcher.hosts))).user_id
        except FalClientError as error:
            raise UnverifiedWebhookError(
                f"cannot compare the account of the callback with that of the key: {error}; pass "
                "user_id or set FAL_WEBHOOK_USER_ID"
            ) from error

    async def _dispatcher(self) -> Dispatcher:
        return await load_default_dispatcher() if self._client is None else self._client._dispatcher


def _check_accounts(user_id: object) -> frozenset[str] | AnyAccount | None:
    if user_id is None:
        user_id = Variables(os.environ).get("FAL_WEBHOOK_USER_ID").strip() or None
    if user_id is None or isinstance(user_id, AnyAccount):
        return user_id
    if isinstance(user_id, str):
        user_id = (user_id,)
    check_instance("user_id", user_id, cast("type[Any]", Collection))
    ids = frozenset(cast("Collection[object]", user_id))
    if not ids or not all(isinstance(each, str) and each.isprintable() and each for each in ids):
        raise InvalidRequestError(
            f"user_id must be the id of an account, or several, got {describe(user_id)}: omit it "
            "for the account of the key"
        )
    return cast("frozenset[str]", ids)


def _check_url(url: object) -> str | None:
    if url is None:
        return None
    origin = origin_of(url) if isinstance(url, str) else None
    local = origin is not None and origin.rpartition(":")[0] in _LOCAL
    if origin is None or not (origin.startswith("https://") or origin in _LOCAL or local):
        raise InvalidRequestError(
            f"jwks_url must be an https:// URL, or an http:// URL of this machine, got "
            f"{describe(url)}"
        )
    return cast("str", url)
