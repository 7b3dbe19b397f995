"""Presentation of the demo's steps: the name, the code and the outcome of each."""

from __future__ import annotations

import inspect
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any, Final, TypeVar

from fal_async import __version__
from fal_async._protocol.serialization import encode_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import Concatenate, ParamSpec

    from fal_async.cli._console import Display, ProgressDisplay

    P = ParamSpec("P")

__all__ = ["StepPresenter", "format_arguments"]

#: The maximum lengths of a line of code and of a text within it, in characters.
_MAX_LINE: Final = 76
_MAX_TEXT: Final = 54

T = TypeVar("T")


class StepPresenter:
    """Runs steps and shows them.

    A step is a coroutine function. Its docstring begins with its name and a colon. Its first
    parameter is the `ProgressDisplay` that it writes to.

    Args:
        display: The display to write to.
    """

    def __init__(self, display: Display) -> None:
        self._display = display

    def begin(self, note: str) -> None:
        """Show the title of the demo."""
        self._display.title(f"fal_async {__version__}", note)

    def show_arguments(self, arguments: Mapping[str, Any]) -> None:
        """Show the arguments of the next steps as Python code."""
        self._display.line()
        self._display.code(format_arguments(arguments))

    async def show(
        self,
        step: Callable[Concatenate[ProgressDisplay, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a step and show its name, its code, its progress and the id of its request."""
        _, _, code = inspect.getsource(step).partition('"""\n')
        self._display.section(_title(step))
        self._display.code(dedent(code))
        with self._display.progress() as progress:
            outcome = await step(progress, *args, **kwargs)
            request_id: str | None = getattr(outcome, "request_id", None)
            if request_id is not None:
                progress.write(f"request {request_id}", "dim")
        return outcome

    def skip(self, step: Callable[..., object], reason: str) -> None:
        """Show that a step is skipped, and the reason."""
        name, _, _ = _title(step).partition(":")
        self._display.section(f"{name}: skipped, since {reason}")


def _title(step: Callable[..., object]) -> str:
    return (inspect.getdoc(step) or "").rstrip(".")


def format_arguments(arguments: Mapping[str, Any]) -> str:
    """Return an assignment of the arguments in Python; images appear as the name ``picture``."""
    pairs = [f'"{name}": {_literal(value)}' for name, value in arguments.items()]
    code = f"arguments = {{{', '.join(pairs)}}}"
    if len(code) <= _MAX_LINE:
        return code
    return "\n".join(["arguments = {", *(f"    {pair}," for pair in pairs), "}"])


def _literal(value: object) -> str:
    match value:
        case str() if len(value) > _MAX_TEXT:
            half = _MAX_TEXT // 2
            return _literal(f"{value[:half]}…{value[-half + 1 :]}")
        case str():
            return encode_json(value).decode()
        case Path():
            return f"Path({_literal(str(value))})"
        case _:
            return "picture"
