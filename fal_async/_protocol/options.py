"""Platform options: validated, and turned into request headers and query parameters."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast, get_args

from fal_async._protocol.bodies import encode_json
from fal_async.errors import InvalidRequestError
from fal_async.types import Priority

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = [
    "check_callback",
    "merge_headers",
    "platform_headers",
    "seconds",
    "start_timeout_within",
    "submit_query",
    "whole_number",
]

#: The platform takes start timeouts above this many seconds.
MIN_START_TIMEOUT: Final = 0.1
_MAX_TAGS: Final = 10
_MAX_TAG_BYTES: Final = 1024
_TAG_KEY = re.compile(r"[a-z0-9._-]{1,64}")
_TAG_VALUE = re.compile(r"[ -+\--~]{0,256}")  # printable ASCII without the comma
_WEB_URL = re.compile(r"https?://[^\s/?#\\][^\s\\\x00-\x1f\x7f\ud800-\udfff]*", re.IGNORECASE)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e]*")
#: What the transport decides: copied from another request, these would break the framing.
_FRAMING: Final = frozenset({
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
})  # fmt: skip


def check_callback(name: str, value: object) -> None:
    """Refuse a callback that cannot be called."""
    if value is not None and not callable(value):
        raise InvalidRequestError(f"{name} is a function, got {value!r}")


def seconds(name: str, value: object) -> float | None:
    """Check a duration that a caller gave: a positive, finite number of seconds, or ``None``."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequestError(f"{name} is a number of seconds, got {value!r}")
    if not 0 < value <= sys.float_info.max:
        raise InvalidRequestError(
            f"{name} must be a positive, finite number of seconds, got {value!r}"
        )
    return value


def whole_number(name: str, value: object, *, at_most: float = math.inf) -> int:
    """Check a number that a caller gave: whole, at least 1, and no more than a bound."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= at_most:
        bounds = "at least 1" if at_most == math.inf else f"from 1 to {at_most}"
        raise InvalidRequestError(f"{name} must be a whole number, {bounds}, got {value!r}")
    return value


def merge_headers(*parts: Mapping[str, str]) -> dict[str, str]:
    """One set of headers, names in lower case; later parts win; unsafe ones are refused."""
    merged: dict[str, str] = {}
    for part in parts:
        for name, value in _items(part):
            if not _matches(_TOKEN, name):
                raise InvalidRequestError(f"{name!r} is not a header name")
            if name.lower() in _FRAMING:
                raise InvalidRequestError(f"the header {name!r} is the transport's to set")
            if not _matches(_VALUE, value):
                raise InvalidRequestError(
                    f"the value of the header {name!r} must be printable ASCII text"
                )
            merged[name.lower()] = value.strip(" \t")
    return merged


def _items(headers: object) -> Iterable[tuple[str, str]]:
    if not isinstance(headers, Mapping):
        raise InvalidRequestError(f"headers are a mapping, got {type(headers).__name__}")
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
    """The headers that carry the platform options of a run or submit."""
    given: tuple[Any, ...] = (
        hint, priority, start_timeout, tags or None, no_retry or None, store_io, expires_in
    )  # fmt: skip
    headers: dict[str, str] = {}
    for value, (names, write) in zip(given, _WRITERS, strict=True):
        if value is not None:
            headers.update(dict.fromkeys(names, write(value)))
    return headers


def start_timeout_within(start_timeout: float | None, client_timeout: float | None) -> float | None:
    """The start timeout of a call with a deadline: what starts after it would run for nobody."""
    if start_timeout is not None or client_timeout is None:
        return start_timeout
    return client_timeout if client_timeout > MIN_START_TIMEOUT else None


def _priority(priority: str) -> str:
    if priority not in get_args(Priority):
        raise InvalidRequestError(f"priority must be 'normal' or 'low', got {priority!r}")
    return priority


def _start_timeout(start_timeout: float) -> str:
    value = seconds("start_timeout", start_timeout)
    if value is None or value <= MIN_START_TIMEOUT:
        raise InvalidRequestError(
            f"start_timeout must be more than {MIN_START_TIMEOUT} seconds, got {start_timeout!r}"
        )
    return str(float(value))


def _tags(tags: Mapping[str, str]) -> str:
    """The platform drops bad pairs silently, so they are refused here."""
    for key, value in tags.items():
        if not _matches(_TAG_KEY, key) or key.startswith("fal."):
            raise InvalidRequestError(
                f"the tag name {key!r} must be 1 to 64 of a-z 0-9 . _ - and not start with 'fal.'"
            )
        if not _matches(_TAG_VALUE, value):
            raise InvalidRequestError(
                f"the value of the tag {key!r} must be printable ASCII without commas, at most 256"
            )
    text = ",".join(f"{key}={value}" for key, value in tags.items())
    if len(tags) > _MAX_TAGS or len(text) > _MAX_TAG_BYTES:
        raise InvalidRequestError(f"at most {_MAX_TAGS} tags and {_MAX_TAG_BYTES} bytes in all")
    return text


def _lifecycle(expires_in: object) -> str:
    if isinstance(expires_in, bool) or not isinstance(expires_in, int) or expires_in < 1:
        raise InvalidRequestError(
            f"expires_in is a positive whole number of seconds, got {expires_in!r}"
        )
    return encode_json({"expiration_duration_seconds": expires_in}).decode()


def submit_query(
    *, webhook_url: str | None = None, max_queue_length: int | None = None
) -> dict[str, Any]:
    """The query parameters of a submit."""
    query: dict[str, Any] = {}
    if webhook_url is not None:
        if not _matches(_WEB_URL, webhook_url):
            raise InvalidRequestError(f"webhook_url must be an absolute URL, got {webhook_url!r}")
        query["fal_webhook"] = webhook_url
    if max_queue_length is not None:
        query["fal_max_queue_length"] = _count(max_queue_length)
    return query


def _count(max_queue_length: object) -> int:
    if (
        isinstance(max_queue_length, bool)
        or not isinstance(max_queue_length, int)
        or max_queue_length < 0
    ):
        raise InvalidRequestError(
            f"max_queue_length is a whole number from 0, got {max_queue_length!r}"
        )
    return max_queue_length


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


#: The headers of the options, in the order of the parameters of `platform_headers`.
_WRITERS: Final[tuple[tuple[tuple[str, ...], Callable[[Any], str]], ...]] = (
    (("x-fal-runner-hint",), str),
    (("x-fal-queue-priority",), _priority),
    # the second is the name of before 2026
    (("x-fal-request-start-timeout", "x-fal-request-timeout"), _start_timeout),
    (("x-fal-tags",), _tags),
    (("x-fal-no-retry",), lambda _: "1"),
    (("x-fal-store-io",), lambda stored: "1" if stored else "0"),
    (("x-fal-object-lifecycle-preference",), _lifecycle),
)
