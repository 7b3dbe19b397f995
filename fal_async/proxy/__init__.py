"""A proxy for web pages that use the official JavaScript client: the key stays on the server.

It requires the extra ``proxy``: ``pip install "fal-async[proxy]"``.
"""

from __future__ import annotations

from fal_async._core.annotations import make_resolvable
from fal_async.proxy._app import FalProxy
from fal_async.proxy._disconnect import cancel_on_disconnect
from fal_async.proxy._request import ProxyRequest, Refusal

__all__ = ["FalProxy", "ProxyRequest", "Refusal", "cancel_on_disconnect"]

for _public in (FalProxy, ProxyRequest, Refusal, cancel_on_disconnect):
    make_resolvable(_public)
