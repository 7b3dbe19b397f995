"""The async-native Python client for fal.ai.

``run``, ``submit`` and ``subscribe`` call models; `AsyncClient` has the same calls and settings of
its own; `fal_async.emulator` is a local platform to test against. Names load when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from fal_async._annotations import make_resolvable
from fal_async._version import __version__
from fal_async.errors import (
    AccountLockedError,
    AuthenticationError,
    ClientClosedError,
    ConnectionFailedError,
    ContentPolicyError,
    FalClientError,
    FalClientHTTPError,
    FalClientTimeoutError,
    InvalidInputError,
    InvalidReplyError,
    InvalidRequestError,
    JobCancelledError,
    MissingCredentialsError,
    NotFoundError,
    PermissionDeniedError,
    Problem,
    RateLimitError,
    RealtimeDisconnectedError,
    RealtimeError,
    ServerError,
    StartTimeoutError,
    StreamBrokenError,
    StreamError,
    SubmitOutcomeUnknownError,
    TransportError,
    UploadError,
)
from fal_async.types import (
    AsyncFile,
    Cancellation,
    Completed,
    ExtType,
    InProgress,
    LogLine,
    ObjectExpiration,
    Priority,
    Queued,
    Repository,
    Result,
    Stage,
    Status,
    StorageACL,
    StorageACLDecision,
    StorageACLRule,
    StorageSettings,
    Unknown,
    Upload,
)

if TYPE_CHECKING:
    from fal_async._client import AsyncClient
    from fal_async._config import Hosts, Limits, RetryPolicy
    from fal_async._data_urls import encode, encode_file, encode_image
    from fal_async._downloading import Download
    from fal_async._files import File
    from fal_async._functions import (
        attach,
        cancel,
        download,
        get_handle,
        over_websocket,
        realtime,
        result,
        run,
        status,
        stream,
        submit,
        subscribe,
        upload,
        upload_file,
        upload_image,
        ws_connect,
    )
    from fal_async._functions import cancel as cancel_async
    from fal_async._functions import download as download_async
    from fal_async._functions import get_handle as get_handle_async
    from fal_async._functions import over_websocket as over_websocket_async
    from fal_async._functions import realtime as realtime_async
    from fal_async._functions import result as result_async
    from fal_async._functions import run as run_async
    from fal_async._functions import status as status_async
    from fal_async._functions import stream as stream_async
    from fal_async._functions import submit as submit_async
    from fal_async._functions import subscribe as subscribe_async
    from fal_async._functions import upload as upload_async
    from fal_async._functions import upload_file as upload_file_async
    from fal_async._functions import upload_image as upload_image_async
    from fal_async._functions import ws_connect as ws_connect_async
    from fal_async._handle import AsyncRequestHandle
    from fal_async._over_websocket import CarriedReply, WebSocketRequests
    from fal_async._realtime import AsyncRealtimeConnection, WebSocketConnection
    from fal_async._shared import async_client
    from fal_async._stream import EventStream
    from fal_async._transport.pool import PooledTransport
    from fal_async._workflows import WorkflowEvent
    from fal_async.types import Arguments

__all__ = [
    "AccountLockedError",
    "Arguments",
    "AsyncClient",
    "AsyncFile",
    "AsyncRealtimeConnection",
    "AsyncRequestHandle",
    "AuthenticationError",
    "Cancellation",
    "CarriedReply",
    "ClientClosedError",
    "Completed",
    "ConnectionFailedError",
    "ContentPolicyError",
    "Download",
    "EventStream",
    "ExtType",
    "FalClientError",
    "FalClientHTTPError",
    "FalClientTimeoutError",
    "File",
    "Hosts",
    "InProgress",
    "InvalidInputError",
    "InvalidReplyError",
    "InvalidRequestError",
    "JobCancelledError",
    "Limits",
    "LogLine",
    "MissingCredentialsError",
    "NotFoundError",
    "ObjectExpiration",
    "PermissionDeniedError",
    "PooledTransport",
    "Priority",
    "Problem",
    "Queued",
    "RateLimitError",
    "RealtimeDisconnectedError",
    "RealtimeError",
    "Repository",
    "Result",
    "RetryPolicy",
    "ServerError",
    "Stage",
    "StartTimeoutError",
    "Status",
    "StorageACL",
    "StorageACLDecision",
    "StorageACLRule",
    "StorageSettings",
    "StreamBrokenError",
    "StreamError",
    "SubmitOutcomeUnknownError",
    "TransportError",
    "Unknown",
    "Upload",
    "UploadError",
    "WebSocketConnection",
    "WebSocketRequests",
    "WorkflowEvent",
    "__version__",
    "async_client",
    "attach",
    "cancel",
    "cancel_async",
    "download",
    "download_async",
    "encode",
    "encode_file",
    "encode_image",
    "get_handle",
    "get_handle_async",
    "over_websocket",
    "over_websocket_async",
    "realtime",
    "realtime_async",
    "result",
    "result_async",
    "run",
    "run_async",
    "status",
    "status_async",
    "stream",
    "stream_async",
    "submit",
    "submit_async",
    "subscribe",
    "subscribe_async",
    "upload",
    "upload_async",
    "upload_file",
    "upload_file_async",
    "upload_image",
    "upload_image_async",
    "ws_connect",
    "ws_connect_async",
]

#: Names whose modules cost time to import (httpx, anyio), and where they are.
_LAZY = {
    "Arguments": "types",
    "AsyncClient": "_client",
    "AsyncRealtimeConnection": "_realtime",
    "AsyncRequestHandle": "_handle",
    "CarriedReply": "_over_websocket",
    "Download": "_downloading",
    "EventStream": "_stream",
    "File": "_files",
    "Hosts": "_config",
    "Limits": "_config",
    "PooledTransport": "_transport.pool",
    "RetryPolicy": "_config",
    "WebSocketConnection": "_realtime",
    "WebSocketRequests": "_over_websocket",
    "WorkflowEvent": "_workflows",
    "async_client": "_shared",
    "attach": "_functions",
    "cancel": "_functions",
    "download": "_functions",
    "encode": "_data_urls",
    "encode_file": "_data_urls",
    "encode_image": "_data_urls",
    "get_handle": "_functions",
    "over_websocket": "_functions",
    "realtime": "_functions",
    "result": "_functions",
    "run": "_functions",
    "status": "_functions",
    "stream": "_functions",
    "submit": "_functions",
    "subscribe": "_functions",
    "upload": "_functions",
    "upload_file": "_functions",
    "upload_image": "_functions",
    "ws_connect": "_functions",
}
#: Modules that programs for the official client use without importing them.
_MODULES = {"auth", "client"}


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    found = name.removesuffix("_async") if name in __all__ else name  # as the official client says
    if found not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_LAZY[found]}"), found)
    make_resolvable(value)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


for _value in list(globals().values()):
    make_resolvable(_value)
