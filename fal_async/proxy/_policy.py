"""The policy of the proxy: which requests of visitors reach the platform, and as which URLs."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast
from urllib.parse import parse_qsl, unquote_to_bytes, urlencode

from fal_async._config import Hosts
from fal_async._core.checks import check_sequence, describe
from fal_async._protocol.endpoint import Endpoint, parse_endpoint, parse_request_id
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Action", "EndpointPatterns", "PolicyViolation", "ProxyPolicy", "Target"]

#: The purpose of a request.
Action: TypeAlias = Literal[
    "run", "submit", "status", "status_stream", "result", "cancel", "token", "upload"
]

#: The maximum length of a target URL, in characters.
MAX_TARGET: Final = 8192
#: The maximum number of query parameters.
MAX_PARAMETERS: Final = 100

_SEGMENT = re.compile(r"[A-Za-z0-9_@~+][A-Za-z0-9_.@~+-]*")
_PATTERN_SEGMENT = re.compile(r"\*\*|(?:[A-Za-z0-9_.@~+-]|\*(?!\*))+")
_VISIBLE = re.compile(r"[!-~]+")
#: The paths of an app that its streams and sessions use. They need no entry of their own.
_IMPLIED: Final = ("stream", "realtime")
#: The platform's own query parameters begin with it. One of them names a webhook.
_RESERVED_PARAMETER: Final = "fal_"
_LOGS: Final = frozenset({"0", "1", "false", "true"})
#: Methods and actions by the path below ``/requests/{id}``.
_JOB_ACTIONS: Final[dict[tuple[str, ...], tuple[str, Action, str]]] = {
    (): ("GET", "result", ""),
    ("response",): ("GET", "result", ""),
    ("status",): ("GET", "status", "/status"),
    ("status", "stream"): ("GET", "status_stream", "/status/stream"),
    ("cancel",): ("PUT", "cancel", "/cancel"),
}
_TOKEN_PATHS: Final = {"tokens": "/tokens/", "tokens/realtime": "/tokens/realtime"}
_UPLOAD_PATHS: Final = frozenset(
    {
        "storage/upload/initiate",
        "storage/upload/initiate-multipart",
        "storage/upload/complete-multipart",
    }
)
_STORAGE: Final = [("storage_type", "fal-cdn-v3")]


class PolicyViolation(Exception):  # noqa: N818 -- a decision, not a failure
    """A request that the policy refuses; its text is the reason, for the log of the service."""


@dataclass(frozen=True, slots=True)
class Target:
    """A request that the policy allows.

    Attributes:
        action: The purpose of the request.
        url: The URL at the platform, put together from the checked parts.
        endpoint: The endpoint id: without its path for a job that exists, and empty for tokens and
            uploads.
        request_id: The id of the job; ``None`` if the request is not about a job that exists.
    """

    action: Action
    url: str
    endpoint: str = ""
    request_id: str | None = None


class EndpointPatterns:
    """The endpoints that visitors may call.

    In a pattern, ``*`` stands for any characters within a segment, and a segment ``**`` for any
    number of segments.

    Args:
        patterns: Endpoint ids and patterns.

    Raises:
        InvalidRequestError: There is no pattern, or one that can match no endpoint.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        check_sequence("allow", patterns)
        if not patterns:
            raise InvalidRequestError(
                "allow must name the endpoints that visitors may call, got none: "
                'allow=["**"] allows all'
            )
        segments = [_parse_pattern(pattern) for pattern in patterns]
        self._ids = re.compile("|".join(map("".join, segments)))
        # Any number of the first segments, such as (?:acme/(?:[^/]*/)?)? for acme/*.
        prefixes = [
            "".join(f"(?:{regex}" for regex in each) + ")?" * len(each) for each in segments
        ]
        self._apps = re.compile("|".join(prefixes))
        # A token for an alias names no owner, so wildcards do not count.
        self._aliases = {parse_endpoint(each).alias for each in patterns if "*" not in each}

    def match(self, endpoint: str) -> bool:
        """Return whether an endpoint id matches."""
        return self._ids.fullmatch(f"{endpoint}/") is not None

    def match_app(self, app: str) -> bool:
        """Return whether an endpoint of this app, an id without its path, may match."""
        return self._apps.fullmatch(f"{app}/") is not None

    def match_path(self, endpoint: str) -> bool:
        """Return whether an id matches, with or without the path of a stream or a session."""
        bare, _, last = endpoint.rpartition("/")
        return self.match(endpoint) or (last in _IMPLIED and self.match(bare))

    def match_token(self, app: object) -> bool:
        """Return whether a token may be given for an app: an endpoint id, or its alias alone."""
        if not isinstance(app, str):
            return False
        if "/" not in app:
            return app in self._aliases
        return all(map(_SEGMENT.fullmatch, app.split("/"))) and self.match_path(app)


