"""Endpoint ids, and which runner answers which."""

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


@dataclass(slots=True, eq=False, kw_only=True)
class Endpoint:
    """A registered id and what stands behind it.

    Attributes:
        id: The id, in normal form.
        runner: What answers its jobs.
        socket: What serves those who come with a WebSocket; ``None`` turns them away.
        counters: What happened to it so far.
        limit: How many of its jobs may run at once; ``None`` for any number.
        private: Whether a key is needed.
        timeout: Seconds after which a run is given up; ``None`` for never.
        served_from: The name of its one runner.
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
    """A called id, and the endpoint that answers it.

    Attributes:
        endpoint: The endpoint.
        id: The called id, in normal form.
        path: What follows the endpoint's own id, with a slash in front.
    """

    endpoint: Endpoint
    id: str
    path: str


class Registry:
    """All endpoints by id."""

    def __init__(self) -> None:
        self._endpoints: dict[str, Endpoint] = {}

    def add(self, endpoint: Endpoint) -> None:
        """Put an endpoint under its id, in place of an earlier one."""
        self._endpoints[endpoint.id] = endpoint

    def get(self, endpoint_id: str) -> Endpoint | None:
        """The endpoint that was registered under exactly this id."""
        return self._endpoints.get(endpoint_id)

    def resolve(self, called: str) -> Target | None:
        """The endpoint with the longest id that the called id begins with."""
        head = called
        while head:
            if endpoint := self._endpoints.get(head):
                return Target(endpoint, called, called[len(head) :] or "/")
            head = head.rpartition("/")[0]
        return None

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(list(self._endpoints.values()))


@dataclass(frozen=True, slots=True)
class CalledId:
    """An id as it stands in a URL.

    Attributes:
        app: Owner and alias, with the namespace if there is one.
        path: The path within the app, without slashes at its ends.
    """

    app: str
    path: str

    def __str__(self) -> str:
        return f"{self.app}/{self.path}" if self.path else self.app

    @property
    def alias(self) -> str:
        """The app's name."""
        return self.app.rpartition("/")[2]


@lru_cache(maxsize=4096)
def parse_id(text: str) -> CalledId:
    """Take an id apart; in contrast to a client's, its path may hold anything.

    Raises:
        InvalidRequestError: It has no owner and alias.
    """
    segments = [segment for segment in text.split("/") if segment]
    for length in (1, 2):  # the old form, and the usual one; a namespace makes it three
        try:
            app = parse_endpoint("/".join(segments[:length])).app
        except InvalidRequestError:
            continue
        return CalledId(app, "/".join(segments[length:]))
    return CalledId(parse_endpoint("/".join(segments[:3])).app, "/".join(segments[3:]))
