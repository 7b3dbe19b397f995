"""The signatures of callbacks: pure functions of headers, body, keys and time."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, cast

from fal_async._core.checks import describe, explain
from fal_async._protocol.serialization import decode_json, object_or_empty
from fal_async.errors import (
    InvalidRequestError,
    InvalidResponseError,
    InvalidWebhookSignatureError,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = [
    "Headers",
    "HeadersWithItems",
    "SignedHeaders",
    "check_age",
    "find_key",
    "parse_keys",
    "raw_body",
    "read_headers",
    "signed_message",
]


class HeadersWithItems(Protocol):
    """Headers of a framework that are no `Mapping`, such as those of ``email`` and Werkzeug."""

    def items(self) -> Iterable[tuple[str, Any]]:
        """Return the names and values."""
        ...


#: Headers as frameworks have them, including ``request.META`` of Django, an environment of WSGI and
#: the list of pairs of ASGI.
Headers: TypeAlias = (
    Mapping[str, Any] | HeadersWithItems | Iterable[tuple[str | bytes, str | bytes]]
)

#: The maximum length of a header value, in characters.
MAX_VALUE: Final = 1024
#: The maximum number of keys in a set: a forged callback costs a verification with each.
MAX_KEYS: Final = 32
_REQUEST_ID: Final = "x-fal-webhook-request-id"
_USER_ID: Final = "x-fal-webhook-user-id"
_TIMESTAMP: Final = "x-fal-webhook-timestamp"
_SIGNATURE: Final = "x-fal-webhook-signature"
_NAMES: Final = (_REQUEST_ID, _USER_ID, _TIMESTAMP, _SIGNATURE)
#: The names in an environment of WSGI.
_WSGI_NAMES: Final = {f"HTTP_{name.upper().replace('-', '_')}": name for name in _NAMES}
_HEX_SIGNATURE: Final = re.compile(r"[0-9a-fA-F]{128}")
_SECONDS: Final = re.compile(r"[0-9]{1,15}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedHeaders:
    """The four headers of a callback.

    Attributes:
        request_id: The id of the job, or of its last attempt.
        user_id: The id of the account.
        timestamp: The time of the signature, in seconds of Unix time, as it was sent.
        signature: The 64 bytes of the signature.
    """

    request_id: str
    user_id: str
    timestamp: str
    signature: bytes


def read_headers(headers: Headers) -> SignedHeaders:
    """Read the headers of a callback.

    Raises:
        InvalidRequestError: The argument is not headers.
        InvalidWebhookSignatureError: A header is missing, duplicated or malformed.
    """
    found: dict[str, list[str]] = {name: [] for name in _NAMES}
    for given, value in _pairs(headers):
        text = given.decode("latin-1") if isinstance(given, bytes) else given
        if not isinstance(text, str):
            continue
        name = _WSGI_NAMES.get(text) or text.lower()
        if name in found:
            values = cast("list[object]", value) if isinstance(value, list | tuple) else [value]
            found[name] += [_value_text(name, each) for each in values]
    for name, texts in found.items():
        if len(texts) != 1:
            problem = "is missing" if not texts else "is duplicated"
            raise InvalidWebhookSignatureError(f"the header {name} of the callback {problem}")
    request_id, user_id, timestamp, signature = (found[name][0] for name in _NAMES)
    if not _SECONDS.fullmatch(timestamp):
        raise InvalidWebhookSignatureError(
            f"the header {_TIMESTAMP} must be a number of seconds, got {describe(timestamp)}"
        )
    if not _HEX_SIGNATURE.fullmatch(signature):
        raise InvalidWebhookSignatureError(
            f"the header {_SIGNATURE} must be 64 bytes in hexadecimal, got {describe(signature)}"
        )
    return SignedHeaders(
        request_id=request_id,
        user_id=user_id,
        timestamp=timestamp,
        signature=bytes.fromhex(signature),
    )


def _pairs(headers: object) -> Iterable[tuple[object, object]]:
    # `items` of httpx joins duplicates, and that of a mapping of Werkzeug returns all of them.
    items = getattr(headers, "multi_items", None) or getattr(headers, "items", None)
    pairs: object = items() if callable(items) else headers
    if isinstance(pairs, Iterable) and not isinstance(pairs, str | bytes):
        found = [cast("Sequence[object]", pair) for pair in cast("Iterable[object]", pairs)]
        if all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in found):
            return [(pair[0], pair[1]) for pair in found]
    raise InvalidRequestError(
        f"headers must be the headers of the request, got {describe(headers)}"
    )


def _value_text(name: str, value: object) -> str:
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    if isinstance(text, str):
        text = text.strip(" \t")
        # Servers join duplicates with a comma. A line break would move text between the lines of
        # the signed message.
        if 0 < len(text) <= MAX_VALUE and text.isascii() and text.isprintable() and "," not in text:
            return text
    raise InvalidWebhookSignatureError(
        f"the header {name} must be one value of visible characters, got {describe(value)}"
    )


def raw_body(payload: object) -> bytes:
    """Return the body that was signed.

    Text is encoded in UTF-8, since it was decoded from the same bytes if it was valid.

    Raises:
        InvalidRequestError: The payload is not the body, but what it was decoded to.
    """
    if isinstance(payload, bytes):
        return payload
    if isinstance(payload, bytearray | memoryview):
        return bytes(cast("bytearray", payload))
    if isinstance(payload, str):
        return payload.encode("utf-8", "surrogatepass")
    raise InvalidRequestError(
        f"payload must be the raw body of the request, got {describe(payload)}: the signature is "
        "that of its bytes, which a decoded body does not have any more"
    )


def signed_message(headers: SignedHeaders, body: bytes) -> bytes:
    """Return the message that the platform signs: four lines, the last the hash of the body."""
    digest = hashlib.sha256(body).hexdigest()
    return "\n".join([headers.request_id, headers.user_id, headers.timestamp, digest]).encode()


def check_age(headers: SignedHeaders, now: float, tolerance: float) -> None:
    """Check that a callback was signed not much more than `tolerance` seconds ago, or ahead.

    Args:
        headers: The headers.
        now: The Unix time, in seconds.
        tolerance: The largest difference, in seconds, which is accepted itself.

    Raises:
        InvalidWebhookSignatureError: The callback is too old, or from the future.
    """
    age = int(now) - int(headers.timestamp)
    if abs(age) > tolerance:
        when = f"{age} seconds ago" if age > 0 else f"{-age} seconds ahead of this clock"
        raise InvalidWebhookSignatureError(
            f"the callback was signed {when}, which is more than {tolerance:g} seconds"
        )


def find_key(
    keys: Iterable[Ed25519PublicKey], signature: bytes, message: bytes
) -> Ed25519PublicKey | None:
    """Return the key of a set that a signature was made with; ``None`` if there is none.

    The headers do not name the key, so each one is tried.
    """
    from cryptography.exceptions import InvalidSignature  # of an extra, and slow to import

    for key in keys:
        try:
            key.verify(signature, message)
        except InvalidSignature:
            continue
        return key
    return None


def parse_keys(body: bytes) -> tuple[Ed25519PublicKey, ...]:
    """Parse a JSON Web Key Set. Keys for other algorithms are left out.

    Raises:
        InvalidResponseError: It is not a key set, or has no key that can be used.
    """
    # An extra, and slow to import.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        value: object = decode_json(body)
    except ValueError as error:
        raise InvalidResponseError(f"the key set is not JSON: {explain(error)}") from error
    listed = cast("dict[str, object]", value).get("keys") if isinstance(value, dict) else None
    entries = cast("list[object]", listed) if isinstance(listed, list) else []
    found = [key for entry in entries if (key := _ed25519_bytes(entry)) is not None]
    if not found:
        raise InvalidResponseError("the key set has no Ed25519 key", body=value)
    return tuple(Ed25519PublicKey.from_public_bytes(key) for key in found[:MAX_KEYS])


def _ed25519_bytes(entry: object) -> bytes | None:
    """Return the 32 bytes of a public key; ``None`` for another kind of key."""
    fields = object_or_empty(entry)
    x = fields.get("x")
    if fields.get("kty", "OKP") != "OKP" or fields.get("crv", "Ed25519") != "Ed25519":
        return None
    if not isinstance(x, str) or not x.isascii():
        return None
    try:
        key = base64.b64decode(x.rstrip("=") + "=", altchars=b"-_", validate=True)
    except binascii.Error:
        return None
    return key if len(key) == 32 else None
