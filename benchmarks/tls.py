"""What does a direct run cost over TLS, and are connections used again?"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from benchmarks import run

if TYPE_CHECKING:
    from benchmarks.question import Question

__all__ = ["QUESTION"]

_LEGS: Final = {
    "fal_client, async",
    "fal_client, threads",
    "aiohttp",
    "ours, asyncio",
    "ours, uvloop",
    "ours, trio",
}
_STUB: Final = ("--tls",)
_CASES: Final = [replace(case, stub=_STUB) for case in run.QUESTION.cases[:3]]

QUESTION: Final[Question] = replace(
    run.QUESTION,
    name="tls",
    asks=__doc__ or "",
    legs=tuple(leg for leg in run.QUESTION.legs if leg.name in _LEGS),
    cases=tuple(_CASES),
    quick=tuple(replace(case, stub=_STUB) for case in run.QUESTION.quick),
    bars=tuple(bar for bar in run.QUESTION.bars if bar.case in {case.name for case in _CASES}),
)
