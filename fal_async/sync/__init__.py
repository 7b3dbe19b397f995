# Generated from __init__.py by `python -m tests.generate_sync`. Do not edit: change the source and
# run that command.
"""The blocking API of fal_async: the same calls, without ``await``.

``import fal_async.sync as fal_client`` runs code that was written for the official client. The
functions share a default client; a `SyncClient` has settings of its own. The calls run on an event
loop in a thread, which the first call starts and all threads of the process share. Callbacks run on
the calling thread.

Ctrl-C cancels the call, and with it the job that the call submitted. An outcome that arrives at
that moment is not lost: the next ``recv`` returns the message. Any other outcome, such as the
handle of the job, the URL of an upload or a list of the next events of a stream, is the attribute
``outcome`` of the `KeyboardInterrupt`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from fal_async import (
    Account,
    AccountLockedError,
    AsyncClient,
    AsyncFile,
    AsyncModels,
    AsyncPages,
    AsyncRealtimeConnection,
    AsyncRequestHandle,
    AsyncRequests,
    AuthenticationError,
    Cancellation,
    ClientClosedError,
    Completed,
    ConnectionFailedError,
    ContentPolicyError,
    CostEstimate,
    Download,
    ErrorDetail,
    EventStream,
    ExtType,
    FalClientError,
    FalClientHTTPError,
    FalClientTimeoutError,
    ForeignWebhookError,
    Hosts,
    HTTPOverWebSocket,
    InProgress,
    InvalidInputError,
    InvalidRequestError,
    InvalidResponseError,
    InvalidWebhookEventError,
    InvalidWebhookSignatureError,
    JobCancelledError,
    Limits,
    LimitUsage,
    LogLine,
    MissingCredentialsError,
    ModelInfo,
    NotFoundError,
    ObjectExpiration,
    Page,
    PermissionDeniedError,
    Price,
    Priority,
    Queued,
    RateLimitError,
    RealtimeDisconnectedError,
    RealtimeError,
    Repository,
    RequestInfo,
    RequestOutcome,
    Result,
    RetryPolicy,
    ServerError,
    Stage,
    StartTimeoutError,
    Statistics,
    Status,
    StorageACL,
    StorageACLDecision,
    StorageACLRule,
    StorageSettings,
    StreamError,
    StreamInterruptedError,
    SubmitOutcomeUnknownError,
    TransportError,
    Unknown,
    UnknownJobError,
    UnverifiedWebhookError,
    Upload,
    UploadError,
    WebhookError,
    WebSocketConnection,
    WebSocketResponse,
    WorkflowEvent,
    __version__,
    cancel_async,
    download_async,
    encode,
    encode_file,
    encode_image,
    get_handle_async,
    http_over_websocket_async,
    realtime_async,
    result_async,
    run_async,
    status_async,
    stream_async,
    submit_async,
    subscribe_async,
    upload_async,
    upload_file_async,
    upload_image_async,
    ws_connect_async,
)
from fal_async._core.annotations import make_resolvable
from fal_async.sync._client import SyncClient
from fal_async.sync._default import default_client
from fal_async.sync._functions import (
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
from fal_async.sync._objects import (
    RealtimeConnection,
    SyncEventStream,
    SyncHTTPOverWebSocket,
    SyncRequestHandle,
    SyncWebSocketConnection,
    SyncWebSocketResponse,
)
from fal_async.sync._pages import SyncPages
from fal_async.sync._platform import SyncModels, SyncRequests
from fal_async.sync._results import SyncResult

if TYPE_CHECKING:
    from fal_async import (
        Arguments,
        Batch,
        File,
        Journal,
        Once,
        PooledTransport,
        async_client,
        progress,
    )
    from fal_async.sync._batch import SyncBatch
    from fal_async.sync._file import SyncDownload, SyncFile
    from fal_async.sync._jobs import SyncJob
    from fal_async.sync._webhooks import SyncWebhookEvent, Webhooks, missed

    sync_client: SyncClient

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
    "RealtimeConnection",
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
    "SyncBatch",
    "SyncClient",
    "SyncDownload",
    "SyncEventStream",
    "SyncFile",
    "SyncHTTPOverWebSocket",
    "SyncJob",
    "SyncModels",
    "SyncPages",
    "SyncRequestHandle",
    "SyncRequests",
    "SyncResult",
    "SyncWebSocketConnection",
    "SyncWebSocketResponse",
    "SyncWebhookEvent",
    "TransportError",
    "Unknown",
    "UnknownJobError",
    "UnverifiedWebhookError",
    "Upload",
    "UploadError",
    "WebSocketConnection",
    "WebSocketResponse",
    "WebhookError",
    "Webhooks",
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
    "missed",
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
    "sync_client",
    "upload",
    "upload_async",
    "upload_file",
    "upload_file_async",
    "upload_image",
    "upload_image_async",
    "ws_connect",
    "ws_connect_async",
]


_LAZY = {
    "Arguments": "fal_async",
    "Batch": "fal_async",
    "File": "fal_async",
    "Journal": "fal_async",
    "Once": "fal_async",
    "PooledTransport": "fal_async",
    "SyncBatch": "fal_async.sync._batch",
    "SyncDownload": "fal_async.sync._file",
    "SyncFile": "fal_async.sync._file",
    "SyncJob": "fal_async.sync._jobs",
    "SyncWebhookEvent": "fal_async.sync._webhooks",
    "Webhooks": "fal_async.sync._webhooks",
    "async_client": "fal_async",
    "missed": "fal_async.sync._webhooks",
    "progress": "fal_async",
}


def __getattr__(name: str) -> object:
    if name in {"auth", "client"}:  # programs for the official client do not import them
        return import_module(f"{__name__}.{name}")
    if name == "sync_client":
        value: object = SyncClient._from_base(default_client())
    elif name in _LAZY:
        value = getattr(import_module(_LAZY[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    make_resolvable(value)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


for _value in list(globals().values()):
    make_resolvable(_value)
