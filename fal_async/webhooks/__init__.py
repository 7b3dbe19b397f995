"""The callbacks of the platform: verify and receive them.

It requires the extra ``webhooks``: ``pip install "fal-async[webhooks]"``.
"""

from __future__ import annotations

from fal_async._core.annotations import make_resolvable, set_module
from fal_async.webhooks._batch import BatchReceiver
from fal_async.webhooks._event import WebhookEvent
from fal_async.webhooks._missed import missed
from fal_async.webhooks._receiver import WebhookReceiver
from fal_async.webhooks._signature import Headers, HeadersWithItems
from fal_async.webhooks._webhooks import ANY_ACCOUNT, AnyAccount, Webhooks

__all__ = [
    "ANY_ACCOUNT",
    "AnyAccount",
    "BatchReceiver",
    "Headers",
    "HeadersWithItems",
    "WebhookEvent",
    "WebhookReceiver",
    "Webhooks",
    "missed",
]

for _public in (
    AnyAccount,
    BatchReceiver,
    HeadersWithItems,
    WebhookEvent,
    WebhookReceiver,
    Webhooks,
):
    make_resolvable(set_module(__name__)(_public))
make_resolvable(missed)
