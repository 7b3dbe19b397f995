"""Searches for the jobs of unsure inputs: what is read, and when it is certain."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from fal_async import AsyncClient, Hosts, Journal
from fal_async.batch.candidates import CLOCK_MARGIN
from fal_async.batch.entries import Begin, Update
from fal_async.batch.inputs import Item
from fal_async.batch.keys import arguments_digest
from fal_async.batch.lookup import LISTING_DELAY, MIN_LISTED, JobSearch
from tests.support.platform_api import PlatformApi

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.support.platform_api import Query

APP = "acme/app"
LISTING = "/v1/models/requests/by-endpoint"


@dataclass
class Request:
    """A request of the account: its content, its id, and its times by the clock of this machine."""

    n: int
    request_id: str
    sent_at: float
    seconds: float = 1.0
    is_listed: bool = True


class Listing:
    """The listing of a platform whose clock may differ, latest first."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.skew = 0.0

    def page(self, query: Query) -> dict[str, Any]:
        """Return a page of the requests of some time."""
        start = _parse(query["start"])
        end = _parse(query["end"]) if "end" in query else time.time() + 1000.0
        found = [
            each
            for each in self.requests
            if each.is_listed and start <= each.sent_at + self.skew < end
        ]
        found.sort(key=lambda each: each.sent_at + each.seconds, reverse=True)
        number, limit = int(query.get("cursor", "0")), int(query["limit"])
        rest = found[number * limit :]
        return {
            "items": [self._item(each) for each in rest[:limit]],
            "next_cursor": str(number + 1) if rest[limit:] else None,
        }

    def _item(self, request: Request) -> dict[str, Any]:
        sent_at = request.sent_at + self.skew
        return {
            "request_id": request.request_id,
            "endpoint_id": APP,
            "sent_at": _format(sent_at),
            "ended_at": _format(sent_at + request.seconds),
            "status_code": 200,
            "json_input": {"n": request.n},
        }


