"""The history of accounts: the requests that the platform API lists, and prices."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import takewhile
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from decimal import Decimal

    from fal_async.emulator._jobs import Job
    from fal_async.emulator._settings import Settings

__all__ = ["MAX_PAYLOAD", "History", "HistoryEntry", "Price"]

#: How many requests are listed. Inputs and outputs of more bytes are not.
_MAX_ENTRIES: Final = 50_000
MAX_PAYLOAD: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """The price of an endpoint.

    Attributes:
        unit_price: The price of one unit.
        unit: The unit, such as ``"image"``.
        currency: The currency, such as ``"USD"``.
    """

    unit_price: Decimal
    unit: str
    currency: str


@dataclass(slots=True, eq=False)
class HistoryEntry:
    """A request, direct or through the queue, as the platform API lists it.

    Attributes:
        request_id: The request id.
        user_id: The id of the account that sent it.
        endpoint_id: The called endpoint id.
        sent_at: The time at which it arrived.
        listed_at: The time from which it is listed, by the emulator's clock.
        stored: Whether its input and output are stored.
        input: The body of the request; ``None`` if it is not stored.
        started_at: The time at which its first run started. ``None`` before.
        ended_at: The time at which it ended. ``None`` before.
        status: The HTTP status of the response. ``None`` before it has ended.
        output: The body of the response; ``None`` if it is not stored.
        units: The billable units of the response.
    """

    request_id: str
    user_id: str
    endpoint_id: str
    sent_at: datetime
    listed_at: float
    stored: bool
    input: bytes | None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    status: int | None = None
    output: bytes | None = None
    units: float = 0.0

    @property
    def outcome(self) -> Literal["success", "user_error", "error"] | None:
        """The kind of the response, by its status. ``None`` before the request has ended."""
        if self.status is None:
            return None
        return "success" if self.status < 400 else "user_error" if self.status < 500 else "error"

    @property
    def duration(self) -> float:
        """The seconds from the arrival of the request to its end; 0 before it has ended."""
        return ((self.ended_at or self.sent_at) - self.sent_at).total_seconds()


class History:
    """The latest requests of all accounts. They stay when results expire.

    Args:
        settings: The clock, and the time after which a request is listed.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._entries: OrderedDict[str, HistoryEntry] = OrderedDict()

    def add(self, job: Job) -> None:
        """Add a request that was accepted."""
        stored = job.headers.get("x-fal-store-io") != "0"
        self._entries[job.request_id] = HistoryEntry(
            request_id=job.request_id,
            user_id=job.user_id,
            endpoint_id=job.endpoint,
            sent_at=datetime.now(UTC),
            listed_at=self._settings.clock() + self._settings.listing_delay,
            stored=stored,
            input=job.body if stored and len(job.body) <= MAX_PAYLOAD else None,
        )
        if len(self._entries) > _MAX_ENTRIES:
            self._entries.popitem(last=False)

    def start(self, job: Job) -> None:
        """Record that a run of a request starts."""
        entry = self._entries.get(job.request_id)
        if entry is not None and entry.started_at is None:
            entry.started_at = datetime.now(UTC)

    def end(self, job: Job, status: int, body: bytes) -> None:
        """Record the response of a request."""
        entry = self._entries.get(job.request_id)
        if entry is None:
            return
        entry.ended_at = datetime.now(UTC)
        entry.status = status
        entry.units = job.billable_units if status < 300 else 0.0
        entry.output = body if entry.stored and len(body) <= MAX_PAYLOAD else None

    def listed(self, user_id: str, since: datetime | None = None) -> list[HistoryEntry]:
        """Return the requests of an account that are listed by now, latest first.

        Args:
            user_id: The id of the account.
            since: The earliest time at which a request arrived; ``None`` returns all.
        """
        now = self._settings.clock()
        latest = reversed(self._entries.values())
        recent = latest if since is None else takewhile(lambda each: each.sent_at >= since, latest)
        return [each for each in recent if each.user_id == user_id and each.listed_at <= now]

    def clear(self) -> None:
        """Remove all requests."""
        self._entries.clear()
