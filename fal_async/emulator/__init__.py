"""A local fal.ai platform for tests and for development without a network.

It requires the extra ``emulator``: ``pip install "fal-async[emulator]"``.
"""

from __future__ import annotations

try:
    from fal_async.emulator._emulator import Emulator
except ModuleNotFoundError as _error:
    _missing = (_error.name or "").partition(".")[0]
    if _missing not in {"starlette", "uvicorn"}:
        raise
    raise ImportError(
        f'the emulator requires {_missing}: pip install "fal-async[emulator]"'
    ) from _error

from fal_async._core.annotations import make_resolvable, set_module
from fal_async.emulator._cassettes import CassetteInUse
from fal_async.emulator._credentials import Account
from fal_async.emulator._faults import Fault
from fal_async.emulator._gate import Gate
from fal_async.emulator._jobs import Job
from fal_async.emulator._recorder import Counters, RecordedRequest, Route
from fal_async.emulator._responses import AppError
from fal_async.emulator._runners.sockets import Socket
from fal_async.emulator._server.websocket import DisconnectedError
from fal_async.emulator._storage import StoredFile
from fal_async.emulator._webhooks.delivery import WebhookAttempt, WebhookDelivery
from fal_async.emulator._webhooks.signing import SignedWebhook

__all__ = [
    "Account",
    "AppError",
    "CassetteInUse",
    "Counters",
    "DisconnectedError",
    "Emulator",
    "Fault",
    "Gate",
    "Job",
    "RecordedRequest",
    "Route",
    "SignedWebhook",
    "Socket",
    "StoredFile",
    "WebhookAttempt",
    "WebhookDelivery",
]

for _public in [globals()[_name] for _name in __all__]:
    make_resolvable(set_module(__name__)(_public))
