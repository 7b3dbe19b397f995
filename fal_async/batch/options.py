"""`BatchOptions`: the validated options of a batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

from fal_async._core.annotations import set_module
from fal_async._core.checks import (
    check_file_path,
    check_flag,
    check_mapping,
    check_number,
    describe,
    is_one_of,
    whole_number,
)
from fal_async._protocol import options
from fal_async._protocol.endpoint import parse_endpoint, parse_path
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from fal_async.batch.inputs import Row
    from fal_async.batch.jobs import Job, Progress

__all__ = [
    "ONE_INPUT",
    "BatchOptions",
    "Budget",
    "Changed",
    "Duplicates",
    "Lost",
    "OnStop",
    "Unsure",
]

#: The treatment of inputs for which a job may have been started: ``"look"`` asks the platform for
#: its requests, ``"report"`` yields them with an error, ``"again"`` starts another job.
Unsure: TypeAlias = Literal["look", "report", "again"]
#: The treatment of results that are gone: reported, or made by another job.
Lost: TypeAlias = Literal["report", "again"]
#: The treatment of equal inputs: a job for each, one job for all, or an error.
Duplicates: TypeAlias = Literal["each", "once", "error"]
#: The treatment of inputs whose content has changed under the same key.
Changed: TypeAlias = Literal["error", "new", "keep"]
#: The treatment of jobs in flight when a batch is stopped.
OnStop: TypeAlias = Literal["leave", "wait", "cancel"]

#: The options of a batch of one input, which is submitted alone and ends with its job.
ONE_INPUT: Final[Mapping[str, Any]] = {"submitting": 1, "stop_after": None, "grace": 0.0}

_SUBMIT_ONLY: Final = ("hint", "no_retry", "priority", "max_queue_length")
_PLATFORM: Final = (
    "hint",
    "priority",
    "start_timeout",
    "tags",
    "no_retry",
    "store_io",
    "expires_in",
)
_CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "via": ("queue", "run"),
    "wait": ("auto", "webhook"),
    "duplicates": get_args(Duplicates),
    "changed": get_args(Changed),
    "unsure": get_args(Unsure),
    "lost": get_args(Lost),
    "on_stop": get_args(OnStop),
}


@set_module("fal_async.batch")
@dataclass(frozen=True, slots=True)
class Budget:
    """The most that a batch may cost.

    Attributes:
        amount: The amount, in the currency of the price.
        strict: Whether jobs in flight count at the highest cost so far, rather than at the mean.

    Example:
        >>> from fal_async.batch import Budget
        >>> Budget(60, strict=True).amount
        60
    """

    amount: float | Decimal
    strict: bool = False

    def __post_init__(self) -> None:
        amount = float(self.amount) if isinstance(self.amount, Decimal) else self.amount
        check_number("budget", amount)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """The options of a batch; see `AsyncClient.batch`.

    Raises:
        InvalidRequestError: An option is invalid.
    """

    application: str | Callable[[Row], str]
    output: str | os.PathLike[str] | None = None
    save: str | Callable[[Job, int], Path] | None = None
    arguments: Mapping[str, str] | Callable[[Row], Mapping[str, Any]] | None = None
    in_flight: int | Literal["auto"] = "auto"
    submitting: int | Literal["auto"] = "auto"
    via: Literal["queue", "run"] = "queue"
    wait: Literal["auto", "webhook"] = "auto"
    webhook_url: str | None = None
    ordered: bool = False
    ready: int = 100
    attempts: int = 3
    budget: float | Budget | None = None
    price: float | Decimal | None = None
    stop_after: int | float | None = 0.5
    on_stop: OnStop = "leave"
    grace: float = 30.0
    key: str | Callable[[Row], str] | None = None
    duplicates: Duplicates = "each"
    changed: Changed = "error"
    unsure: Unsure = "look"
    lost: Lost = "report"
    progress: bool | Callable[[Progress], None] = False
    upload_once: bool = True
    submit_options: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        if not callable(self.application):
            parse_endpoint(self.application)
        for name, words in _CHOICES.items():
            value = getattr(self, name)
            if not is_one_of(value, words):
                expected = ", ".join(map(repr, words[:-1])) + f" or {words[-1]!r}"
                raise InvalidRequestError(f"{name} must be {expected}, got {describe(value)}")
        for name in ("in_flight", "submitting"):
            if not is_one_of(getattr(self, name), ("auto",)):
                whole_number(name, getattr(self, name))
        for name in ("ready", "attempts"):
            whole_number(name, getattr(self, name))
        check_number("grace", self.grace, zero=True)
        check_flag("ordered", self.ordered)
        check_flag("upload_once", self.upload_once)
        if self.price is not None and not isinstance(self.price, Decimal):
            check_number("price", self.price)
        if self.budget is not None and not isinstance(self.budget, Budget):
            check_number("budget", self.budget)
        self._check_columns()
        self._check_stop_after()
        self._check_submit_options()
        self._check_webhook()

    def _check_columns(self) -> None:
        if self.output is not None:
            check_file_path("output", self.output)
        if self.arguments is not None and not callable(self.arguments):
            check_mapping("arguments", self.arguments)
        for name in ("key", "save"):
            value = getattr(self, name)
            if value is not None and not callable(value) and not (isinstance(value, str) and value):
                raise InvalidRequestError(
                    f"{name} must be text or a function, got {describe(value)}"
                )

    def _check_webhook(self) -> None:
        if self.wait == "auto":
            if self.webhook_url is not None:
                raise InvalidRequestError("webhook_url must be None, unless wait is 'webhook'")
            return
        if self.webhook_url is None:
            raise InvalidRequestError("webhook_url must be given with wait='webhook'")
        options.submit_query(webhook_url=self.webhook_url)
        if self.via == "run":
            raise InvalidRequestError("via must be 'queue' with wait='webhook'")
        if self.budget is not None:
            raise InvalidRequestError(
                "budget must be None with wait='webhook': callbacks do not tell what a job costs"
            )

    def _check_stop_after(self) -> None:
        if isinstance(self.stop_after, float):
            if not 0 < self.stop_after <= 1:
                raise InvalidRequestError(
                    f"stop_after must be a whole number or a share up to 1.0, got {self.stop_after}"
                )
        elif self.stop_after is not None:
            whole_number("stop_after", self.stop_after)

    def _check_submit_options(self) -> None:
        given = dict(self.submit_options)
        parse_path(given.pop("path", ""))
        options.merge_headers(given.pop("headers", None))
        check_flag("auto_upload", given.pop("auto_upload", True))
        options.submit_query(max_queue_length=given.pop("max_queue_length", None), webhook_url=None)
        platform = {name: given.pop(name) for name in _PLATFORM if name in given}
        options.platform_headers(**platform)
        if given:
            raise InvalidRequestError(f"a batch has no option {', '.join(map(repr, given))}")
        if self.via == "run":
            wrong = [name for name in _SUBMIT_ONLY if name in self.submit_options]
            if wrong:
                raise InvalidRequestError(
                    f"{', '.join(wrong)} must be omitted with via='run': only jobs in the queue "
                    "have it"
                )
