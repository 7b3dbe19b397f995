"""The settings of a client: frozen, validated values."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, Self, cast
from urllib.parse import SplitResult, urlsplit

from fal_async._core.annotations import set_module
from fal_async._core.checks import check_instance, check_number, describe, whole_number
from fal_async._core.secrets import Variables
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Hosts", "LimitUsage", "Limits", "RetryPolicy"]


class Unchanged(Enum):
    """The type of `UNCHANGED`."""

    UNCHANGED = auto()

    def __repr__(self) -> str:
        return "<unchanged>"


#: The default of a setting that is not changed; ``None`` is a value.
UNCHANGED: Final = Unchanged.UNCHANGED

#: Bytes in a mebibyte.
MIB = 1024 * 1024
_SCHEMES = {
    "run": "http",
    "queue": "http",
    "rest": "http",
    "cdn": "http",
    "ws": "ws",
    "platform": "http",
}


@set_module("fal_async")
@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """The base URLs of the platform.

    Attributes:
        run: Direct runs and streams. Realtime WebSockets use the same URL with the scheme ``ws`` or
            ``wss``.
        queue: The job queue.
        rest: Tokens, storage and the keys of webhooks.
        cdn: Uploaded files and files in outputs.
        ws: HTTP over WebSocket.
        platform: The platform API: models, prices and the requests of the account.

    Raises:
        InvalidRequestError: A URL is not absolute, has the wrong scheme, or contains a query or a
            password.

    Example:
        >>> Hosts.at("http://127.0.0.1:8000").queue
        'http://127.0.0.1:8000/queue'
    """

    run: str = "https://fal.run"
    queue: str = "https://queue.fal.run"
    rest: str = "https://rest.fal.ai"
    cdn: str = "https://v3.fal.media"
    ws: str = "wss://ws.fal.run"
    platform: str = "https://api.fal.ai"

    def __post_init__(self) -> None:
        for field in fields(self):
            url = _base_url(field.name, getattr(self, field.name))
            object.__setattr__(self, field.name, url)

    @classmethod
    def at(cls, base_url: str) -> Self:
        """Return the hosts below one URL, at the paths ``/run /queue /rest /cdn /ws /platform``."""
        base = _base_url("run", base_url)
        return cls(
            run=f"{base}/run",
            queue=f"{base}/queue",
            rest=f"{base}/rest",
            cdn=f"{base}/cdn",
            ws=f"ws{base.removeprefix('http')}/ws",
            platform=f"{base}/platform",
        )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Read ``FAL_ASYNC_BASE_URL``, or else ``FAL_RUN_HOST`` and ``FAL_QUEUE_RUN_HOST``."""
        environ = cast(
            "Mapping[str, str]", Variables(environ)
        )  # tracebacks do not show the variables
        if base_url := environ.get("FAL_ASYNC_BASE_URL", "").strip():
            return cls.at(base_url)
        run = _read_host("FAL_RUN_HOST", environ) or "fal.run"
        queue = _read_host("FAL_QUEUE_RUN_HOST", environ) or f"queue.{run}"
        return cls(run=f"https://{run}", queue=f"https://{queue}", ws=f"wss://ws.{run}")


def _read_host(variable: str, environ: Mapping[str, str]) -> str:
    host = environ.get(variable, "").strip()
    if set("/?#@") & set(host):
        raise InvalidRequestError(f"{variable} must be a host such as fal.run, without a scheme")
    return host


def _base_url(name: str, url: object) -> str:
    scheme = _SCHEMES[name]
    parts = split_url(url) if isinstance(url, str) else None
    if parts is None or parts.scheme not in {scheme, f"{scheme}s"} or not parts.hostname:
        raise InvalidRequestError(
            f"the {name} host must be an absolute {scheme}:// or {scheme}s:// URL"
        )
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise InvalidRequestError(
            f"the {name} host must be a bare URL, without query, fragment or user"
        )
    return parts.geturl().rstrip("/")


def split_url(url: str) -> SplitResult | None:
    """Split a URL; ``None`` for a URL that parsers split differently."""
    if "\\" in url or " " in url or not url.isprintable():
        return None
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts


