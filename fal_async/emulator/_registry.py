"""Endpoint ids, and which runner answers which."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fal_async.emulator._record import Counters
    from fal_async.emulator._runners import Runner

_NAMESPACES = frozenset({"workflows", "comfy"})
_LEGACY = re.compile(r"(\d+)-([A-Za-z0-9-]+)")


@dataclass(slots=True, eq=False, kw_only=True)
class Endpoint:
    """A registered id and what stands behind it.

    Attributes:
        limit: How many of its jobs may run at once; ``None`` for any number.
        private: Whether a key is needed.
        served_from: The name of its one runner.
    """

    id: str
    runner: Runner
    counters: Counters
    limit: int | None = None
    private: bool = True
    served_from: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass(frozen=True, slots=True)
class Target:
    """A called id, and the endpoint that answers it."""

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


def normal_id(endpoint_id: str) -> str:
    """The id without stray slashes, and a legacy ``123-name`` as ``123/name``.

    Raises:
        ValueError: It has no owner and alias.
    """
    segments = [segment for segment in endpoint_id.split("/") if segment]
    if segments and (legacy := _LEGACY.fullmatch(segments[0])):
        segments[:1] = legacy.groups()
    if len(segments) < _app_length(segments):
        raise ValueError(f"an endpoint id is owner/alias, got {endpoint_id!r}")
    return "/".join(segments)


def app_of(endpoint_id: str) -> str:
    """The id without its path: ``owner/alias``, with the namespace if there is one."""
    segments = endpoint_id.split("/")
    return "/".join(segments[: _app_length(segments)])


def alias_of(endpoint_id: str) -> str:
    """The name of the app alone."""
    return app_of(endpoint_id).rpartition("/")[2]


def _app_length(segments: list[str]) -> int:
    return 3 if segments and segments[0] in _NAMESPACES else 2
