"""The names of ``fal_client.client``, for programs for the official client."""

from __future__ import annotations

from typing import Any

from fal_async.auth import (
    FAL_QUEUE_RUN_HOST,
    FAL_RUN_HOST,
    AuthCredentials,
    fetch_auth_credentials,
    fetch_auth_credentials_async,
)
from fal_async.sync import (
    AsyncClient,
    AsyncRealtimeConnection,
    AsyncRequestHandle,
    Completed,
    FalClientError,
    FalClientHTTPError,
    FalClientTimeoutError,
    InProgress,
    ObjectExpiration,
    Priority,
    Queued,
    RealtimeConnection,
    RealtimeError,
    Status,
    StorageACL,
    StorageACLDecision,
    StorageACLRule,
    StorageSettings,
    SyncClient,
    SyncRequestHandle,
    encode,
    encode_file,
    encode_image,
)
from fal_async.sync import Repository as UploadRepositoryId
from fal_async.sync import __version__ as __version__

__all__ = [
    "FAL_QUEUE_RUN_HOST",
    "FAL_RUN_HOST",
    "AnyJSON",
    "AsyncClient",
    "AsyncRealtimeConnection",
    "AsyncRequestHandle",
    "AuthCredentials",
    "Completed",
    "FalClientError",
    "FalClientHTTPError",
    "FalClientTimeoutError",
    "InProgress",
    "ObjectExpiration",
    "Priority",
    "Queued",
    "RealtimeConnection",
    "RealtimeError",
    "Status",
    "StorageACL",
    "StorageACLDecision",
    "StorageACLRule",
    "StorageSettings",
    "SyncClient",
    "SyncRequestHandle",
    "UploadRepositoryId",
    "encode",
    "encode_file",
    "encode_image",
    "fetch_auth_credentials",
    "fetch_auth_credentials_async",
]

#: A JSON object.
AnyJSON = dict[str, Any]
