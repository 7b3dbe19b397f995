"""`BatchReceiver`: an ASGI app that records the outcomes of a batch in its journal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fal_async._client.default import load_default_client
from fal_async._core.annotations import set_module
from fal_async.batch.callbacks import find_pending, record_outcome
from fal_async.batch.journal import Journal
from fal_async.errors import FalClientHTTPError
from fal_async.webhooks._receiver import WebhookReceiver

if TYPE_CHECKING:
    import os

    from fal_async.batch.entries import Entry
    from fal_async.stores import Store
    from fal_async.webhooks._event import WebhookEvent
    from fal_async.webhooks._webhooks import Webhooks

__all__ = ["BatchReceiver"]


@set_module("fal_async.webhooks")
class BatchReceiver(WebhookReceiver):
    """An ASGI app that records the outcomes of the jobs of a batch in its journal.

    It is the receiver of `AsyncClient.batch` with ``wait="webhook"``, in the same process or in
    another one, and has the statuses of `WebhookReceiver`. An outcome is recorded once, however
    often its callback is sent. That of an unsure input tells its job as well. An output that was
    too large for its callback is fetched.

    Args:
        journal: A `Journal`, the path of its file or the URL of its database. A path is opened with
            ``shared=True``.
        webhooks: Verifies the callbacks; its client fetches outputs.
        store: Remembers the events that were handled. ``None`` remembers them in the memory of this
            process; the journal itself knows its outcomes.
        respond_within: The longest time until the response, in seconds.
        grace_period: The longest time that running calls have at the end, in seconds.

    Raises:
        InvalidRequestError: An argument is invalid.

    Example:
        >>> webhooks = fal_async.webhooks.Webhooks(user_id="user_2abc")
        >>> app = fal_async.webhooks.BatchReceiver(":memory:", webhooks=webhooks)
    """

    def __init__(
        self,
        journal: Journal | str | os.PathLike[str],
        *,
        webhooks: Webhooks,
        store: Store | None = None,
        respond_within: float = 12.0,
        grace_period: float = 30.0,
    ) -> None:
        super().__init__(
            self._record,
            webhooks=webhooks,
            store=store,
            respond_within=respond_within,
            grace_period=grace_period,
        )
        self._owns_journal = not isinstance(journal, Journal)
        self._journal = journal if isinstance(journal, Journal) else Journal(journal, shared=True)

    async def aclose(self) -> None:
        """Wait until all running calls have returned, and close a journal that was opened here."""
        await super().aclose()
        if self._owns_journal:
            await self._journal._aclose()

    async def _record(self, event: WebhookEvent) -> None:
        entry = await find_pending(self._journal, event.query, event.request_id)
        if entry is None:
            return
        try:
            outcome = await self._outcome(event, entry)
        except FalClientHTTPError as error:
            if error.stage != "job":  # of the call that fetches the output, which is repeated
                raise
            outcome = error
        await record_outcome(self._journal, entry, event.request_id, outcome)

    async def _outcome(self, event: WebhookEvent, entry: Entry) -> object:
        if event.payload_error is None:
            return event.result()
        client = self._webhooks._client or await load_default_client()
        ids = {"application": entry.application, "request_id": event.request_id}
        return await client.attach(entry.handle or ids).get()
