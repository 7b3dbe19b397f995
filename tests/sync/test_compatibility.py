"""Compatibility with the official client: names, parameters and defaults."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

import fal_client
import fal_client.client
import httpx
import pytest

import fal_async.sync
from fal_async import AsyncRequestHandle, InvalidRequestError
from fal_async.sync import SyncRequestHandle
from tests.support.api_diff import differences

#: The differences by their reasons. All other names and parameters are the same.
DIFFERENCES = {
    "a mutable default is shared by all callers; None means no further headers": [
        f"{name}(headers): {{}} -> None"
        for call in ("run", "stream", "submit", "subscribe")
        for name in (call, f"{call}_async", f"SyncClient.{call}", f"AsyncClient.{call}")
    ],
    "None follows the status stream instead of polling; an interval polls": [
        f"{name}(interval): 0.1 -> None"
        for name in (
            "subscribe",
            "subscribe_async",
            "SyncClient.subscribe",
            "AsyncClient.subscribe",
            "SyncRequestHandle.get",
            "SyncRequestHandle.iter_events",
            "AsyncRequestHandle.get",
            "AsyncRequestHandle.iter_events",
        )
    ],
    "handles come from `submit`, `get_handle` and `attach`, and hold no httpx client": [
        "SyncRequestHandle.client",
        "SyncRequestHandle(request_id)",
        "SyncRequestHandle(response_url)",
        "SyncRequestHandle(status_url)",
        "SyncRequestHandle(cancel_url)",
        "SyncRequestHandle(client)",
        "SyncRequestHandle(portal) is required",
        "SyncRequestHandle(wrapped) is required",
        "AsyncRequestHandle.client",
        "AsyncRequestHandle(request_id) has to be named",
        "AsyncRequestHandle(response_url) has to be named",
        "AsyncRequestHandle(status_url) has to be named",
        "AsyncRequestHandle(cancel_url) has to be named",
        "AsyncRequestHandle(client)",
        "AsyncRequestHandle(application) is required",
    ],
    "a client hides its key, and `with_options` changes settings": [
        "SyncClient.key",
        "AsyncClient.key",
    ],
    "an error creates its response from its attributes on access": [
        "FalClientHTTPError(response_headers): required -> None",
        "FalClientHTTPError(response): required -> None",
    ],
    "connections come from `realtime` and have other constructor parameters": [
        f"{name}({parameter})"
        for name in ("RealtimeConnection", "AsyncRealtimeConnection")
        for parameter in ("_ws", "_encode_message", "_decode_message")
    ]
    + [
        "RealtimeConnection(portal) is required",
        "RealtimeConnection(wrapped) is required",
        "AsyncRealtimeConnection(websocket) is required",
        "AsyncRealtimeConnection(encode) is required",
        "AsyncRealtimeConnection(decode) is required",
    ],
    "the version is one string": ["version_tuple"],
    "`headers=` forwards the headers of the request that an app serves": ["set_get_current_app"],
}


def test_differences_are_listed() -> None:
    listed = sorted(name for names in DIFFERENCES.values() for name in names)
    assert sorted(differences(fal_client, fal_async.sync)) == listed


def test_errors_have_official_bases() -> None:
    names = ("FalClientError", "FalClientHTTPError", "FalClientTimeoutError", "RealtimeError")
    for name in names:
        theirs = {base.__name__ for base in getattr(fal_client.client, name).__mro__}
        assert theirs <= {base.__name__ for base in getattr(fal_async.sync, name).__mro__}


#: Implementation details of ``fal_client.client`` and ``fal_client.auth`` without a counterpart.
INNER_PARTS = {
    "client": {
        "APP_NAMESPACES",
        "AppId",
        "AsyncBackupDomainTransport",
        "AsyncCDNTokenManager",
        "AsyncMultipartUpload",
        "BASE_DELAY",
        "BackupDomainTransport",
        "CDNToken",
        "CDNTokenManager",
        "CDN_URL",
        "DEFAULT_QUEUE_POLL_INTERVAL",
        "DEFAULT_UPLOAD_FALLBACK_REPOSITORY",
        "DEFAULT_UPLOAD_REPOSITORY",
        "INGRESS_ERROR_CODES",
        "MAX_ATTEMPTS",
        "MAX_DELAY",
        "MIN_REQUEST_TIMEOUT_SECONDS",
        "MULTIPART_CHUNK_SIZE",
        "MULTIPART_MAX_CONCURRENCY",
        "MULTIPART_THRESHOLD",
        "MultipartUpload",
        "QUEUE_URL_FORMAT",
        "REALTIME_MAX_BUFFERING",
        "REALTIME_OPEN_TIMEOUT",
        "REALTIME_TOKEN_EXPIRATION_SECONDS",
        "REALTIME_URL_FORMAT",
        "REQUEST_TIMEOUT_HEADER",
        "REQUEST_TIMEOUT_TYPE_HEADER",
        "REST_URL",
        "RETRY_CODES",
        "RUN_URL_FORMAT",
        "USER_AGENT",
        "add_fal_app_context_headers",
        "add_hint_header",
        "add_priority_header",
        "add_timeout_header",
        "handle_response_headers",
        "msgpack_decode_message",
        "msgpack_encode_message",
    },
    "auth": {
        "AUTH0_CLIENT_ID",
        "AUTH0_DOMAIN",
        "AUTH0_TOKEN_URL",
        "AUTH_LOCK_FILENAME",
        "AUTH_TOKEN_FILENAME",
        "GoogleColabState",
        "MISSING_CREDENTIALS_MESSAGE",
        "get_colab_token",
        "is_google_colab",
    },
}


def own_names(module: ModuleType) -> set[str]:
    """Return the names that a module defines or imports from its own package."""
    names = {name for name in vars(module) if not name.startswith("_")}
    foreign = {
        name
        for name in names
        if isinstance(value := getattr(module, name), ModuleType)
        or not getattr(value, "__module__", "fal_client").startswith("fal_client")
    }
    kept = {"AnyJSON", "ObjectExpiration", "Priority", "StorageACLDecision", "UploadRepositoryId"}
    return names - foreign | kept & names


@pytest.mark.parametrize("name", ["client", "auth"])
def test_submodules_have_official_names(name: str) -> None:
    theirs, ours = import_module(f"fal_client.{name}"), import_module(f"fal_async.sync.{name}")
    missing = own_names(theirs) - set(vars(ours))
    assert missing - {"logger", "annotations", "TYPE_CHECKING"} == INNER_PARTS[name]
    assert getattr(fal_async.sync, name) is ours
    assert set(import_module(f"fal_async.{name}").__all__) <= set(vars(ours))


@pytest.mark.parametrize("kind", [SyncRequestHandle, AsyncRequestHandle])
def test_handle_rejects_foreign_client(kind: Any) -> None:
    with httpx.Client() as client, pytest.raises(InvalidRequestError, match="got Client"):
        kind.from_request_id(client, "acme/echo", "764cabcf-b745-4b3e-ae38-1200304cf45b")
