"""Models, prices, requests and pages: values of the platform API."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar

from fal_async._core.annotations import set_module

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from decimal import Decimal

__all__ = ["CostEstimate", "ModelInfo", "Page", "Price", "RequestInfo", "RequestOutcome"]

ItemT_co = TypeVar("ItemT_co", covariant=True)

#: The outcome of a request that has ended: ``"user_error"`` is one that the input caused.
RequestOutcome: TypeAlias = Literal["success", "error", "user_error"]


@set_module("fal_async")
@dataclass(frozen=True, slots=True, kw_only=True)
class RequestInfo:
    """A request that the account has made, as the platform lists it.

    Attributes:
        request_id: The id of the request.
        endpoint_id: The endpoint id.
        sent_at: The time at which the platform received the request; ``None`` if it is unknown.
        started_at: The time at which a runner started it; ``None`` if none has, or it is unknown.
        ended_at: The time at which it ended; ``None`` if it is running.
        status_code: The HTTP status of its result; ``None`` if it is running.
        duration: The duration of the run, in seconds; ``None`` if it is running.
        input: The arguments; ``None`` unless payloads were requested and are stored.
        output: The output; ``None`` unless payloads were requested and are stored.
        extra: Fields that this version does not know.
    """

    request_id: str
    endpoint_id: str
    sent_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    status_code: int | None = None
    duration: float | None = None
    input: Any = field(default=None, hash=False)
    output: Any = field(default=None, hash=False)
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)


@set_module("fal_async")
@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """The price of an endpoint for this account.

    Attributes:
        endpoint_id: The endpoint id.
        unit_price: The price of one unit.
        unit: The unit, such as ``"image"`` or ``"second"``; free text of the platform.
        currency: The currency, such as ``"USD"``.
        as_of: The time at which the platform named the price, in UTC.
        extra: Fields that this version does not know.
    """

    endpoint_id: str
    unit_price: Decimal
    unit: str
    currency: str
    as_of: datetime
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)


@set_module("fal_async")
@dataclass(frozen=True, slots=True, kw_only=True)
class CostEstimate:
    """The cost that the platform estimates for calls to come.

    Attributes:
        total_cost: The cost of all calls.
        currency: The currency, such as ``"USD"``.
        extra: Fields that this version does not know.
    """

    total_cost: Decimal
    currency: str
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)


@set_module("fal_async")
@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """An endpoint of the platform's catalogue.

    Attributes:
        endpoint_id: The endpoint id.
        display_name: The name for people, or ``None``.
        category: The category, such as ``"text-to-image"``, or ``None``.
        description: The description, for people, or ``None``.
        status: ``"active"`` or ``"deprecated"``; ``None`` if it is unknown.
        tags: The tags of the catalogue.
        updated_at: The time of the last change, or ``None``.
        metadata: All metadata as the platform sent it, such as ``thumbnail_url``.
        extra: Fields beside the metadata.
    """

    endpoint_id: str
    display_name: str | None = None
    category: str | None = None
    description: str | None = None
    status: str | None = None
    tags: tuple[str, ...] = ()
    updated_at: datetime | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False, repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)


@set_module("fal_async")
@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[ItemT_co]):
    """One page of a listing; see `AsyncPages.pages`.

    Attributes:
        items: The items of the page.
        next_cursor: The cursor of the next page; ``None`` on the last page.
    """

    items: tuple[ItemT_co, ...]
    next_cursor: str | None = None
