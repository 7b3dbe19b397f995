"""Code that was written for the official client finds here every name, parameter and default."""

from __future__ import annotations

import fal_client
import fal_client.client

import fal_async.sync
from tests.sync.compare import differences

#: What differs, by why it does. Whatever is not listed here is the same.
DIFFERENCES = {
    "a default that callers share can be changed by one of them; None means no further headers": [
        f"{name}(headers): {{}} -> None"
        for call in ("run", "stream", "submit", "subscribe")
        for name in (call, f"{call}_async", f"SyncClient.{call}", f"AsyncClient.{call}")
    ],
    "None listens to the status stream instead of polling; an interval polls as it did": [
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
        "SyncRequestHandle.from_request_id",
        "SyncRequestHandle(request_id)",
        "SyncRequestHandle(response_url)",
        "SyncRequestHandle(status_url)",
        "SyncRequestHandle(cancel_url)",
        "SyncRequestHandle(client)",
        "SyncRequestHandle(portal) is required",
        "SyncRequestHandle(its_async) is required",
        "AsyncRequestHandle.client",
        "AsyncRequestHandle.from_request_id",
        "AsyncRequestHandle(request_id) has to be named",
        "AsyncRequestHandle(response_url) has to be named",
        "AsyncRequestHandle(status_url) has to be named",
        "AsyncRequestHandle(cancel_url) has to be named",
        "AsyncRequestHandle(client)",
        "AsyncRequestHandle(application) is required",
    ],
    "a client does not tell its key, and takes other settings by `with_options`": [
        "SyncClient.key",
        "SyncClient.default_timeout",
        "AsyncClient.key",
        "AsyncClient.default_timeout",
    ],
    "errors carry facts instead of an httpx response, so that they can be pickled": [
        "FalClientHTTPError.response",
        "FalClientHTTPError(response)",
        "FalClientHTTPError(response_headers) has to be named",
        "FalClientHTTPError(response_headers): required -> None",
        "FalClientHTTPError(error_type) has to be named",
    ],
    "the clients that the functions share are made on first use, and are no part of the API": [
        "sync_client",
        "async_client",
    ],
    "connections come from `realtime`, and are made of other parts": [
        f"{name}({parameter})"
        for name in ("RealtimeConnection", "AsyncRealtimeConnection")
        for parameter in ("_ws", "_encode_message", "_decode_message")
    ]
    + [
        "RealtimeConnection(portal) is required",
        "RealtimeConnection(its_async) is required",
        "AsyncRealtimeConnection(line) is required",
        "AsyncRealtimeConnection(encode) is required",
        "AsyncRealtimeConnection(decode) is required",
    ],
    "the version is one string": ["version_tuple"],
    "it passes on two headers of a request that an app serves; `headers=` does it as well": [
        "set_get_current_app"
    ],
}


def test_what_differs_from_the_official_client_is_listed_with_its_reason() -> None:
    listed = sorted(name for names in DIFFERENCES.values() for name in names)
    assert sorted(differences(fal_client, fal_async.sync)) == listed


def test_errors_are_caught_by_the_bases_that_the_official_errors_have() -> None:
    names = ("FalClientError", "FalClientHTTPError", "FalClientTimeoutError", "RealtimeError")
    for name in names:
        theirs = {base.__name__ for base in getattr(fal_client.client, name).__mro__}
        assert theirs <= {base.__name__ for base in getattr(fal_async.sync, name).__mro__}