def _parse(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _format(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


@pytest.fixture
def api() -> Iterator[PlatformApi]:
    with PlatformApi() as server:
        yield server


@pytest.fixture
def listing(api: PlatformApi) -> Listing:
    listing = Listing()
    api.documents[LISTING] = listing.page
    return listing


@pytest.fixture
def journal() -> Iterator[Journal]:
    with Journal(":memory:") as opened:
        yield opened


@pytest.fixture
async def search(api: PlatformApi, journal: Journal) -> AsyncIterator[JobSearch]:
    async with AsyncClient("id:secret", hosts=Hosts(platform=api.url)) as client:
        yield JobSearch(client._dispatcher, journal, APP)


def unsure(n: int, age: float, seconds: float = 1.0) -> Item:
    """Return an input whose submit ended so many seconds ago."""
    digest = arguments_digest(APP, {"n": n})
    item = Item(n, {"n": n}, {"n": n}, APP, digest, f"k{n}")
    item.submitted_by = time.time() - age
    item.started_at = item.submitted_by - seconds
    return item


def add_known(journal: Journal, n: int, request_id: str, seconds: float = 1.0) -> None:
    """Add an input whose job has ended to the journal."""
    now = time.time()
    digest = arguments_digest(APP, {"n": n})
    values = {"state": "ended", "request_id": request_id, "ended_at": now}
    journal._opened().commit([
        Begin(request_id, APP, n, digest, now - seconds),
        Update(request_id, 1, values),
    ])  # fmt: skip


async def decide(search: JobSearch, items: list[Item], running: float = 0.0) -> dict[int, str]:
    """Return the decisions by the number of the input: the id of a job, or the state."""
    decisions = await search.search(items, running)
    return {each.item.index: each.request_id or each.state for each in decisions}


async def test_only_the_times_of_submits_are_read(
    api: PlatformApi, listing: Listing, search: JobSearch
) -> None:
    items = [unsure(1, 10_000.0, 30.0), unsure(2, 9_990.0), unsure(3, 5000.0), unsure(4, 1.0)]
    listing.requests = [Request(1, "r1", items[0].started_at), Request(9, "r9", time.time() - 7000)]
    found = await decide(search, items)
    assert found == {1: "r1", 2: "planned", 3: "planned"}
    read = [(_parse(query["start"]), query.get("end")) for _, query in api.queries]
    assert [start for start, _ in read] == pytest.approx(
        [items[n].started_at - CLOCK_MARGIN for n in (0, 2, 3)], abs=1e-3
    )
    ends = [_parse(end) for _, end in read if end is not None]
    assert ends == pytest.approx(
        [items[n].submitted_by + LISTING_DELAY + CLOCK_MARGIN for n in (1, 2)], abs=2.0
    )


async def test_reading_ends_when_all_are_found(
    api: PlatformApi, listing: Listing, search: JobSearch
) -> None:
    items = [unsure(n, 30.0) for n in (1, 2)]
    listing.requests = [Request(n, f"r{n}", time.time() - 31.0 - n / 100) for n in range(350)]
    assert await decide(search, items) == {1: "r1", 2: "r2"}
    assert len(api.queries) == 1


async def test_reading_continues_if_a_request_belongs_to_another_input(
    api: PlatformApi, listing: Listing, journal: Journal, search: JobSearch
) -> None:
    add_known(journal, 1, "other")
    sent_at = time.time() - 31.0
    listing.requests = [Request(n, f"r{n}", sent_at - n / 100) for n in range(10, 250)]
    listing.requests += [Request(1, "other", sent_at), Request(1, "own", sent_at - 5.0)]
    assert await decide(search, [unsure(1, 30.0)]) == {1: "own"}
    assert len(api.queries) == 3


async def test_job_that_may_still_run_is_not_given_up(
    listing: Listing, journal: Journal, search: JobSearch
) -> None:
    items = [unsure(1, LISTING_DELAY + 49.0), unsure(2, LISTING_DELAY + 51.0)]
    add_known(journal, 9, "r9", 50.0)  # so long is the longest job that the journal has
    assert await decide(search, items) == {2: "planned"}
    assert await decide(search, items, running=52.0) == {}
    # Many listed jobs tell better than the journal, where the time may include outages.
    at = items[0].started_at
    listing.requests = [Request(n, f"r{n}", at, 20.0) for n in range(100, 100 + MIN_LISTED)]
    assert await decide(search, items[:1]) == {}
    assert await decide(search, items[:1]) == {1: "planned"}
    listing.requests.append(Request(99, "r99", at, 40.0))
    assert await decide(search, items[:1]) == {1: "planned"}
    listing.requests.append(Request(98, "r98", at, 50.0))
    assert await decide(search, items[:1]) == {}


async def test_job_is_never_given_up_whatever_clocks_and_delays(
    listing: Listing, journal: Journal, search: JobSearch
) -> None:
    choice = random.Random(7)
    outcomes: Counter[str] = Counter()
    for case in range(40):
        now = time.time()
        ids: dict[str, int] = {}
        listing.skew, listing.requests = choice.uniform(-59.0, 59.0), []
        # The longest job, by which it is known how long others may take.
        for n in range(MIN_LISTED):
            listing.requests.append(Request(-1, f"{case}-{n}", now - 500.0, 30.0))
        items: list[Item] = []
        for n in range(20):
            item = unsure(
                choice.randrange(10), choice.uniform(0.0, 300.0), choice.uniform(0.0, 9.0)
            )
            item.key = f"{case}-{n}"
            items.append(item)
            if choice.random() < 0.5:
                sent_at = choice.uniform(item.started_at, item.submitted_by)
                seconds = choice.uniform(0.1, 30.0)
                is_listed = sent_at + seconds + choice.uniform(0.0, LISTING_DELAY) <= now
                ids[f"{case}-r{n}"] = item.index
                request = Request(item.index, f"{case}-r{n}", sent_at, seconds, is_listed)
                listing.requests.append(request)
        search._listed, search._longest_listed = MIN_LISTED, 30.0
        decisions = await search.search(items, 0.0)
        found = [each.request_id for each in decisions if each.request_id is not None]
        assert len(found) == len(set(found))
        for each in decisions:
            assert each.request_id is None or ids[each.request_id] == each.item.index
        for n in range(10):
            # No more equal inputs have no job than the platform has no jobs for.
            planned = sum(v.state == "planned" and v.item.index == n for v in decisions)
            equal = sum(item.index == n for item in items)
            assert planned <= equal - sum(index == n for index in ids.values())
        outcomes.update(each.state for each in decisions)
        outcomes["none"] += len(items) - len(decisions)
    assert min(outcomes[state] for state in ("running", "planned", "none")) > 20, outcomes
