"""The async-native Python client for fal.ai.

``run``, ``submit`` and ``subscribe`` call models. `AsyncClient` has the same methods, and its own
settings. `fal_async.emulator` is a local platform for tests. Modules load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from fal_async._version import __version__

if TYPE_CHECKING:
    from fal_async._client.client import AsyncClient
    from fal_async._client.default import async_client
    from fal_async._client.functions import (
        account,
        attach,
        cancel,
        download,
        get_handle,
        http_over_websocket,
        once,
        realtime,
        realtime_token,
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
    from fal_async._client.functions import cancel as cancel_async
    from fal_async._client.functions import download as download_async
    from fal_async._client.functions import get_handle as get_handle_async
    from fal_async._client.functions import http_over_websocket as http_over_websocket_async
    from fal_async._client.functions import realtime as realtime_async
    from fal_async._client.functions import result as result_async
    from fal_async._client.functions import run as run_async
    from fal_async._client.functions import status as status_async
    from fal_async._client.functions import stream as stream_async
    from fal_async._client.functions import submit as submit_async
    from fal_async._client.functions import subscribe as subscribe_async
    from fal_async._client.functions import upload as upload_async
    from fal_async._client.functions import upload_file as upload_file_async
    from fal_async._client.functions import upload_image as upload_image_async
    from fal_async._client.functions import ws_connect as ws_connect_async
    from fal_async._client.handle import AsyncRequestHandle
    from fal_async._client.http_over_websocket import HTTPOverWebSocket, WebSocketResponse
    from fal_async._client.result import Result
    from fal_async._client.sessions import AsyncRealtimeConnection, WebSocketConnection
    from fal_async._client.stream import EventStream
    from fal_async._config import Hosts, Limits, LimitUsage, RetryPolicy
    from fal_async._core.platform import (
        CostEstimate,
        ModelInfo,
        Page,
        Price,
        RequestInfo,
        RequestOutcome,
    )
    from fal_async._dispatch.resources import Statistics
    from fal_async._files.downloads import Download
    from fal_async._files.encode import encode, encode_file, encode_image
    from fal_async._files.file import File
    from fal_async._http.httpx_transport import PooledTransport
    from fal_async._platform.models import AsyncModels
    from fal_async._platform.pages import AsyncPages
    from fal_async._platform.requests import AsyncRequests
    from fal_async.batch.batch import Batch
    from fal_async.batch.engine import Once
    from fal_async.batch.journal import Journal
    from fal_async.errors import (
        AccountLockedError,
        AuthenticationError,
        ClientClosedError,
        ConnectionFailedError,
        ContentPolicyError,
        ErrorDetail,
        FalClientError,
        FalClientHTTPError,
        FalClientTimeoutError,
        ForeignWebhookError,
        InvalidInputError,
        InvalidRequestError,
        InvalidResponseError,
        InvalidWebhookEventError,
        InvalidWebhookSignatureError,
        JobCancelledError,
        MissingCredentialsError,
        NotFoundError,
        PermissionDeniedError,
        RateLimitError,
        RealtimeDisconnectedError,
        RealtimeError,
        ServerError,
        StartTimeoutError,
        StreamError,
        StreamInterruptedError,
        SubmitOutcomeUnknownError,
        TransportError,
        UnknownJobError,
        UnverifiedWebhookError,
        UploadError,
        WebhookError,
    )
    from fal_async.hooks._progress import progress
    from fal_async.types import (
        Account,
        Arguments,
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
        Stage,
        Status,
        StorageACL,
        StorageACLDecision,
        StorageACLRule,
        StorageSettings,
        Unknown,
        Upload,
        WorkflowEvent,
    )

__all__ = [
    "Account",
    "AccountLockedError",
    "Arguments",
    "AsyncClient",
    "AsyncFile",
    "AsyncModels",
    "AsyncPages",
    "AsyncRealtimeConnection",
    "AsyncRequestHandle",
    "AsyncRequests",
    "AuthenticationError",
    "Batch",
    "Cancellation",
    "ClientClosedError",
    "Completed",
    "ConnectionFailedError",
    "ContentPolicyError",
    "CostEstimate",
    "Download",
    "ErrorDetail",
    "EventStream",
    "ExtType",
    "FalClientError",
    "FalClientHTTPError",
    "FalClientTimeoutError",
    "File",
    "ForeignWebhookError",
    "HTTPOverWebSocket",
    "Hosts",
    "InProgress",
    "InvalidInputError",
    "InvalidRequestError",
    "InvalidResponseError",
    "InvalidWebhookEventError",
    "InvalidWebhookSignatureError",
    "JobCancelledError",
    "Journal",
    "LimitUsage",
    "Limits",
    "LogLine",
    "MissingCredentialsError",
    "ModelInfo",
    "NotFoundError",
    "ObjectExpiration",
    "Once",
    "Page",
    "PermissionDeniedError",
    "PooledTransport",
    "Price",
    "Priority",
    "Queued",
    "RateLimitError",
    "RealtimeDisconnectedError",
    "RealtimeError",
    "Repository",
    "RequestInfo",
    "RequestOutcome",
    "Result",
    "RetryPolicy",
    "ServerError",
    "Stage",
    "StartTimeoutError",
    "Statistics",
    "Status",
    "StorageACL",
    "StorageACLDecision",
    "StorageACLRule",
    "StorageSettings",
    "StreamError",
    "StreamInterruptedError",
    "SubmitOutcomeUnknownError",
    "TransportError",
    "Unknown",
    "UnknownJobError",
    "UnverifiedWebhookError",
    "Upload",
    "UploadError",
    "WebSocketConnection",
    "WebSocketResponse",
    "WebhookError",
    "WorkflowEvent",
    "__version__",
    "account",
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
    "http_over_websocket",
    "http_over_websocket_async",
    "once",
    "progress",
    "realtime",
    "realtime_async",
    "realtime_token",
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

#: The modules of the names, which load on first use.
_LAZY = {
    "Account": "types",
    "AccountLockedError": "errors",
    "Arguments": "types",
    "AsyncClient": "_client.client",
    "AsyncFile": "types",
    "AsyncModels": "_platform.models",
    "AsyncPages": "_platform.pages",
    "AsyncRealtimeConnection": "_client.sessions",
    "AsyncRequestHandle": "_client.handle",
    "AsyncRequests": "_platform.requests",
    "AuthenticationError": "errors",
    "Batch": "batch.batch",
    "Cancellation": "types",
    "ClientClosedError": "errors",
    "Completed": "types",
    "ConnectionFailedError": "errors",
    "ContentPolicyError": "errors",
    "CostEstimate": "_core.platform",
    "Download": "_files.downloads",
    "ErrorDetail": "errors",
    "EventStream": "_client.stream",
    "ExtType": "types",
    "FalClientError": "errors",
    "FalClientHTTPError": "errors",
    "FalClientTimeoutError": "errors",
    "File": "_files.file",
    "ForeignWebhookError": "errors",
    "HTTPOverWebSocket": "_client.http_over_websocket",
    "Hosts": "_config",
    "InProgress": "types",
    "InvalidInputError": "errors",
    "InvalidRequestError": "errors",
    "InvalidResponseError": "errors",
    "InvalidWebhookEventError": "errors",
    "InvalidWebhookSignatureError": "errors",
    "JobCancelledError": "errors",
    "Journal": "batch.journal",
    "LimitUsage": "_config",
    "Limits": "_config",
    "LogLine": "types",
    "MissingCredentialsError": "errors",
    "ModelInfo": "_core.platform",
    "NotFoundError": "errors",
    "ObjectExpiration": "types",
    "Once": "batch.engine",
    "Page": "_core.platform",
    "PermissionDeniedError": "errors",
    "PooledTransport": "_http.httpx_transport",
    "Price": "_core.platform",
    "Priority": "types",
    "Queued": "types",
    "RateLimitError": "errors",
    "RealtimeDisconnectedError": "errors",
    "RealtimeError": "errors",
    "Repository": "types",
    "RequestInfo": "_core.platform",
    "RequestOutcome": "_core.platform",
    "Result": "_client.result",
    "RetryPolicy": "_config",
    "ServerError": "errors",
    "Stage": "types",
    "StartTimeoutError": "errors",
    "Statistics": "_dispatch.resources",
    "Status": "types",
    "StorageACL": "types",
    "StorageACLDecision": "types",
    "StorageACLRule": "types",
    "StorageSettings": "types",
    "StreamError": "errors",
    "StreamInterruptedError": "errors",
    "SubmitOutcomeUnknownError": "errors",
    "TransportError": "errors",
    "Unknown": "types",
    "UnknownJobError": "errors",
    "UnverifiedWebhookError": "errors",
    "Upload": "types",
    "UploadError": "errors",
    "WebSocketConnection": "_client.sessions",
    "WebSocketResponse": "_client.http_over_websocket",
    "WebhookError": "errors",
    "WorkflowEvent": "types",
    "account": "_client.functions",
    "async_client": "_client.default",
    "attach": "_client.functions",
    "cancel": "_client.functions",
    "download": "_client.functions",
    "encode": "_files.encode",
    "encode_file": "_files.encode",
    "encode_image": "_files.encode",
    "get_handle": "_client.functions",
    "http_over_websocket": "_client.functions",
    "once": "_client.functions",
    "progress": "hooks._progress",
    "realtime": "_client.functions",
    "realtime_token": "_client.functions",
    "result": "_client.functions",
    "run": "_client.functions",
    "status": "_client.functions",
    "stream": "_client.functions",
    "submit": "_client.functions",
    "subscribe": "_client.functions",
    "upload": "_client.functions",
    "upload_file": "_client.functions",
    "upload_image": "_client.functions",
    "ws_connect": "_client.functions",
}
#: Modules that programs use without an import.
_MODULES = {"auth", "client", "errors", "hooks", "types"}


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    found = (
        name.removesuffix("_async") if name in __all__ else name
    )  # the names of the official client
    if found not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fal_async._core.annotations import make_resolvable  # loads `dataclasses`

    value = getattr(import_module(f"{__name__}.{_LAZY[found]}"), found)
    make_resolvable(value)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
