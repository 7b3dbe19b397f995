"""Requests that may be the jobs of unsure inputs: by arguments, by time and by owner."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fal_async import RequestInfo
from fal_async.batch.candidates import CLOCK_MARGIN, Candidates
from fal_async.batch.entries import Entry
from fal_async.batch.inputs import Item
from fal_async.batch.keys import arguments_digest

if TYPE_CHECKING:
    from collections.abc import Iterable

APP = "acme/app"
FOX = {"prompt": "fox"}


def unsure(key: str, arguments: dict[str, Any], at: float = 1000.0, by: float = 1001.0) -> Item:
    """Return an input that was submitted between two times."""
    content = {name: str(value) for name, value in arguments.items()}
    digest = arguments_digest(APP, content)
    item = Item(0, arguments, arguments, APP, digest, key)
    item.started_at, item.submitted_by = at, by
    return item


def listed(request_id: str, arguments: Any, at: float | None = 1000.5) -> RequestInfo:
    sent_at = None if at is None else datetime.fromtimestamp(at, UTC)
    return RequestInfo(request_id=request_id, endpoint_id=APP, sent_at=sent_at, input=arguments)


def submitting(item: Item, at: float = 1000.0) -> Entry:
    return Entry(key="other", application=APP, state="submitting", digest=item.digest, tried_at=at)


def decide(
    items: Iterable[Item],
    requests: Iterable[RequestInfo],
    *,
    taken: Iterable[str] = (),
    rivals: Iterable[Entry] = (),
    certain: bool = True,
) -> dict[str, str | None]:
    """Return the decisions by key: the id of a job, or the state."""
    candidates = Candidates(items)
    for request in requests:
        candidates.add(request)
    decisions = candidates.resolve(set(taken), rivals, lambda _: certain)
    return {each.item.key: each.request_id or each.state for each in decisions}


@pytest.mark.parametrize(
    ("arguments", "stored"),
    [
        (FOX, FOX),
        (FOX, {"prompt": "fox", "seed": None}),  # the platform has added a default
        ({"size": 1.0, "tags": [{"a": 1}]}, {"tags": [{"a": 1.0}], "size": 1}),
    ],
)
def test_request_with_the_arguments_is_found(
    arguments: dict[str, Any], stored: dict[str, Any]
) -> None:
    assert decide([unsure("a", arguments)], [listed("r", stored)], certain=False) == {"a": "r"}


@pytest.mark.parametrize("stored", [{"prompt": "cat"}, {"seed": 1}, {}])
def test_request_with_other_arguments_is_not_found(stored: dict[str, Any]) -> None:
    assert decide([unsure("a", FOX)], [listed("r", stored)]) == {"a": "planned"}
    assert decide([unsure("a", FOX)], [listed("r", stored)], certain=False) == {}


def test_job_of_another_input_is_not_found() -> None:
    assert decide([unsure("a", FOX)], [listed("r", FOX)], taken=["r"]) == {"a": "planned"}


@pytest.mark.parametrize("at", [1000.0 - CLOCK_MARGIN - 1, 1001.0 + CLOCK_MARGIN + 1])
def test_request_of_another_time_is_not_found(at: float) -> None:
    assert decide([unsure("a", FOX)], [listed("r", FOX, at)]) == {"a": "planned"}


def test_request_without_a_time_is_found() -> None:
    assert decide([unsure("a", FOX)], [listed("r", FOX, None)]) == {"a": "r"}


def test_equal_inputs_get_a_request_each() -> None:
    items = [unsure(key, FOX) for key in "abc"]
    found = decide(items, [listed("r1", FOX), listed("r2", FOX)])
    assert sorted(found.values(), key=str) == ["planned", "r1", "r2"]


def test_equal_inputs_get_as_many_requests_as_possible() -> None:
    early, late = unsure("early", FOX, 900.0, 950.0), unsure("late", FOX, 900.0, 1100.0)
    requests = [listed("r1", FOX, 1000.0), listed("r2", FOX, 1150.0)]
    assert decide([late, early], requests) == {"early": "r1", "late": "r2"}


def test_request_belongs_to_the_input_with_the_most_of_its_arguments() -> None:
    items = [unsure("few", FOX), unsure("many", {**FOX, "seed": 1})]
    requests = [listed("r", {**FOX, "seed": 1})]
    assert decide(items, requests) == {"many": "r", "few": "planned"}


def test_request_may_be_that_of_an_equal_submit() -> None:
    item = unsure("a", FOX)
    assert decide([item], [listed("r", FOX)], rivals=[submitting(item)]) == {}
    other = submitting(unsure("b", {"prompt": "cat"}))
    assert decide([item], [listed("r", FOX)], rivals=[other]) == {"a": "r"}
    later = submitting(item, 1001.0 + 2 * CLOCK_MARGIN)
    assert decide([item], [listed("r", FOX)], rivals=[later]) == {"a": "r"}


def test_request_without_stored_arguments_leaves_a_doubt() -> None:
    items = [unsure("a", FOX), unsure("b", FOX, 5000.0, 5001.0)]
    blank = listed("r", None)
    assert decide(items, [blank]) == {"a": "unsure", "b": "planned"}
    assert decide(items, [blank], certain=False) == {}
    assert decide(items, [blank], taken=["r"]) == {"a": "planned", "b": "planned"}


def test_inputs_that_differ_by_their_files_are_not_confused() -> None:
    path = Path("fox.png")
    items = [unsure(key, {**FOX, "image": path}) for key in "ab"]
    requests = [listed(key, {**FOX, "image": f"https://x/{key}"}) for key in ("r1", "r2")]
    assert decide(items[:1], requests[:1]) == {"a": "r1"}
    assert decide(items[:1], requests) == {"a": "unsure"}
    assert decide(items, requests) == {"a": "unsure", "b": "unsure"}
    assert decide(items, []) == {"a": "planned", "b": "planned"}
    for item, request in zip(items, reversed(requests), strict=True):
        item.sent = request.input  # by the run that has sent them
    assert decide(items, requests) == {"a": "r2", "b": "r1"}


def test_request_may_be_that_of_any_submit_if_files_are_unknown() -> None:
    item = unsure("a", {**FOX, "image": Path("fox.png")})
    other = submitting(unsure("b", {"prompt": "cat"}))
    assert decide([item], [listed("r", {**FOX, "image": "https://x"})], rivals=[other]) == {}


@pytest.mark.parametrize("arguments", [{}, {"image": Path("fox.png")}])
def test_request_is_not_found_without_comparable_arguments(arguments: dict[str, Any]) -> None:
    item = unsure("a", arguments)
    assert decide([item], [listed("r", FOX)]) == {"a": "unsure"}
    assert decide([item], [listed("r", FOX)], taken=["r"]) == {"a": "planned"}


def test_enough_candidates_are_one_for_each_input() -> None:
    candidates = Candidates([unsure("a", FOX), unsure("b", FOX), unsure("c", {"prompt": "cat"})])
    for request_id, arguments in [("r1", FOX), ("r2", {"prompt": "cat"}), ("r3", None)]:
        candidates.add(listed(request_id, arguments))
    assert not candidates.are_enough
    candidates.add(listed("r4", FOX))
    assert candidates.are_enough
    assert sorted(candidates.request_ids) == ["r1", "r2", "r3", "r4"]
