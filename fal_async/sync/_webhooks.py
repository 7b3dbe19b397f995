"""`Webhooks` and `missed` for blocking code: Django, Flask and scripts."""

from __future__ import annotations

import time
from contextlib import closing
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING

from fal_async import webhooks
from fal_async._core.annotations import set_module
from fal_async.sync._default import default_client
from fal_async.sync._objects import SyncRequestHandle
from fal_async.sync._results import SyncResult, wrap_result
from fal_async.sync._wrappers import SyncWrapper

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable, Mapping

    from typing_extensions import TypeVar

    from fal_async.sync._client import SyncClient
    from fal_async.sync._portal import Portal
    from fal_async.webhooks import AnyAccount, Headers

    T = TypeVar("T", default=SyncResult)
else:
    from typing import TypeVar

__all__ = ["SyncWebhookEvent", "Webhooks", "missed"]


@set_module("fal_async.sync")
class SyncWebhookEvent(webhooks.WebhookEvent):
    """A `WebhookEvent` whose result has files that are read and saved by blocking calls.

    Example:
        >>> body = b'{"request_id": "764cabcf", "status": "OK", "payload": {"seed": 7}}'
        >>> event = SyncWebhookEvent.parse(body)
        >>> type(event.result()).__name__
        'SyncResult'
    """

    __slots__ = ("_portal",)

    _portal: Portal

    @classmethod
    def _from_async(cls, portal: Portal, event: webhooks.WebhookEvent) -> SyncWebhookEvent:
        made = cls.parse(event.raw, user_id=event.user_id, query=event.query)
        made._bind(event._dispatcher)
        object.__setattr__(made, "_portal", portal)
        return made

    def result(self, output: type[T] | None = None) -> T:
        """Return the output of the job, or raise its error, like `SyncRequestHandle.get`.

        Args:
            output: A pydantic model, or any type that pydantic can validate; the output is
                validated against it. ``None`` returns a `SyncResult`, or the plain value of an
                output that is not a JSON object.

        Raises:
            FalClientHTTPError: The job failed. The subclass is the kind of the error.
            InvalidResponseError: The output does not have the type `output`, or could not be sent.
        """
        portal = getattr(self, "_portal", None) or default_client()._portal
        return wrap_result(portal, super().result(output))


@set_module("fal_async.sync")
class Webhooks(SyncWrapper[webhooks.Webhooks]):
    """Verifies the callbacks of the platform in blocking code; see `fal_async.webhooks.Webhooks`.

    Args:
        client: The client that fetches the keys and the account, and downloads files of outputs;
            ``None`` uses the default client.
        user_id: The id of the account whose callbacks are accepted, or several ids. ``None`` uses
            ``FAL_WEBHOOK_USER_ID``, or else asks the platform once for the account of the client's
            key. `ANY_ACCOUNT` accepts callbacks that other accounts can send.
        tolerance: The largest difference between the time of the signature and this clock, in
            seconds.
        jwks_url: The URL of the keys; ``None`` uses that of the client's hosts.
        clock: Returns the Unix time in seconds.

    Raises:
        InvalidRequestError: An argument is invalid, such as a URL without https.
        ImportError: The extra ``webhooks`` is not installed.

    Example:
        >>> webhooks = fal_async.sync.Webhooks(user_id="user_2abc")
        >>> def view(request) -> None:  # of Django
        ...     event = webhooks.unwrap(request.body, request.headers)
        ...     print(event.request_id, event.result())
    """

    def __init__(
        self,
        client: SyncClient | None = None,
        *,
        user_id: str | Collection[str] | AnyAccount | None = None,
        tolerance: float = 300.0,
        jwks_url: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        owner = default_client() if client is None else client
        wrapped = webhooks.Webhooks(
            self._unwrap(owner),
            user_id=user_id,
            tolerance=tolerance,
            jwks_url=jwks_url,
            clock=clock,
        )
        super().__init__(owner._portal, wrapped)

    def verify_signature(self, payload: bytes | str, headers: Headers) -> None:
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
        self._portal.call(self._async.verify_signature, payload, headers)

    def unwrap(
        self, payload: bytes | str, headers: Headers, *, query: str = ""
    ) -> SyncWebhookEvent:
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
        return self._portal.call_and_wrap(
            SyncWebhookEvent._from_async, self._async.unwrap, payload, headers, query=query
        )


def missed(
    jobs: Iterable[SyncRequestHandle | Mapping[str, str]], *, client: SyncClient | None = None
) -> Generator[SyncRequestHandle, None, None]:
    """Yield those of the jobs that have ended; see `fal_async.webhooks.missed`.

    Args:
        jobs: Handles, or the data of `SyncRequestHandle.to_dict`.
        client: The client of the handles; ``None`` uses that of each handle, or the default client
            for data.

    Raises:
        InvalidRequestError: One of the jobs is neither a handle nor its data.
        FalClientHTTPError: The platform responded with an error, such as a wrong key.
        TransportError: The platform cannot be reached.

    Example:
        >>> with fal_async.sync.SyncClient() as client:
        ...     handle = client.submit("demo/echo", {"prompt": "a cat"})
        ...     output = handle.get()
        ...     for ended in fal_async.sync.missed([handle.to_dict()], client=client):
        ...         print(ended.get()["prompt"])
        a cat
    """
    owner = default_client() if client is None else client

    def bind(job: SyncRequestHandle | Mapping[str, str]) -> SyncRequestHandle:
        if client is None and isinstance(job, SyncRequestHandle):
            return job
        handle = owner._async.attach(SyncRequestHandle._unwrap(job))
        return SyncRequestHandle(owner._portal, handle)

    handles = [bind(job) for job in jobs]
    for portal, group in groupby(handles, attrgetter("_portal")):  # of each client in a row
        found = portal.iterate(webhooks.missed, [handle._async for handle in group])
        with closing(found):
            for ended in found:
                yield SyncRequestHandle(portal, ended)
