"""Endpoint ids, app paths and request ids."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import quote

from fal_async._core.checks import describe
from fal_async.errors import InvalidRequestError

__all__ = ["Endpoint", "parse_endpoint", "parse_path", "parse_request_id"]

_NAMESPACES = frozenset({"workflows", "comfy"})
_LEGACY = re.compile(r"([0-9]+)-([A-Za-z0-9-]+)")
_SEGMENT = re.compile(r"[A-Za-z0-9_@~+][A-Za-z0-9_.@~+-]*")
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]+")
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_DOTS = re.compile(r"(?:\.|%2e){1,2}", re.IGNORECASE)
_EXPECTED = "expected 'owner/app' or 'owner/app/path', such as 'fal-ai/flux/dev'"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A parsed endpoint id.

    Attributes:
        owner: The account that owns the app.
        alias: The app's name.
        path: The path within the app, without outer slashes; may be empty.
        namespace: ``"workflows"``, ``"comfy"`` or empty.
        app: The id without its path, as in queue URLs.
        id: The whole id.
    """

    owner: str
    alias: str
    path: str = ""
    namespace: str = ""
    app: str = field(init=False)
    id: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        app = f"{self.owner}/{self.alias}"
        app = f"{self.namespace}/{app}" if self.namespace else app
        object.__setattr__(self, "app", app)
        object.__setattr__(self, "id", f"{app}/{self.path}" if self.path else app)

    def __str__(self) -> str:
        return self.id


def parse_endpoint(application: object) -> Endpoint:
    """Parse an endpoint id. Extra slashes are ignored."""
    if not isinstance(application, str):
        raise InvalidRequestError(f"an endpoint id must be a string, got {describe(application)}")
    return _parse(application)


@lru_cache(maxsize=1024)
def _parse(application: str) -> Endpoint:
    if "://" in application:
        raise InvalidRequestError(f"{describe(application)} is a URL; {_EXPECTED}")
    segments = [segment for segment in application.strip().split("/") if segment]
    if len(segments) == 1 and (legacy := _LEGACY.fullmatch(segments[0])):
        segments = list(legacy.groups())
    namespace = segments.pop(0) if segments and segments[0] in _NAMESPACES else ""
    if len(segments) < 2 or not all(map(_SEGMENT.fullmatch, segments)):
        raise InvalidRequestError(f"{describe(application)} is not an endpoint id: {_EXPECTED}")
    owner, alias, *path = segments
    return Endpoint(owner, alias, "/".join(path), namespace)


def parse_path(path: object) -> tuple[str, str]:
    """Split a `path` argument into a path without outer slashes and a query string, both encoded.

    Percent-encoded characters are kept.
    """
    if not isinstance(path, str):
        raise InvalidRequestError(f"a path must be a string, got {describe(path)}")
    bare, _, query = _STRAY_PERCENT.sub("%25", path).partition("?")
    segments = [segment for segment in bare.split("/") if segment]
    if set("#\\") & set(path) or not path.isprintable() or any(map(_DOTS.fullmatch, segments)):
        raise InvalidRequestError(f"{describe(path)} is not a path within an app")
    encoded = quote("/".join(segments), safe="/%:@!$&'()*+,;=~")
    return encoded, quote(query, safe="/%:@!$&'()*+,;=~?")


def parse_request_id(request_id: object) -> str:
    """Validate a request id."""
    if not isinstance(request_id, str) or not _REQUEST_ID.fullmatch(request_id):
        raise InvalidRequestError(f"{describe(request_id)} is not a request id")
    return request_id
