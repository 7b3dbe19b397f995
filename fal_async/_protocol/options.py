"""Validation of call options, and their headers and query parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping
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
from fal_async.errors import InvalidRequestError
from fal_async.types import Priority

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = [
    "merge_headers",
    "platform_headers",
    "start_timeout_within",
    "submit_query",
]

#: Start timeouts must be longer than this, in seconds.
MIN_START_TIMEOUT: Final = 0.1
_MAX_TAGS: Final = 10
_MAX_TAG_BYTES: Final = 1024
_TAG_KEY = re.compile(r"[a-z0-9._-]{1,64}")
_TAG_VALUE = re.compile(r"[ -+\--~]{0,256}")  # printable ASCII without the comma
_WEB_URL = re.compile(r"https?://[^\s/?#\\][^\s\\\x00-\x1f\x7f\ud800-\udfff]*", re.IGNORECASE)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e]*")
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
        for name, value in _items(part):
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


def _items(headers: object) -> Iterable[tuple[str, str]]:
    if not isinstance(headers, Mapping):
        raise InvalidRequestError(f"headers must be a mapping, got {describe(headers)}")
    return cast("Mapping[str, str]", headers).items()


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
    given: tuple[Any, ...] = (
        hint, priority, start_timeout, tags, no_retry, store_io, expires_in
    )  # fmt: skip
    headers: dict[str, str] = {}
    for value, (names, write) in zip(given, _HEADER_WRITERS, strict=True):
        if value is not None and (text := write(value)) is not None:
            headers.update(dict.fromkeys(names, text))
    return headers


def start_timeout_within(start_timeout: float | None, client_timeout: float | None) -> float | None:
    """Return the start timeout, by default the deadline of the call: later is too late."""
    if start_timeout is not None or client_timeout is None:
        return start_timeout
    return client_timeout if client_timeout > MIN_START_TIMEOUT else None


def _priority(priority: str) -> str:
    if not is_one_of(priority, get_args(Priority)):
        raise InvalidRequestError(f"priority must be 'normal' or 'low', got {describe(priority)}")
    return priority


def _start_timeout(start_timeout: float) -> str:
    value = seconds("start_timeout", start_timeout)
    if value is None or value <= MIN_START_TIMEOUT:
        raise InvalidRequestError(
            f"start_timeout must be more than {MIN_START_TIMEOUT} seconds, got "
            f"{describe(start_timeout)}"
        )
    return str(float(value))


def _tags(tags: Mapping[str, str]) -> str | None:
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
    return text or None


def _hint(hint: object) -> str:
    return check_instance("hint", hint, str)


def _no_retry(no_retry: object) -> str | None:
    return "1" if check_flag("no_retry", no_retry) else None


def _store_io(store_io: object) -> str:
    return "1" if check_flag("store_io", store_io) else "0"


def _lifecycle(expires_in: object) -> str:
    whole_number("expires_in", expires_in)
    return encode_json({"expiration_duration_seconds": expires_in}).decode()


def submit_query(
    *, webhook_url: str | None = None, max_queue_length: int | None = None
) -> dict[str, Any]:
    """Return the query parameters of a submit."""
    query: dict[str, Any] = {}
    if webhook_url is not None:
        if not _matches(_WEB_URL, webhook_url):
            raise InvalidRequestError(
                f"webhook_url must be an absolute URL, got {describe(webhook_url)}"
            )
        query["fal_webhook"] = webhook_url
    if max_queue_length is not None:
        query["fal_max_queue_length"] = whole_number(
            "max_queue_length", max_queue_length, at_least=0
        )
    return query


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


#: The headers of the options, in the order of the parameters of `platform_headers`.
_HEADER_WRITERS: Final[tuple[tuple[tuple[str, ...], Callable[[Any], str | None]], ...]] = (
    (("x-fal-runner-hint",), _hint),
    (("x-fal-queue-priority",), _priority),
    # the second is the old name
    (("x-fal-request-start-timeout", "x-fal-request-timeout"), _start_timeout),
    (("x-fal-tags",), _tags),
    (("x-fal-no-retry",), _no_retry),
    (("x-fal-store-io",), _store_io),
    (("x-fal-object-lifecycle-preference",), _lifecycle),
)
