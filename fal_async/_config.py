"""What a client is configured with: frozen, validated values, read once."""

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

__all__ = ["Hosts", "Limits", "RetryPolicy"]


class Unchanged(Enum):
    """The type of `UNCHANGED`."""

    UNCHANGED = auto()

    def __repr__(self) -> str:
        return "<unchanged>"


#: The default of a setting that is left as it is; ``None`` is a value of its own.
UNCHANGED: Final = Unchanged.UNCHANGED

#: Bytes in a mebibyte.
MIB = 1024 * 1024
_SCHEMES = {"run": "http", "queue": "http", "rest": "http", "cdn": "http", "ws": "ws"}


@set_module("fal_async")
@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """The base URLs of the platform.

    Attributes:
        run: Direct runs and streams; realtime sockets are at the same place with the scheme ``ws``
            or ``wss``.
        queue: The job queue.
        rest: Tokens, storage and the keys of webhooks.
        cdn: Uploaded and produced files.
        ws: HTTP over WebSocket.

    Raises:
        InvalidRequestError: A URL is not absolute, has the wrong scheme, or carries a query or a
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

    def __post_init__(self) -> None:
        for field in fields(self):
            url = _base_url(field.name, getattr(self, field.name))
            object.__setattr__(self, field.name, url)

    @classmethod
    def at(cls, base_url: str) -> Self:
        """All five under one origin, as the emulator has them: ``/run /queue /rest /cdn /ws``."""
        base = _base_url("run", base_url)
        return cls(
            run=f"{base}/run",
            queue=f"{base}/queue",
            rest=f"{base}/rest",
            cdn=f"{base}/cdn",
            ws=f"ws{base.removeprefix('http')}/ws",
        )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Read ``FAL_ASYNC_BASE_URL``, or else ``FAL_RUN_HOST`` and ``FAL_QUEUE_RUN_HOST``."""
        environ = cast("Mapping[str, str]", Variables(environ))  # an error does not show them all
        if base_url := environ.get("FAL_ASYNC_BASE_URL", "").strip():
            return cls.at(base_url)
        run = _bare_host("FAL_RUN_HOST", environ) or "fal.run"
        queue = _bare_host("FAL_QUEUE_RUN_HOST", environ) or f"queue.{run}"
        return cls(run=f"https://{run}", queue=f"https://{queue}", ws=f"wss://ws.{run}")


def _bare_host(variable: str, environ: Mapping[str, str]) -> str:
    host = environ.get(variable, "").strip()
    if set("/?#@") & set(host):
        raise InvalidRequestError(f"{variable} must be a host such as fal.run, without a scheme")
    return host


def _base_url(name: str, url: object) -> str:
    scheme = _SCHEMES[name]
    parts = _split(url) if isinstance(url, str) else None
    if parts is None or parts.scheme not in {scheme, f"{scheme}s"} or not parts.hostname:
        raise InvalidRequestError(
            f"the {name} host must be an absolute {scheme}:// or {scheme}s:// URL"
        )
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise InvalidRequestError(
            f"the {name} host must be a bare URL, without query, fragment or user"
        )
    return parts.geturl().rstrip("/")


def _split(url: str) -> SplitResult | None:
    """The parts of a URL that every reader would split in the same way."""
    if not url.isprintable() or set(" \\") & set(url):
        return None
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts


def check_hosts(hosts: object) -> Hosts:
    """Check that hosts are a `Hosts`."""
    if isinstance(hosts, str):
        raise InvalidRequestError(
            f"hosts must be a Hosts, got {describe(hosts)}: Hosts.at(...) makes one of a base URL"
        )
    return check_instance("hosts", hosts, Hosts)


@set_module("fal_async")
@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much one client does at once, on each event loop. Waiting for a place is never an error.

    The lanes are apart so that calls which wait cannot starve calls which act.

    Attributes:
        control: Connections for calls that are over soon: submit, status, result, tokens. As many
            more are for cancellations, which wait behind no other calls.
        held: Connections for calls that hold one for their whole life: run and stream.
        max_streams: Waits on queue jobs that hold a connection; the others wait for that, and poll
            meanwhile. Keys and endpoints have equal parts.
        polls_per_second: How many status requests the polling waits send together, per second. With
            less than one for every 60 waits, jobs are looked at less often than once a minute.
        uploads: Files, and parts of files, that are sent at once. With `part_size` it bounds the
            memory that uploads take: as many parts of iterators, or 1 MiB of as many files.
        downloads: Files that are received at once.
        part_size: The size of the parts that large uploads are sent in, in bytes.
        single_shot: The largest upload that is sent in one request, in bytes.

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

    def __post_init__(self) -> None:
        for name in ("control", "held", "uploads", "downloads", "part_size"):
            whole_number(f"limits.{name}", getattr(self, name))
        for name in ("max_streams", "single_shot"):
            whole_number(f"limits.{name}", getattr(self, name), at_least=0)
        check_number("limits.polls_per_second", self.polls_per_second)


@set_module("fal_async")
@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often, and for how long, an exchange that may be repeated is repeated.

    What may be repeated is not a matter of policy: a call that starts a job is repeated only when
    the first one was certainly not accepted.

    Attributes:
        attempts: How often an exchange is tried in all; 1 turns repetition off.
        base_delay: The upper bound of the first pause, in seconds; it doubles each time, and the
            pause is drawn at random between zero and the bound.
        max_delay: The largest bound of a pause, in seconds.
        budget: How long a call goes on trying, in seconds from its start.
        max_retry_after: The longest pause that the platform may ask for, in seconds; when it asks
            for more, the error is raised at once.

    Example:
        >>> RetryPolicy(attempts=1).attempts
        1
    """

    attempts: int = 5
    base_delay: float = 0.25
    max_delay: float = 8.0
    budget: float = 60.0
    max_retry_after: float = 60.0

    def __post_init__(self) -> None:
        whole_number("retry.attempts", self.attempts)
        for name in ("base_delay", "max_delay", "budget", "max_retry_after"):
            check_number(f"retry.{name}", getattr(self, name), zero=True)


def check_policy(policy: object) -> RetryPolicy:
    """Check that a policy is a `RetryPolicy`; ``None`` is the default one."""
    return RetryPolicy() if policy is None else check_instance("retry", policy, RetryPolicy)
