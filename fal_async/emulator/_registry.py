"""Endpoint ids, and the endpoints that are registered under them."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from fal_async._protocol.endpoint import parse_endpoint
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fal_async.emulator._recorder import Counters
    from fal_async.emulator._runners.base import Runner
    from fal_async.emulator._runners.sockets import SocketRunner


@dataclass(frozen=True, slots=True)
class CalledId:
    """The endpoint id in a URL.

    Attributes:
        app: Owner and alias, with the namespace if there is one.
        path: The path within the app, without leading or trailing slashes.
    """

    app: str
    path: str

    def __str__(self) -> str:
        return f"{self.app}/{self.path}" if self.path else self.app

    @property
    def alias(self) -> str:
        """The name of the app, without its owner."""
        return self.app.rpartition("/")[2]


@lru_cache(maxsize=4096)
def parse_id(text: str) -> CalledId:
    """Parse an endpoint id. Its path may contain anything, in contrast to ids that clients check.

    Raises:
        InvalidRequestError: The id has no owner and alias.
    """
    segments = [segment for segment in text.split("/") if segment]
    for length in (1, 2):  # the old form, and the usual one; a namespace makes it three
        try:
            app = parse_endpoint("/".join(segments[:length])).app
        except InvalidRequestError:
            continue
        return CalledId(app, "/".join(segments[length:]))
    return CalledId(parse_endpoint("/".join(segments[:3])).app, "/".join(segments[3:]))


@dataclass(slots=True, eq=False, kw_only=True)
class Endpoint:
    """A registered endpoint.

    Attributes:
        id: The endpoint id, normalized.
        runner: The runner that executes its jobs.
        counters: The counters of the endpoint.
        socket: The runner that serves its WebSockets. ``None`` rejects WebSockets.
        limit: The maximum number of concurrent runs. ``None`` for no limit.
        private: Whether requests need a key.
        timeout: Seconds after which a run is cancelled. ``None`` disables the timeout.
        served_from: The name of its one runner instance.
    """

    id: str
    runner: Runner
    counters: Counters
    socket: SocketRunner | None = None
    limit: int | None = None
    private: bool = True
    timeout: float | None = None
    served_from: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass(frozen=True, slots=True)
class Target:
    """A called endpoint id, and the endpoint that serves it.

    Attributes:
        endpoint: The endpoint.
        id: The called endpoint id, normalized.
        path: The path after the id of the endpoint, with a leading slash.
    """

    endpoint: Endpoint
    id: str
    path: str


class Registry:
    """All endpoints by id."""

    def __init__(self) -> None:
        self._endpoints: dict[str, Endpoint] = {}

    def add(self, endpoint: Endpoint) -> None:
        """Add an endpoint, and replace an earlier one of the same id."""
        self._endpoints[endpoint.id] = endpoint

    def get(self, endpoint_id: str) -> Endpoint | None:
        """Return the endpoint with exactly this id."""
        return self._endpoints.get(endpoint_id)

    def resolve(self, called: str) -> Target | None:
        """Return the endpoint with the longest id that is a prefix of the called id."""
        prefix = called
        while prefix:
            if endpoint := self._endpoints.get(prefix):
                return Target(endpoint, called, called[len(prefix) :] or "/")
            prefix = prefix.rpartition("/")[0]
        return None

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(list(self._endpoints.values()))

    def copy(self) -> Registry:
        """Return another registry of the same endpoints."""
        registry = Registry()
        registry._endpoints = dict(self._endpoints)
        return registry

    def restore(self, earlier: Registry) -> set[Endpoint]:
        """Register the endpoints of an earlier copy alone, and return those that are gone."""
        removed = set(self) - set(earlier)
        self._endpoints = dict(earlier._endpoints)
        return removed
