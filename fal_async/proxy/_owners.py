"""Owners of jobs: a job is visible to the user who started it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fal_async._protocol.endpoint import parse_endpoint
from fal_async._protocol.serialization import decode_json, encode_json

if TYPE_CHECKING:
    from fal_async.stores import Store

__all__ = ["JobOwners", "OwnedJob"]

_KEY: Final = "fal-proxy-job:"


@dataclass(frozen=True, slots=True)
class OwnedJob:
    """A job and its owner.

    Attributes:
        user: The id of the user.
        endpoint: The endpoint id, with its path.
    """

    user: str
    endpoint: str


class JobOwners:
    """The owners of jobs, in a store.

    Args:
        store: The store.
        lifetime: The time for which owners are kept, in seconds.
    """

    def __init__(self, store: Store, lifetime: float) -> None:
        self._store = store
        self._lifetime = lifetime

    async def add(self, request_id: str, job: OwnedJob) -> None:
        """Add a job. A job that has an owner keeps it."""
        value = encode_json([job.user, job.endpoint]).decode()
        await self._store.add(_KEY + request_id, value, expires_in=self._lifetime)

    async def get(self, request_id: str, user: str, app: str) -> OwnedJob | None:
        """Return a job of a user and an app; ``None`` if there is none, or it is too old."""
        value = await self._store.get(_KEY + request_id)
        if value is None:
            return None
        job = OwnedJob(*decode_json(value))
        is_theirs = job.user == user and parse_endpoint(job.endpoint).app == app
        return job if is_theirs else None
