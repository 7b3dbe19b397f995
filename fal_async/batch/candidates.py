"""`Candidates`: the listed requests that may be the jobs of unsure inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

from fal_async._protocol.serialization import arguments_to_json
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterable, Mapping

    from fal_async._core.platform import RequestInfo
    from fal_async.batch.entries import Entry
    from fal_async.batch.inputs import Item

__all__ = ["CLOCK_MARGIN", "Candidates", "Decision"]

#: The difference of clocks that is tolerated, in seconds.
CLOCK_MARGIN: Final = 60.0

#: The times at which the platform received requests, in seconds since 1970, by request id; ``None``
#: if the time is unknown.
_Times: TypeAlias = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision on an unsure input.

    Attributes:
        item: The input.
        state: ``"running"``: its job was found. ``"planned"``: certainly none was started.
            ``"unsure"``: the platform cannot tell.
        request_id: The id of the job, or ``None``.
    """

    item: Item
    state: Literal["running", "planned", "unsure"]
    request_id: str | None = None


@dataclass(slots=True)
class _Group:
    """Unsure inputs with the same arguments, and the listed requests that have them.

    Attributes:
        names: The names of the arguments.
        is_exact: Whether these are all arguments. Otherwise files are missing, which the platform
            stores as the URLs of their uploads.
        items: The inputs.
        requests: The requests.
    """

    names: frozenset[str]
    is_exact: bool
    items: list[Item] = field(default_factory=list["Item"])
    requests: _Times = field(default_factory=_Times)


class Candidates:
    """The listed requests that may be the jobs of unsure inputs.

    A request may be the job of an input if it has its arguments, was received about the time of its
    submit, and belongs to no other input.

    Args:
        items: The inputs, of one endpoint.
    """

    def __init__(self, items: Iterable[Item]) -> None:
        self._groups: dict[frozenset[str], dict[Hashable, _Group]] = {}
        self._blank: _Times = {}
        self._missing = 0
        for item in items:
            self._missing += 1
            arguments, is_exact = _stored_arguments(item)
            names = frozenset(arguments)
            groups = self._groups.setdefault(names, {})
            group = groups.setdefault(_freeze(arguments), _Group(names, is_exact))
            group.is_exact &= is_exact
            group.items.append(item)

    def add(self, request: RequestInfo) -> None:
        """Add a request, if it may be the job of an input."""
        sent_at = None if request.sent_at is None else request.sent_at.timestamp()
        stored: object = request.input
        if not isinstance(stored, dict):
            self._blank[request.request_id] = sent_at
            return
        given = cast("dict[str, Any]", stored)
        for names, groups in self._groups.items():
            if names <= given.keys():  # the platform may have added defaults
                group = groups.get(_freeze({name: given[name] for name in names}))
                if group is not None and request.request_id not in group.requests:
                    self._missing -= len(group.requests) < len(group.items)
                    group.requests[request.request_id] = sent_at

    @property
    def request_ids(self) -> list[str]:
        """The ids of the requests."""
        return [*self._blank, *(each for group in self._all() for each in group.requests)]

    @property
    def are_enough(self) -> bool:
        """Whether there is a request for each input."""
        return not self._missing

    def resolve(
        self, taken: set[str], submitting: Iterable[Entry], is_listed: Callable[[Item], bool]
    ) -> list[Decision]:
        """Decide on the inputs, as far as the requests tell.

        Args:
            taken: The ids of jobs that belong to an input.
            submitting: Other inputs that are being submitted: a request may be theirs.
            is_listed: Returns whether the job of an input would have been listed.
        """
        taken, submitting = set(taken), list(submitting)
        blank = _without(self._blank, taken)
        decisions: list[Decision] = []
        for group in self._all():
            digests = {item.digest for item in group.items}
            # Other inputs whose requests may have the arguments of this group.
            rivals = [each for each in submitting if not group.is_exact or each.digest in digests]
            until = min((entry.tried_at - CLOCK_MARGIN for entry in rivals), default=math.inf)
            free = _without(group.requests, taken)
            own = {each: at for each, at in free.items() if not rivals or (at and at < until)}
            found = _assign(group, own)
            taken.update(found.values())
            disputed, rest = _without(free, own), _without(own, taken)
            for item in group.items:
                if item.key in found:
                    decisions.append(Decision(item, "running", found[item.key]))
                elif is_listed(item) and not _matches_any(item, disputed):
                    is_open = _matches_any(item, rest) or _matches_any(item, blank)
                    decisions.append(Decision(item, "unsure" if is_open else "planned"))
        return decisions

    def _all(self) -> list[_Group]:
        """Return the groups; those with the most arguments first, since they match the fewest."""
        names = sorted(self._groups, key=len, reverse=True)
        return [group for each in names for group in self._groups[each].values()]


def _stored_arguments(item: Item) -> tuple[dict[str, Any], bool]:
    """Return the arguments that the platform stores as they are, and whether these are all.

    Files are stored as the URLs of their uploads, which only the run that has sent them knows.
    """
    given: Mapping[str, Any] = item.arguments if item.sent is None else item.sent
    arguments: dict[str, Any] = {}
    for name, value in given.items():
        try:
            arguments |= arguments_to_json({name: value})
        except InvalidRequestError:
            continue
    return arguments, len(arguments) == len(given)


def _freeze(value: object) -> Hashable:
    """Return a value that is hashable, and equal to that of an equal JSON value."""
    if isinstance(value, dict):
        given = cast("dict[str, object]", value)
        return frozenset((name, _freeze(each)) for name, each in given.items())
    if isinstance(value, list):
        return tuple(_freeze(each) for each in cast("list[object]", value))
    return value


def _assign(group: _Group, requests: _Times) -> dict[str, str]:
    """Return the request of each input by key, for as many inputs as possible."""
    if not group.names or not (group.is_exact or len(requests) == len(group.items) == 1):
        return {}  # it cannot be told to which input a request belongs
    found: dict[str, str] = {}
    waiting = list(group.items)
    for request_id, at in sorted(requests.items(), key=lambda each: each[1] or math.inf):
        near = [item for item in waiting if _matches_time(item, at)]
        if near:
            # Later requests can belong to the others, if to any.
            item = min(near, key=lambda item: item.submitted_by)
            waiting.remove(item)
            found[item.key] = request_id
    return found


def _matches_time(item: Item, received_at: float | None) -> bool:
    """Return whether a request may have been received during the submit of an input."""
    if received_at is None:
        return True
    return item.started_at - CLOCK_MARGIN <= received_at <= item.submitted_by + CLOCK_MARGIN


def _matches_any(item: Item, requests: _Times) -> bool:
    return any(_matches_time(item, at) for at in requests.values())


def _without(requests: _Times, excluded: Collection[str]) -> _Times:
    return {each: at for each, at in requests.items() if each not in excluded}