def _parse_pattern(pattern: object) -> list[str]:
    """Return a regular expression for each segment of a pattern."""
    segments = pattern.split("/") if isinstance(pattern, str) else []
    is_valid = all(map(_PATTERN_SEGMENT.fullmatch, segments))
    if not is_valid or (len(segments) < 2 and "**" not in segments):
        raise InvalidRequestError(
            "allow must contain endpoint ids and patterns, such as 'fal-ai/flux/dev' and "
            f"'acme/*', got {describe(pattern)}"
        )
    return [
        "(?:[^/]+/)*" if segment == "**" else "[^/]*".join(map(re.escape, segment.split("*"))) + "/"
        for segment in segments
    ]


class ProxyPolicy:
    """Decides which requests of visitors the proxy forwards.

    It is pure: method and URL in, the `Target` or a `PolicyViolation` out. The URL at the platform
    is not the one that the visitor sent, but put together from its parts after they were decoded
    and checked. So no parser can see another host or path in it than this one.

    Args:
        hosts: The base URLs of the client, which replace those of the platform.
        allow: The endpoints, as `EndpointPatterns` takes them.
        allow_uploads: Whether visitors may begin uploads.
        allow_realtime: Whether visitors may request tokens.
        token_lifetime: The maximum lifetime of a token, in seconds.

    Raises:
        InvalidRequestError: `allow` is invalid.
    """

    def __init__(
        self,
        hosts: Hosts,
        allow: Sequence[str],
        *,
        allow_uploads: bool = False,
        allow_realtime: bool = False,
        token_lifetime: int = 120,
    ) -> None:
        self.endpoints = EndpointPatterns(allow)
        self._hosts = hosts
        self._allow_uploads = allow_uploads
        self._allow_realtime = allow_realtime
        self._token_lifetime = token_lifetime
        platform = Hosts()
        bases = [
            (f"{getattr(each, name)}/", name)
            for each in (platform, hosts)
            for name in ("run", "queue", "rest")
        ]
        #: The longest first, since one base URL may begin with another.
        self._bases = sorted(bases, key=lambda base: -len(base[0]))

    def check(self, method: str, url: str) -> Target:
        """Return the target of a request.

        Args:
            method: The method.
            url: The value of ``x-fal-target-url``.

        Raises:
            PolicyViolation: The request is not allowed.
        """
        host, path, query = self._split(url)
        if host == "rest":
            return self._check_rest(method, "/".join(path), query)
        try:
            endpoint = parse_endpoint("/".join(path))
        except InvalidRequestError as error:
            raise PolicyViolation(str(error)) from None
        if host == "run":
            if method not in {"GET", "POST"}:
                raise PolicyViolation(f"cannot run an endpoint by {method}")
            if not self.endpoints.match_path(str(endpoint)):
                raise PolicyViolation(f"the endpoint {endpoint} is not listed")
            return Target("run", self._url("run", f"/{endpoint}", query), str(endpoint))
        depth = endpoint.app.count("/") + 1
        if "requests" in path[depth:]:
            return self._check_job(method, endpoint, path, query)
        if method != "POST":
            raise PolicyViolation(f"cannot submit a job by {method}")
        if not self.endpoints.match(str(endpoint)):
            raise PolicyViolation(f"the endpoint {endpoint} is not listed")
        return Target("submit", self._url("queue", f"/{endpoint}", query), str(endpoint))

    def limit_token(self, body: object) -> dict[str, Any]:
        """Return the body of a request for a token, with a limited lifetime.

        Args:
            body: The decoded body that the visitor sent.

        Raises:
            PolicyViolation: The body is invalid, or names an app that is not listed.
        """
        fields = cast("dict[str, Any]", body if isinstance(body, dict) else {})
        apps: object = fields.get("allowed_apps")
        if not isinstance(apps, list) or not apps:
            raise PolicyViolation("a token must be for a list of apps")
        for app in cast("list[object]", apps):
            if not self.endpoints.match_token(app):
                raise PolicyViolation(f"no token is given for {describe(app)}: it is not listed")
        name = "duration" if "duration" in fields else "token_expiration"
        lifetime: object = fields.get(name, self._token_lifetime)
        if (
            isinstance(lifetime, bool)
            or not isinstance(lifetime, int | float)
            or not 1 <= lifetime < math.inf
        ):
            raise PolicyViolation(
                f"the lifetime of a token must be a number, got {describe(lifetime)}"
            )
        return {"allowed_apps": apps, name: min(int(lifetime), self._token_lifetime)}

    def _split(self, url: str) -> tuple[str, list[str], list[tuple[str, str]]]:
        """Split a URL into the name of its host, its decoded path and its query."""
        if len(url) > MAX_TARGET or not _VISIBLE.fullmatch(url) or set("\\#") & set(url):
            raise PolicyViolation(f"the target is not a plain URL: {describe(url)}")
        found = next((each for each in self._bases if url.startswith(each[0])), None)
        if found is None:
            raise PolicyViolation(f"the target is not a host of the platform: {describe(url)}")
        base, name = found
        raw_path, _, raw_query = url.removeprefix(base).partition("?")
        # Decoded once, as the platform does. A path that is still encoded has no valid segments.
        path = unquote_to_bytes(raw_path.removesuffix("/")).decode("latin-1").split("/")
        if not all(map(_SEGMENT.fullmatch, path)):
            raise PolicyViolation(f"the path of the target is invalid: {describe(url)}")
        try:
            query = parse_qsl(
                raw_query, keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS
            )
        except ValueError:
            raise PolicyViolation(f"the query of the target is invalid: {describe(url)}") from None
        return name, path, query

    def _check_job(
        self, method: str, endpoint: Endpoint, path: list[str], query: list[tuple[str, str]]
    ) -> Target:
        _, *rest = path[path.index("requests", endpoint.app.count("/") + 1) :]
        if not rest:
            raise PolicyViolation("the target names no job")
        expected, action, suffix = _JOB_ACTIONS.get(tuple(rest[1:]), ("", "result", ""))
        if method != expected:
            raise PolicyViolation(f"cannot send {method} to {'/'.join(path)}")
        if not self.endpoints.match_app(endpoint.app):
            raise PolicyViolation(f"no endpoint of {endpoint.app} is listed")
        is_status = action in {"status", "status_stream"}
        if any(not is_status or name != "logs" or value not in _LOGS for name, value in query):
            raise PolicyViolation(f"the query of a {action} request is invalid")
        try:
            request_id = parse_request_id(rest[0])
        except InvalidRequestError as error:
            raise PolicyViolation(str(error)) from None
        url = self._url("queue", f"/{endpoint.app}/requests/{request_id}{suffix}", query)
        return Target(action, url, endpoint.app, request_id)

    def _check_rest(self, method: str, path: str, query: list[tuple[str, str]]) -> Target:
        if method == "POST" and path in _TOKEN_PATHS and not query and self._allow_realtime:
            return Target("token", self._url("rest", _TOKEN_PATHS[path], []))
        if method == "POST" and path in _UPLOAD_PATHS and query == _STORAGE and self._allow_uploads:
            return Target("upload", self._url("rest", f"/{path}", query))
        raise PolicyViolation(f"cannot send {method} to {path}: it is not allowed")

    def _url(self, host: str, path: str, query: list[tuple[str, str]]) -> str:
        if any(name.strip().lower().startswith(_RESERVED_PARAMETER) for name, _ in query):
            raise PolicyViolation("the query has a parameter of the platform")
        encoded = f"?{urlencode(query)}" if query else ""
        return f"{getattr(self._hosts, host)}{path}{encoded}"
