"""Validation of call options, and their headers and query parameters."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, cast, get_args

from fal_async._core.checks import (
    check_flag,
    check_instance,
    check_mapping,
    describe,
    is_one_of,
    seconds,
    whole_number,
)
from fal_async._protocol.serialization import encode_json
from fal_async._version import USER_AGENT
from fal_async.errors import InvalidRequestError
from fal_async.types import Priority

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "default_headers",
    "merge_headers",
    "platform_headers",
    "start_timeout_within",
    "submit_query",
    "user_agent",
]

#: Start timeouts must be longer than this, in seconds.
MIN_START_TIMEOUT: Final = 0.1
_MAX_TAGS: Final = 10
_MAX_TAG_BYTES: Final = 1024
_TAG_KEY = re.compile(r"[a-z0-9._-]{1,64}")
_TAG_VALUE = re.compile(r"[ -+\--~]{0,256}")  # printable ASCII without the comma
# The scheme alone ignores case: a large set of characters that does takes 13 ms to compile.
_WEB_URL = re.compile(r"(?i:https?)://[^\s/?#\\][^\s\\\x00-\x1f\x7f\ud800-\udfff]*")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e]*")
_PRODUCT = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
#: Headers of the transport: copied from another request, these would break the framing.
_RESERVED_HEADERS: Final = frozenset({
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
})  # fmt: skip


def merge_headers(*parts: Mapping[str, str] | None) -> dict[str, str]:
    """Merge headers, with names in lower case. Later parts win; unsafe headers raise."""
    merged: dict[str, str] = {}
    for part in parts:
        if part is None:
            continue
        check_mapping("headers", part)
        for name, value in part.items():
            if not _matches(_TOKEN, name):
                raise InvalidRequestError(f"{describe(name)} is not a header name")
            if name.lower() in _RESERVED_HEADERS:
                raise InvalidRequestError(
                    f"the header {describe(name)} must not be set: the transport sets it"
                )
            if not _matches(_VALUE, value):
                raise InvalidRequestError(
                    f"the value of the header {describe(name)} must be printable ASCII text"
                )
            merged[name.lower()] = value.strip(" \t")
    return merged


def default_headers(headers: object) -> dict[str, str]:
    """Validate the headers of all requests of a client; ``None`` is none."""
    if headers is None:
        return {}
    check_mapping("default_headers", headers)
    merged = merge_headers(cast("Mapping[str, str]", headers))
    for name in merged:
        if name == "user-agent":
            raise InvalidRequestError(
                "default_headers must not contain 'user-agent': use the argument user_agent"
            )
        if name == "authorization" or name.startswith("x-fal-"):
            raise InvalidRequestError(
                f"default_headers must not contain {name!r}: the client sets it"
            )
    return merged


def user_agent(product: object) -> str:
    """Return the User-Agent header with the product of a caller; ``None`` is none."""
    if product is None:
        return USER_AGENT
    if not _matches(_PRODUCT, product):
        raise InvalidRequestError(
            f"user_agent must be printable ASCII text such as 'my-app/1.0', got {describe(product)}"
        )
    return f"{USER_AGENT} {product}"


def platform_headers(
    *,
    hint: str | None = None,
    priority: Priority | None = None,
    start_timeout: float | None = None,
    tags: Mapping[str, str] | None = None,
    no_retry: bool = False,
    store_io: bool | None = None,
    expires_in: int | None = None,
) -> dict[str, str]:
    """Return the headers for the options of a run or submit."""
    headers: dict[str, str] = {}
    if hint is not None:
        headers["x-fal-runner-hint"] = check_instance("hint", hint, str)
    if priority is not None:
        if not is_one_of(priority, get_args(Priority)):
            raise InvalidRequestError(
                f"priority must be 'normal' or 'low', got {describe(priority)}"
            )
        headers["x-fal-queue-priority"] = priority
    if start_timeout is not None:
        value = seconds("start_timeout", start_timeout)
        if value is None or value <= MIN_START_TIMEOUT:
            raise InvalidRequestError(
                f"start_timeout must be more than {MIN_START_TIMEOUT} seconds, got "
                f"{describe(start_timeout)}"
            )
        text = str(float(value))
        headers["x-fal-request-start-timeout"] = text
        headers["x-fal-request-timeout"] = text  # the name before 2026
    if tags is not None and (text := _encode_tags(tags)):
        headers["x-fal-tags"] = text
    if check_flag("no_retry", no_retry):
        headers["x-fal-no-retry"] = "1"
    if store_io is not None:
        headers["x-fal-store-io"] = "1" if check_flag("store_io", store_io) else "0"
    if expires_in is not None:
        whole_number("expires_in", expires_in)
        lifecycle = encode_json({"expiration_duration_seconds": expires_in}).decode()
        headers["x-fal-object-lifecycle-preference"] = lifecycle
    return headers


def start_timeout_within(start_timeout: float | None, client_timeout: float | None) -> float | None:
    """Return the start timeout, by default the deadline of the call: later is too late."""
    if start_timeout is not None or client_timeout is None:
        return start_timeout
    return client_timeout if client_timeout > MIN_START_TIMEOUT else None


def _encode_tags(tags: Mapping[str, str]) -> str:
    """Validate and encode tags: the platform ignores invalid ones without an error."""
    check_mapping("tags", tags)
    for key, value in tags.items():
        if not _matches(_TAG_KEY, key) or key.startswith("fal."):
            raise InvalidRequestError(
                f"the tag name {describe(key)} must be 1 to 64 of a-z 0-9 . _ - and not start "
                "with 'fal.'"
            )
        if not _matches(_TAG_VALUE, value):
            raise InvalidRequestError(
                f"the value of the tag {describe(key)} must be printable ASCII without commas, "
                "at most 256 characters"
            )
    text = ",".join(f"{key}={value}" for key, value in tags.items())
    if len(tags) > _MAX_TAGS or len(text) > _MAX_TAG_BYTES:
        raise InvalidRequestError(f"at most {_MAX_TAGS} tags and {_MAX_TAG_BYTES} bytes in all")
    return text


def submit_query(
    *, webhook_url: str | None = None, max_queue_length: int | None = None
) -> dict[str, Any]:
    """Return the query parameters of a submit."""
    query: dict[str, Any] = {}
    if webhook_url is not None:
        if not _matches(_WEB_URL, webhook_url):
            raise InvalidRequestError(
                "webhook_url must be an absolute http or https URL without spaces, "
                f"got {describe(webhook_url)}"
            )
        query["fal_webhook"] = webhook_url
    if max_queue_length is not None:
        query["fal_max_queue_length"] = whole_number(
            "max_queue_length", max_queue_length, at_least=0
        )
    return query


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None