def check_hosts(hosts: object) -> Hosts:
    """Validate the `hosts` argument: the hosts, or the URL that all of them are below."""
    if isinstance(hosts, str):
        return Hosts.at(hosts)
    if not isinstance(hosts, Hosts):
        raise InvalidRequestError(f"hosts must be a Hosts or a base URL, got {describe(hosts)}")
    return hosts


@set_module("fal_async")
@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The concurrency limits of a client, per event loop. Calls beyond a limit wait.

    Each lane has its own limit, so that calls that wait cannot starve short calls.

    Attributes:
        control: The connections for short calls: submit, status, result, tokens. Cancellations have
            as many of their own.
        held: The connections for calls that use one for their whole duration: run and stream.
        max_streams: The waits for queue jobs that use a status stream. Further waits poll until a
            stream is free. Keys and endpoints get equal shares.
        polls_per_second: The status requests of all polling waits together, per second. With more
            than 60 waits for each, jobs are polled less often than once a minute.
        uploads: The files, and parts of files, that are sent at once. With `part_size`, it bounds
            the memory of uploads: one part for each iterator, or 1 MiB for each file.
        downloads: The files that are received at once.
        part_size: The size of the parts of a multipart upload, in bytes.
        single_shot: The size of the largest upload that is sent in one request, in bytes.
        reused_uploads: The files in arguments whose URLs are kept, so that the same content is
            uploaded once. A URL is reused for half of its lifetime, or for half an hour if only the
            account's settings limit that. 0 uploads files each time.

    Example:
        >>> Limits(max_streams=32).max_streams
        32
    """

    control: int = 100
    held: int = 1000
    max_streams: int = 256
    polls_per_second: float = 1000.0
    uploads: int = 16
    downloads: int = 64
    part_size: int = 10 * MIB
    single_shot: int = 100 * MIB
    reused_uploads: int = 1000

    def __post_init__(self) -> None:
        for name in ("control", "held", "uploads", "downloads", "part_size"):
            whole_number(f"limits.{name}", getattr(self, name))
        for name in ("max_streams", "single_shot", "reused_uploads"):
            whole_number(f"limits.{name}", getattr(self, name), at_least=0)
        check_number("limits.polls_per_second", self.polls_per_second)


@set_module("fal_async")
@dataclass(frozen=True, slots=True, kw_only=True)
class LimitUsage:
    """The use of one of the `Limits` of a client.

    Attributes:
        limit: The number of slots.
        used: The number of slots in use.
        waiting: The number of calls that wait for a slot.
    """

    limit: int
    used: int
    waiting: int


@set_module("fal_async")
@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """The number and the delays of retries.

    The policy does not decide which requests are retried: a request that starts a job is retried
    only if the platform certainly did not accept it.

    Attributes:
        attempts: The maximum number of attempts; 1 disables retries.
        base_delay: The maximum of the first delay, in seconds. It doubles with each attempt, and
            the delay is random between zero and the maximum.
        max_delay: The upper bound of that maximum, in seconds.
        budget: The time for all attempts of a call, in seconds from its start.
        max_retry_after: The longest delay that the platform may ask for, in seconds. If it asks
            for more, the error is raised at once.
        result_budget: The time for reading the output of a job that has ended, in seconds. The
            output is paid for, so while the platform cannot be reached or is overloaded, neither
            `attempts` nor `budget` limits the retries, unless `attempts` is 1. The default is the
            time for which the platform keeps small outputs; 0 treats outputs like everything else.

    Example:
        >>> RetryPolicy(attempts=1).attempts
        1
    """

    attempts: int = 5
    base_delay: float = 0.25
    max_delay: float = 8.0
    budget: float = 60.0
    max_retry_after: float = 60.0
    result_budget: float = 3600.0

    def __post_init__(self) -> None:
        whole_number("retry.attempts", self.attempts)
        for name in ("base_delay", "max_delay", "budget", "max_retry_after", "result_budget"):
            check_number(f"retry.{name}", getattr(self, name), zero=True)


def check_policy(policy: object) -> RetryPolicy:
    """Validate the `retry` argument; ``None`` is the default policy."""
    return RetryPolicy() if policy is None else check_instance("retry", policy, RetryPolicy)
